"""Routes: their radii against the definition, what is settled when, and how often what they say is false."""

import inspect
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from raycsr.certification import certificates, certify_counts, routes
from raycsr.certification.certificates import level_of_target
from raycsr.certification.methods import METHODS
from raycsr.certification.routes import pair_radius, set_radius, settle, votes_of_sets
from raycsr.certification.votes import SparseVotes
from raycsr.costs import CostMatrix

SIGMA = 0.5
ALPHA = 0.05
CHANCE = 1e-6  # that a right method has more false statements than a test lets pass
CP2 = METHODS["cp-2"]


def settled(counts0, labels, costs, method=CP2, alpha=ALPHA):
    return settle(SparseVotes.from_dense(counts0), np.asarray(labels), costs=costs, method=method, alpha=alpha)


# By hand


def test_the_set_route_by_its_definition():
    low, high = ndtri(0.9), ndtri(0.05)
    z = brentq(lambda z: ndtr(low - z) - 3 * ndtr(high + z), 0, 5)
    assert set_radius(low, high, 3) == pytest.approx(z, rel=1e-12)
    assert set_radius(low, high, 1) == pair_radius(low, high) == (low - high) / 2
    assert set_radius(ndtri(0.3), ndtri(0.1), 3) == pytest.approx(0, abs=1e-12)  # .3 / 3 is .1
    assert set_radius(ndtri(0.3), ndtri(0.2), 3) == 0
    assert set_radius(-np.inf, high, 3) == set_radius(low, np.inf, 3) == 0  # no votes


@given(st.floats(0.001, 0.999), st.floats(1e-9, 0.5), st.integers(1, 50))
def test_a_radius_is_never_beyond_where_the_two_meet(in_set, of_target, size):
    z = float(set_radius(ndtri(in_set), ndtri(of_target), size))
    assert 0 <= z <= max(0.0, (ndtri(in_set) - ndtri(of_target)) / 2)
    if z > 0:
        assert ndtr(ndtri(in_set) - z) >= size * ndtr(ndtri(of_target) + z) * (1 - 1e-9)
        assert ndtr(ndtri(in_set) - z - 1e-6) <= size * ndtr(ndtri(of_target) + z + 1e-6)


def test_harmless_classes_that_share_the_votes_rule_a_target_out_together():
    """Three harmless classes at .31 each: no two of them need to be told apart."""
    costs = CostMatrix.pairwise(4, {0: [3]})
    counts0, counts = [[31, 31, 31, 7]], [[3100, 3100, 3100, 700]]
    (row,) = certify_counts(counts0, counts, [0], costs=costs, sigma=SIGMA, sampling="fixed").to_dict("records")
    low, high = 0.00045, 0.0001  # of alpha .001: 45 % for p_A and for p_T each, 10 % for the target
    p_a, p_t = binomial_lower(3100, 10_000, low), binomial_lower(9300, 10_000, low)
    p_b = min(1 - binomial_lower(9300, 10_000, high), 1 - p_t)
    z = brentq(lambda z: ndtr(ndtri(p_t) - z) - 3 * ndtr(ndtri(p_b) + z), 0, 5)
    assert row["route"] == "pair+set:3" and row["p_a_lower_group"] == pytest.approx(p_a, rel=1e-9)
    assert row["cost_sensitive_radius"] == row["target_radius"][0] == pytest.approx(SIGMA * z, rel=1e-9)
    assert row["cost_sensitive_radius"] > 1.1 * row["pairwise_radius"][0]


def binomial_lower(votes, n, level):
    return brentq(lambda p: binom.sf(votes - 1, n, p) - level, 0, 1, xtol=1e-15)


# What is settled, and when


def test_what_is_settled_is_settled_by_selection_votes_alone():
    assert "estimation" not in inspect.signature(settle).parameters
    generator = np.random.default_rng(0)
    counts0 = generator.integers(0, 20, (50, 6))
    costs = CostMatrix.pairwise(6, {k: [(k + 1) % 6] for k in range(6)})
    labels = generator.integers(0, 6, 50)
    one, other = (
        certify_counts(counts0, generator.integers(1, 50, (50, 6)), labels, costs=costs, sigma=1, sampling="fixed")
        for _ in range(2)
    )
    assert (one["route"] == other["route"]).all() and one["route"].nunique() > 2
    assert (one["prediction"] == other["prediction"]).all()


def test_a_set_holds_harmless_classes_alone_and_is_no_more_than_what_had_votes():
    generator = np.random.default_rng(0)
    counts0 = generator.integers(0, 3, (200, 8))
    costs = CostMatrix.pairwise(8, {k: [(k + 1) % 8] for k in range(8)})
    labels = generator.integers(0, 8, 200)
    sets = settled(counts0, labels, costs).harmless.dense(8)
    assert not sets[costs.values[labels] > 0].any() and not sets[counts0 == 0].any()
    assert set(sets.sum(axis=1)) - {0} and 1 not in sets.sum(axis=1)


