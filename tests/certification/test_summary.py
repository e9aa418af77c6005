"""The numbers of a summary, worked out by hand on six images."""

import io

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, binomtest

from raycsr.certification.certificates import certify_counts
from raycsr.certification.intervals import NORMAL_FROM, mean_intervals, wilson
from raycsr.certification.summary import summarize
from raycsr.costs import CostMatrix
from raycsr.errors import UserError

# Class 0 may be taken for 1 at a cost of 2 and for 2 at a cost of 5, class 2 for 1 at a cost of 3.
COSTS = CostMatrix([[0, 2, 5], [0, 0, 0], [0, 3, 0]])


@pytest.fixture
def six_images():
    def row(label, prediction, abstain, standard_radius, pairwise_radius, error=None):
        return {
            "image_id": "a.png",
            "rule": "argmax",
            "label": label,
            "prediction": prediction,
            "abstain": abstain,
            "standard_radius": standard_radius,
            "cost_sensitive_radius": min(pairwise_radius, default=np.nan),
            "pairwise_radius": np.array(pairwise_radius),
            "alpha": 0.001,
            "error": error,
        }

    frame = pd.DataFrame(
        [
            row(0, 0, False, 0.6, [0.4, 0.9]),
            row(0, 2, False, 0.7, [0.3, 0.0]),  # wrong, and costly
            row(0, None, False, 0.0, [0.0, 0.0], error="truncated file"),
            row(1, 1, False, 0.2, []),  # no mistake on it costs anything
            row(2, 2, True, 0.0, [0.5]),  # unsure of the class, sure that it is not 1
            row(2, 2, False, 0.5, [0.55]),
        ]
    )
    return frame.astype({"prediction": "Int64"})


def test_every_estimate_by_hand(six_images):
    summary = summarize(six_images, costs=COSTS, radii=[0.0, 0.5])
    by_hand = pd.DataFrame(
        {
            "radius": [0.0, 0.5],
            "num_images": [6, 6],
            "num_errors": [1, 1],
            "num_sensitive": [5, 5],
            "num_target": [3, 3],  # of 1 and 2
            "accuracy": [3 / 6, 3 / 6],  # images 0, 3, 5
            "certified_accuracy": [3 / 6, 2 / 6],  # image 3 only up to 0.2
            "acr": [1.3 / 6, 1.3 / 6],  # 0.6 + 0.2 + 0.5
            "rob_cs": [3 / 5, 2 / 5],  # images 0, 4, 5, and 0 only up to 0.4
            "rob_cost": [12 / 5, 16 / 5],  # 0 + 5 + 7 + 0 + 0, and 2 + 7 + 7 + 0 + 0
            "worst_case_cost": [10 / 5, 12 / 5],  # 0 + 5 + 5 + 0 + 0, and 2 + 5 + 5 + 0 + 0
            "seed_recall": [2 / 5, 2 / 5],  # classes 0 and 2
            "target_recall": [2 / 3, 2 / 3],  # classes 1 and 2: images 3 and 5 of 3, 4, 5
        }
    )
    pd.testing.assert_frame_equal(summary[by_hand.columns], by_hand)


def test_a_radius_of_zero_is_certified_at_no_radius(six_images):
    assert summarize(six_images, costs=COSTS, radii=0).rob_cs[0] == 3 / 5  # the zeros of images 1 and 2 count not


def test_radii_keep_their_order(six_images):
    shuffled = [0.5, 0.0, 0.5, 0.3]
    summary = summarize(six_images, costs=COSTS, radii=shuffled)
    assert summary["radius"].tolist() == shuffled
    assert summary["rob_cost"].tolist() == [16 / 5, 12 / 5, 16 / 5, 12 / 5]  # a target is certified at its own radius


def test_intervals_of_shares_are_wilsons(six_images):
    summary = summarize(six_images, costs=COSTS, radii=[0.5])
    for name, hits, images in (("certified_accuracy", 2, 6), ("rob_cs", 2, 5), ("target_recall", 2, 3)):
        interval = binomtest(hits, images).proportion_ci(method="wilson")
        assert summary[f"{name}_low"][0] == pytest.approx(interval.low)
        assert summary[f"{name}_high"][0] == pytest.approx(interval.high)


