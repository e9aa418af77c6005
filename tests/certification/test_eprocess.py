"""Radii by betting: by hand, and how often they are ever too large, enumerated over all votes and all n."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from raycsr.certification import eprocess
from raycsr.certification.eprocess import (
    GRID,
    Stakes,
    betting_radius,
    grid_radius,
    is_certified,
    reaches,
)

LEVEL = 0.05
SIGMA = 0.5


def stakes(of_top, of_target, n, first=(58, 64), others=0, size=1):
    """Votes of one image or of several, of which what is said once holds for all.

    `others` are the votes for the classes of the set but A, of which there are size - 1; of them `first` has a third.
    """
    of_set0 = first[0] if size == 1 else first[0] + (first[1] - first[0]) // 3
    columns = (n, of_target, of_top, np.add(of_top, others), first[1], first[0], of_set0, size)
    return Stakes(*np.broadcast_arrays(*columns))


def certified(*args, radius=0.25, level=LEVEL, **votes):
    of = stakes(*(np.atleast_1d(a) for a in args), **votes)
    return is_certified(of, np.full(len(of.n), radius), SIGMA, np.full(len(of.n), level))


def test_one_bettor_by_hand(monkeypatch):
    monkeypatch.setattr(eprocess, "_TANGENTS", (0.0,))
    monkeypatch.setattr(eprocess, "_BETS", (0.5,))
    q = 6.5 / 9  # 6 of 8 selection votes
    height = ndtr(ndtri(q) - 1.0)  # r = .25 at sigma .5
    slope = np.exp(ndtri(q) - 0.5)
    mean = slope * q - height
    bet = 0.5 / (1 + mean)
    of_sample = np.exp(eprocess._wagers(*map(np.atleast_1d, (0.5, 6, 8, 1))))[0, :, 0]
    assert of_sample == pytest.approx([1 + bet * (slope - mean), 1 - bet * (1 + mean), 1 - bet * mean])
    for p in (0.6, 0.9, 0.99):  # at the edge of "may be answered", nobody can expect to win
        shares = np.array([p, ndtr(ndtri(p) - 1.0), 0])
        shares[2] = 1 - shares.sum()
        if shares[2] >= 0:
            assert of_sample @ shares <= 1


def test_one_bettor_on_a_set_of_three_by_hand(monkeypatch):
    monkeypatch.setattr(eprocess, "_TANGENTS", (0.0,))
    monkeypatch.setattr(eprocess, "_BETS", (0.5,))

    def height(p):  # what a class has at least that is as likely as the mean of three, at r = .25 and sigma .5
        return ndtr(ndtri(ndtr(ndtri(p) - 0.5) / 3) - 0.5)

    q = 6.5 / 9
    slope = (height(q + 1e-6) - height(q - 1e-6)) / 2e-6
    mean = slope * q - height(q)
    bet = 0.5 / (1 + mean)
    of_sample = np.exp(eprocess._wagers(*map(np.atleast_1d, (0.5, 6, 8, 3))))[0, :, 0]
    assert of_sample == pytest.approx([1 + bet * (slope - mean), 1 - bet * (1 + mean), 1 - bet * mean], rel=1e-8)
    for p in (0.5, q, 0.95):
        assert of_sample @ [p, height(p), 1 - p - height(p)] <= 1


def test_a_set_certifies_what_no_class_of_it_does():
    votes, three = (np.array([250]), np.array([5]), np.array([640])), {"first": (26, 64), "others": 380, "size": 3}
    by_set, alone = betting_radius(stakes(*votes, **three), SIGMA, 0.001), betting_radius(stakes(*votes), SIGMA, 0.001)
    assert by_set > 1.2 * alone > 0


def test_a_set_that_does_not_help_costs_little():
    votes = np.array([600]), np.array([20]), np.array([640])
    with_set = betting_radius(stakes(*votes, others=20, size=3), SIGMA, 0.001)
    assert with_set > 0.95 * betting_radius(stakes(*votes), SIGMA, 0.001)


def test_a_clear_image_is_certified_and_one_with_rivals_is_not():
    assert certified(300, 2, 320)[0]
    assert not certified(200, 120, 320)[0]
    assert certified(150, 2, 320, first=(30, 64))[0]  # no majority, but no rival of note either
    assert not certified(0, 0, 0)[0]


def test_the_more_votes_a_target_has_the_less_is_certified():
    radii = betting_radius(stakes(np.full(5, 700), np.array([0, 10, 50, 100, 200]), 1000), SIGMA, 0.001)
    assert (np.diff(radii) < 0).all()


def test_radii_are_decimals_of_the_grid_and_end():
    assert grid_radius(40, 0.25) == 0.05 and grid_radius(80, 0.25) == 0.1 and grid_radius(100, 0.5) == 0.25
    radii = betting_radius(stakes(np.array([100_032]), np.array([0]), np.array([100_032]), first=(64, 64)), 0.25, 0.001)
    assert 0.25 * 3.5 < radii[0] < 0.25 * ndtri(0.001 ** (1 / 100_032))
    assert radii[0] == grid_radius(round(radii[0] * GRID / 0.25), 0.25)


def test_to_reach_a_radius_is_to_have_one_as_large():
    rng = np.random.default_rng(0)
    n, first = 640, rng.integers(20, 65, 200)
    of_top = rng.binomial(n, first / 64)
    many = stakes(of_top, rng.binomial(n - of_top, 0.3), np.full(200, n))._replace(of_top0=first)
    radii = betting_radius(many, SIGMA, LEVEL)
    for radius in (0.05, 0.1, 0.123, 0.25, 0.4):
        assert (reaches(many, radius, SIGMA, LEVEL) == (radii >= radius)).all()
        assert 0 < (radii >= radius).sum() < 200


def test_each_image_has_a_level_of_its_own():
    many = stakes(np.full(3, 700), np.full(3, 100), np.full(3, 1000))
    radii = betting_radius(many, SIGMA, np.array([1e-6, 0.001, 0.05]))
    assert (np.diff(radii) > 0).all()
    assert radii[1] == betting_radius(many, SIGMA, 0.001)[0]


def ever_certified(shares, radius, stop, most=96):
    """Probability that a rule ever certifies a radius within `most` samples: exact, but for paths rarer than 1e-15.

    Args:
        shares: of the classes that are held against the target, of the target; the rest is for neither.
        radius: in the units of sigma.
        stop: (votes for the former, votes for the target, n) -> whether it is certified, bool.
        most: samples.
    """
    ours, target = shares
    assert 0 <= ours + target <= 1
    alive = np.zeros((most + 1, most + 1))  # by the two votes: probability that nothing was certified so far
    alive[0, 0] = 1.0
    for n in range(1, most + 1):
        step = alive * (1 - ours - target)
        step[1:] += alive[:-1] * ours
        step[:, 1:] += alive[:, :-1] * target
        alive = step
        votes, of_target = np.nonzero(alive > 1e-15)
        stopped = stop(votes, of_target, np.full(len(votes), n))
        alive[votes[stopped], of_target[stopped]] = 0
    return 1 - alive.sum()


def ever_certified_by_a_set(p_a, others, target, radius, size, first, most=36, level=LEVEL):
    """The same where the set has more classes than A, of `others` votes, and the evidence depends on both."""
    assert p_a + others + target <= 1
    alive = np.zeros((most + 1, most + 1, most + 1))
    alive[0, 0, 0] = 1.0
    for n in range(1, most + 1):
        step = alive * (1 - p_a - others - target)
        step[1:] += alive[:-1] * p_a
        step[:, 1:] += alive[:, :-1] * others
        step[:, :, 1:] += alive[:, :, :-1] * target
        alive = step
        of_top, of_others, of_target = np.nonzero(alive > 1e-12)
        votes = {"others": of_others, "size": size, "first": first, "radius": radius, "level": level}
        stopped = certified(of_top, of_target, np.full(len(of_top), n), **votes)
        alive[of_top[stopped], of_others[stopped], of_target[stopped]] = 0
    return 1 - alive.sum()


SETS = [(0.8, 3, 0.25), (0.9, 2, 0.5), (0.6, 2, 0.1), (0.72, 3, 0.02)]  # p_T, classes of T, radius


def of_target_at_the_edge(p_set, size, radius):
    """The share of a class that is as likely as the mean of T at a distance of `radius`."""
    z = radius / SIGMA
    return ndtr(ndtri(ndtr(ndtri(p_set) - z) / size) - z)


@pytest.mark.parametrize(("p_set", "size", "radius"), SETS)
def test_at_the_edge_of_a_set_a_radius_is_ever_certified_no_more_often_than_its_level(p_set, size, radius):
    target = of_target_at_the_edge(p_set, size, radius)
    for p_a, first in ((p_set / size, 24), (0.0, 60)):  # A is one of many, or was named by luck alone
        assert ever_certified_by_a_set(p_a, p_set - p_a, target, radius, size, (first, 64)) <= LEVEL


def test_the_enumeration_sees_a_set_of_which_two_classes_are_not_counted():
    shares = (0.2, 0.58, of_target_at_the_edge(0.78, 4, 0.02))
    of_four, of_two = (ever_certified_by_a_set(*shares, 0.02, size, (20, 64), most=40) for size in (4, 2))
    assert of_four <= LEVEL and of_two > 2 * LEVEL


EDGES = [(0.8, 0.5), (0.5, 0.1), (0.4, 0.25), (0.95, 1.0)]


@pytest.mark.parametrize(("p_a", "radius"), EDGES)
def test_at_the_edge_a_radius_is_ever_certified_no_more_often_than_its_level(p_a, radius):
    of_target = ndtr(ndtri(p_a) - 2 * radius / SIGMA)
    for votes0 in (20, 58):  # whatever the selection votes say, by luck

        def stop(of_top, of_target, n, votes0=votes0):
            return certified(of_top, of_target, n, first=(votes0, 64), radius=radius)

        assert ever_certified((p_a, of_target), radius, stop) <= LEVEL


def test_where_two_classes_share_all_votes_it_is_certified_no_more_often_than_its_level():
    p_a = ndtr(0.25 / SIGMA)
    assert 0.2 * LEVEL < ever_certified((p_a, 1 - p_a), 0.25, lambda *votes: certified(*votes, first=(44, 64))) <= LEVEL


def test_the_enumeration_sees_a_bettor_who_is_chosen_in_hindsight(monkeypatch):
    """By the votes that the bets are on: tangent and bet. Wagers have half of the level."""
    radius, p_a = 0.1, 0.5
    shares = (p_a, ndtr(ndtri(p_a) - 2 * radius / SIGMA))
    monkeypatch.setattr(eprocess, "_TANGENTS", (0.0,))

    def one(bet, first, votes):
        monkeypatch.setattr(eprocess, "_BETS", (bet,))
        return certified(*votes, first=(first, 64), radius=radius)

    def best(*votes):
        return np.any([one(bet, first, votes) for bet in (0.95, 0.6, 0.35, 0.2, 0.1) for first in (8, 24, 40)], axis=0)

    assert ever_certified(shares, radius, lambda *votes: one(0.35, 32, votes), most=64) <= LEVEL / 2
    assert ever_certified(shares, radius, best, most=64) > LEVEL / 2
