import pandas as pd
import pytest

from raycsr import UserError
from raycsr.certification.answers import ARGMAX, MAJORITY, Answer, as_answer, parse_answer, parse_answers

NAMES = ["cat", "dog", "car"]


def answers_of(answer, shares):
    return [None if one is pd.NA else one for one in answer.of(shares)]


def test_an_answer_is_the_top_class_where_its_share_exceeds_the_threshold_of_that_class():
    shares = [[0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.5, 0.5, 0.0], [0.4, 0.35, 0.25]]
    assert answers_of(ARGMAX, shares) == [0, 1, 0, 0]
    assert answers_of(MAJORITY, shares) == [0, 1, None, None]
    dogs = parse_answer("threshold:dog=0.7", 3, NAMES)
    assert answers_of(dogs, shares) == [0, None, 0, 0]  # and never the cat, which is next best in the second


def test_a_share_equal_to_the_threshold_does_not_exceed_it():
    assert answers_of(MAJORITY, [[0.5, 0.3, 0.2]]) == [None]


@pytest.mark.parametrize(
    ("spec", "thresholds"),
    [
        ("argmax", (0.0,)),
        ("majority", (0.5,)),
        ("threshold:dog=0.7,0=0.25", (0.25, 0.7, 0.0)),
        ("threshold:0.7*pair:cat/dog", (0.0, 0.7, 0.0)),
        ("threshold:0.6*seed:cat,dog", (0.6,)),  # each is a target of the other, and the car of both
        ("threshold:0.6*seed:cat", (0.0, 0.6, 0.6)),
        ("threshold:0.9*uniform", (0.9,)),
        (" threshold:0*seed:cat", (0.0,)),
    ],
)
def test_specs(spec, thresholds):
    assert parse_answer(spec, 3, NAMES).thresholds == thresholds


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("majorty", ["'majorty'", "did you mean majority?"]),
        (
            "plurality2000",
            ["'plurality2000'", "argmax or majority or threshold:0.7*COSTS or threshold:dog=0.7,cat=0.5"],
        ),
        ("majority:0.7", ["'majority:0.7'"]),
        ("threshold", ["'threshold'", "threshold:0.7*COSTS"]),
        ("threshold:0.7", ["threshold:0.7*uniform"]),
        ("threshold:dgo=0.7", ["'dgo'", "dog"]),
        ("threshold:dog=1", ["is 1;", "below 1"]),
        ("threshold:dog=-0.1", ["is -0.1;"]),
        ("threshold:dog=nan", ["is nan;"]),
        ("threshold:1.5*seed:cat", ["is 1.5;"]),
        ("threshold:0.7*sed:cat", ["'sed:cat'", "seed:cat,dog"]),
        ("threshold:", ["'threshold:'"]),
    ],
)
def test_what_is_no_answer_is_refused_by_its_value_and_with_the_fix(spec, facts):
    with pytest.raises(UserError) as caught:
        parse_answer(spec, 3, NAMES)
    assert all(fact in str(caught.value) for fact in facts), caught.value


def test_thresholds_need_to_know_the_classes():
    with pytest.raises(UserError, match="number of classes"):
        parse_answer("threshold:0.7*seed:1")
    with pytest.raises(UserError, match=r"'threshold:dog=0.7' is of 3 classes, here are 4"):
        parse_answer("threshold:dog=0.7", 3, NAMES).of_classes(4)


def test_answers_of_the_same_thresholds_are_one_and_have_one_id():
    assert parse_answer("threshold:0.5*uniform", 3) == MAJORITY
    by_name, by_costs = parse_answers(["threshold:dog=0.7", "threshold:1=0.70"], 3, NAMES)[0], "threshold:0.7*pair:0/1"
    assert by_name.id == parse_answer(by_costs, 3).id
    assert [one.id for one in parse_answers(["argmax", "majority", "majority"])] == ["argmax", "majority"]


def test_an_id_is_forever():
    """Sets of certificates are named by it."""
    assert parse_answer("threshold:dog=0.7", 3, NAMES).id == Answer((0.0, 0.7, 0.0)).spec == "threshold-9aa4eea80d"


def test_an_answer_survives_json():
    answer = parse_answer("threshold:dog=0.7", 3, NAMES)
    again = Answer.of_dict(answer.to_dict())
    assert again == answer and again.spec == "threshold:dog=0.7"
    assert as_answer(again) is again
