"""Numbers by class, worked out by hand on seven images."""

import io

import numpy as np
import pandas as pd
import pytest

from raycsr.certification import (
    certify_counts,
    class_recalls,
    collapse_in_words,
    collapsed_classes,
    costliest_images,
    pairwise_robustness,
    summarize,
)
from raycsr.costs import CostMatrix
from raycsr.errors import UserError

# Class a may be taken for b at a cost of 2 and for c at a cost of 5, class c for a and b at 3 each.
COSTS = CostMatrix([[0, 2, 5], [0, 0, 0], [3, 3, 0]], ["a", "b", "c"])


@pytest.fixture
def seven_images():
    def row(image_id, label, prediction, abstain, pairwise_radius, p_b_upper, error=None):
        return {
            "image_id": image_id,
            "rule": "argmax",
            "label": label,
            "prediction": prediction,
            "abstain": abstain,
            "standard_radius": 0.0,
            "cost_sensitive_radius": min(pairwise_radius, default=np.nan),
            "p_b_upper": np.array(p_b_upper),
            "pairwise_radius": np.array(pairwise_radius),
            "alpha": 0.001,
            "error": error,
        }

    frame = pd.DataFrame(
        [
            row("a0", 0, 0, False, [0.4, 0.9], [0.2, 0.1]),
            row("a1", 0, 2, False, [0.3, 0.0], [0.2, 0.9]),  # wrong, and costly
            row("a2", 0, None, False, [0.0, 0.0], [1.0, 1.0], error="truncated file"),
            row("b0", 1, 1, False, [], []),
            row("c1", 2, 2, True, [0.5, 0.1], [0.1, 0.3]),
            row("c0", 2, 2, False, [0.1, 0.4], [0.3, 0.2]),
            row("c2", 2, 1, False, [0.2, 0.0], [0.2, 0.8]),
        ]
    )
    return frame.astype({"prediction": "Int64"})


def test_robustness_of_each_pair_by_hand(seven_images):
    nan = np.nan
    at_0_5 = [[nan, 0, 1 / 3], [nan, nan, nan], [1 / 3, 0, nan]]
    at_0_3 = [[nan, 2 / 3, 1 / 3], [nan, nan, nan], [1 / 3, 1 / 3, nan]]
    at_0 = [[nan, 2 / 3, 1 / 3], [nan, nan, nan], [1, 2 / 3, nan]]  # a radius of 0 is certified at no radius
    for radius, by_hand in ((0.5, at_0_5), (0.3, at_0_3), (0.0, at_0)):
        found = pairwise_robustness(seven_images, costs=COSTS, radius=radius)
        np.testing.assert_allclose(found, by_hand)
    assert found.loc["c", "a"] == 1 and (found.index.name, found.columns.name) == ("seed", "target")


def test_a_class_without_images_and_names_is_a_row_of_nan(seven_images):
    found = pairwise_robustness(seven_images[:3], costs=CostMatrix(COSTS.values), radius=0.5)
    assert found.loc[0].tolist()[1:] == [0, pytest.approx(1 / 3)] and found.loc[2].isna().all()


def test_recalls_by_hand_and_as_the_summary_counts_them(seven_images):
    found = class_recalls(seven_images, 4)
    assert found["num_images"].tolist() == [3, 1, 3, 0]
    assert found["recall"].tolist()[:3] == [1 / 3, 1, 1 / 3]  # a0; b0; c0, since c1 abstains
    assert found.loc[3, ["recall", "recall_low", "recall_high"]].isna().all()
    of_all = summarize(seven_images, costs=COSTS, radii=[0]).iloc[0]
    assert (found["recall"] * found["num_images"]).sum() / 7 == pytest.approx(of_all["accuracy"])
    of_seeds = of_all[["seed_recall", "seed_recall_low", "seed_recall_high"]]  # three of a and three of c
    twice = class_recalls(
        seven_images.assign(label=seven_images["label"].replace(0, 2), prediction=[2, 0, None, 1, 2, 2, 1]), 3
    )
    assert twice.loc[2, ["recall", "recall_low", "recall_high"]].tolist() == pytest.approx(of_seeds.tolist())


def test_the_costliest_images_by_hand(seven_images):
    found = costliest_images(seven_images, costs=COSTS, radius=0.3, k=5)
    assert found["image_id"].tolist() == ["a2", "a1", "c2", "c0", "c1"]
    assert found["worst_case_cost"].tolist() == [5, 5, 3, 3, 3]
    assert found["cost_left"].tolist() == [7, 5, 6, 3, 3]  # c0 before c1 by its name
    assert found["reachable"].tolist() == [2, 2, 1, 0, 1]  # c2 may become a or b, b has more votes
    assert found["error"].tolist()[0] == "truncated file"


def test_images_that_cannot_cost_anything_are_not_among_the_costliest(seven_images):
    found = costliest_images(seven_images, costs=COSTS, radius=0.0, k=10)
    assert found["image_id"].tolist() == ["a2", "a1", "c2"]
    assert costliest_images(seven_images, costs=COSTS, radius=0.3, k=1)["image_id"].tolist() == ["a2"]


