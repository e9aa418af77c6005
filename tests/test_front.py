import pandas as pd
import pytest

from jobs.front import joined
from raycsr.errors import UserError


def summary(accuracy, rob_cs, rules=("argmax", "offset-1")):
    rows = [
        {
            "run": "a.pt",
            "costs": "seed:3",
            "rule": rule,
            "rule_id": rule,
            "accuracy": accuracy + i / 10,
            "accuracy_low": accuracy,
            "certified_accuracy_guaranteed": accuracy,
            "rob_cs_guaranteed": rob_cs,
            "collapsed": f"of {accuracy}",
            "rob_cs": rob_cs + i / 10,
            "target_recall": accuracy,
        }
        for i, rule in enumerate(rules)
    ]
    return pd.DataFrame(rows)


def test_accuracy_comes_from_many_images_and_rob_cs_from_those_at_large_n():
    both = joined(summary(0.1, 0.5), summary(0.7, 0.2, rules=("offset-1", "argmax")))
    assert both["rule"].tolist() == ["argmax", "offset-1"]
    assert both["rob_cs"].tolist() == pytest.approx([0.5, 0.6])
    assert both["accuracy"].tolist() == pytest.approx([0.8, 0.7])  # argmax is the second rule there
    assert both["certified_accuracy_guaranteed"].tolist() == [0.7, 0.7]
    assert both["rob_cs_guaranteed"].tolist() == [0.5, 0.5]
    assert both["collapsed"].tolist() == ["of 0.7"] * 2
    assert both["accuracy_low"].tolist() == both["target_recall"].tolist() == [0.7, 0.7]


def test_a_rule_without_accuracy_is_named():
    with pytest.raises(UserError, match="no run of a.pt with rule 'offset-1'"):
        joined(summary(0.1, 0.5), summary(0.7, 0.2, rules=("argmax",)))
