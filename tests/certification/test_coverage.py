"""End to end: an image's certificate is false no more often than alpha says, and the check sees when it is."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import norm

from raycsr.certification import certificates
from raycsr.certification.certificates import certify_counts
from raycsr.certification.routes import set_radius
from raycsr.costs import CostMatrix

IMAGES = 20_000
SIGMA = 0.5


@dataclass
class Case:
    """An image with known vote shares p, and the mistakes that are costly on it."""

    costs: CostMatrix
    label: int
    p: np.ndarray
    n: int = 2_000


def tail(m, *shares):
    """Vote shares of m classes: those given, and the rest spread unevenly over the others."""
    others = np.arange(1, m - len(shares) + 1) ** -0.5
    return np.concatenate([shares, others * (1 - sum(shares)) / others.sum()])


CASES = {
    "1 target, unsure which harmless class": Case(CostMatrix.pairwise(10, {2: [1]}), 2, tail(10, 0.45, 0.1, 0.3)),
    "1 target, on top": Case(CostMatrix.pairwise(10, {2: [0]}), 2, tail(10, 0.45, 0.3, 0.1)),
    "1 target, many harmless ones": Case(CostMatrix.pairwise(5, {2: [3]}), 2, np.array([0.28, 0.27, 0.26, 0.15, 0.04])),
    "9 targets, right": Case(CostMatrix.uniform(10), 0, tail(10, 0.7, 0.1)),
    "9 targets, one of them on top": Case(CostMatrix.uniform(10), 1, tail(10, 0.4, 0.35)),
    "9 targets, one of them on top by a majority": Case(CostMatrix.uniform(10), 1, tail(10, 0.7, 0.1)),
    "9 targets, a near tie": Case(CostMatrix.uniform(10), 0, tail(10, 0.36, 0.35)),
    "999 targets, right": Case(CostMatrix.uniform(1000), 0, tail(1000, 0.6, 0.05)),
    "999 targets, one of them on top": Case(CostMatrix.uniform(1000), 1, tail(1000, 0.4, 0.3)),
}


def by_any_route(case):
    """The true radius of each target: by the one class, or by the set, that rules it out farthest."""
    p = case.p.copy()
    radii = []
    for target in case.costs.targets(case.label):
        shares = np.cumsum(-np.sort(-np.delete(p, target)))[:-1]  # not of all classes, which may have a share of 1
        radii.append(set_radius(norm.ppf(shares), norm.ppf(p[target]), np.arange(1, len(shares) + 1)).max())
    return SIGMA * np.array(radii)


def false_statements(case, alpha, certify):
    """Whether what is stated of each simulated image is untrue: standard, multiclass, pairs, group; (N,) each."""
    generator = np.random.default_rng(1)
    counts0 = generator.multinomial(20, case.p, size=IMAGES)
    counts = generator.multinomial(case.n, case.p, size=IMAGES)
    labels = np.full(IMAGES, case.label)
    frame = certify(counts0, counts, labels, costs=case.costs, sigma=SIGMA, sampling="fixed", alpha=alpha)

    p_a = case.p[frame["prediction"].to_numpy(int)]
    standard = (frame["p_a_lower_standard"] > p_a) | (frame["standard_radius"] > SIGMA * norm.ppf(p_a).clip(0))

    others = np.where(np.arange(len(case.p)) == frame["prediction"].to_numpy(int)[:, None], 0, case.p).max(axis=1)
    multiclass = frame["multiclass_radius"] > (SIGMA / 2 * (norm.ppf(p_a) - norm.ppf(others))).clip(0)

    p_b = case.p[case.costs.targets(case.label)]
    true_radius = (SIGMA / 2 * (norm.ppf(case.p.max()) - norm.ppf(p_b))).clip(0)  # 0: nothing is claimed
    all_pairs = (
        (frame["p_a_lower"] > p_a)
        | (np.stack(frame["p_b_upper"]) < p_b).any(axis=1)
        | (np.stack(frame["pairwise_radius"]) > true_radius).any(axis=1)
    )
    cost_sensitive = frame["cost_sensitive_radius"] > by_any_route(case).min()
    return standard, multiclass, all_pairs, cost_sensitive


def check_coverage(case, alpha, certify=certify_counts):
    """The test: each statement is false for at most a share alpha of the images, but for chance."""
    chance = 3 * np.sqrt(alpha * (1 - alpha) / IMAGES)
    for untrue in false_statements(case, alpha, certify):
        assert untrue.mean() <= alpha + chance


@pytest.mark.parametrize("name", CASES)
def test_certificates_fail_no_more_often_than_alpha(name):
    check_coverage(CASES[name], alpha=0.05)


CHECKS = np.unique(np.geomspace(64, 4096, 14).astype(int))
PATHS = 3_000


def ever_untrue(case, alpha, sampling, method=None):
    """The share of images about which a certificate is untrue after any of the checks, as votes come in.

    Returns:
        Of the standard, the multiclass and the group statement, and of that about all pairs.
    """
    generator = np.random.default_rng(1)
    counts0 = generator.multinomial(20, case.p, size=PATHS)
    answers = counts0.argmax(axis=1)
    top, p_b = case.p[answers], case.p[case.costs.targets(case.label)]
    others = np.where(np.arange(len(case.p)) == answers[:, None], 0, case.p).max(axis=1)
    true_multiclass = (SIGMA / 2 * (norm.ppf(top) - norm.ppf(others))).clip(0)
    true_radius = (SIGMA / 2 * (norm.ppf(case.p.max()) - norm.ppf(p_b))).clip(0)
    counts, n, untrue = np.zeros_like(counts0), 0, np.zeros((4, PATHS), bool)
    for check in CHECKS:
        counts = counts + generator.multinomial(check - n, case.p, size=PATHS)
        n = check
        votes = (counts0, counts, np.full(PATHS, case.label))
        frame = certify_counts(*votes, costs=case.costs, sigma=SIGMA, alpha=alpha, sampling=sampling, method=method)
        untrue[0] |= (frame["p_a_lower_standard"] > top).to_numpy()
        untrue[1] |= (frame["multiclass_radius"] > true_multiclass).to_numpy()
        untrue[2] |= (frame["cost_sensitive_radius"] > by_any_route(case).min()).to_numpy()
        untrue[3] |= (frame["p_a_lower"] > top) | (np.stack(frame["p_b_upper"]) < p_b).any(axis=1)
        untrue[3] |= (np.stack(frame["pairwise_radius"]) > true_radius).any(axis=1)
    return untrue.mean(axis=1)


@pytest.mark.parametrize("method", ["sequence-2", "e-1", "e-2"])
@pytest.mark.parametrize(
    "name",
    [
        "1 target, unsure which harmless class",
        "9 targets, right",
        "9 targets, a near tie",
        "1 target, many harmless ones",
    ],
)
def test_sequential_certificates_fail_no_more_often_than_alpha_whenever_one_stops(name, method):
    untrue = ever_untrue(CASES[name], 0.05, "sequential", method)
    assert max(untrue) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / PATHS)


def test_the_check_sees_certificates_for_a_fixed_n_that_are_peeked_at():
    untrue = ever_untrue(CASES["1 target, unsure which harmless class"], 0.05, "fixed", "clopper-pearson")
    assert min(untrue[0], untrue[3]) > 0.1


def test_the_check_sees_a_doubled_alpha():
    def certify_at_twice_alpha(*votes, alpha, **options):
        return certify_counts(*votes, alpha=2 * alpha, **options)

    case = CASES["1 target, unsure which harmless class"]
    with pytest.raises(AssertionError):
        check_coverage(case, alpha=0.05, certify=certify_at_twice_alpha)


def test_the_check_sees_the_published_level_of_the_upper_bounds(monkeypatch):
    """It is alpha / 2 * |Omega|, about a half at 999 targets, where alpha / 2 / |Omega| was meant."""
    case = CASES["999 targets, right"]
    check_coverage(case, alpha=0.001)
    monkeypatch.setattr(certificates, "level_of_target", lambda alpha, num_targets: alpha / 2 * num_targets)
    with pytest.raises(AssertionError):
        check_coverage(case, alpha=0.001)
