"""Noise that a noisy image makes of itself: standard normal, and a function of that image alone."""

import numpy as np
import torch
from scipy.stats import kstest

from raycsr.models.denoisers.own_noise import own_noise

IMAGES = torch.randint(-300, 600, (200, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float() / np.float32(255)


def test_it_is_standard_normal_and_one_element_tells_nothing_of_another():
    drawn = np.stack([own_noise(IMAGES, stream).flatten(1).numpy() for stream in (0, 1)])  # streams N D
    assert drawn.shape == (2, 200, 192) and kstest(drawn.ravel(), "norm").pvalue > 0.001
    for one, other in (
        (drawn[0], drawn[1]),  # two streams
        (drawn[:, :-1], drawn[:, 1:]),  # two images
        (drawn[..., :-1], drawn[..., 1:]),  # two neighbours
        (drawn[0], IMAGES.flatten(1).numpy()),  # and what it is made of
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / one.size**0.5


def test_images_that_differ_by_one_level_in_one_pixel_have_noise_that_has_nothing_in_common():
    base = (IMAGES[:1] * 255).round()
    near = base.repeat(192, 1, 1, 1)
    near.view(192, 192).diagonal().add_(1)
    drawn = own_noise(torch.cat([base, near]) / np.float32(255), 0).flatten(1).double()
    together = torch.corrcoef(drawn).fill_diagonal_(0).abs()
    assert together.max() < 6 / 192**0.5  # of 18,528 pairs


def test_neither_the_batch_nor_the_memory_format_nor_a_last_bit_of_a_pixel_changes_it():
    whole = own_noise(IMAGES, 3)
    assert torch.equal(own_noise(IMAGES[7:8], 3), whole[7:8])
    assert torch.equal(own_noise(IMAGES.contiguous(memory_format=torch.channels_last), 3), whole)
    assert torch.equal(own_noise(torch.nextafter(IMAGES, torch.tensor(2.0)), 3), whole)
    assert not own_noise(IMAGES.clone().requires_grad_(), 3).requires_grad
