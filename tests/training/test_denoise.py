"""The squared error of denoised pixels, worked out by hand."""

import pytest
import torch
from denoised import Halved

from raycsr.training.objectives import denoise

BATCH = {"sigma": 0.0, "costs": None, "progress": 0.0}


def test_the_mean_of_all_pixels_squared_errors():
    images = torch.stack([torch.full((3, 4, 4), 0.8), torch.full((3, 4, 4), 0.2)])
    loss = denoise(Halved(), images, torch.tensor([0, 1]), generator=torch.Generator(), **BATCH)
    assert loss.item() == pytest.approx((0.4**2 + 0.1**2) / 2)


def test_noise_is_of_sigma_and_the_image_is_the_target():
    images = torch.full((4, 3, 32, 32), 0.5)
    generator = torch.Generator().manual_seed(0)
    loss = denoise(Halved(), images, torch.zeros(4).long(), generator=generator, sigma=0.2, costs=None, progress=0.0)
    assert loss.item() == pytest.approx(
        0.25**2 + 0.1**2, rel=0.05
    )  # halved: half of the image is lost, and of the noise


def test_of_another_size_the_image_is_resized():
    images = torch.rand(2, 3, 8, 8)
    made = Halved(smaller=True)
    loss = denoise(made, images, torch.zeros(2).long(), generator=torch.Generator(), **BATCH)
    pooled = torch.nn.functional.interpolate(images, (4, 4), mode="bilinear", antialias=True)
    assert loss.item() == pytest.approx((pooled / 2).square().mean().item(), rel=1e-5)
