"""What may be said: by hand, enumerated over all votes and looks, and deployed at the edge of a certificate."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from raycsr import CostMatrix, UserError, certify_counts
from raycsr.certification import binomial_lower, looks
from raycsr.certification.predictions import Predictions, certify_unlabelled, shares_of

LEVEL = 0.05
MAJORITY, ARGMAX = np.full(3, 0.5), np.zeros(3)


def say(taus, counts0, counts, *, alpha_p=LEVEL, n=10_000):
    return Predictions(taus, alpha_p=alpha_p, n=n).answers([counts0], [counts])[0]


def test_the_answer_is_the_top_of_the_selection_votes_or_none():
    assert say(MAJORITY, [60, 4, 0], [60, 4, 0]) == 0
    assert say(MAJORITY, [4, 60, 0], [60, 4, 0]) == -1  # never the next best instead
    assert say(MAJORITY, [32, 32, 0], [60, 4, 0]) == 0  # of a tie the lowest
    assert say(MAJORITY, [60, 4, 0], [0, 0, 0]) == -1  # no votes prove nothing


def test_argmax_needs_no_majority_but_every_rival_beaten():
    assert say(ARGMAX, [30, 17, 17], [460, 270, 270]) == 0 and say(MAJORITY, [30, 17, 17], [460, 270, 270]) == -1
    assert say(ARGMAX, [30, 30, 4], [460, 430, 110]) == -1  # one rival may be as likely
    assert say(ARGMAX, [30, 30, 4], [430, 460, 110]) == -1


def test_a_class_with_a_threshold_of_its_own_needs_more():
    taus = np.array([0.7, 0, 0])
    assert say(taus, [60, 4, 0], [650, 350, 0]) == -1 and say(taus, [4, 60, 0], [350, 650, 0]) == 1
    assert say(taus, [60, 4, 0], [800, 200, 0]) == 0
    low = np.array([0.3, 0, 0])  # below 1/2 the rivals count as well
    assert say(low, [30, 17, 17], [460, 270, 270]) == 0 and say(low, [30, 30, 4], [460, 430, 110]) == -1


def test_what_can_hardly_be_said_any_more_is_given_up():
    predictions = Predictions(MAJORITY, alpha_p=0.001, n=1024)
    assert predictions.are_decided([[64, 0, 0]], [[64, 0, 0]])
    assert not predictions.are_decided([[40, 24, 0]], [[40, 24, 0]])
    assert predictions.are_decided([[24, 20, 20]], [[80, 56, 56]])  # no majority comes of that
    assert predictions.are_decided([[24, 20, 20]], [[0, 512, 512]])
    assert not Predictions(ARGMAX, alpha_p=0.001, n=10_048).are_decided([[24, 20, 20]], [[80, 56, 56]])


def test_shares_are_those_of_the_top_classes():
    assert shares_of([[1, 6, 0, 1], [0, 0, 0, 0]], most=2) == [{1: 0.75, 0: 0.125}, {}]


@pytest.mark.parametrize(("alpha_p", "n", "fact"), [(0, 100, "alpha_p is 0"), (1e-9, 8, "n=8")])
def test_demands_that_nothing_meets_are_refused(alpha_p, n, fact):
    with pytest.raises(UserError, match=fact):
        Predictions(MAJORITY, alpha_p=alpha_p, n=n)


# How often something is said that g does not answer, at any look


def ever_said(taus, shares, *, n=40, first=(9, 7, 0), proven=None):
    """The probability that class 0 is said at some look, one after each vote: enumerated over all counts."""
    predictions = Predictions(taus, alpha_p=LEVEL, n=10_000)
    alive, said = np.zeros((n + 2, n + 2, n + 2)), 0.0  # by votes of class 0, 1 and 2
    alive[0, 0, 0] = 1.0
    for _ in range(n):
        after = np.zeros_like(alive)
        for k, share in enumerate(shares):
            after += share * np.roll(alive, 1, axis=k)
        counts = np.argwhere(after > 0)
        stop = proven(counts) if proven else predictions.answers(np.tile(first, (len(counts), 1)), counts) == 0
        said += after[tuple(counts[stop].T)].sum()
        after[tuple(counts[stop].T)] = 0
        alive = after
    return said


@pytest.mark.parametrize("taus", [ARGMAX, MAJORITY, np.array([0.3, 0, 0])], ids=["argmax", "majority", "threshold:.3"])
@pytest.mark.parametrize("shares", [(0.5, 0.5, 0), (0.4, 0.4, 0.2), (1 / 3, 1 / 3, 1 / 3), (0.45, 0.46, 0.09)])
def test_at_a_tie_it_is_hardly_ever_said_whenever_one_looks(taus, shares):
    assert ever_said(taus, shares) <= LEVEL


@pytest.mark.parametrize("tau", [0.3, 0.5, 0.6, 0.9])
def test_at_the_threshold_it_is_hardly_ever_said(tau):
    shares = (tau, (1 - tau) / 2, (1 - tau) / 2)
    assert 0 < ever_said(np.array([tau, 0, 0]), shares) <= LEVEL


def test_a_binomial_test_at_every_look_says_it_too_often():
    """Cohen's `predict` is for one n; what is made wrong on purpose is seen."""

    def by_binomial(counts):
        return binomial_lower(counts[:, 0], counts.sum(axis=1), LEVEL) > 0.5

    assert ever_said(ARGMAX, (0.5, 0.5, 0), proven=by_binomial) > 2 * LEVEL


