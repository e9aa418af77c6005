"""Pictures near an image: as far as they say and no further, in whole grey levels, and the same each time."""

import numpy as np
import pytest

from raycsr.reports.perturbed import gallery, magnified, perturbed


def image_of(size, value=None):
    if value is not None:
        return np.full((size, size, 3), value, np.uint8)
    return np.random.default_rng(size).integers(0, 256, (size, size, 3)).astype(np.uint8)


@pytest.mark.parametrize("radius", [0.02, 0.25, 0.5, 2.0])
@pytest.mark.parametrize(
    "image", [image_of(8), image_of(64), image_of(64, 0), image_of(64, 255)], ids=["8", "64", "black", "white"]
)
def test_a_perturbation_is_as_long_as_the_radius_and_never_longer(image, radius):
    for one in perturbed(image, "x", radius=radius, sigma=0.25)[1:]:
        assert (one.pixels.astype(int) - image == one.change).all(), "a picture of 8 bits, none of it clipped"
        assert radius * 0.85 < one.norm <= radius or radius < 0.05


def test_a_radius_that_no_picture_reaches_gives_the_farthest():
    farthest = perturbed(image_of(4, 0), "x", radius=100.0, sigma=0.25)[2]
    assert (farthest.pixels == 255).all()


def test_numbers_by_hand():
    _, _, spot = perturbed(image_of(32, 0), "x", radius=0.5, sigma=0.25)
    # .5 is 127.5 grey levels, which three channels of one pixel share: 127.5 / sqrt(3) = 73.6
    assert spot.largest == 73 and (spot.change != 0).sum() == 3
    assert spot.psnr == pytest.approx(10 * np.log10(32 * 32 * 3 / spot.norm**2))
    _, far, largest, changed = spot.lines()
    assert (
        f"PSNR {spot.psnr:.1f} dB" in far
        and f"{spot.largest} of 255" in largest
        and changed == "3 of 3,072 values change"
    )


def test_noise_is_that_of_sigma_and_depends_on_the_image_and_the_seed():
    image = image_of(64, 128)
    noisy, again, other = (
        perturbed(image, name, radius=0.5, sigma=0.25, seed=seed)[0] for name, seed in (("x", 0), ("x", 0), ("x", 1))
    )
    assert noisy.change.std() == pytest.approx(0.25 * 255, rel=0.02)
    assert noisy.psnr == pytest.approx(20 * np.log10(1 / 0.25), abs=0.2)
    assert (noisy.change == again.change).all() and (noisy.change != other.change).any()


def test_a_gallery_has_the_image_the_pictures_and_the_change_by_itself():
    image = image_of(8)
    found = perturbed(image, "x.png", radius=0.5, sigma=0.25)
    shown = gallery(image, "x.png", found).pictures
    assert [one.lines[0] for one in shown[:2]] == ["x.png", "noise, σ = 0.25"] and len(shown) == 5
    large = magnified(found[1])
    assert large.pixels.max() - 128 > 60 or 128 - large.pixels.min() > 60
