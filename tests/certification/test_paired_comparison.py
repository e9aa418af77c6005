"""Paired comparisons: exact where they can be, right where nothing differs, and sharper than intervals side by side."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, binomtest, multinomial

from raycsr import CostMatrix, UserError, certify_counts, compare, summarize
from raycsr.certification.comparison import COMPARED, against_first, exchange_p, holm, mcnemar, paired_p
from raycsr.certification.intervals import mean_difference_interval, share_difference_interval

COSTS = CostMatrix.seedwise(2, [0])
MOST_OF_1000 = 73  # of 1,000 tests at .05; more with probability .001: binom.ppf(.999, 1000, .05)


def certified(right, *, labels=None, ids=None, sigma=0.5, alpha=0.001, **columns):
    """Certificates of images of class 0, all of whose 1,000 votes are right, or all wrong."""
    labels = np.zeros(len(right), int) if labels is None else np.asarray(labels)
    votes = np.eye(2, dtype=int)[np.where(right, labels, 1 - labels)] * 1000
    ids = [f"{i}.png" for i in range(len(right))] if ids is None else ids
    made = certify_counts(votes, votes, labels, costs=COSTS, sigma=sigma, sampling="fixed", alpha=alpha, image_ids=ids)
    return made.assign(**columns)


def of_pairs(both, only_a, only_b, neither):
    """The certificates of A and of B, by how many images which of both answers rightly."""
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return certified(a), certified(b)


def row(table, metric):
    return table.set_index("metric").loc[metric]


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 5), (7, 2), (60, 100), (3, 3)])
def test_mcnemar_is_a_binomial_test_of_the_images_that_differ(only_a, only_b):
    exact = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(exact)
    gains = np.repeat([-1.0, 1.0, 0.0], [only_a, only_b, 9])
    assert exchange_p(gains) == pytest.approx(exact, abs=0.01)  # counted, or drawn above 13
    assert paired_p(gains, np.arange(len(gains)), are_shares=True) == mcnemar(only_a, only_b)


def test_exchanges_are_counted_drawn_or_normal_and_agree():
    generator = np.random.default_rng(1)
    gains = generator.normal(0.5, 1, 13)
    signs = np.array(list(itertools.product([-1, 1], repeat=13)))
    by_hand = (np.abs(signs @ gains) >= abs(gains.sum()) - 1e-9).mean()
    assert exchange_p(gains) == by_hand
    assert exchange_p(np.append(gains, 1e-9)) == pytest.approx(by_hand, abs=4 * np.sqrt(by_hand / 9999))
    many = generator.normal(0.05, 1, 1000)
    drawn = np.delete(many, np.abs(many).argmin())  # one less, so that exchanges are drawn
    assert exchange_p(many) == pytest.approx(exchange_p(drawn), abs=0.02)


def test_holm_by_hand():
    # 4 x .005, 3 x .01, 2 x .03, 1 x .04, and none below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).tolist() == [] and holm([0.7, 0.9]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("num_images", [10, 40])
def test_intervals_of_differences_cover_enumerated(num_images):
    """The exact coverage, summed over all ways in which images may differ: .95 on average, and never far below."""
    ways = np.array([(i, j) for i in range(num_images + 1) for j in range(num_images + 1 - i)])
    gains = np.array([np.repeat([1.0, -1.0, 0.0], [i, j, num_images - i - j]) for i, j in ways]).T  # (N, ways)
    low, high = share_difference_interval(gains, np.arange(num_images))
    covered = []
    for first, second in itertools.product([0.01, 0.05, 0.1, 0.2, 0.4], repeat=2):
        chances = multinomial.pmf(
            np.c_[ways, num_images - ways.sum(axis=1)], num_images, [first, second, 1 - first - second]
        )
        covered.append(chances[(low <= first - second) & (first - second <= high)].sum())
    assert min(covered) > 0.93 and np.mean(covered) > 0.95


def test_the_interval_of_a_mean_is_that_of_a_summary_but_for_its_sign():
    gains = np.random.default_rng(0).normal(-1.0, 1, (50, 1))
    (low,), (high,) = mean_difference_interval(gains, np.arange(50))
    (mirrored_low,), (mirrored_high,) = mean_difference_interval(-gains, np.arange(50))
    assert low < -1 < high < 0 and (mirrored_low, mirrored_high) == pytest.approx((-high, -low))


def test_two_points_are_found_where_unpaired_intervals_overlap():
    """2,000 images, of which 8 % differ, 60 and 100 of them: the difference is 2 points."""
    a, b = of_pairs(both=1500, only_a=60, only_b=100, neither=340)
    table = compare(a, b, costs=COSTS, radius=0.5)
    shown = row(table, "rob_cs")
    assert shown["difference"] == pytest.approx(0.02) and shown["p"] == pytest.approx(0.00195, abs=1e-5)
    assert shown["p_holm"] < 0.05 and shown["better"] == "b" and shown["difference_low"] > 0
    of_a, of_b = (summarize(one, costs=COSTS, radii=[0.5]).iloc[0] for one in (a, b))
    assert of_a["rob_cs_high"] > of_b["rob_cs_low"]


def test_two_points_are_found_nearly_always():
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(2000, [0.05, 0.03, 0.92], size=1000)
    assert np.mean([mcnemar(lost, won) < 0.05 for won, lost, _ in drawn]) > 0.85


def test_nothing_is_found_where_nothing_differs():
    generator = np.random.default_rng(0)
    shares = [mcnemar(*generator.multinomial(300, [0.04, 0.04, 0.92])[:2]) for _ in range(1000)]
    few = [exchange_p(generator.exponential(size=10) * generator.choice([-1, 1], 10)) for _ in range(1000)]
    many = [exchange_p(generator.exponential(size=1000) * generator.choice([-1, 1], 1000)) for _ in range(1000)]
    for p in (shares, few, many):
        assert (np.array(p) < 0.05).sum() <= MOST_OF_1000
    assert binom.ppf(0.999, 1000, 0.05) == MOST_OF_1000


def test_images_of_one_group_count_as_one():
    """40 patients of 25 images that agree: each by itself finds what is not there, 40 pairs do not."""
    generator, groups = np.random.default_rng(0), np.repeat(np.arange(40), 25)
    gains = np.repeat(generator.choice([-1.0, 0, 0, 0, 1.0], (1000, 40)), 25, axis=1)
    alone = sum(paired_p(one, np.arange(1000), are_shares=True) < 0.05 for one in gains)
    together = sum(paired_p(one, groups, are_shares=True) < 0.05 for one in gains)
    assert alone > 300 and together <= MOST_OF_1000
    low, high = share_difference_interval(gains[:300].T, groups)
    assert ((low <= 0) & (high >= 0)).mean() > 0.92
    low, high = share_difference_interval(gains[:300].T, np.arange(1000))
    assert ((low <= 0) & (high >= 0)).mean() < 0.7


@pytest.mark.long
def test_a_family_of_metrics_is_wrong_no_more_often_than_one():
    """1,000 comparisons of classifiers that differ by chance alone, all metrics, with groups and without."""
    generator, wrong = np.random.default_rng(0), {False: 0, True: 0}
    costs = CostMatrix([[0, 3, 1], [1, 0, 1], [1, 1, 0]])
    for turn in range(2000):
        shares = generator.dirichlet([0.4] * 3, 120)
        labels = generator.integers(3, size=120)
        votes = [np.stack([generator.multinomial(200, p) for p in shares]) for _ in range(2)]
        swapped = generator.random(120) < 0.5
        pair = [np.where(swapped[:, None], votes[i], votes[1 - i]) for i in range(2)]
        made = [certify_counts(one, one, labels, costs=costs, sigma=0.5, sampling="fixed") for one in pair]
        groups = None if turn % 2 else {image: f"{i // 3}" for i, image in enumerate(made[0]["image_id"])}
        table = compare(*made, costs=costs, radius=0.1, groups=groups)
        assert len(table) == len(COMPARED)
        wrong[groups is not None] += (table["better"] != "").any()
    assert max(wrong.values()) <= MOST_OF_1000, wrong


def test_every_number_by_hand():
    a, b = of_pairs(both=4, only_a=1, only_b=3, neither=2)
    table = compare(a, b.sample(frac=1, random_state=0), costs=COSTS, radius=0.5, margin=0.3)
    assert table["metric"].tolist() == [name for name in COMPARED if name != "target_recall"]  # no image is of class 1
    shown = row(table, "accuracy")
    assert shown[["num_images", "a", "b", "a_better", "b_better"]].tolist() == [10, 0.5, 0.7, 1, 3]
    assert shown["p"] == pytest.approx(2 * (1 + 4) / 16) and shown["p_holm"] == 1.0 and shown["better"] == ""
    # (3 + 1) / 12 - (1 + 1) / 12 -+ 1.96 sqrt((4 + 2) / 12 - (2 / 12)^2) / sqrt(12)
    half = 1.96 * np.sqrt((6 / 12 - (2 / 12) ** 2) / 12)
    assert shown[["difference_low", "difference_high"]].tolist() == pytest.approx(
        [2 / 12 - half, 2 / 12 + half], abs=1e-4
    )
    assert shown["no_worse"] and pd.isna(row(table, "acr")["no_worse"])
    costs = row(table, "rob_cost")  # less is better: on as many images B is the better one
    assert costs[["a", "b", "a_better", "b_better"]].tolist() == [0.5, 0.3, 1, 3]
    assert costs["p"] == shown["p"]


def test_less_is_better_of_costs():
    a, b = of_pairs(both=0, only_a=0, only_b=12, neither=0)
    table = compare(a, b, costs=COSTS, radius=0.5)
    assert set(table["better"][table["metric"] != "coverage"]) == {"b"} and row(table, "rob_cost")["difference"] == -1
    table = compare(b, a, costs=COSTS, radius=0.5)
    assert set(table["better"][table["metric"] != "coverage"]) == {"a"}
    assert row(table, "coverage")["better"] == ""  # all are answered, wrongly or rightly


def test_answers_of_one_rule_are_compared_with_their_coverage():
    """An answer that abstains is safe: rob_cs is the larger for it, and coverage beside it the smaller."""
    votes, labels = np.array([[560, 440]] * 12 + [[440, 560]] * 4), [0] * 16
    both = [
        certify_counts(votes, votes, labels, costs=COSTS, sigma=0.5, sampling="fixed", answer=one)
        for one in ("argmax", "threshold:1=0.7")
    ]
    table = compare(*both, costs=COSTS, radius=0.1)
    assert (
        row(table, "rob_cs")[["a", "b", "b_better"]].tolist() == [0.0, 1.0, 16]
        and row(table, "rob_cs")["better"] == "b"
    )
    assert row(table, "coverage")[["a", "b", "a_better"]].tolist() == [1.0, 0.75, 4]


def test_only_common_images_are_compared_whatever_their_order():
    a = certified([True, False, True], ids=["x", "y", "z"])
    b = certified([False, True, True, True], ids=["w", "z", "x", "v"])
    shown = row(compare(a, b, costs=COSTS, radius=0.5), "accuracy")
    assert shown[["num_images", "a", "b"]].tolist() == [2, 1.0, 1.0]


def test_errored_images_count_as_failing_on_both_sides():
    a, b = of_pairs(both=3, only_a=0, only_b=0, neither=0)
    votes = np.array([[1000, 0], [1000, 0], [0, 0]])
    b = certify_counts(
        votes,
        votes,
        [0] * 3,
        costs=COSTS,
        sigma=0.5,
        sampling="fixed",
        image_ids=a["image_id"],
        errors=[None, None, "cut"],
    )
    shown = row(compare(a, b, costs=COSTS, radius=0.5), "rob_cs")
    assert shown[["num_images", "a", "b", "a_better"]].tolist() == [3, 1.0, 2 / 3, 1]


def test_what_one_side_lacks_is_not_compared():
    a, b = of_pairs(both=3, only_a=1, only_b=1, neither=0)
    old = b.drop(columns=["multiclass_radius"])
    assert "multiclass_certified_accuracy" not in set(compare(a, old, costs=COSTS, radius=0.5)["metric"])


def test_groups_come_from_the_certificates_or_are_given():
    a, b = of_pairs(both=0, only_a=0, only_b=6, neither=0)
    alone = row(compare(a, b, costs=COSTS, radius=0.5), "accuracy")["p"]
    of_two = a["image_id"].map(lambda image: "p" if image < "3" else "q")
    given = compare(a, b, costs=COSTS, radius=0.5, groups=dict(zip(a["image_id"], of_two, strict=True)))
    stored = compare(a, b.assign(group=of_two), costs=COSTS, radius=0.5)
    assert alone == 2 / 2**6 and row(given, "accuracy")["p"] == 0.5 == row(stored, "accuracy")["p"]
    with pytest.raises(UserError, match=r"no group of 5 of 6 images \(the first '1.png'\)"):
        compare(a, b, costs=COSTS, radius=0.5, groups={"0.png": None})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.assign(image_id=[f"other/{i}" for i in range(4)]), "no image is in both: .*'0.png'.*'other/0'"),
        (
            lambda a: a.assign(label=[1, 0, 0, 0], pairwise_radius=[[], *a["pairwise_radius"][1:]]),
            "'0.png' is of class",
        ),
        (lambda a: a.assign(image_id="0.png"), "'0.png' is there twice"),
        (lambda a: a.assign(alpha=0.01), "alpha 0.001 and at 0.01"),
        (lambda a: a.assign(rule=["argmax", "offset", "argmax", "argmax"]), "several values of rule"),
    ],
)
def test_what_cannot_be_paired_is_refused(change, says):
    a = certified([True, False, True, True])
    with pytest.raises(UserError, match=says):
        compare(a, change(a), costs=COSTS, radius=0.5)


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.0, float("nan")])
def test_a_margin_is_a_share_that_may_be_lost(margin):
    a = certified([True])
    with pytest.raises(UserError, match="margin"):
        compare(a, a, costs=COSTS, radius=0.5, margin=margin)


def test_a_ranking_is_corrected_for_all_pairs_and_takes_common_images():
    better, worse = of_pairs(both=20, only_a=12, only_b=0, neither=0)
    others = [better, worse.sample(frac=1, random_state=0), better.iloc[:5], certified([True], ids=["elsewhere"])]
    found = against_first(others, costs=COSTS, radius=0.5, metric="rob_cs")
    assert found[:2] == [6 * 2 / 2**12, 1.0] and np.isnan(found[2])
    assert against_first([better], costs=COSTS, radius=0.5, metric="rob_cs") == []
    cost = against_first([better, worse], costs=COSTS, radius=0.5, metric="rob_cost")
    assert cost == [2 / 2**12]


def test_a_ranking_picked_from_many_is_wrong_no_more_often():
    """The best of eight that are alike, against the seven others."""
    generator, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        hits = generator.random((8, 300)) < 0.7
        order = np.argsort(-hits.sum(axis=1))
        gains = [hits[i].astype(float) - hits[order[0]] for i in order[1:]]
        wrong += min(28 * paired_p(one, np.arange(300), are_shares=True) for one in gains) < 0.05
    assert wrong <= 20  # binom.ppf(.999, 200, .05)
