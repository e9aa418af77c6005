"""Verdicts are false no more often than their level, and a guarantee fails where too many certificates break."""

import numpy as np
import pytest
from scipy.stats import binom

from raycsr.certification.answers import as_answer
from raycsr.certification.attacks import CHANCE, VERDICT_LEVEL, chance_of_broken, most_broken, verdicts


def one(counts0, counts, wanted, answer="argmax", level=VERDICT_LEVEL):
    given = (np.array([values]) for values in (counts0, counts, np.isin(np.arange(len(counts)), wanted)))
    found = verdicts(*given, as_answer(answer, len(counts)), level)
    return {name: values[0] for name, values in found._asdict().items()}


def test_twenty_votes_of_twenty_are_the_fewest_that_prove_it():
    """.5^20 is just below 1e-6."""
    assert one([0, 8], [0, 20], [1])["proven"] and not one([0, 8], [0, 19], [1])["proven"]


def test_votes_for_other_classes_of_the_set_neither_help_nor_harm():
    found = one([1, 5, 4], [10, 45, 45], [1, 2])
    assert (found["target"], found["target_votes"], found["rival"], found["rival_votes"]) == (1, 45, 0, 10)
    assert found["proven"] == one([1, 5], [10, 45], [1])["proven"]


def test_the_target_is_chosen_by_selection_votes_and_the_rival_by_the_others():
    found = one([9, 5, 4, 0], [0, 0, 60, 40], [1, 2])
    assert (found["target"], found["rival"]) == (1, 3) and not found["proven"]


@pytest.mark.parametrize("level", [0.05, 0.001])
@pytest.mark.parametrize("others", [1, 3])
def test_a_tie_is_called_proven_no_more_often_than_the_level(others, level):
    """p of the target is that of each harmless class, the worst case: of one, all is enumerated; of more, drawn."""
    n = 60
    if others == 1:
        counts = np.stack([n - np.arange(n + 1), np.arange(n + 1)], axis=1)
        weights = binom.pmf(np.arange(n + 1), n, 0.5)
    else:
        p = np.array([0.3, 0.3, 0.1, 0.3])
        counts = np.random.default_rng(0).multinomial(n, p, size=200_000)
        weights = np.full(len(counts), 1 / len(counts))
    wanted = np.arange(counts.shape[1]) == counts.shape[1] - 1
    proven = verdicts(np.ones_like(counts), counts, np.broadcast_to(wanted, counts.shape), level=level).proven
    assert 0 < weights[proven].sum() <= level * 1.05


@pytest.mark.parametrize("answer", ["majority", "threshold:0.7*uniform", "threshold:1=0.7,2=0.8", "threshold:1=0.3"])
def test_a_class_that_an_answer_may_not_say_is_called_proven_no_more_often_than_the_level(answer):
    """At the edge: the target's share is its threshold, or another costly class is ahead and has too few."""
    says, wanted, n, level = as_answer(answer, 3), np.array([False, True, True]), 60, 0.05
    tau = says.of_classes(3)[1]
    edges = [[(1 - tau) / 2, tau, (1 - tau) / 2], [0.1, 0.45, 0.45], [0.05, 0.2, 0.75], [0.35, 0.35, 0.3]]
    for p in [np.array(p) for p in edges]:
        if says.of([p]).isin([1, 2])[0]:  # it is broken in truth
            continue
        counts = np.random.default_rng(0).multinomial(n, p, size=50_000)
        counts0 = np.tile([0, 9, 0], (len(counts), 1))
        proven = verdicts(counts0, counts, np.broadcast_to(wanted, counts.shape), says, level).proven
        assert proven.mean() <= level + 3 * np.sqrt(level / len(counts))


def test_an_answer_that_abstains_has_a_costly_class_said_above_its_threshold():
    votes = [0, 9, 0], [100, 450, 50], [1, 2]
    assert one(*votes)["proven"] and one(*votes, "majority")["proven"] and one(*votes, "threshold:1=0.6")["proven"]
    assert not one(*votes, "threshold:0.8*uniform")["proven"]
    # the other costly class may be ahead and unsaid, where its threshold is the higher one
    near = [0, 9, 0], [100, 260, 240], [1, 2]
    assert one(*near, "threshold:1=0.3,2=0.3")["proven"]
    found = one(*near, "threshold:1=0.3,2=0.7")
    assert found["rival"] == 2 and not found["proven"]


def test_how_many_may_break():
    assert most_broken(1000, 0.001) == binom.ppf(1 - CHANCE, 1000, 0.001 + VERDICT_LEVEL) == 9
    assert chance_of_broken(0, 1000, 0.001) == 1.0
    assert chance_of_broken(10, 1000, 0.001) < CHANCE < chance_of_broken(9, 1000, 0.001)
    assert most_broken(0, 0.001) == 0


def test_a_certificate_that_never_fails_may_still_meet_a_false_verdict():
    """At an alpha of 1e-12 one of 1,000 pictures is called broken by chance in a thousand such attacks."""
    assert most_broken(1000, 1e-12) == 1
