"""Certificates by hand, and what must hold of every certificate."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq
from scipy.stats import binom, norm

from raycsr.certification import summarize
from raycsr.certification.by_class import costliest_images, pairwise_robustness
from raycsr.certification.certificates import SparseVotes, certify_counts, certify_votes
from raycsr.costs import CostMatrix
from raycsr.errors import UserError

SIGMA = 0.5
CAT, DOG, SHIP = 0, 1, 2
CAT_FOR_DOG = CostMatrix.pairwise(3, {CAT: [DOG]})


def lowest_share(votes, n, level):
    """The p at which `votes` or more of n have probability `level`, straight from the binomial tail."""
    return brentq(lambda p: binom.sf(votes - 1, n, p) - level, 0, 1, xtol=1e-15)


def certify_one(selection, estimation, label, costs, **options):
    """The certificate of one image."""
    return certify_counts(
        [selection], [estimation], [label], costs=costs, sigma=SIGMA, sampling="fixed", **options
    ).iloc[0]


# Costs as a command line writes them


def test_costs_may_be_written_as_a_command_line_does():
    counts = [[[9, 1, 0]], [[90, 6, 4]]]
    written = certify_counts(*counts, [1], costs="seed:1", sigma=SIGMA, sampling="fixed")
    pd.testing.assert_frame_equal(
        written, certify_counts(*counts, [1], costs=CostMatrix.seedwise(3, [1]), sigma=SIGMA, sampling="fixed")
    )
    for costs, message in (("seed:8", "class 8 is not one of the 3"), ("seed:cat", "no class names; use 0 to 2")):
        with pytest.raises(UserError, match=message):
            certify_counts(*counts, [1], costs=costs, sigma=SIGMA, sampling="fixed")


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        (
            "seed:8",
            r"costs 'seed:8' needs the number of classes.*CostMatrix.from_spec\('seed:8', num_classes",
        ),
        (np.ones((3, 3)), r"costs are a ndarray; give a raycsr.CostMatrix, such as CostMatrix\(values\)"),
        (None, "costs are a NoneType; give a raycsr.CostMatrix"),
    ],
)
def test_what_is_no_cost_matrix_is_told_how(costs, message):
    votes = SparseVotes.from_dense([[9, 1, 0]])
    certificates = certify_one([9, 1, 0], [90, 6, 4], CAT, CAT_FOR_DOG).to_frame().T
    calls = [
        lambda: certify_votes(votes, votes, [1], costs=costs, sigma=SIGMA, sampling="fixed"),
        lambda: summarize(certificates, costs=costs, radii=0.1),
        lambda: pairwise_robustness(certificates, costs=costs, radius=0.1),
        lambda: costliest_images(certificates, costs=costs, radius=0.1, k=1),
    ]
    for call in calls:
        with pytest.raises(UserError, match=message):
            call()


# By hand


def test_standard_certificate_spends_all_of_alpha():
    row = certify_one([9, 1, 0], [90, 6, 4], CAT, CAT_FOR_DOG, alpha=0.01)
    expected = lowest_share(90, 100, 0.01)
    assert row.prediction == CAT
    assert not row.abstain
    assert row.p_a_lower_standard == pytest.approx(expected, rel=1e-9)
    assert row.standard_radius == pytest.approx(SIGMA * norm.ppf(expected), rel=1e-9)


def test_cost_sensitive_certificate_shares_alpha_out():
    costs = CostMatrix.pairwise(3, {CAT: [DOG, SHIP]})
    row = certify_one([9, 1, 0], [700, 290, 10], CAT, costs, alpha=0.01)
    low = lowest_share(700, 1000, 0.009)
    dog, ship = (1 - lowest_share(1000 - votes, 1000, 0.0005) for votes in (290, 10))
    assert dog > 1 - low > ship  # so that each of the two bounds on a target is used once
    assert row.p_a_lower == pytest.approx(low, rel=1e-9)
    np.testing.assert_allclose(row.p_b_upper, [1 - low, ship], rtol=1e-9)
    by_hand = [SIGMA * norm.ppf(low), SIGMA / 2 * (norm.ppf(low) - norm.ppf(ship))]
    np.testing.assert_allclose(row.pairwise_radius, by_hand, rtol=1e-9)
    dog, ship = (1 - lowest_share(1000 - votes, 1000, 0.001) for votes in (290, 10))  # each by itself: not halved
    assert row.p_a_lower_group == pytest.approx(low, rel=1e-9)
    by_hand = [SIGMA / 2 * (norm.ppf(low) - norm.ppf(min(upper, 1 - low))) for upper in (dog, ship)]
    np.testing.assert_allclose(row.target_radius, by_hand, rtol=1e-9)
    assert row.cost_sensitive_radius == row.target_radius.min()
    assert row.method == "cp-2" and row.route == "pair"


def test_multiclass_certificate_shares_alpha_with_the_runner_up():
    row = certify_one([9, 1, 0], [450, 300, 250], CAT, CAT_FOR_DOG, alpha=0.01)
    low, dog = lowest_share(450, 1000, 0.009), 1 - lowest_share(700, 1000, 0.001)
    assert row.multiclass_radius == pytest.approx(SIGMA / 2 * (norm.ppf(low) - norm.ppf(dog)), rel=1e-9)
    assert row.abstain and row.standard_radius == 0 < row.multiclass_radius
    wrong = certify_one([0, 1, 9], [250, 300, 450], CAT, CAT_FOR_DOG, alpha=0.01)  # what is said is about A
    assert (wrong.prediction, wrong.multiclass_radius) == (SHIP, pytest.approx(row.multiclass_radius, rel=1e-12))


def test_the_method_of_before_says_what_it_said():
    costs = CostMatrix.pairwise(3, {CAT: [DOG, SHIP]})
    row = certify_one([9, 1, 0], [700, 290, 10], CAT, costs, method="clopper-pearson")
    assert row.cost_sensitive_radius == row.pairwise_radius.min() and np.isnan(row.multiclass_radius)
    assert row.method == "clopper-pearson" and (row.target_radius == row.pairwise_radius).all()
    assert row.cost_sensitive_radius < certify_one([9, 1, 0], [700, 290, 10], CAT, costs).cost_sensitive_radius


def test_votes_that_all_agree_by_closed_form():
    row = certify_one([10, 0, 0], [100, 0, 0], CAT, CAT_FOR_DOG, alpha=0.001)
    assert row.standard_radius == pytest.approx(SIGMA * norm.ppf(0.001 ** (1 / 100)), rel=1e-12)
    assert row.cost_sensitive_radius == pytest.approx(SIGMA * norm.ppf(0.0009 ** (1 / 100)), rel=1e-12)


def test_no_majority_is_needed_to_rule_a_target_out():
    row = certify_one([5, 0, 4], [480, 20, 500], CAT, CAT_FOR_DOG)
    assert row.abstain
    assert row.standard_radius == 0
    assert row.cost_sensitive_radius > 0.35


def test_the_top_class_need_not_be_the_true_one():
    row = certify_one([1, 0, 9], [50, 20, 930], CAT, CAT_FOR_DOG)
    assert row.prediction == SHIP
    assert row.cost_sensitive_radius > row.standard_radius > 0


def test_a_target_on_top_has_radius_zero_and_the_others_keep_theirs():
    costs = CostMatrix.pairwise(3, {CAT: [DOG, SHIP]})
    row = certify_one([0, 9, 1], [50, 930, 20], CAT, costs, alpha=0.01)
    assert row.prediction == DOG
    assert row.pairwise_radius[0] == row.cost_sensitive_radius == 0
    assert row.pairwise_radius[1] > 0
    assert row.p_b_upper[0] == pytest.approx(1 - lowest_share(70, 1000, 0.0005), rel=1e-9)


def test_a_class_without_targets_has_no_cost_sensitive_radius():
    row = certify_one([0, 9, 1], [0, 95, 5], DOG, CAT_FOR_DOG)
    assert np.isnan(row.cost_sensitive_radius)
    assert len(row.pairwise_radius) == len(row.p_b_upper) == 0
    assert row.standard_radius > 0


def test_ties_go_to_the_lowest_index_and_estimation_votes_do_not_choose():
    assert certify_one([0, 5, 5], [0, 1, 99], CAT, CAT_FOR_DOG).prediction == DOG


def test_a_top_class_without_estimation_votes_certifies_nothing():
    row = certify_one([0, 0, 9], [60, 40, 0], CAT, CAT_FOR_DOG)
    assert (row.p_a_lower, row.cost_sensitive_radius, row.standard_radius) == (0, 0, 0)


def test_an_errored_row_is_kept_and_certifies_nothing():
    frame = certify_counts(
        [[9, 1, 0], [9, 0, 1], [0, 0, 0]],
        [[99, 1, 0], [99, 0, 1], [0, 0, 0]],
        [CAT, CAT, SHIP],
        costs=CAT_FOR_DOG,
        sigma=SIGMA,
        sampling="fixed",
        errors=[np.nan, "truncated file", "logits are not finite"],
    )
    assert frame["error"].tolist() == [None, "truncated file", "logits are not finite"]
    assert frame["prediction"].isna().tolist() == [False, True, True]
    assert frame["abstain"].tolist() == [False, False, False]
    assert frame["p_a_lower"].tolist()[1:] == frame["p_a_lower_standard"].tolist()[1:] == [0, 0]
    assert frame["standard_radius"].tolist()[1:] == [0, 0]
    assert frame["pairwise_radius"][1].tolist() == [0]
    assert frame["p_b_upper"][1].tolist() == [1]
    assert frame["cost_sensitive_radius"][1] == 0
    assert np.isnan(frame["cost_sensitive_radius"][2])  # no targets, error or not
    assert frame["cost_sensitive_radius"][0] > 0


def test_columns_and_their_types():
    frame = certify_counts(
        [[9, 1, 0]] * 2,
        [[90, 10, 0], [40, 5, 5]],  # rows may have different totals
        [CAT, SHIP],
        costs=CAT_FOR_DOG,
        sigma=SIGMA,
        alpha=0.01,
        image_ids=["a.png", "b.png"],
        rules=["argmax", "offset-1"],
        sampling=["fixed", "fixed"],
    )
    assert frame.columns.tolist() == [
        "image_id",
        "rule",
        "label",
        "prediction",
        "abstain",
        "standard_radius",
        "p_a_lower_standard",
        "multiclass_radius",
        "cost_sensitive_radius",
        "target_radius",
        "p_a_lower_group",
        "route",
        "p_a_lower",
        "p_b_upper",
        "pairwise_radius",
        "alpha",
        "answer",
        "method",
        "error",
    ]
    assert frame["image_id"].tolist() == ["a.png", "b.png"]
    assert frame["rule"].tolist() == ["argmax", "offset-1"]
    assert frame["alpha"].tolist() == [0.01, 0.01]
    assert frame["prediction"].dtype == "Int64"
    assert frame["pairwise_radius"][0].dtype == np.float64


def test_no_images_give_no_rows():
    empty = np.zeros((0, 3), int)
    frame = certify_counts(empty, empty, [], costs=CAT_FOR_DOG, sigma=SIGMA, sampling="fixed")
    assert len(frame) == 0
    assert frame["standard_radius"].dtype == np.float64


# Of every certificate

COSTS = CostMatrix([[0, 1, 2, 0], [0, 0, 0, 0], [1, 1, 0, 1], [0, 0, 3, 0]])
ONE_A_CLASS = [0, 1, 2, 3, 0]
VOTES = arrays(np.int64, (5, 4), elements=st.integers(0, 60)).map(
    lambda votes: votes + np.eye(4, dtype=int)[ONE_A_CLASS]
)
LEVELS = st.sampled_from([0.05, 0.01, 0.001, 1e-6])


def radii(frame):
    """All radii of all images, flat; 0 for the group radius of an empty Omega."""
    targets = [np.concatenate(frame[name].to_list()) for name in ("pairwise_radius", "target_radius")]
    images = [frame[name].fillna(0) for name in ("standard_radius", "multiclass_radius", "cost_sensitive_radius")]
    return np.concatenate([*images, *targets])


def not_shorter(longer, shorter):
    """Up to the last digits of the quantiles."""
    return (longer >= shorter - 1e-12).all()


def certify(selection, estimation, costs=COSTS, alpha=0.01, labels=ONE_A_CLASS, sampling="fixed", method=None):
    """Certificates at SIGMA."""
    by = {"sampling": sampling, "alpha": alpha, "method": method}
    return certify_counts(selection, estimation, labels, costs=costs, sigma=SIGMA, **by)


@given(VOTES, VOTES, LEVELS)
def test_radii_are_finite_and_the_group_radius_is_the_shortest(selection, estimation, alpha):
    frame = certify(selection, estimation, alpha=alpha)
    assert np.isfinite(radii(frame)).all()
    assert (radii(frame) >= 0).all()
    shortest = [radius.min() if len(radius) else np.nan for radius in frame["target_radius"]]
    np.testing.assert_array_equal(frame["cost_sensitive_radius"], shortest)


@given(VOTES, VOTES, LEVELS)
def test_group_radius_reaches_at_least_as_far_as_p_a_alone_would(selection, estimation, alpha):
    # by a box of bounds and the pair route alone: what pays for more ways, or bets on them, may find none much longer
    by_pairs = {"sampling": "sequential", "method": "sequence-2"}
    for _, row in certify(selection, estimation, alpha=alpha, **by_pairs).iterrows():
        if COSTS.sensitive[row.label] and row.prediction not in COSTS.targets(row.label):
            assert row.cost_sensitive_radius >= SIGMA * norm.ppf(row.p_a_lower)


@given(VOTES, VOTES, LEVELS, LEVELS)
def test_a_larger_alpha_never_shortens_a_radius(selection, estimation, one, other):
    low, high = sorted([one, other])
    frames = [certify(selection, estimation, alpha=alpha) for alpha in (low, high)]
    assert not_shorter(radii(frames[1]), radii(frames[0]))


@given(VOTES, VOTES, LEVELS)
def test_twice_the_votes_in_the_same_shares_never_shorten_a_radius(selection, estimation, alpha):
    once, twice = certify(selection, estimation, alpha=alpha), certify(selection, 2 * estimation, alpha=alpha)
    assert not_shorter(radii(twice), radii(once))


@given(VOTES, VOTES, st.sets(st.sampled_from([1, 2, 3]), min_size=1), st.sets(st.sampled_from([1, 2, 3])))
def test_more_targets_never_lengthen_a_radius(selection, estimation, targets, more):
    few, many = sorted(targets), sorted(targets | more)
    frames = [
        certify(selection, estimation, CostMatrix.pairwise(4, {0: omega}), labels=[0] * 5, sampling="sequential")
        for omega in (few, many)
    ]  # by the pair route: which harmless classes are a set is decided on selection votes
    assert not_shorter(frames[0]["cost_sensitive_radius"], frames[1]["cost_sensitive_radius"])
    shared = np.isin(many, few)
    for with_few, with_many in zip(frames[0]["pairwise_radius"], frames[1]["pairwise_radius"], strict=True):
        assert not_shorter(with_few, with_many[shared])


@given(VOTES, VOTES, st.permutations(range(4)))
def test_the_names_of_the_classes_do_not_matter(selection, estimation, new_names):
    selection = selection * 4 + np.arange(4)  # no ties, which go to the lowest name
    old = np.argsort(new_names)  # the old name of each new one
    renamed = certify(
        selection[:, old],
        estimation[:, old],
        CostMatrix(COSTS.values[np.ix_(old, old)]),
        labels=np.array(new_names)[ONE_A_CLASS],
    )
    frame = certify(selection, estimation)
    np.testing.assert_array_equal(renamed["prediction"], np.array(new_names)[frame["prediction"].to_numpy(int)])
    for column in ("standard_radius", "multiclass_radius", "cost_sensitive_radius"):
        np.testing.assert_array_equal(renamed[column], frame[column])
    for mine, theirs in zip(frame["pairwise_radius"], renamed["pairwise_radius"], strict=True):
        np.testing.assert_array_equal(np.sort(mine), np.sort(theirs))


@given(arrays(np.int64, st.tuples(st.integers(0, 6), st.just(4)), elements=st.integers(0, 2)))
def test_sparse_votes_hold_what_dense_ones_do(dense):
    votes = SparseVotes.from_dense(dense)
    np.testing.assert_array_equal(votes.dense(4), dense)
    np.testing.assert_array_equal(votes.totals(), dense.sum(axis=1))
    np.testing.assert_array_equal(votes[1:4].dense(4), dense[1:4])


@given(VOTES, VOTES)
def test_an_image_is_certified_alike_in_any_company(selection, estimation):
    whole = certify(selection, estimation)
    for i in range(5):
        alone = certify(selection[i : i + 1], estimation[i : i + 1], labels=ONE_A_CLASS[i : i + 1])
        pd.testing.assert_frame_equal(
            alone.drop(columns="image_id"), whole.iloc[i : i + 1].reset_index(drop=True).drop(columns="image_id")
        )


@given(arrays(np.int64, st.tuples(st.integers(0, 6), st.just(4)), elements=st.integers(0, 2)))
def test_what_sparse_votes_sum_up_is_what_dense_ones_do(dense):
    votes, rows = SparseVotes.from_dense(dense), np.arange(len(dense))
    np.testing.assert_array_equal(votes.top(), dense.argmax(axis=1))
    np.testing.assert_array_equal(votes.largest(), dense.max(axis=1))
    np.testing.assert_array_equal(votes.of(rows % 4), dense[rows, rows % 4])


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0}, "sigma is 0; give"),
        ({"sigma": float("nan")}, "sigma is nan; give"),
        ({"alpha": 0}, "alpha is 0; give"),
        ({"alpha": 1}, "alpha is 1; give"),
        ({"counts": [[9, -1, 1]]}, "a class has -1 votes"),
        ({"counts": [[9.5, 0, 0]]}, "votes of type float64 and shape \\(1, 3\\)"),
        ({"counts": [[9, 0]]}, "counts0 has shape \\(1, 3\\), counts \\(1, 2\\)"),
        ({"counts0": [[9, 0]], "counts": [[9, 0]]}, "counts has shape \\(1, 2\\), the cost matrix 3 classes"),
        ({"counts": [[0, 0, 0]]}, "image 'a.png' has no votes and no error"),
        ({"counts0": [[0, 0, 0]]}, "image 'a.png' has no votes and no error"),
        ({"labels": [3]}, "label 3 is not one of the 3 classes"),
        ({"labels": [-1]}, "label -1 is not one of the 3 classes"),
        ({"labels": [0.5]}, "labels of type float64"),
        ({"labels": [0, 1]}, "shape \\(2,\\); give 1 integers"),
        ({"image_ids": ["a.png", "b.png"]}, "image_ids has 2 entries for 1 images"),
        (
            {"sampling": "adaptive"},
            "no bounds are known for votes sampled by 'adaptive'; choose from fixed, sequential",
        ),
        ({"sampling": ["sequental"]}, "sampled by 'sequental'; did you mean sequential"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    good = {
        "counts0": [[9, 1, 0]],
        "counts": [[90, 10, 0]],
        "labels": [CAT],
        "costs": CAT_FOR_DOG,
        "sigma": 0.5,
        "sampling": "fixed",
        "image_ids": ["a.png"],
    }
    with pytest.raises(UserError, match=message):
        certify_counts(**(good | change))


def test_how_n_was_chosen_is_never_assumed():
    with pytest.raises(TypeError, match="sampling"):
        certify_counts([[9, 1, 0]], [[90, 10, 0]], [CAT], costs=CAT_FOR_DOG, sigma=SIGMA)


@pytest.mark.parametrize("most", [10**12 + 1, 2**61, 2**63, 2**64 - 1])
def test_votes_that_would_wrap_are_refused(most):
    with pytest.raises(UserError, match=f"{most:,}.*1,000,000,000,000"):
        certify_counts(
            np.array([[9, 1, 0]]),
            np.array([[most, 10, 0]], np.uint64),
            [CAT],
            costs=CAT_FOR_DOG,
            sigma=SIGMA,
            sampling="fixed",
        )


@pytest.mark.parametrize(
    ("offsets", "classes", "counts", "message"),
    [
        ([0, 2], [1, 0], [5, 5], "votes list class 0 out of order"),
        ([0, 2], [1, 1], [5, 5], "votes list class 1 out of order"),
        ([0, 1], [0, 1], [5, 5], "offsets must run from 0 to the length of both"),
        ([0, 2], [0, 1], [5], "offsets must run from 0 to the length of both"),
        ([0, 1], [0], [-5], "a class has -5 votes"),
        ([0, 2], [0, 1], [2**62, 2**62], "at most"),
        ([0, 1], [3], [5], "votes for class 3, but there are 3 classes"),
        ([0, 1, 1], [0], [5], "2 rows of selection votes, 1 of estimation"),
    ],
)
def test_bad_sparse_votes_are_refused(offsets, classes, counts, message):
    good = SparseVotes.from_dense([[9, 1, 0]])
    with pytest.raises(UserError, match=message):
        votes = SparseVotes(np.array(offsets), np.array(classes, np.int32), np.array(counts))
        certify_votes(votes, good, [CAT] * len(votes), costs=CAT_FOR_DOG, sigma=SIGMA, sampling="fixed")
