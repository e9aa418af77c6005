"""Confidence sequences: against a slow reference, and how often they are ever wrong, enumerated over all n."""

import mpmath
import numpy as np
import pytest

from raycsr.certification.bounds import (
    betting_lower,
    betting_upper,
    binomial_lower,
    binomial_upper,
    evidence_of_share,
    sequence_lower,
    sequence_upper,
)

ALPHA = 0.05
MOST = 10_000  # votes


def slow_lower(k, n, level):
    """By bisection, with forty digits, on the definition."""
    with mpmath.workdps(40):
        half = mpmath.mpf(1) / 2
        mixture = mpmath.beta(k + half, n - k + half) / mpmath.beta(half, half)
        low, high = mpmath.mpf(0), mpmath.mpf(k) / n
        for _ in range(150):
            middle = (low + high) / 2
            crossed = mixture * mpmath.mpf(level) >= middle**k * (1 - middle) ** (n - k)
            low, high = (middle, high) if crossed else (low, middle)
        return float(low)


@pytest.mark.parametrize("level", [0.05, 9e-4, 1e-7])
@pytest.mark.parametrize(
    ("k", "n"), [(1, 1), (1, 2), (5, 10), (70, 100), (1, 10_000), (9_999, 10_000), (43_210, 100_000), (10**6, 10**6)]
)
def test_bounds_are_those_of_the_definition(k, n, level):
    assert float(sequence_lower(k, n, level)) == pytest.approx(slow_lower(k, n, level), abs=1e-9, rel=1e-9)
    assert float(sequence_upper(n - k, n, level)) == pytest.approx(1 - slow_lower(k, n, level), abs=1e-9)


def test_by_hand():
    # three votes, all for the class: B(3.5, .5) / B(.5, .5) = 5/2 * 3/2 * 1/2 / (3 * 2 * 1) = 5/16
    assert float(sequence_lower(3, 3, 0.1)) == pytest.approx((0.1 * 5 / 16) ** (1 / 3), rel=1e-12)
    assert float(sequence_lower(0, 3, 0.1)) == 0 and float(sequence_upper(3, 3, 0.1)) == 1
    assert float(sequence_lower(0, 0, 0.1)) == 0 and float(sequence_upper(0, 0, 0.1)) == 1


def test_they_enclose_the_share_and_are_wider_than_bounds_for_one_n():
    k = np.arange(1, 200)
    lower, upper = sequence_lower(k, 200, 0.001), sequence_upper(k, 200, 0.001)
    assert (lower < k / 200).all() and (k / 200 < upper).all()
    assert (lower < binomial_lower(k, 200, 0.001)).all() and (upper > binomial_upper(k, 200, 0.001)).all()
    assert (np.diff(lower) > 0).all() and (np.diff(upper) > 0).all()


def test_arguments_are_broadcast():
    both = sequence_lower([[1], [2]], 4, [0.1, 0.2])
    assert both.shape == (2, 2)
    assert both[1, 0] == sequence_lower(2, 4, 0.1)


def ever_wrong(lower, upper, p):
    """Probability that, at some n up to MOST, the lower bound is above p or the upper one below it: exact."""
    n = np.arange(1, MOST + 1)
    too_many = first_count(lambda k: lower(k, n, ALPHA) > p, n)  # the lower bound rises with the votes
    enough = first_count(lambda k: upper(k, n, ALPHA) >= p, n)
    alive = np.array([1.0])  # probability of k votes so far and no bound wrong yet
    for step, most, least in zip(n, too_many, enough, strict=True):
        alive = np.append(alive, 0.0) * (1 - p) + np.append(0.0, alive) * p
        alive[: min(least, step + 1)] = 0
        alive[most:] = 0
    return 1 - alive.sum()


def first_count(holds, n):
    """For each n the smallest k in 0..n that a property that stays true holds for, or n + 1."""
    low, high = np.zeros_like(n), n + 1
    while (low < high).any():
        middle = (low + high) // 2
        true = holds(np.minimum(middle, n)) & (middle <= n)
        low, high = np.where(true | (low >= high), low, middle + 1), np.where(true & (low < high), middle, high)
    return low


@pytest.mark.parametrize("p", [0.001, 0.05, 0.3, 0.5, 0.82, 0.99])
def test_a_sequence_is_ever_wrong_no_more_often_than_its_level(p):
    assert 0.1 * ALPHA < ever_wrong(sequence_lower, sequence_upper, p) <= ALPHA


def test_the_enumeration_sees_a_bound_for_one_n_that_is_peeked_at():
    assert ever_wrong(binomial_lower, binomial_upper, 0.3) > 5 * ALPHA


def test_the_evidence_of_a_share_by_hand():
    # one vote: the mean of q over the arcsine distribution above 1/2 is (pi/4 + 1/2) / (pi/2), divided by 1/2
    assert float(evidence_of_share(1, 1, 0.5)) == pytest.approx(np.log((np.pi / 4 + 0.5) / (np.pi / 2) / 0.5))
    assert float(evidence_of_share(0, 0, 0.3)) == pytest.approx(0)
    assert float(evidence_of_share(70, 100, 0.5, truncated=False)) > float(evidence_of_share(70, 100, 0.5))


@pytest.mark.parametrize(("k", "n"), [(1, 1), (7, 10), (64, 64), (700, 1000), (3, 10_000)])
def test_betting_bounds_are_those_of_the_definition(k, n):
    """By integration and bisection, with thirty digits."""
    with mpmath.workdps(30):
        low, high = mpmath.mpf(0), mpmath.mpf(k) / n
        for _ in range(60):
            p = (low + high) / 2
            above = mpmath.betainc(k + 0.5, n - k + 0.5, p, 1) / mpmath.betainc(0.5, 0.5, p, 1)
            crossed = above * mpmath.mpf(ALPHA) >= p**k * (1 - p) ** (n - k)
            low, high = (p, high) if crossed else (low, p)
    # where the evidence is at some step exactly what it must be, the lower end of the bracket is some way below
    assert float(low) * (1 - 1e-7) < float(betting_lower(k, n, ALPHA)) < float(low) * (1 + 1e-9)
    assert float(betting_upper(n - k, n, ALPHA)) == pytest.approx(1 - float(low), abs=1e-9)


def test_betting_bounds_of_no_votes_and_of_several_at_once():
    assert betting_lower([0, 0, 5], [0, 9, 9], [0.1, 0.1, 0.2]).tolist() == [0, 0, float(betting_lower(5, 9, 0.2))]
    k = np.arange(1, 201)
    assert (betting_lower(k, 200, 0.001) > sequence_lower(k, 200, 0.001)).all()  # it has all of the level on one side
    assert (betting_upper(k - 1, 200, 0.001) < sequence_upper(k - 1, 200, 0.001)).all()


@pytest.mark.parametrize("n", [1, 2, 5, 30, 300])
def test_all_shares_below_a_betting_bound_have_the_evidence_against_them(n):
    shares, k = np.linspace(1e-6, 1 - 1e-6, 1001), np.arange(1, n + 1)[:, None]
    against = evidence_of_share(k, n, shares) >= np.log(2)
    assert (np.diff(against.astype(int), axis=1) <= 0).all()


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_a_betting_bound_is_ever_too_high_no_more_often_than_its_level(p):
    most, alive = 1000, np.array([1.0])
    n = np.arange(1, most + 1)
    for step in n:
        alive = np.append(alive, 0.0) * (1 - p) + np.append(0.0, alive) * p
        alive[evidence_of_share(np.arange(step + 1), step, p) > -np.log(ALPHA)] = 0
    assert 0.3 * ALPHA < 1 - alive.sum() <= ALPHA
