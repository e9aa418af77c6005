"""The noise schemes: keys, exact noisy copies of the lattice, and the float32 noise of before."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from raycsr import UserError
from raycsr.smoothing.lattice import lattice_table
from raycsr.smoothing.noise import (
    PHASES,
    Copies,
    LatticeNoise,
    fill_noise,
    grey_levels,
    noise_key,
    noise_scheme,
)
from raycsr.smoothing.options import CHUNK

CPU = torch.device("cpu")


# The lattice --------------------------------------------------------------------------------------------------------


def noisy_copies(images, firsts, rows, sigma=0.5):
    """Noisy copies of images, so many rows each, from a place of their chunk on: float32 (copies, rows, H, W, C)."""
    scheme = LatticeNoise(sigma, rows, CPU)
    pixels = torch.stack([scheme.pixels(image) for image in images])
    copies = [Copies(i, 1000 + i, first) for i, first in enumerate(firsts)]
    out = torch.full((len(copies) * rows, *pixels.shape[1:]), torch.nan)
    scheme.add(pixels, copies, out)
    return out.unflatten(0, (len(copies), rows))


def some_images(count, shape=(3, 5, 7)):
    return torch.randint(256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("rows", "firsts"), [(CHUNK, [0, 0, 0]), (16, [0, 16, 48]), (1, [0, 1, 63])])
def test_a_copy_is_the_sum_of_whole_grey_levels_over_255(rows, firsts):
    images = some_images(3)
    copies = noisy_copies(images, firsts, rows)
    for i, first in enumerate(firsts):
        noise = np.empty((CHUNK, 5, 7, 3), np.float32)
        lattice_table(0.5).fill(noise.reshape(-1), 1000 + i, 0)
        levels = images[i].permute(1, 2, 0).numpy().astype(np.int64) + noise[first : first + rows].astype(np.int64)
        assert copies[i].numpy().tolist() == (levels.astype(np.float32) / np.float32(255)).tolist()
        assert (np.rint(copies[i].numpy() * np.float64(255)) == levels).all()  # the network is told nothing else


def test_a_copy_depends_neither_on_its_company_nor_on_threads_nor_on_what_a_thread_draws_at_a_time(monkeypatch):
    images = some_images(3)
    together = noisy_copies(images, [0, 0, 0], CHUNK)
    assert torch.equal(noisy_copies(images[:1], [32], 8)[0], together[0, 32:40])
    threads = torch.get_num_threads()
    monkeypatch.setattr("raycsr.smoothing.noise._PIECE", 1000)
    try:
        torch.set_num_threads(4)
        assert torch.equal(noisy_copies(images, [0, 0, 0], CHUNK), together)
    finally:
        torch.set_num_threads(threads)


def test_pixels_that_are_k_over_255_are_those_grey_levels():
    levels = torch.arange(256, dtype=torch.uint8)
    ways = [
        levels,
        levels / 255,
        levels.double() / 255,
        levels * torch.tensor(1 / 255),
        levels.float().div(255).half().float(),
    ]
    assert all(torch.equal(grey_levels(pixels), levels) for pixels in ways[:4])
    with pytest.raises(UserError, match="uint8.*noise='float32'"):
        grey_levels(ways[4])  # half precision holds few of them


@pytest.mark.parametrize("value", [0.5, 1.01, -0.004, float("nan"), float("inf"), 128 / 255 + 1e-6])
def test_pixels_between_grey_levels_are_refused_by_value(value):
    with pytest.raises(UserError, match=rf"is {value:.7g}, which is no k / 255.*uint8"):
        grey_levels(torch.tensor([0.0, 1.0, value]))


def test_a_scheme_that_there_is_not_is_refused_by_name():
    with pytest.raises(UserError, match="'floaty'.*'lattice'.*'float32'"):
        noise_scheme("floaty", 0.5, CHUNK, CPU)


# Keys, and float32 --------------------------------------------------------------------------------------------------


def draw(seed=0, image_id="a.png", phase="estimation", chunk=0, shape=(8, 8, 3)):
    noise = torch.empty((CHUNK, *shape))
    fill_noise(noise, noise_key(seed, image_id, phase, chunk))
    return noise


def test_equal_arguments_draw_equal_noise_whatever_the_threads():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = draw()
        torch.set_num_threads(4)
        together = draw()
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone, together)


def test_each_argument_changes_the_noise():
    variants = [
        draw(),
        draw(seed=1),
        draw(image_id="b.png"),
        *(draw(phase=phase) for pair in PHASES.values() for phase in pair if phase != "estimation"),
        draw(chunk=1),
    ]
    for a, b in itertools.combinations(variants, 2):
        assert not torch.isclose(a, b).any(dim=(1, 2, 3)).all()
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 0.05


def test_keys_are_128_bits_and_unambiguous():
    keys = {
        noise_key(seed, image, phase, chunk)
        for seed in (1, 11)
        for image in ("", "1")
        for phase in ("selection", "estimation")
        for chunk in (0, 1)
    }
    assert len(keys) == 16
    assert max(keys).bit_length() > 120


def test_the_cpu_uses_the_whole_key():
    key, other = noise_key(0, "a.png", "estimation", 0), torch.empty((CHUNK, 8, 8, 3))
    fill_noise(other, key ^ (1 << 127))
    assert not torch.equal(draw(), other)


@pytest.mark.parametrize("chunk", [0, 7])
def test_draws_are_standard_normal_in_every_sample_and_lane(chunk):
    noise = draw(chunk=chunk, shape=(32, 32, 3)).reshape(CHUNK, -1)
    assert kstest(noise.flatten(), "norm").pvalue > 1e-3
    assert torch.allclose(noise.mean(1), torch.zeros(CHUNK), atol=5 / 3072**0.5)
    assert torch.corrcoef(noise).fill_diagonal_(0).abs().max() < 5 / 3072**0.5


def test_scheme_v1_is_what_it_was():
    # votes already stored belong to these draws
    assert noise_key(0, "a.png", "estimation", 0) == 0x56C3CEAFE27367D47261A7DB5EB2AD19
    assert draw()[0, 0, 0].tolist() == pytest.approx([-0.126579, -1.037458, -1.503976], abs=1e-6)
