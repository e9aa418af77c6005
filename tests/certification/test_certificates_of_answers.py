"""Certificates under an answer that may abstain: by hand, and how often what they say is false."""

import itertools

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import multinomial

from raycsr import UserError, certify_counts
from raycsr.certification import METHODS
from raycsr.certification.answers import as_answer
from raycsr.certification.bounds import betting_lower, betting_upper, binomial_lower, binomial_upper
from raycsr.certification.routes import set_radius
from raycsr.costs import CostMatrix

SIGMA, ALPHA = 0.5, 0.05
UNIFORM, PAIR = CostMatrix.uniform(3), CostMatrix.pairwise(3, {0: [1]})
ANSWERS = ["majority", "threshold:0.7*pair:0/1", "threshold:0.3*uniform", "threshold:0=0.6,1=0.2", "threshold:1=0.45"]


def certify(counts0, counts, label=0, costs=PAIR, answer="majority", sampling="fixed", **options):
    labels = np.full(len(counts), label)
    return certify_counts(
        counts0,
        counts,
        labels,
        costs=costs,
        sigma=SIGMA,
        sampling=sampling,
        answer=answer,
        **{"alpha": ALPHA, **options},
    )


def one(*args, **options):
    return certify(*args, **options).to_dict("records")[0]


# By hand


def test_a_threshold_of_a_half_or_more_is_all_that_the_target_needs():
    row = one([[60, 4, 0]], [[600, 390, 10]])
    radius = SIGMA * (0 - ndtri(binomial_upper(390, 1000, ALPHA)))
    assert row["cost_sensitive_radius"] == row["target_radius"][0] == pytest.approx(radius, rel=1e-12)
    assert row["pairwise_radius"][0] == pytest.approx(radius, rel=1e-12)  # of one target, jointly is alone
    assert row["route"] == "threshold" and np.isnan(row["p_a_lower_group"])
    assert row["standard_radius"] == pytest.approx(SIGMA * ndtri(binomial_lower(600, 1000, ALPHA)))
    assert row["multiclass_radius"] == row["standard_radius"] and not row["abstain"]
    assert row["answer"] == "majority"


def test_it_holds_where_the_target_is_on_top():
    """Dogs on top with .45 of the votes: the majority never says dog nearby, where argmax does at once."""
    counts0, counts = [[20, 29, 15]], [[300, 450, 250]]
    radius = SIGMA * (0 - ndtri(binomial_upper(450, 1000, ALPHA)))
    assert one(counts0, counts)["cost_sensitive_radius"] == pytest.approx(radius, rel=1e-12) and radius > 0
    assert one(counts0, counts, answer="argmax")["cost_sensitive_radius"] == 0
    assert one(counts0, counts)["abstain"]


def test_a_group_pays_for_one_target_and_all_pairs_for_each():
    row = one([[60, 4, 0]], [[600, 390, 10]], costs=UNIFORM)
    alone = [SIGMA * -ndtri(binomial_upper(k, 1000, ALPHA)) for k in (390, 10)]
    jointly = [SIGMA * -ndtri(binomial_upper(k, 1000, ALPHA / 2)) for k in (390, 10)]
    assert row["target_radius"] == pytest.approx(alone, rel=1e-12)
    assert row["pairwise_radius"] == pytest.approx(jointly, rel=1e-12)
    assert row["p_b_upper"] == pytest.approx([binomial_upper(k, 1000, ALPHA / 2) for k in (390, 10)])


def test_a_target_without_a_threshold_goes_as_by_argmax_and_its_neighbour_by_its_own():
    counts0, counts = [[60, 4, 0]], [[600, 390, 10]]
    row, plain = (one(counts0, counts, costs=UNIFORM, answer=a) for a in ("threshold:1=0.7", "argmax"))
    assert row["target_radius"][0] == pytest.approx(SIGMA * (ndtri(0.7) - ndtri(binomial_upper(390, 1000, ALPHA))))
    assert row["target_radius"][1] == plain["target_radius"][1]
    assert row["p_a_lower_group"] == plain["p_a_lower_group"] and row["route"] == "pair+threshold"
    assert row["multiclass_radius"] == plain["multiclass_radius"]  # of class 0, which has no threshold
    assert row["pairwise_radius"][1] == plain["pairwise_radius"][1]