@pytest.mark.parametrize(
    ("counts0", "costs"),
    [
        ([[9, 9, 9, 1]], CostMatrix.uniform(4)),  # the label is the only harmless class
        ([[9, 9, 0, 10]], CostMatrix.pairwise(4, {0: [3]})),  # the answer is costly
        ([[9, 9, 9, 1]], CostMatrix.pairwise(4, {1: [3]})),  # no mistake is
        ([[30, 1, 0, 1]], CostMatrix.pairwise(4, {0: [3]})),  # the answer alone is better than a mean
    ],
)
def test_a_set_that_helps_nobody_is_not_paid_for(counts0, costs):
    found = settled(counts0, [0], costs)
    assert found.set_size.tolist() == [0]
    assert found.lower.tolist() == [0.9 * ALPHA] and found.upper == pytest.approx(0.1 * ALPHA)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_levels_add_up_to_alpha(method):
    found = settled([[9, 9, 9, 1], [30, 1, 0, 1]], [0, 0], CostMatrix.pairwise(4, {0: [3]}), method)
    bounds = 1 + (found.set_size > 0)  # on p_A, and on p_T
    assert bounds * found.lower + found.upper == pytest.approx(ALPHA)


def test_sequential_votes_are_certified_by_routes_that_lose_no_certificate():
    """What stopped sampling of before was a box at these levels, but with the target's one divided among targets."""
    generator = np.random.default_rng(0)
    counts0, counts = (
        generator.multinomial(64, [0.5, 0.2, 0.2, 0.1], 300),
        generator.multinomial(900, [0.5, 0.2, 0.2, 0.1], 300),
    )
    for costs in (CostMatrix.uniform(4), CostMatrix.pairwise(4, {0: [3]})):
        before, now = (
            certify_counts(counts0, counts, [0] * 300, costs=costs, sigma=1, sampling="sequential", method=name)[
                "cost_sensitive_radius"
            ]
            for name in ("beta-binomial", None)
        )
        assert (now >= before).all()


# How often what is said is false


@dataclass
class Case:
    """Vote shares p of an image, its label, and its costs."""

    p: np.ndarray
    label: int
    costs: CostMatrix
    n0: int = 64
    n: int = 1000


def case(num_targets, route, generator):
    """An image of class 0 that the route favours: one harmless class has most of the shares, or several share them."""
    m = 1 + num_targets + (30 if route == "set" else generator.integers(0, 3))
    targets = 1 + generator.permutation(m - 1)[:num_targets]
    p = np.full(m, 1e-12)
    harmless = np.setdiff1d(np.arange(m), targets)
    if route == "set":
        some = np.concatenate([[0], generator.permutation(harmless[1:])[: generator.integers(2, 6)]])
        p[some] = generator.dirichlet(np.full(len(some), 20.0)) * generator.uniform(0.85, 0.999)
    else:
        p[generator.choice(harmless)] = generator.uniform(0.3, 0.99)
    rest = 1 - p.sum()
    p[targets] += rest * generator.dirichlet(np.full(num_targets, generator.choice([0.1, 1.0, 100.0])))
    return Case(p / p.sum(), 0, CostMatrix.pairwise(m, {0: targets.tolist()}))


def radii_of_routes(case, found):
    """The true radius of each target, of each image: by its A and by its T, (images, targets)."""
    high = ndtri(case.p[case.costs.targets(case.label)])
    of_set = np.minimum(found.harmless.dense(len(case.p)) @ case.p, 1 - 1e-16)
    pair = pair_radius(ndtri(case.p[found.top])[:, None], high)
    size = found.set_size[:, None]
    by_set = np.where(size > 0, set_radius(ndtri(of_set)[:, None], high, np.maximum(size, 1)), 0)
    is_top = case.costs.targets(case.label) == found.top[:, None]
    return SIGMA * np.where(is_top, 0, np.maximum(pair, by_set))