def test_intervals_of_means_are_those_of_the_normal_law_where_images_are_many(six_images):
    many = pd.concat([six_images] * 200, ignore_index=True)
    summary = summarize(many, costs=COSTS, radii=[0.5])
    for name, values in (("rob_cost", [2, 7, 7, 0, 0]), ("acr", [0.6, 0, 0, 0.2, 0, 0.5])):
        half = 1.96 * np.std(values) / np.sqrt(200 * len(values))
        assert summary[f"{name}_low"][0] == pytest.approx(np.mean(values) - half, abs=0.1 * half)
        assert summary[f"{name}_high"][0] == pytest.approx(np.mean(values) + half, abs=0.1 * half)


@pytest.mark.parametrize("num_images", [NORMAL_FROM - 1, NORMAL_FROM])
def test_the_mean_of_skewed_costs_is_within_its_interval_as_often_as_it_says(num_images):
    """One image in ten costs something, and of those one in ten ten times as much; a column is an experiment."""
    generator = np.random.default_rng(0)
    shape = (num_images, 1000)
    costs = (generator.random(shape) < 0.1) * np.where(generator.random(shape) < 0.1, 10.0, 1.0)
    ((low, high),) = mean_intervals(np.arange(num_images), costs)
    assert 0.92 < np.mean((low <= 0.19) & (high >= 0.19)) < 0.97


def test_intervals_are_the_same_every_time_and_can_be_left_out(six_images):
    summary = summarize(six_images, costs=COSTS, radii=[0.0, 0.5])
    pd.testing.assert_frame_equal(summarize(six_images, costs=COSTS, radii=[0.0, 0.5]), summary)
    without = summarize(six_images, costs=COSTS, radii=[0.0, 0.5], intervals=False)
    pd.testing.assert_frame_equal(without, summary[without.columns])
    assert not any(name.endswith(("_low", "_high")) for name in without.columns)


def test_guaranteed_shares_give_up_the_certificates_that_may_fail(six_images):
    many = pd.concat([six_images] * 200, ignore_index=True)
    summary = summarize(many, costs=COSTS, radii=[0.5])
    may_fail = binom.ppf(0.999, 1200, 0.001)
    assert may_fail == 6
    assert summary["certified_accuracy_guaranteed"][0] == pytest.approx(2 / 6 - 6 / 1200)
    assert summary["rob_cs_guaranteed"][0] == pytest.approx(2 / 5 - binom.ppf(0.999, 1000, 0.001) / 1000)


def test_guaranteed_shares_are_not_below_zero(six_images):
    assert summarize(six_images, costs=COSTS, radii=[9.0])["certified_accuracy_guaranteed"][0] == 0


def test_many_radii_agree_with_the_definition():
    generator = np.random.default_rng(0)
    costs = CostMatrix(generator.integers(0, 3, (20, 20)) * (1 - np.eye(20)))
    p = generator.dirichlet(np.full(20, 0.1), size=2_000)  # more images than are gathered at a time
    counts = generator.multinomial(500, p)
    certificates = certify_counts(counts, counts, p.argmax(axis=1), costs=costs, sigma=0.5, sampling="fixed")
    radii = np.linspace(0, 1, 30)
    summary = summarize(certificates, costs=costs, radii=radii, intervals=False)
    for r, rob_cost, worst_case_cost in zip(radii, summary["rob_cost"], summary["worst_case_cost"], strict=True):
        jointly, alone = (
            [
                np.where((radius > 0) & (radius >= r), 0, costs.values[label, costs.targets(label)])
                for label, radius in zip(certificates["label"], certificates[name], strict=True)
            ]
            for name in ("pairwise_radius", "target_radius")
        )
        assert rob_cost == pytest.approx(np.mean([cost.sum() for cost in jointly]))
        assert worst_case_cost == pytest.approx(np.mean([cost.max() for cost in alone]))


def test_certificates_read_back_from_parquet_say_the_same(six_images):
    file = io.BytesIO()
    six_images.to_parquet(file)
    summary = summarize(six_images, costs=COSTS, radii=[0.0, 0.5])
    pd.testing.assert_frame_equal(summarize(pd.read_parquet(file), costs=COSTS, radii=[0.0, 0.5]), summary)
    lists = six_images.assign(pairwise_radius=six_images["pairwise_radius"].map(list))
    pd.testing.assert_frame_equal(summarize(lists, costs=COSTS, radii=[0.0, 0.5]), summary)


