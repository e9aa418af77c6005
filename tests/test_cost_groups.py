"""Costs of groups: from a table of classes and their groups."""

import numpy as np
import pandas as pd
import pytest

from raycsr import CostMatrix, UserError

NAMES = ["cat", "dog", "ship"]
OUTSIDE = [[0, 0, 1], [0, 0, 1], [1, 1, 0]]


@pytest.fixture
def table(tmp_path):
    def write(text):
        (tmp_path / "groups.csv").write_text(text)
        return f"groups:{tmp_path}/groups.csv"

    return write


@pytest.mark.parametrize(
    "text",
    ["class,group\ncat,animal\ndog,animal\nship,vehicle\n", "ship;vehicle\ndog;animal\ncat;animal", "0,a\n1,a\n2,b"],
)
def test_an_answer_outside_the_group_of_the_true_class_costs_one(table, text):
    costs = CostMatrix.from_spec(table(text), 3, NAMES)
    assert costs.values.tolist() == OUTSIDE and costs.class_names == tuple(NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat,animal\ndog,animal", "no group of class 'ship'"),
        ("cat,animal\ndog,animal\nshp,vehicle", "a class 'shp', the data has none; did you mean ship"),
        ("cat,animal\ncat,animal\nship,vehicle", "class 'cat' twice"),
        ("cat,\ndog,animal\nship,vehicle", "a row 'cat,'"),
        ("cat,animal,x\ndog,animal,x\nship,vehicle,x", "a row 'cat,animal,x'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_what_is_wrong(table, text, message):
    with pytest.raises(UserError, match=f"groups.csv .*{message}"):
        CostMatrix.from_spec(table(text), 3, NAMES)


def test_a_table_that_is_not_there_is_refused_by_name():
    with pytest.raises(UserError, match=r"no-such.csv cannot be read"):
        CostMatrix.from_spec("groups:no-such.csv", 3, NAMES)


def test_groups_of_a_program_are_those_of_a_table(table):
    of_file = CostMatrix.from_spec(table("cat,animal\ndog,animal\nship,vehicle"), 3, NAMES)
    for groups in (["animal", "animal", "vehicle"], np.array([7, 7, 1]), pd.Series(["a", "a", "v"]), (0, 0, "0")):
        assert CostMatrix.groups(3, groups) == of_file
    costs = CostMatrix.groups(3, "aab", cost=5, class_names=NAMES)
    assert (costs.values == 5 * of_file.values).all() and costs.class_names == tuple(NAMES)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a", "b"], "2 groups for 3 classes"),
        (["a", None, "b"], "class 1 has the group None"),
        ([0, 1, np.nan], "class 2 .*nan"),
    ],
)
def test_a_class_without_a_group_is_refused(groups, message):
    with pytest.raises(UserError, match=message):
        CostMatrix.groups(3, groups)


def test_one_group_of_all_classes_makes_no_mistake_costly():
    assert not CostMatrix.groups(3, "aaa").sensitive.any()