def false_statements(case, images, generator):
    """Statement -> whether it is false, of each of some images; and the route of each."""
    counts0, counts = generator.multinomial(case.n0, case.p, images), generator.multinomial(case.n, case.p, images)
    labels = np.full(images, case.label)
    found = settled(counts0, labels, case.costs)
    truth = radii_of_routes(case, found)
    frame = certify_counts(counts0, counts, labels, costs=case.costs, sigma=SIGMA, sampling="fixed", alpha=ALPHA)
    claimed, jointly, upper = (np.stack(frame[name]) for name in ("target_radius", "pairwise_radius", "p_b_upper"))
    p_a, p_b = case.p[found.top], case.p[case.costs.targets(case.label)]
    others = np.where(np.arange(len(case.p)) == found.top[:, None], 0, case.p).max(axis=1)
    cost_at = generator.uniform(0, 1.5)  # a radius that no vote chose
    costs = np.arange(1, truth.shape[1] + 1)
    worst = [np.where((radius > 0) & (radius >= cost_at), 0, costs).max(axis=1) for radius in (claimed, truth)]
    pairs = SIGMA * pair_radius(ndtri(p_a)[:, None], ndtri(p_b))
    return {
        "group": frame["cost_sensitive_radius"].to_numpy() > truth.min(axis=1),
        "one target": claimed[:, 0] > truth[:, 0],
        "worst cost": worst[0] < worst[1],
        "multiclass": frame["multiclass_radius"].to_numpy() > SIGMA * pair_radius(ndtri(p_a), ndtri(others)),
        "standard": frame["standard_radius"].to_numpy() > SIGMA * np.maximum(0, ndtri(p_a)),
        "pairs": (
            (jointly > np.where(found.top[:, None] == case.costs.targets(case.label), 0, pairs)) | (upper < p_b)
        ).any(axis=1),
    }, frame["route"].to_numpy()


@pytest.mark.parametrize("route", ["pair", "set"])
@pytest.mark.parametrize("num_targets", [1, 9, 99, 999])
def test_statements_are_false_no_more_often_than_alpha(num_targets, route):
    generator = np.random.default_rng(num_targets)
    cases, images = (6, 400) if num_targets == 999 else (20, 400)
    false, taken = {}, []
    for _ in range(cases):
        found, taken_here = false_statements(case(num_targets, route, generator), images, generator)
        taken.append(taken_here)
        false = {name: [*false.get(name, []), rows] for name, rows in found.items()}
    assert np.mean([one.startswith(f"pair+{route}") or one == route for one in np.concatenate(taken)]) > 0.6
    for name, rows in false.items():
        assert np.sum(rows) <= binom.ppf(1 - CHANCE, np.size(rows), ALPHA), name


def test_the_check_sees_pairs_that_hold_one_by_one_and_not_jointly(monkeypatch):
    """Bonferroni is dropped from the pairs; of 99 targets some bound then fails in most images."""
    monkeypatch.setattr(certificates, "level_of_target", lambda alpha, n: level_of_target(alpha, np.ones_like(n)))
    tied = Case(np.array([0.5, *[0.5 / 99] * 99]), 0, CostMatrix.uniform(100), n=10_000)
    found, _ = false_statements(tied, 2000, np.random.default_rng(0))
    assert found["pairs"].mean() > 2 * ALPHA and found["group"].mean() <= ALPHA


def failures_of_bounds(case, settle, images=2000):
    """How often a bound fails on p_A, on p_T or on the share of one target, which together may at alpha."""
    generator = np.random.default_rng(0)
    counts0, counts = generator.multinomial(case.n0, case.p, images), generator.multinomial(case.n, case.p, images)
    found = settle(counts0, counts, np.full(images, case.label), case.costs)
    rows, target, bounds = np.arange(images), case.costs.targets(case.label)[0], CP2.bounds
    of_set = votes_of_sets(SparseVotes.from_dense(counts), found.harmless)
    failed = bounds.lower(counts[rows, found.top], case.n, found.lower) > case.p[found.top]
    failed |= bounds.lower(of_set, case.n, found.lower) > found.harmless.dense(len(case.p)) @ case.p + 1e-12
    return np.mean(failed | (bounds.upper(counts[:, target], case.n, found.upper) < case.p[target]))


MANY_HARMLESS = Case(np.array([0.02, *[0.98 / 49] * 49]), 1, CostMatrix.pairwise(50, {1: [0]}), n0=64, n=400)


def test_bounds_of_what_is_settled_fail_together_no_more_often_than_alpha():
    def honest(counts0, counts, labels, costs):
        return settled(counts0, labels, costs)

    assert failures_of_bounds(MANY_HARMLESS, honest) <= ALPHA


def test_the_check_sees_a_route_that_is_chosen_by_estimation_votes():
    def by_estimation(counts0, counts, labels, costs):
        return settled(counts, labels, costs)._replace(top=settled(counts0, labels, costs).top)

    assert failures_of_bounds(MANY_HARMLESS, by_estimation) > 2 * ALPHA


def test_the_check_sees_an_answer_that_is_chosen_by_estimation_votes():
    def by_estimation(counts0, counts, labels, costs):
        return settled(counts0, labels, costs)._replace(top=settled(counts, labels, costs).top)

    assert failures_of_bounds(MANY_HARMLESS, by_estimation) > 2 * ALPHA


def test_routes_have_a_line_each_at_the_top():
    assert "- pair:" in routes.__doc__ and "- set:" in routes.__doc__
