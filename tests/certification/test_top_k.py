"""Certified top-k: by hand, against the multiclass radius, and how often it is too large."""

import numpy as np
import pytest
from scipy.stats import norm

from raycsr.certification import METHODS, SparseVotes, binomial_lower, binomial_upper, certify_counts, top_k_radius
from raycsr.errors import UserError

SETTING = {"sigma": 0.5, "alpha": 0.001}
COUNTS0, COUNTS = [[30, 20, 10, 3, 1]], [[500, 310, 150, 35, 5]]


def test_the_first_classes_by_selection_votes_are_left_aside():
    radius = top_k_radius(COUNTS0, COUNTS, [1], k=2, sampling="fixed", **SETTING)  # class 0 is, and class 2 is not
    low, high = binomial_lower(310, 1000, 0.0009), binomial_upper(150, 1000, 0.0001)
    assert radius == pytest.approx(0.5 / 2 * (norm.ppf(low) - norm.ppf(high)), rel=1e-12)
    other = top_k_radius([[30, 20, 3, 10, 1]], COUNTS, [2], k=4, sampling="fixed", **SETTING)
    low, high = binomial_lower(150, 1000, 0.0009), binomial_upper(5, 1000, 0.0001)
    assert other == pytest.approx(0.5 / 2 * (norm.ppf(low) - norm.ppf(high)), rel=1e-12)


@pytest.mark.parametrize(("sampling", "method"), [("fixed", None), ("sequential", None), ("sequential", "sequence-2")])
def test_top_1_of_the_answer_is_its_multiclass_radius(sampling, method):
    options = {"sampling": sampling, "method": method, **SETTING}
    row = certify_counts(COUNTS0, COUNTS, [0], costs="uniform", **options).iloc[0]
    assert top_k_radius(COUNTS0, COUNTS, [0], k=1, **options)[0] == row["multiclass_radius"] > 0


def test_the_more_may_be_named_the_longer_the_radius():
    for sampling in ("fixed", "sequential"):
        radii = [top_k_radius(COUNTS0, COUNTS, [2], k=k, sampling=sampling, **SETTING)[0] for k in range(1, 7)]
        assert radii[0] == radii[1] == 0 and (np.diff(radii[1:5]) > 0).all()
        assert radii[5] == radii[4]  # of five classes five may be named, whatever is said: nothing is left to rule out


def test_sparse_votes_and_images_without_any():
    counts0, counts = np.array([*COUNTS0, [0] * 5, *COUNTS0]), np.array([*COUNTS, [0] * 5, [0] * 5])
    dense = top_k_radius(counts0, counts, [1, 1, 1], k=2, sampling="sequential", **SETTING)
    sparse = [SparseVotes.from_dense(votes) for votes in (counts0, counts)]
    assert (top_k_radius(*sparse, [1, 1, 1], k=2, sampling="sequential", **SETTING) == dense).all()
    assert dense[0] > 0 and (dense[1:] == 0).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"alpha": 2}, "alpha is 2"),
        ({"sampling": "adaptive"}, "'adaptive'; choose from fixed, sequential"),
        ({"method": "e-2"}, "'e-2' does not hold for votes sampled by 'fixed'"),
        ({"labels": [1, 1]}, "1 rows of selection votes, 1 of estimation, 2 labels"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, message):
    options = {"labels": [1], "k": 2, "sampling": "fixed", **SETTING, **wrong}
    with pytest.raises(UserError, match=message):
        top_k_radius(COUNTS0, COUNTS, **options)


IMAGES = 10_000
NEAR = np.array([0.3, 0.16, 0.15, 0.14, 0.13, 0.12]), 3  # shares, of which the first is the label's, and k
ALIKE = np.array([0.3, *[0.025] * 28]), 28


def too_large(shares, k, alpha, method, by="selection"):
    """How often the radius exceeds the one that the k-th of the other classes leaves by the true shares."""
    generator = np.random.default_rng(0)
    counts0, counts = (generator.multinomial(n, shares, IMAGES) for n in (64, 1000))
    first = counts0 if by == "selection" else counts
    options = {"k": k, "sigma": 1.0, "alpha": alpha, "sampling": METHODS[method].design, "method": method}
    radii = top_k_radius(first, counts, np.zeros(IMAGES, int), **options)
    return (radii > (norm.ppf(shares[0]) - norm.ppf(np.sort(shares[1:])[-k])) / 2).mean()


@pytest.mark.parametrize("method", ["cp-2", "sequence-2", "e-2"])
@pytest.mark.parametrize(("shares", "k"), [NEAR, ALIKE])
def test_the_radius_is_too_large_no_more_often_than_alpha(shares, k, method):
    for alpha in (0.05, 0.5):
        assert too_large(shares, k, alpha, method) <= alpha


def test_the_check_sees_classes_that_are_left_aside_by_the_votes_that_estimate():
    assert too_large(*ALIKE, 0.5, "cp-2", by="estimation") > 0.55
