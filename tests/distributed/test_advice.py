"""What a pilot says of sigma, n, radius and alpha, by votes whose shares are known."""

import numpy as np

from raycsr import CostMatrix
from raycsr.distributed.advice import ALPHAS, NS, ExpectedShares, best_sigma, expected_shares, in_words, radii_of

# Votes of a pilot on four images of class 0: surely right, right, near the edge, and wrong.
VOTES = np.array([[2048, 0], [1900, 148], [1100, 948], [200, 1848]])
COSTS = {"seed:0": CostMatrix.seedwise(2, [0]), "seed:1": CostMatrix.seedwise(2, [1])}


def offers(sigma=0.5, radii=(0.25, 0.5, 1.0), votes=VOTES):
    found = []
    for alpha in ALPHAS:
        for n in NS:
            shares = expected_shares(
                votes, np.zeros(4, int), COSTS, sigma=sigma, draws=(64, n), alpha=alpha, radii=radii
            )
            found.append(ExpectedShares(60.0, 1, None, None, "m", sigma, "argmax", n, alpha, 1.0, radii, shares, 4))
    return found


def test_shares_by_hand():
    first = offers()[0].shares
    # .5 Phi^-1(1900 / 2048) is .73: two of four reach .5, one 1.0; the third is right, and reaches neither
    assert first["certified accuracy"] == (0.5, 0.5, 0.25)
    assert first["rob_cs seed:0 (4 images)"] == (0.5, 0.5, 0.25)
    assert first["rob_cs seed:1 (0 images)"] == (None, None, None)


def test_more_samples_and_a_larger_alpha_certify_no_less():
    found = offers(radii=(0.0, 0.05, 0.7))
    sizes = [sum(one.shares["certified accuracy"]) for one in found]
    assert sizes[:3] == sorted(sizes[:3]) and sizes[0] <= sizes[3]


def test_the_least_n_that_is_enough_is_named():
    lines = in_words(offers())
    assert lines[0].startswith("advice    n 1,000: 100,000 certify less than a point more")
    assert "certified accuracy: 0.5 is the largest" in lines[2] and "seed:1 (0 images): half reach none" in lines[4]
    assert in_words(offers(radii=(0.71,)))[0].startswith("advice    n 100,000: it certifies up to")
    assert in_words([]) == []


def test_the_best_sigma_is_named_at_each_radius():
    both = offers() + offers(sigma=0.25, votes=np.array([[2048, 0], [2040, 8], [1900, 148], [1900, 148]]))
    (line, *_) = best_sigma(both)
    assert line == "advice    sigma for m, certified accuracy: 0.25 at 0.25, 0.5 or 0.25 at 0.5, 0.5 at 1"
    assert best_sigma(offers()) == []


def test_radii_are_those_that_were_named_or_multiples_of_sigma():
    assert radii_of([0.3], [0.5]) == (0.3,)
    assert radii_of([], [0.25, 0.5]) == (0.125, 0.25, 0.5, 0.75, 1.0, 1.5)