def test_a_low_threshold_is_a_route_where_selection_votes_favour_it():
    row = one([[30, 14, 20]], [[450, 220, 330]], answer="threshold:1=0.45")
    assert row["route"] == "threshold"
    assert row["target_radius"][0] == pytest.approx(SIGMA * (ndtri(0.45) - ndtri(binomial_upper(220, 1000, ALPHA))))
    row = one([[60, 4, 0]], [[600, 390, 10]], answer="threshold:1=0.1")
    assert (
        row["route"] == "pair"
        and row["target_radius"] == one([[60, 4, 0]], [[600, 390, 10]], answer="argmax")["target_radius"]
    )


def test_abstentions():
    """p_A of .6, proven above .55: below .5 the rival's share counts, above it the threshold."""
    counts0, counts = [[40, 20, 4]], [[600, 300, 100]]
    said = {tau: not one(counts0, counts, answer=f"threshold:0={tau}")["abstain"] for tau in (0.3, 0.5, 0.55, 0.6)}
    assert said == {0.3: True, 0.5: True, 0.55: True, 0.6: False}
    close = [[20, 19, 15]], [[360, 330, 310]]  # .36 against .33: unproven, though .36 is above .2
    assert one(*close, answer="threshold:0=0.2")["abstain"]
    apart = [[25, 15, 14]], [[420, 290, 290]]  # proven on top without a majority
    assert not one(*apart, answer="threshold:0=0.2")["abstain"] and one(*apart)["abstain"]
    assert not one(*apart, answer="threshold:1=0.2")["abstain"]  # an answer that asks for no majority


def test_a_threshold_above_a_half_shortens_the_radii_in_which_the_class_is_answered():
    row = one([[60, 4, 0]], [[900, 90, 10]], answer="threshold:0=0.7")
    radius = SIGMA * (ndtri(binomial_lower(900, 1000, ALPHA)) - ndtri(0.7))
    assert row["standard_radius"] == row["multiclass_radius"] == pytest.approx(radius)
    low = one([[60, 4, 0]], [[900, 90, 10]], answer="threshold:0=0.3")
    plain = one([[60, 4, 0]], [[900, 90, 10]], answer="argmax")
    assert (low["standard_radius"], low["multiclass_radius"]) == (plain["standard_radius"], plain["multiclass_radius"])


