"""Verdicts are false no more often than their level, and a guarantee fails where too many certificates break."""

import numpy as np
import pytest
from scipy.stats import binom

from raycsr.certification.attacks import CHANCE, VERDICT_LEVEL, chance_of_broken, most_broken, verdicts


def one(counts0, counts, wanted, level=VERDICT_LEVEL):
    given = (np.array([values]) for values in (counts0, counts, np.isin(np.arange(len(counts)), wanted)))
    return {name: values[0] for name, values in verdicts(*given, level=level)._asdict().items()}


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
    proven = verdicts(np.ones_like(counts), counts, np.broadcast_to(wanted, counts.shape), level).proven
    assert 0 < weights[proven].sum() <= level * 1.05


def test_how_many_may_break():
    assert most_broken(1000, 0.001) == binom.ppf(1 - CHANCE, 1000, 0.001 + VERDICT_LEVEL) == 9
    assert chance_of_broken(0, 1000, 0.001) == 1.0
    assert chance_of_broken(10, 1000, 0.001) < CHANCE < chance_of_broken(9, 1000, 0.001)
    assert most_broken(0, 0.001) == 0


def test_a_certificate_that_never_fails_may_still_meet_a_false_verdict():
    """At an alpha of 1e-12 one of 1,000 pictures is called broken by chance in a thousand such attacks."""
    assert most_broken(1000, 1e-12) == 1
