"""Cross-entropy to what the classifier answers without noise, worked out by hand."""

import math

import pytest
import torch
from denoised import Halved

from raycsr.costs import CostMatrix
from raycsr.training.objectives import resolve_objective, stability

# Means .8 and .2: answers 1 and 0 without the denoiser; halved, .4 and .1: leads of 1 and -2.
IMAGES = torch.stack([torch.full((3, 4, 4), 0.8), torch.full((3, 4, 4), 0.2)])
LOSSES = [math.log1p(math.exp(-1)), math.log1p(math.exp(-2))]
ERRORS = [0.4**2, 0.1**2]


def batch(sigma=0.0):
    return {"sigma": sigma, "progress": 0.0, "generator": torch.Generator().manual_seed(0)}


def test_the_target_is_the_answer_without_noise_and_denoiser_whatever_the_label():
    for labels in ([0, 1], [1, 0]):
        loss = stability(Halved(), IMAGES, torch.tensor(labels), costs=None, **batch())
        assert loss.item() == pytest.approx(sum(LOSSES) / 2)


def test_the_squared_error_is_added_with_its_weight():
    loss = stability(Halved(), IMAGES, torch.tensor([1, 0]), costs=None, mse=3.0, **batch())
    assert loss.item() == pytest.approx(sum(LOSSES) / 2 + 3 * sum(ERRORS) / 2)


def test_gradients_go_through_the_denoised_pixels_alone():
    model = Halved()
    loss = stability(model, IMAGES, torch.tensor([1, 0]), costs=None, **batch())
    loss.backward()
    # d/df of -log p_1 = -(1 - p_1) * 10 * .8, and of -log p_0 = p_1 * 10 * .2
    first, second = -8 / (1 + math.e), 2 / (1 + math.exp(2))
    assert model.factor.grad.item() == pytest.approx((first + second) / 2, rel=1e-5)


def test_costs_weigh_the_cross_entropy_of_the_labels_class_and_not_the_squared_error():
    costs = CostMatrix.seedwise(2, [0])
    found = resolve_objective("stability_cs", {"weight": 2.0, "mse": 3.0}, costs=costs)
    loss = found(
        Halved(), IMAGES, torch.tensor([0, 1]), costs=torch.tensor(costs.values, dtype=torch.float32), **batch()
    )
    assert loss.item() == pytest.approx(sum(LOSSES) / 2 + 3 * sum(ERRORS) / 2 + 2 * LOSSES[0])


def test_noise_is_in_what_is_denoised_and_not_in_what_is_answered():
    images, labels = (
        torch.full((64, 3, 1, 1), 0.32),
        torch.zeros(64).long(),
    )  # noise of .2 would turn half of the answers
    noisy = stability(Halved(), images, labels, costs=None, **batch(0.2))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    lead = 10 * ((images + 0.2 * noise).mean(dim=(1, 2, 3)) / 2 - 0.3)
    assert noisy.item() == pytest.approx((-lead).exp().log1p().mean().item(), rel=1e-5)
