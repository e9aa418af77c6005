"""Cost matrices: what may be said, and what is answered to what may not."""

import dataclasses
import re

import numpy as np
import pytest

from raycsr.costs import CostMatrix
from raycsr.errors import UserError

ANIMALS = ["bird", "cat", "dog"]


def refusal(message):
    """Expect a UserError of one line that contains the message."""
    return pytest.raises(UserError, match=r"\A[^\n]*" + re.escape(message) + r"[^\n]*\Z")


@pytest.fixture
def csv(tmp_path):
    def write(text):
        path = tmp_path / "costs.csv"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_uniform_makes_every_mistake_cost_one():
    costs = CostMatrix.uniform(3)
    assert costs.values.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert costs.targets(1).tolist() == [0, 2]
    assert costs.sensitive.all()
    assert costs.target_classes.all()


def test_seedwise_makes_all_mistakes_on_the_seeds_cost():
    costs = CostMatrix.seedwise(4, [2], cost=3.0)
    assert costs.targets(2).tolist() == [0, 1, 3]
    assert costs.targets(0).tolist() == []
    assert costs.values[2, 0] == 3
    assert costs.sensitive.tolist() == [False, False, True, False]
    assert costs.target_classes.tolist() == [True, True, False, True]


def test_pairwise_makes_the_named_mistakes_cost():
    costs = CostMatrix.pairwise(4, {3: [2, 0], 1: [2]}, cost=2.5)
    assert costs.targets(3).tolist() == [0, 2]
    assert costs.targets(1).tolist() == [2]
    assert costs.values.sum() == 7.5


def test_values_are_a_read_only_copy_in_float64():
    mine = np.array([[0, 1], [2, 0]])
    costs = CostMatrix(mine)
    mine[0, 1] = 9
    assert costs.values[0, 1] == 1
    assert costs.values.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        costs.values[0, 1] = 9
    with pytest.raises(dataclasses.FrozenInstanceError):
        costs.values = mine


def test_equality_and_digest_are_of_the_values_alone():
    one, same = CostMatrix([[0, 1], [2, 0]]), CostMatrix([[-0.0, 1.0], [2.0, 0.0]], ["yes", "no"])
    assert one == same
    assert hash(one) == hash(same)
    assert one.digest == same.digest
    assert len(one.digest) == 12
    other = CostMatrix([[0, 1], [3, 0]])
    assert one != other
    assert one.digest != other.digest
    assert one != "a matrix"


def test_repr_names_the_seeds():
    costs = CostMatrix.pairwise(3, {1: [2]}, class_names=ANIMALS)
    assert repr(costs) == f"CostMatrix(3 classes, 1 costly pairs of seeds [cat], {costs.digest})"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0, 1, 2], [1, 0, 2]], "is square, one row and one column a class; this one is (2, 3)"),
        ([[0]], "at least 2 classes; this one has 1"),
        ([[0, 1], [1]], "numbers in rows of equal length"),
        ([[0, "dear"], [1, 0]], "numbers in rows of equal length"),
        ([[0, 1], [np.nan, 0]], "cost at [1, 0] is nan; costs must be finite"),
        ([[0, np.inf], [1, 0]], "cost at [0, 1] is inf; costs must be finite"),
        ([[0, 1], [-2, 0]], "cost at [1, 0] is -2.0; costs must not be negative"),
        ([[0, 1], [1, 0.5]], "cost at [1, 1] is 0.5; a right answer costs nothing"),
    ],
)
def test_bad_values_are_refused_with_the_entry(values, message):
    with refusal(message):
        CostMatrix(values)


def test_bad_classes_are_refused():
    with refusal("2 class names for 3 classes"):
        CostMatrix.uniform(3, class_names=["cat", "dog"])
    with refusal("class name 'cat' is given twice"):
        CostMatrix.uniform(3, class_names=["cat", "dog", "cat"])
    with refusal("class 7 is not one of the 3 classes; use 0 to 2"):
        CostMatrix.seedwise(3, [7])
    with refusal("class -1 is not one of the 3 classes"):
        CostMatrix.pairwise(3, {0: [-1]})
    with refusal("cost at [1, 1] is 1.0; a right answer costs nothing"):
        CostMatrix.pairwise(3, {1: [1]})
    with refusal("class 3 is not one of the 3 classes"):
        CostMatrix.uniform(3).targets(3)