def test_certificates_read_back_from_parquet_say_the_same(seven_images):
    file = io.BytesIO()
    seven_images.to_parquet(file)
    back = pd.read_parquet(file)
    for function in (pairwise_robustness, lambda rows, **more: costliest_images(rows, k=5, **more)):
        there, here = (function(rows, costs=COSTS, radius=0.3) for rows in (back, seven_images))
        pd.testing.assert_frame_equal(there, here, check_dtype=False)


def test_standard_certificates_alone_have_no_pairs(seven_images):
    standard = seven_images.assign(cost_sensitive_radius=np.nan, pairwise_radius=[[]] * 7)
    assert pairwise_robustness(standard, costs=COSTS, radius=0.5).isna().all(axis=None)
    assert costliest_images(standard, costs=COSTS, radius=0.5, k=3).empty


@pytest.mark.parametrize("column", ["run_id", "costs", "rule", "alpha"])
def test_certificates_that_do_not_belong_together_are_refused(seven_images, column):
    mixed = seven_images.assign(**{column: [0.1, *[0.2] * 6]})
    for function in (pairwise_robustness, lambda rows, **more: costliest_images(rows, k=5, **more)):
        with pytest.raises(UserError, match=rf"several values of {column} \(0.1, 0.2\); select one"):
            function(mixed, costs=COSTS, radius=0.3)
    with pytest.raises(UserError, match=f"several values of {column}"):
        class_recalls(mixed, 3)


def test_classes_that_do_not_fit_are_refused(seven_images):
    with pytest.raises(UserError, match="labels 0 to 2 for 2 classes"):
        class_recalls(seven_images, 2)
    with pytest.raises(UserError, match="image 'a0' has 2 pair-wise radii, the costs 1 targets"):
        pairwise_robustness(seven_images, costs=CostMatrix.pairwise(3, {0: [1], 2: [1]}), radius=0.1)


def answered(**classes):
    """Certificates of images of classes 0, 1, ...: of each, how many are answered rightly of how many."""
    labels = np.repeat(range(len(classes)), [images for _, images in classes.values()])
    right = np.concatenate([np.arange(images) < hits for hits, images in classes.values()])
    votes = 1000 * np.eye(len(classes), dtype=int)[np.where(right, labels, (labels + 1) % len(classes))]
    return certify_counts(votes, votes, labels, costs=CostMatrix.uniform(len(classes)), sigma=0.5, sampling="fixed")


@pytest.mark.parametrize(
    ("recall", "argmax", "collapsed"),
    [
        ((0, 40), None, True),
        ((1, 40), None, True),  # 0.025
        ((2, 40), None, False),  # 0.05
        ((0, 4), None, True),  # by Wilson's interval it is below one half
        ((0, 3), None, False),  # too few to say
        ((0, 3), (3, 3), False),
        ((19, 40), (40, 40), True),  # less than half of argmax's
        ((20, 40), (40, 40), False),
        ((1, 4), (3, 4), True),
        ((2, 10), (5, 10), False),  # by its interval it may be as large
        ((0, 40), (0, 40), True),  # argmax has collapsed too
    ],
)
def test_a_class_has_collapsed_where_its_recall_is_tiny_or_half_of_argmax(recall, argmax, collapsed):
    plain = None if argmax is None else answered(dog=argmax, cat=(5, 5))
    found = collapsed_classes(answered(dog=recall, cat=(5, 5)), 2, plain)
    assert found.index.tolist() == ([0] if collapsed else [])


def test_a_collapse_is_said_with_its_counts():
    rows, plain = answered(a=(0, 40), b=(9, 10), c=(2, 40)), answered(a=(22, 40), b=(9, 10), c=(30, 40))
    found = collapsed_classes(rows, 3, plain)
    assert collapse_in_words(found, "abc") == "a 0 of 40 right (argmax 0.550), c 2 of 40 right (argmax 0.750)"
    assert collapse_in_words(collapsed_classes(rows, 3)) == "0 0 of 40 right"
    assert collapse_in_words(collapsed_classes(plain, 3)) == ""
    many = collapsed_classes(answered(**{name: (0, 5) for name in "abcdef"}), 6)
    assert collapse_in_words(many, "abcdef").endswith("d 0 of 5 right and 2 more")


def test_a_class_without_images_has_not_collapsed():
    assert collapsed_classes(answered(a=(0, 0), b=(5, 5)), 2).empty


def test_intervals_of_recalls_are_over_groups_where_images_have_some():
    votes = np.eye(2, dtype=int)[[0, 0, 0, 1, 1, 1, 0, 0]]
    certificates = certify_counts(
        10 * votes, 1000 * votes, [0] * 8, costs=CostMatrix.uniform(2), sigma=0.5, sampling="fixed"
    )
    alone = class_recalls(certificates, 2)
    grouped = class_recalls(certificates.assign(group=["a", "a", "a", "b", "b", "b", "c", None]), 2)
    assert grouped["recall"].equals(alone["recall"])
    assert grouped["recall_low"][0] < alone["recall_low"][0] and grouped["recall_high"][0] > alone["recall_high"][0]
