"""Clopper-Pearson bounds against the binomial distribution itself, enumerated."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from raycsr.certification.bounds import (
    betting_lower,
    binomial_lower,
    binomial_upper,
    distinct_triples,
    sequence_lower,
    sequence_upper,
)
from raycsr.certification.methods import largest_radius
from raycsr.errors import UserError

SETTINGS = [(n, level) for n in (1, 2, 5, 30, 200) for level in (0.05, 0.001)]


def shares_to_try(bounds):
    """A grid of p, and the p next to each bound, where the chance of a miss jumps."""
    return np.concatenate([np.linspace(0.001, 0.999, 97), bounds * (1 - 1e-9), bounds * (1 + 1e-9)]).clip(0, 1)


@pytest.mark.parametrize(("n", "level"), SETTINGS)
def test_lower_bound_misses_as_often_as_its_level_and_no_more(n, level):
    counts = np.arange(n + 1)
    lower = binomial_lower(counts, n, level)
    p = shares_to_try(lower)[:, None]
    miss = np.where(lower > p, binom.pmf(counts, n, p), 0.0).sum(axis=1)
    assert miss.max() <= level * (1 + 1e-6)
    assert miss.max() >= 0.7 * level


@pytest.mark.parametrize(("n", "level"), SETTINGS)
def test_upper_bound_misses_as_often_as_its_level_and_no_more(n, level):
    counts = np.arange(n + 1)
    upper = binomial_upper(counts, n, level)
    p = shares_to_try(upper)[:, None]
    miss = np.where(upper < p, binom.pmf(counts, n, p), 0.0).sum(axis=1)
    assert miss.max() <= level * (1 + 1e-6)
    assert miss.max() >= 0.7 * level


@pytest.mark.parametrize("level", [0.05, 1e-7, 1e-10])
@pytest.mark.parametrize("n", [10, 100_000, 1_000_000])
def test_bounds_solve_their_tail_equations_far_out(n, level):
    counts = np.array([1, n // 10, n // 2])
    lower, upper = binomial_lower(counts, n, level), binomial_upper(counts, n, level)
    np.testing.assert_allclose(binom.sf(counts - 1, n, lower), level, rtol=1e-6)
    np.testing.assert_allclose(binom.cdf(counts, n, upper), level, rtol=1e-6)
    # and the mirror images: n - k votes against a class are k votes for it
    np.testing.assert_allclose(binomial_lower(n - counts, n, level), 1 - upper, rtol=1e-9)


def test_bounds_where_no_vote_or_every_vote_is_for_the_class():
    assert binomial_lower(0, 50, 0.01) == 0
    assert binomial_lower(50, 50, 0.01) == pytest.approx(0.01 ** (1 / 50), rel=1e-14)
    assert binomial_upper(0, 50, 0.01) == pytest.approx(1 - 0.01 ** (1 / 50), rel=1e-14)
    assert binomial_upper(50, 50, 0.01) == 1


def test_no_votes_at_all_bound_nothing():
    assert (binomial_lower(0, 0, 0.01), binomial_upper(0, 0, 0.01)) == (0, 1)


def test_lower_bound_never_rounds_to_one():
    assert np.isfinite(norm.ppf(binomial_lower(10**6, 10**6, 1 - 1e-16)))


def test_arguments_are_broadcast():
    counts = np.array([[3, 0], [7, 7], [10, 3]])
    n, level = np.array([[10], [10], [20]]), np.array([0.05, 0.01])
    expected = [[binomial_upper(counts[i, j], n[i, 0], level[j]).item() for j in range(2)] for i in range(3)]
    np.testing.assert_array_equal(binomial_upper(counts, n, level), expected)
    assert binomial_lower(np.zeros((0, 4), int), 10, 0.05).shape == (0, 4)


def test_each_distinct_triple_is_found_once():
    (counts, n, level), inverse = distinct_triples([[5, 0, 5], [5, 0, 5]], [[10], [20]], 0.1)
    assert len(counts) == 4
    np.testing.assert_array_equal(counts[inverse], [[5, 0, 5], [5, 0, 5]])
    np.testing.assert_array_equal(n[inverse], [[10, 10, 10], [20, 20, 20]])
    np.testing.assert_array_equal(level, [0.1] * 4)


def test_largest_radius_is_that_of_votes_that_all_agree():
    # Cohen et al., figure on n: 100,000 samples at alpha 0.001 cannot certify more than 3.81 sigma
    assert largest_radius(100_000, alpha=0.001, sigma=0.25) == pytest.approx(3.8115 * 0.25, abs=1e-4)
    # three votes that agree leave p_A as low as 0.1
    assert largest_radius(3, alpha=0.001, sigma=0.25) == 0


def test_largest_radius_of_a_sequence_is_that_of_its_bounds():
    radius = largest_radius(640, alpha=0.001, sigma=0.5, sampling="sequential")
    assert radius == pytest.approx(0.5 * norm.ppf(float(betting_lower(640, 640, 0.001))))
    assert radius < largest_radius(640, alpha=0.001, sigma=0.5)


def test_each_of_many_large_counts_keeps_its_own_bound():
    """Keys made of products of the counts themselves wrap here, and images get the bounds of others."""
    generator = np.random.default_rng(0)
    n = generator.integers(10**11, 10**12, 5_000)
    counts = generator.integers(0, n)
    (k, of_n, _), inverse = distinct_triples(counts, n, 0.001)
    np.testing.assert_array_equal(k[inverse], counts)
    np.testing.assert_array_equal(of_n[inverse], n)


@pytest.mark.parametrize("bound", [binomial_lower, binomial_upper, sequence_lower, sequence_upper])
@pytest.mark.parametrize(
    ("counts", "n", "fact"),
    [
        (2**61, 2**62, f"{2**61:,}"),
        (np.uint64(2**63), np.uint64(2**63), f"{2**63:,}"),
        (7, 5, "7 votes of 5"),
        (-1, 5, "-1 votes of 5"),
        (1.5, 5, "float64"),
    ],
)
def test_numbers_that_bounds_cannot_hold_for_are_refused(bound, counts, n, fact):
    with pytest.raises(UserError, match=fact):
        bound(counts, n, 0.001)