# Deployed within a certified radius of a half-space, whose probabilities are known: p falls from Phi(z) to Phi(z - R)

DEPLOYMENTS = 10_000
SIGMA, ALPHA, ALPHA_P = 0.5, 0.05, 0.05


def deploy(predictions, shares, generator):
    """What is said at each image of these shares (N, m), by votes of its own; -1 where it abstains."""
    counts0 = generator.multinomial(64, shares)
    counts, said = np.zeros_like(counts0), np.full(len(shares), -1)
    going = np.arange(len(shares))
    for look in looks(predictions.n, 64)[1:]:
        more = look - counts[going[0]].sum()
        counts[going] += generator.multinomial(more, shares[going])
        said[going] = predictions.answers(counts0[going], counts[going])
        going = going[said[going] < 0]
        if not len(going):
            break
    return said


@pytest.mark.parametrize("z", [0.02, 0.3, 1.0])
def test_at_the_edge_of_a_certified_radius_a_costly_class_is_hardly_ever_said(z):
    """Class 1 is costly. A certificate that is too long lets x' across the border, where it is the answer."""
    generator = np.random.default_rng(int(100 * z))
    p = ndtr(z)
    shares = np.array([p, 1 - p])
    votes = [generator.multinomial(n, shares, DEPLOYMENTS) for n in (64, 1000)]
    certificates = certify_counts(
        *votes, np.zeros(DEPLOYMENTS, int), costs="pair:0/1", sigma=SIGMA, sampling="fixed", alpha=ALPHA
    )
    radius = certificates["cost_sensitive_radius"].to_numpy()
    at_edge = ndtr(ndtri(p) - radius / SIGMA)
    false = radius > SIGMA * z
    predictions = Predictions(np.zeros(2), alpha_p=ALPHA_P, n=1024)
    said = deploy(predictions, np.stack([at_edge, 1 - at_edge], axis=1), generator)
    assert false.mean() <= ALPHA + 3 * np.sqrt(ALPHA / DEPLOYMENTS)
    assert (said[radius > 0] == 1).mean() <= ALPHA + ALPHA_P
    assert (said[(radius > 0) & ~false] == 1).mean() <= ALPHA_P


@pytest.mark.parametrize("taus", [np.zeros(2), np.full(2, 0.5)], ids=["argmax", "majority"])
def test_at_a_tie_each_class_is_hardly_ever_said(taus):
    """Where x' is on the border itself neither answer is g's: to say one is as likely as alpha_p."""
    shares = np.full((DEPLOYMENTS, 2), 0.5)
    said = deploy(Predictions(taus, alpha_p=ALPHA_P, n=1024), shares, np.random.default_rng(1))
    assert (said >= 0).mean() <= ALPHA_P and (said == -1).any()


# Without labels


@pytest.mark.parametrize("answer", ["argmax", "majority", "threshold:1=0.7,2=0.3"])
@pytest.mark.parametrize("sampling", ["fixed", "sequential"])
def test_the_radius_for_each_possible_class_is_that_of_an_image_of_this_class(sampling, answer):
    counts0, counts = [[60, 4, 0], [20, 24, 20]], [[900, 90, 10], [100, 500, 400]]
    costs = CostMatrix.pairwise(3, {0: [1], 1: [0, 2]})
    facts = {"sigma": SIGMA, "sampling": sampling, "answer": answer}
    rows = certify_unlabelled(counts0, counts, costs=costs, **facts)
    for y in (0, 1):
        labelled = certify_counts(counts0, counts, [y, y], costs=costs, **facts)
        assert [of_image[y] for of_image in rows["radius_if"]] == labelled["cost_sensitive_radius"].tolist()
        for column in ("prediction", "abstain", "standard_radius", "multiclass_radius"):
            assert rows[column].tolist() == labelled[column].tolist()
    assert all(np.isnan(of_image[2]) for of_image in rows["radius_if"])  # class 2 has no costly mistake
    if answer == "argmax":
        assert rows["radius_if"][1][0] == 0  # it is answered by class 1, which would be costly


def test_without_costs_there_is_no_radius_if_and_errors_certify_nothing():
    rows = certify_unlabelled(
        [[64, 0], [0, 0]], [[64, 0], [0, 0]], sigma=1, sampling="sequential", errors=[None, "bad"]
    )
    assert "radius_if" not in rows and rows["prediction"].isna().tolist() == [False, True]
    assert rows["standard_radius"][0] > 0 and rows["standard_radius"][1] == 0