def test_sequential_votes_use_a_bound_that_holds_at_any_stop():
    row = one([[60, 4, 0]], [[600, 390, 10]], sampling="sequential")
    assert row["target_radius"][0] == pytest.approx(SIGMA * -ndtri(betting_upper(390, 1000, ALPHA)))
    assert row["standard_radius"] == row["multiclass_radius"]
    assert row["standard_radius"] == pytest.approx(SIGMA * ndtri(betting_lower(600, 1000, ALPHA)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("answer", ["argmax", *ANSWERS])
def test_any_method_certifies_any_answer_and_rows_without_votes_certify_nothing(method, answer):
    sampling = METHODS[method].design
    counts0, counts = [[60, 4, 0], [0, 0, 0], [0, 64, 0]], [[600, 390, 10], [0, 0, 0], [0, 0, 0]]
    errors = [None, "unreadable", None]
    if sampling == "fixed":
        errors[2] = "unreadable, too"
    costs = CostMatrix([[0, 1, 0], [2, 0, 1], [0, 0, 0]])
    frame = certify_counts(
        counts0, counts, [0, 1, 1], costs=costs, sigma=1, sampling=sampling, answer=answer, errors=errors, method=method
    )
    for column in ("standard_radius", "cost_sensitive_radius"):
        assert (frame[column][1:] == 0).all()
    assert not frame["target_radius"][1].any() and not frame["pairwise_radius"][2].any()
    assert frame["abstain"].tolist() == [frame["abstain"][0], False, sampling == "sequential"]


def test_no_images_and_no_costs():
    assert certify(np.zeros((0, 3), int), np.zeros((0, 3), int), answer="threshold:0=0.2").empty
    row = one([[60, 4, 0]], [[600, 390, 10]], costs=CostMatrix(np.zeros((3, 3))), answer="threshold:0=0.2,1=0.7")
    assert np.isnan(row["cost_sensitive_radius"]) and row["standard_radius"] > 0


def test_an_answer_of_other_classes_is_refused():
    answer = as_answer("threshold:0=0.2", 4)
    with pytest.raises(UserError, match="of 4 classes, here are 3"):
        one([[60, 4, 0]], [[600, 390, 10]], answer=answer)
    with pytest.raises(UserError, match="did you mean majority"):
        one([[60, 4, 0]], [[600, 390, 10]], answer="majorty")


# How often what is said is false


def truth(p, label, costs, answer):
    """The true radii: of each class, in which it is answered (0 where it is not), and of targets, in which never."""
    taus = as_answer(answer, 3).of_classes(3)
    answered = np.zeros(3)
    for k in range(3):
        pair = (ndtri(p[k]) - ndtri(np.delete(p, k).max())) / 2
        answered[k] = max(0.0, min(pair, ndtri(p[k]) - ndtri(taus[k]) if taus[k] else np.inf))
    never = []
    for j in costs.targets(label):
        others = -np.sort(-np.delete(p, j))
        by_class = [float(set_radius(ndtri(np.cumsum(others)[t]), ndtri(p[j]), t + 1)) for t in range(len(others) - 1)]
        never.append(max(*by_class, ndtri(taus[j]) - ndtri(p[j]) if taus[j] else 0.0, 0.0))
    return SIGMA * answered, SIGMA * np.array(never)


def untrue(frame, p, label, costs, answer):
    """Whether each row states what is not so: multiclass, standard, abstain, group, all pairs; bool (5, N)."""
    answered, never = truth(p, label, costs, answer)
    says = answered[frame["prediction"].to_numpy(int)]
    joint = np.stack(frame["pairwise_radius"]) > never + 1e-12
    joint |= np.stack(frame["p_b_upper"]) < p[costs.targets(label)]
    return np.array(
        [
            frame["multiclass_radius"] > says + 1e-12,
            frame["standard_radius"] > says + 1e-12,
            ~frame["abstain"] & (says <= 0),
            frame["cost_sensitive_radius"] > never.min() + 1e-12,
            joint.any(axis=1),
        ]
    )


SHARES = [(0.5, 0.3, 0.2), (0.34, 0.36, 0.3), (0.45, 0.45, 0.1), (0.2, 0.7, 0.1), (0.72, 0.27, 0.01), (0.3, 0.6, 0.1)]


def outcomes(n):
    return np.array([(i, j, n - i - j) for i, j in itertools.product(range(n + 1), repeat=2) if i + j <= n])


@pytest.mark.parametrize("answer", ["argmax", *ANSWERS])
@pytest.mark.parametrize("costs", [PAIR, UNIFORM], ids=["pair", "uniform"])
def test_every_statement_is_false_with_probability_alpha_at_most(answer, costs):
    """Enumerated: given each outcome of the selection votes, over all outcomes of the estimation votes."""
    selections, estimations = outcomes(6), outcomes(24)
    counts0, counts = np.repeat(selections, len(estimations), 0), np.tile(estimations, (len(selections), 1))
    frame = certify(counts0, counts, costs=costs, answer=answer)
    for p in np.array(SHARES):
        chance = multinomial.pmf(estimations, 24, p)
        false = untrue(frame, p, 0, costs, answer).reshape(5, len(selections), -1) @ chance
        assert false.max() <= ALPHA


def test_the_check_sees_a_wrong_level_and_the_next_best_class_instead_of_an_abstention():
    p, estimations = np.array([0.5, 0.3, 0.2]), outcomes(80)
    chance, counts0 = multinomial.pmf(estimations, 80, p), np.tile([4, 1, 1], (len(estimations), 1))
    right, wrong = (certify(counts0, estimations, costs=UNIFORM, alpha=alpha) for alpha in (ALPHA, 3 * ALPHA))
    false = [untrue(frame, p, 0, UNIFORM, "majority")[3] @ chance for frame in (right, wrong)]
    assert false[0] <= ALPHA < false[1]
    # dog .6 with a threshold of .7, cat .3: "never cat" stands on the dog, who must not be passed over for the cat
    votes = [[20, 38, 6]], [[300, 600, 100]]
    never = one(*votes, costs=CostMatrix.pairwise(3, {2: [0]}), label=2, answer="threshold:1=0.7")["target_radius"][0]
    assert never > 0 and as_answer("threshold:1=0.7", 3).of([[0.3, 0.6, 0.1]]).isna().all()


@pytest.mark.parametrize("answer", ["majority", "threshold:0.3*uniform", "threshold:0=0.6,1=0.2"])
@pytest.mark.parametrize("method", ["e-1", "sequence-2"])
def test_sequential_statements_are_ever_false_with_probability_alpha_at_most(answer, method):
    """Whatever stops the sampling: false at one look is enough."""
    paths, generator = 1000, np.random.default_rng(0)
    for p, costs in zip(np.array(SHARES[:3]), (UNIFORM, PAIR, UNIFORM), strict=True):
        counts0 = generator.multinomial(20, p, paths)
        counts, ever, n = np.zeros_like(counts0), np.zeros((5, paths), bool), 0
        for look in (64, 192, 640):
            counts = counts + generator.multinomial(look - n, p, paths)
            n = look
            frame = certify(counts0, counts, costs=costs, answer=answer, sampling="sequential", method=method)
            ever |= untrue(frame, p, 0, costs, answer)
        assert ever.mean(axis=1).max() <= ALPHA + 3 * np.sqrt(ALPHA / paths)


def test_the_check_sees_a_fixed_bound_that_is_peeked_at():
    paths, generator, p = 1000, np.random.default_rng(0), np.array(SHARES[0])
    counts0 = generator.multinomial(20, p, paths)
    counts, ever = np.zeros_like(counts0), np.zeros(paths, bool)
    for _ in range(20):
        counts = counts + generator.multinomial(64, p, paths)
        ever |= untrue(certify(counts0, counts), p, 0, PAIR, "majority")[3]
    assert ever.mean() > 2 * ALPHA


def test_the_majority_loses_no_accuracy_and_in_truth_no_radius():
    generator = np.random.default_rng(0)
    for p in generator.dirichlet([1, 1, 1], 300):
        (_, plain), (_, majority) = (truth(p, 0, UNIFORM, answer) for answer in ("argmax", "majority"))
        assert (majority >= plain - 1e-12).all()
    counts0, counts = (
        np.array([generator.multinomial(n, p) for p in generator.dirichlet([1, 1, 1], 200)]) for n in (20, 200)
    )
    plain, majority = (certify(counts0, counts, answer=answer) for answer in ("argmax", "majority"))
    assert (plain["abstain"] == majority["abstain"]).all()
    assert (plain["standard_radius"] == majority["standard_radius"]).all()


def test_within_the_radius_a_halfspace_never_answers_the_target():
    """A closed form: class 1 where z_1 >= t, class 2 where z_1 <= -s, else class 0."""
    t, s, d = 0.3, 0.5, np.linspace(-3, 3, 6001)
    share = np.stack([1 - ndtr(d - t) - ndtr(-s - d), ndtr(d - t), ndtr(-s - d)], axis=-1)  # at x + sigma d
    for answer in ["majority", "threshold:1=0.7", "threshold:1=0.4"]:
        says = as_answer(answer, 3).of(share)
        nearest = SIGMA * np.abs(d[(says == 1).to_numpy(bool, na_value=False)]).min()
        _, never = truth(share[3000], 0, PAIR, answer)
        assert never.min() <= nearest + 1e-3
        assert never.min() == pytest.approx(nearest, abs=2e-3) or answer == "threshold:1=0.4"
