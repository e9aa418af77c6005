"""Certifying images in this process: the engine's votes, the bounds of `certify`, and nothing left changed."""

import numpy as np
import pandas as pd
import pytest
import torch

from raycsr import UserError, certify_counts
from raycsr.costs import CostMatrix
from raycsr.data.packaged import digits_arrays
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference, resolve_precision
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.certify_images import certify_images
from raycsr.smoothing.engine import Sampler
from raycsr.smoothing.options import Draws

COSTS = CostMatrix.pairwise(10, {4: [9], 3: [8]})
DRAWS = Draws(0.5, 32, 128, seed=7)


@pytest.fixture
def classifier():
    return load_base_classifier(ModelOptions("cifar_resnet8", num_classes=10, input_size=8))


@pytest.fixture
def digits():
    images, labels = digits_arrays("train")
    return images[:6], labels[:6]


def certified(classifier, digits, **more):
    images, labels = digits
    return certify_images(classifier, {str(i): one for i, one in enumerate(images)}, labels, DRAWS, costs=COSTS, **more)


def test_rows_are_what_counting_and_certifying_give(classifier, digits):
    rules = ["argmax", "offset:2*pair:4/9", "expected_cost:1,3*pair:4/9"]
    ours = certified(classifier, digits, rules=rules, alpha=0.01)
    images, labels = digits
    network = prepare_for_inference(classifier, precision=resolve_precision("auto", "cpu"), device="cpu")
    sampler = Sampler(network, DRAWS, rules=rules, purpose="tuning")
    votes = [sampler.count(torch.from_numpy(image).permute(2, 0, 1), str(i)) for i, image in enumerate(images)]
    assert ours["rule"].tolist() == [rule.id for rule in sampler.rules for _ in range(6)]
    for r, rule in enumerate(rule.id for rule in sampler.rules):
        theirs = certify_counts(
            [counts0[r] for counts0, _ in votes],
            [counts[r] for _, counts in votes],
            labels,
            costs=COSTS,
            sigma=0.5,
            sampling="fixed",
            alpha=0.01,
            rules=[rule] * 6,
        )
        pd.testing.assert_frame_equal(ours[ours["rule"] == rule].reset_index(drop=True), theirs)


def test_the_classifier_and_torch_are_left_as_they_were(classifier, digits):
    classifier.train().requires_grad_(True)
    classifier.network.conv1.weight.grad = torch.ones_like(classifier.network.conv1.weight)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    certified(classifier, digits)
    assert torch.get_num_threads() == threads and torch.equal(torch.random.get_rng_state(), state)
    assert torch.is_grad_enabled() and classifier.training
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert classifier.network.conv1.weight.grad.sum() > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())


def test_a_classifier_in_training_is_judged_in_eval_mode(classifier, digits):
    in_eval = certified(classifier, digits)
    pd.testing.assert_frame_equal(certified(classifier.train(), digits), in_eval)


def test_each_image_is_reported_and_a_broken_network_is_an_error_of_the_image(classifier, digits):
    classifier.network.fc.bias.data[0] = torch.nan
    seen = []
    certificates = certified(classifier, digits, progress=seen.append)
    assert seen == [1] * 6
    assert (certificates["error"] == "the logits are not finite").all() and (certificates["standard_radius"] == 0).all()


def test_pixels_of_another_kind_are_refused(classifier, digits):
    images, labels = digits
    for wrong in (images.astype(np.float32), images.transpose(0, 3, 1, 2)):
        with pytest.raises(UserError, match=r"image '0' is .*: give pixels as uint8 \(H, W, 3\)"):
            certified(classifier, (wrong, labels))
    with pytest.raises(UserError, match="5 images and 6 labels"):
        certified(classifier, (images[:5], labels))
