"""The gaussian objective on a model small enough for a pencil."""

import math

import pytest
import torch
from torch import nn

from raycsr.training.objectives import OBJECTIVES, gaussian

LABELS = torch.tensor([0, 1])
IMAGES = torch.tensor([0.25, 0.75]).view(2, 1, 1, 1)


class Linear(nn.Module):
    """Logits (w * x, 0) of one-pixel images."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def forward(self, images):
        z = self.weight * images.flatten(1)
        return torch.cat([z, torch.zeros_like(z)], dim=1)


def loss(model, sigma, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return gaussian(model, IMAGES, LABELS, sigma=sigma, costs=None, progress=0.0, generator=generator)


def test_value_without_noise():
    # logits (1, 0) and (3, 0): -log softmax_0 = log(1 + e^-1), -log softmax_1 = log(1 + e^3)
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(3))) / 2
    assert loss(Linear(4.0), sigma=0.0).item() == pytest.approx(expected, rel=1e-6)


def test_noise_is_sigma_times_the_generators_normals():
    noise = torch.randn(2, 1, 1, 1, generator=torch.Generator().manual_seed(0)).flatten().tolist()
    z = [4 * (x + 0.5 * e) for x, e in zip([0.25, 0.75], noise, strict=True)]
    expected = (math.log1p(math.exp(-z[0])) + math.log1p(math.exp(z[1]))) / 2
    assert loss(Linear(4.0), sigma=0.5).item() == pytest.approx(expected, rel=1e-6)
    assert loss(Linear(4.0), sigma=0.5, seed=1).item() != pytest.approx(expected, rel=1e-3)


def test_gradient_is_the_finite_difference():
    model, step = Linear(4.0), 1e-3
    loss(model, sigma=0.5).backward()
    difference = (loss(Linear(4.0 + step), 0.5) - loss(Linear(4.0 - step), 0.5)) / (2 * step)
    assert model.weight.grad.item() == pytest.approx(difference.item(), rel=2e-3)


def test_it_is_registered():
    assert OBJECTIVES["gaussian"] is gaussian