def test_standard_certificates_alone_have_no_cost_sensitive_numbers(six_images):
    standard = six_images.assign(cost_sensitive_radius=np.nan, pairwise_radius=[[]] * 6)
    summary = summarize(standard, costs=COSTS, radii=[0.0, 0.5])
    assert summary["num_sensitive"].tolist() == [0, 0]
    assert summary["certified_accuracy"].tolist() == [3 / 6, 2 / 6]
    assert summary["seed_recall"].tolist() == [2 / 5, 2 / 5]
    for name in ("rob_cs", "rob_cs_low", "rob_cs_guaranteed", "rob_cost", "rob_cost_high", "worst_case_cost"):
        assert summary[name].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": ["argmax"] * 5 + ["offset-1"]}, r"several values of rule \(argmax, offset-1\); select one"),
        ({"alpha": [0.001] * 5 + [0.01]}, r"several values of alpha \(0.001, 0.01\); select one"),
        ({"label": 3}, "labels 3 to 3 for costs of 3 classes"),
        ({"label": 0}, "image 'a.png' has 0 pair-wise radii, the costs 2 targets"),
    ],
)
def test_certificates_that_do_not_belong_together_are_refused(six_images, change, message):
    with pytest.raises(UserError, match=message):
        summarize(six_images.assign(**change), costs=COSTS, radii=[0.5])


def test_bad_radii_and_no_certificates_are_refused(six_images):
    with pytest.raises(UserError, match=r"radius -0.1 cannot be certified; give radii of 0 or more"):
        summarize(six_images, costs=COSTS, radii=[0.5, -0.1])
    with pytest.raises(UserError, match="0 certificates to sum up"):
        summarize(six_images[:0], costs=COSTS, radii=[0.5])


