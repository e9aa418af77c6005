"""Cost matrices of many classes: kept by their distinct rows, and the same in all that can be asked of them."""

import json
import pickle

import numpy as np
import pytest

from raycsr.certification.targets import Targets
from raycsr.costs import CostMatrix
from raycsr.costs.distinct_rows import DistinctRows
from raycsr.errors import UserError
from raycsr.models.rules import parse_rules, rule_of_dict

MANY = 21_841  # classes of ImageNet-21k, whose costs written out take 3.8 GB


def a_table(m=6):
    values = np.random.default_rng(0).integers(0, 3, (m, m)) * 0.7
    np.fill_diagonal(values, 0)
    return values


MATRICES = {
    "table": (CostMatrix(a_table()), 6),
    "uniform": (CostMatrix.uniform(6), 1),
    "uniform, written out": (CostMatrix(1 - np.eye(6)), 1),
    "seeds": (CostMatrix.seedwise(6, [1, 4], cost=2), 3),
    "seeds, as a spec": (CostMatrix.from_spec("seed:1,4", 6), 2),
    "pairs": (CostMatrix.from_spec("pair:0/3,5/0,5/2", 6), 3),
    "groups": (CostMatrix.groups(6, list("abcaba"), cost=3), 3),
    "groups, written out": (CostMatrix(CostMatrix.groups(6, list("abcaba")).values), 3),
    "nothing costs": (CostMatrix(np.zeros((6, 6))), 1),
}


@pytest.mark.parametrize(("costs", "distinct"), MATRICES.values(), ids=MATRICES)
def test_what_is_kept_says_the_same_as_all_values(costs, distinct):
    values = costs.values
    assert len(costs.distinct.rows) == distinct
    assert np.array_equal(np.diag(values), np.zeros(6))
    assert costs.sensitive.tolist() == (values > 0).any(axis=1).tolist()
    assert costs.target_classes.tolist() == (values > 0).any(axis=0).tolist()
    assert costs.num_targets.tolist() == (values > 0).sum(axis=1).tolist()
    assert costs.column_sums.tolist() == values.sum(axis=0).tolist()  # to the last bit
    some = values[values > 0]
    assert costs.positive == ((some.min(), some.max()) if len(some) else None)
    y, k = np.divmod(np.arange(36), 6)
    assert costs.of(y, k).tolist() == values.ravel().tolist()
    assert costs.rows([4, 0, 4]).tolist() == values[[4, 0, 4]].tolist()
    again = CostMatrix(values)
    assert again == costs and again.digest == costs.digest and pickle.loads(pickle.dumps(costs)) == costs


@pytest.mark.parametrize(("costs", "distinct"), MATRICES.values(), ids=MATRICES)
def test_targets_stand_where_they_would_in_rows_that_are_written_out(costs, distinct):
    labels = np.array([5, 0, 1, 5])
    flat = [(i, k) for i, y in enumerate(labels) for k in costs.targets(y)]
    targets = Targets(labels, costs)
    assert len(targets) == len(flat)
    images, classes = np.array(flat, int).reshape(-1, 2).T
    assert targets.places(images, classes).tolist() == list(range(len(flat)))
    assert targets.of_classes(np.arange(6.0)).tolist() == classes.tolist()


def test_sets_of_few_classes_are_stored_as_ever_and_those_of_many_by_their_rows():
    few, many = CostMatrix.from_spec("pair:0/3", 100), CostMatrix.from_spec("pair:0/3", 101)
    assert few.to_json() == {"values": few.values.tolist()}
    assert many.to_json() == {
        "rows": {"of_class": [[1, 1], [100, 0]], "distinct": [[[101, 0.0]], [[3, 0.0], [1, 1.0], [97, 0.0]]]}
    }
    for costs in (few, many):
        assert CostMatrix.of_json(json.loads(json.dumps(costs.to_json()))) == costs
        assert CostMatrix.of_json({"values": costs.values.tolist()}) == costs  # as before there were rows


@pytest.mark.parametrize(
    "rows",
    [
        {"of_class": [[3, 0]], "distinct": []},
        {"of_class": [[3, 0]], "distinct": [[[2, 1.0]]]},
        {"of_class": [[2, 0], [1, 1]], "distinct": [[[3, 1.0]]]},
        {"of_class": [[3, 0]], "distinct": [[[4, 1.0], [-1, 1.0]]]},
        {"of_class": [[10**15, 0]], "distinct": [[[10**15, 1.0]]]},
        {"of_class": [[3, 0]], "distinct": [[[3, -1.0]]]},
        {"of_class": [[3, 0]], "distinct": [[[3, float("nan")]]]},
    ],
)
def test_rows_that_are_no_cost_matrix_are_refused(rows):
    with pytest.raises(UserError):
        CostMatrix.of_json({"rows": rows})


def test_of_twenty_thousand_classes_a_matrix_is_small():
    for costs in (CostMatrix.from_spec("uniform", MANY), CostMatrix.from_spec("seed:0,7", MANY)):
        assert len(pickle.dumps(costs)) < 1e6
        assert len(json.dumps(costs.to_json())) < 1000
    assert costs.targets(7).tolist() == [k for k in range(MANY) if k != 7]


def test_rules_of_one_matrix_share_it_and_come_back_from_json():
    rules = parse_rules(["expected_cost:1,2*seed:3"], num_classes=200)
    assert rules[0].costs is rules[1].costs
    stored = [json.dumps(rule.to_dict()) for rule in rules]
    assert max(map(len, stored)) < 500
    assert [rule_of_dict(json.loads(text)) for text in stored] == rules
    assert rules[0].id == "expected_cost-3a48b2a264"  # as of a matrix that was written out


def test_which_rows_are_distinct_is_found_as_they_stand_or_filled():
    assert DistinctRows.of_dense(1 - np.eye(5)).rows.tolist() == [[1.0] * 5]
    assert DistinctRows.of_dense(np.kron(1 - np.eye(2), np.ones((2, 2)))).rows.tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