@pytest.mark.parametrize(
    ("text", "class_names"),
    [
        ("0,1,0\n0,0,2.5\n0,0,0\n", None),
        ("bird,cat,dog\n0,1,0\n0,0,2.5\n0,0,0\n", tuple(ANIMALS)),
        ("bird,0,1,0\ncat,0,0,2.5\ndog,0,0,0\n", tuple(ANIMALS)),
        (",bird,cat,dog\nbird,0,1,0\ncat,0,0,2.5\ndog,0,0,0\n", tuple(ANIMALS)),
        ("true, bird, cat, dog\nbird, 0, 1, 0\ncat, 0, 0, 2.5\ndog, 0, 0, 0\n\n", tuple(ANIMALS)),
        (",0,1,2\n0,0,1,0\n1,0,0,2.5\n2,0,0,0\n", None),  # as pandas writes a frame without names
        ("\ufeff0,1,0\r\n0,0,2.5\r\n0,0,0\r\n", None),  # as a spreadsheet writes it
    ],
)
def test_csv_with_and_without_names(csv, text, class_names):
    costs = CostMatrix.from_csv(csv(text))
    assert costs.values.tolist() == [[0, 1, 0], [0, 0, 2.5], [0, 0, 0]]
    assert costs.class_names == class_names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("0,1\n1,x\n", "cell 'x' is not a number"),
        ("0,1,2\n1,0,2\n", "this one is (2, 3)"),
        ("0,1\n1,-4\n", "cost at [1, 1] is -4.0"),
        (",a,b\nb,0,1\na,1,0\n", "names in the header ['a', 'b'] and in the first column ['b', 'a'] differ"),
    ],
)
def test_bad_csv_is_refused_with_its_path(csv, text, message):
    path = csv(text)
    with refusal(message) as raised:
        CostMatrix.from_csv(path)
    assert path in str(raised.value)


def test_csv_that_cannot_be_read_is_refused(tmp_path):
    with refusal("absent.csv cannot be read"):
        CostMatrix.from_csv(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        ("uniform", CostMatrix.uniform(3)),
        ("seed:cat,dog", CostMatrix.seedwise(3, [1, 2])),
        ("seed:1, 2", CostMatrix.seedwise(3, [1, 2])),
        ("pair:cat/dog,0/1,cat/bird", CostMatrix.pairwise(3, {1: [0, 2], 0: [1]})),
    ],
)
def test_specs_name_classes_or_number_them(spec, same):
    costs = CostMatrix.from_spec(spec, 3, ANIMALS)
    assert costs == same
    assert costs.class_names == tuple(ANIMALS)


def test_a_name_goes_before_an_index():
    assert CostMatrix.from_spec("seed:2", 3, ["2", "1", "0"]) == CostMatrix.seedwise(3, [0])


def test_spec_of_a_csv_takes_the_names_of_the_data(csv):
    path = csv("0,1\n1,0\n")
    assert CostMatrix.from_spec(path, 2).class_names is None
    assert CostMatrix.from_spec(path, 2, ["cat", "dog"]).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sead:cat", "costs 'sead:cat' not understood; use uniform, seed:"),
        ("seed:cart", "unknown class 'cart'; nearest names: cat"),
        ("seed:zzz", "unknown class 'zzz'; nearest names: bird, cat, dog (or use 0 to 2)"),
        ("seed:3", "class 3 is not one of the 3 classes"),
        ("seed:", "unknown class ''"),
        ("pair:cat", "costs 'pair:cat': pair 'cat' has no target; write seed/target"),
        ("pair:cat/cat", "cost at [1, 1] is 1.0"),
    ],
)
def test_bad_specs_are_refused_with_the_fix(spec, message):
    with refusal(message):
        CostMatrix.from_spec(spec, 3, ANIMALS)


def test_a_name_is_refused_where_the_data_has_none():
    with refusal("class 'cat' given by name, but the data has no class names; use 0 to 2"):
        CostMatrix.from_spec("seed:cat", 3)


def test_a_csv_that_does_not_fit_the_data_is_refused(csv):
    path = csv("cat,dog\n0,1\n1,0\n")
    with refusal("has 2 classes, the data has 3"):
        CostMatrix.from_spec(path, 3, ANIMALS)
    with refusal("names class 0 'cat', the data 'dog'"):
        CostMatrix.from_spec(path, 2, ["dog", "cat"])