class TestGroups:
    """Images of one patient or one lesion say less than as many independent ones."""

    @staticmethod
    def draw(generator, num_groups):
        """Images in groups of 1 to 8 that mostly fail or succeed together: hits, mean 0.7, and groups."""
        sizes = generator.integers(1, 9, num_groups)
        groups = np.repeat(np.arange(num_groups), sizes)
        return generator.random(sizes.sum()) < generator.beta(0.7, 0.3, num_groups)[groups], groups

    @staticmethod
    def certificates(hits, groups):
        """Images of class 0 of COSTS, certified beyond any radius where they are hits; else both mistakes are left."""
        radius = np.where(hits, 0.6, 0.0)
        return pd.DataFrame(
            {
                "image_id": "a.png",
                "rule": "argmax",
                "label": 0,
                "prediction": np.where(hits, 0, 1),
                "abstain": False,
                "standard_radius": radius,
                "cost_sensitive_radius": radius,
                "pairwise_radius": [np.array([r, r]) for r in radius],
                "alpha": 0.001,
                "error": None,
                "group": groups,
            }
        )

    def test_intervals_over_groups_cover_the_truth_and_those_over_images_do_not(self):
        generator = np.random.default_rng(0)
        truth = {"certified_accuracy": 0.7, "rob_cs": 0.7, "seed_recall": 0.7, "rob_cost": 0.3 * 7, "acr": 0.7 * 0.6}
        truth["worst_case_cost"] = 0.3 * 5
        covered = {name: {"groups": 0, "images": 0} for name in truth}
        for _ in range(150):
            drawn = self.certificates(*self.draw(generator, 40))
            for over, rows in (("groups", drawn), ("images", drawn.drop(columns="group"))):
                (summary,) = summarize(rows, costs=COSTS, radii=[0.5]).to_dict("records")
                for name, value in truth.items():
                    covered[name][over] += summary[f"{name}_low"] <= value <= summary[f"{name}_high"]
        for name, times in covered.items():
            assert times["groups"] > 0.91 * 150 and times["images"] < 0.85 * 150, (name, times)

    def test_the_column_of_certificates_or_groups_that_are_given(self):
        hits, groups = self.draw(np.random.default_rng(1), 40)
        drawn = self.certificates(hits, groups)
        by_column = summarize(drawn, costs=COSTS, radii=[0.5])
        given = summarize(
            drawn.drop(columns="group"), costs=COSTS, radii=[0.5], groups=[f"patient {g}" for g in groups]
        )
        pd.testing.assert_frame_equal(by_column, given)
        assert by_column["num_groups"][0] == 40
        over_images = summarize(drawn.drop(columns="group"), costs=COSTS, radii=[0.5])
        assert over_images["num_groups"][0] == len(hits)
        estimates = ["certified_accuracy", "rob_cost", "rob_cs_guaranteed"]
        pd.testing.assert_frame_equal(by_column[estimates], over_images[estimates])

    def test_groups_of_one_image_change_nothing(self, six_images):
        alone = six_images.assign(group=["a", "b", None, None, np.nan, "c"])
        pd.testing.assert_frame_equal(
            summarize(alone, costs=COSTS, radii=[0.0, 0.5]), summarize(six_images, costs=COSTS, radii=[0.0, 0.5])
        )

    def test_images_that_agree_within_each_group_are_as_good_as_one_a_group(self):
        generator = np.random.default_rng(2)
        of_group = generator.random(2000) < 0.6
        once, tenfold = (
            summarize(self.certificates(np.repeat(of_group, k), np.repeat(np.arange(2000), k)), costs=COSTS, radii=0.5)
            for k in (1, 10)
        )
        for name in ("certified_accuracy", "rob_cs", "rob_cost"):
            widths = [(summary[f"{name}_high"] - summary[f"{name}_low"])[0] for summary in (once, tenfold)]
            assert widths[1] == pytest.approx(widths[0], rel=0.05)

    def test_where_all_images_are_hits_a_group_counts_as_one(self):
        hits, groups = np.ones(300, bool), np.repeat(np.arange(30), 10)
        (summary,) = summarize(self.certificates(hits, groups), costs=COSTS, radii=[0.5]).to_dict("records")
        low = binomtest(30, 30).proportion_ci(method="wilson").low
        assert low - 0.02 < summary["rob_cs_low"] < low and summary["rob_cs_high"] == pytest.approx(1)

    def test_one_group_alone_says_nothing(self):
        (summary,) = summarize(self.certificates(np.ones(9, bool), [1] * 9), costs=COSTS, radii=[0.5]).to_dict(
            "records"
        )
        assert (summary["rob_cs"], summary["rob_cs_low"], summary["rob_cs_high"]) == (1, 0, 1)
        assert np.isnan(summary["rob_cost_low"]) and np.isnan(summary["acr_high"])

    @pytest.mark.parametrize("large", [1, 3], ids=["one patient of 100 images", "three of them"])
    def test_a_few_large_groups_among_small_ones_are_covered(self, large):
        """By their distance from a mean that they pull towards themselves they would seem to vary little."""
        sizes = np.array([100] * large + [1] * 12)
        groups = np.repeat(np.arange(len(sizes)), sizes)
        generator, covered = np.random.default_rng(3), 0
        for _ in range(200):
            hits = generator.random(len(groups)) < generator.beta(1.2, 1.2, len(sizes))[groups]
            (low,), (high,) = wilson(hits[:, None], groups)
            covered += low <= 0.5 <= high
        assert covered > 0.92 * 200

    def test_one_group_and_a_straggler_say_nothing(self):
        drawn = self.certificates(np.arange(201) < 100, np.arange(201) // 200)
        (summary,) = summarize(drawn, costs=COSTS, radii=[0.5]).to_dict("records")
        assert (summary["rob_cs_low"], summary["rob_cs_high"]) == (0, 1) and np.isnan(summary["acr_high"])

    def test_a_group_an_image(self, six_images):
        with pytest.raises(UserError, match="2 groups for 6 certificates; give each image its group"):
            summarize(six_images, costs=COSTS, radii=[0.5], groups=["a", "b"])
        for groups in (np.zeros((6, 2)), [["a"]] * 6):
            with pytest.raises(UserError, match="give each image one name"):
                summarize(six_images, costs=COSTS, radii=[0.5], groups=groups)
