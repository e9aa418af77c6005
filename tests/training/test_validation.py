"""Validation by certificate: what is held out, and that the metrics are those of `certify` and `report`."""

import numpy as np
import pytest

import raycsr
from raycsr.certification import METRICS, collapse_in_words, collapsed_classes
from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.certify_images import certify_images
from raycsr.smoothing.options import Draws
from raycsr.training.options import ValidationOptions
from raycsr.training.validation import certified_metrics, check_validation, hold_out

LABELS = np.arange(1000) % 10
SEED_3 = CostMatrix.seedwise(10, [3])


def test_holds_out_mixed_images_and_further_ones_of_seed_classes():
    options = ValidationOptions(images=100, sensitive=40)
    held = hold_out(LABELS, SEED_3, options)
    both = np.concatenate([held.random, held.seed_class])
    assert len(held.random) == 100 and (LABELS[both] == 3).sum() == 40 and (LABELS[held.seed_class] == 3).all()
    assert sorted([*both, *held.left]) == list(range(1000))
    again = hold_out(LABELS, SEED_3, options)
    assert np.array_equal(again.random, held.random) and np.array_equal(again.seed_class, held.seed_class)
    assert len(np.unique(LABELS[held.random])) == 10


def test_refuses_to_hold_out_most_of_a_class():
    with pytest.raises(
        UserError, match="hold out 60 of 100 images of seed classes.*images=100 and validation.sensitive=20"
    ):
        hold_out(LABELS, SEED_3, ValidationOptions(images=100, sensitive=60))
    with pytest.raises(UserError, match="hold out 600 of 1000 images"):
        hold_out(LABELS, SEED_3, ValidationOptions(images=600, sensitive=0))


class TestGroups:
    """Images of one patient stay on one side: a network knows a patient's other images when it has seen one."""

    GROUPS = np.random.default_rng(0).integers(0, 150, 1000)  # 1 to some 15 images each, of any class

    def test_no_group_is_on_both_sides(self):
        held = hold_out(LABELS, SEED_3, ValidationOptions(images=100, sensitive=40), self.GROUPS)
        both = np.concatenate([held.random, held.seed_class])
        assert not set(self.GROUPS[both]) & set(self.GROUPS[held.left])
        assert 100 <= len(held.random) < 120 and 40 <= (LABELS[both] == 3).sum() < 45
        assert (LABELS[held.seed_class] == 3).all() and len(set(both)) == len(both)
        alone = hold_out(LABELS, SEED_3, ValidationOptions(images=100, sensitive=40))
        assert set(self.GROUPS[alone.random]) & set(self.GROUPS[alone.left])

    def test_each_group_is_held_out_as_often_as_any_other_however_large(self):
        groups = np.repeat(np.arange(40), [1, 9] * 20)
        labels = np.zeros(200, int)
        held = hold_out(labels, SEED_3, ValidationOptions(images=50, sensitive=0), groups).random
        sizes = np.bincount(groups)[np.unique(groups[held])]
        assert 0.25 < np.mean(sizes == 1) < 0.75

    def test_a_group_that_is_most_of_the_data_cannot_be_held_out(self):
        groups = np.where(np.arange(1000) < 990, 0, np.arange(1000))
        with pytest.raises(UserError, match=r"would hold out 99\d of 1000 images, for a group is held out whole"):
            hold_out(LABELS, SEED_3, ValidationOptions(images=100, sensitive=0), groups)

    def test_groups_of_one_image_change_nothing(self):
        options = ValidationOptions(images=100, sensitive=40)
        alone, grouped = hold_out(LABELS, SEED_3, options), hold_out(LABELS, SEED_3, options, np.arange(1000))
        assert np.array_equal(alone.random, grouped.random) and np.array_equal(alone.left, grouped.left)
        assert alone.random[:4].tolist() == np.random.default_rng(0).permutation(1000)[:4].tolist()


def test_metrics_are_those_of_the_public_functions():
    model = load_base_classifier(ModelOptions("cifar_resnet8", input_size=8), num_classes=3)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    labels = np.array([0, 1, 2, 1] * 3)
    costs = CostMatrix([[0, 0, 0], [2, 0, 0], [1, 3, 0]])
    options = ValidationOptions(n0=16, n=64, radius=0.1)
    metrics = certified_metrics(model, pixels, labels, 4, costs=costs, sigma=0.25, options=options)

    certificates = certify_images(
        model, {str(i): image for i, image in enumerate(pixels)}, labels, Draws(0.25, 16, 64), costs=costs
    )

    def expected(stop):
        return raycsr.summarize(certificates.iloc[:stop], costs=costs, radii=[0.1]).iloc[0]

    assert set(metrics) == {*METRICS, "collapsed"}
    assert metrics["collapsed"] == collapse_in_words(collapsed_classes(certificates, 3)) != ""  # it knows nothing yet
    of_all, of_sensitive = expected(4), expected(12)
    for name in ("accuracy", "acr", "target_recall"):
        assert metrics[name] == pytest.approx(of_all[name])
    for name in ("rob_cs", "rob_cost", "seed_recall"):
        assert metrics[name] == pytest.approx(of_sensitive[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "validation.n must be at least 1, got 0"),
        ({"alpha": 1.0}, "validation.alpha"),
        ({"n": 20}, r"validation.radius is 0.25 and n=20 samples certify 0\.\d+ at most"),
        ({"radius": -0.1}, "validation.radius is -0.1"),
    ],
)
def test_options_under_which_nothing_could_be_certified(options, message):
    with pytest.raises(UserError, match=message):
        check_validation(ValidationOptions(**options), sigma=0.25)
