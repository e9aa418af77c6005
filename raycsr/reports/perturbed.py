"""What a radius and a noise level look like: an image beside a noisy copy and perturbations of that L2 norm.

All of it by numpy, in whole grey levels, as attacks and certificates have it. No torch.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raycsr.reports.document import Captioned, Gallery
from raycsr.reports.photographs import small_png
from raycsr.smoothing.lattice import lattice_table

_LEVELS = 255
_HALVINGS = 60  # of the interval in which the largest multiple is sought
_SPOT_CHANGE = 128  # grey levels by which a spot may change: its side follows from that
_LONGEST = 320  # px of a picture's longer side on a page: smaller ones would average the noise away

EXPLAINED = (
    "From left to right: the image; a noisy copy, as the base classifier sees many (levels below black and above white "
    "are shown as those); two pictures no further from the image than the radius, by a random change of all pixels and "
    "by one spot; and the random change alone, magnified around grey. A certificate of that radius covers these and "
    "every other picture as near. PSNR: the larger, the more alike; above 40 dB few people see a difference."
)


class Perturbed(NamedTuple):
    """A picture near an image.

    Attributes:
        title: What was done.
        pixels: The picture, clipped to what can be shown; uint8 (H, W, 3).
        change: What was added, in grey levels; int (H, W, 3).
    """

    title: str
    pixels: NDArray[np.uint8]
    change: NDArray[np.int64]

    @property
    def norm(self) -> float:
        """The L2 norm of the change, in [0, 1] pixel units."""
        return float(np.sqrt((self.change.astype(np.float64) ** 2).sum())) / _LEVELS

    @property
    def psnr(self) -> float:
        """The peak signal-to-noise ratio in dB; infinite where nothing changed."""
        mean_square = float((self.change.astype(np.float64) ** 2).mean())
        return float(10 * np.log10(_LEVELS**2 / mean_square)) if mean_square else float("inf")

    @property
    def largest(self) -> int:
        """The largest change of a value, in grey levels."""
        return int(np.abs(self.change).max(initial=0))

    def lines(self) -> list[str]:
        """What stands below the picture."""
        return [
            self.title,
            f"L2 {self.norm:.4g}, PSNR {self.psnr:.1f} dB",
            f"largest change {self.largest} of {_LEVELS} grey levels",
            f"{np.count_nonzero(self.change):,} of {self.change.size:,} values change",
        ]


def perturbed(image: NDArray[np.uint8], name: str, *, radius: float, sigma: float, seed: int = 0) -> list[Perturbed]:
    """A noisy copy of an image, a random perturbation of a norm, and one that is spent on a spot.

    Args:
        image: Pixels; uint8 (H, W, 3).
        name: Name of the image, which the noise depends on.
        radius: L2 norm of the perturbations, in [0, 1] pixel units; they are as long as whole grey levels allow, and
            never longer.
        sigma: Noise level, in [0, 1] pixel units.
        seed: Seed of the noise.
    """
    generator = np.random.default_rng(_key(seed, name))
    return [
        noisy_copy(image, sigma, _key(seed, name)),
        _longest("random, all pixels", image, generator.standard_normal(image.shape), radius),
        _longest("on one spot", image, _spot(image, radius), radius),
    ]


def as_seen(image: NDArray[np.uint8], name: str, sigma: float) -> Perturbed:
    """One noisy copy of an image (H, W, 3), such as the base classifier sees many of; always the same of one name."""
    return noisy_copy(image, sigma, _key(0, name))


def noisy_copy(image: NDArray[np.uint8], sigma: float, key: int) -> Perturbed:
    """One noisy copy by the lattice noise of a key of 128 bits; drawn for people, not the noise of any vote."""
    noise = np.empty(image.size, np.float32)
    lattice_table(sigma).fill(noise, key, 0)
    change = noise.reshape(image.shape).astype(np.int64)
    return Perturbed(f"noise, σ = {sigma:g}", np.clip(image + change, 0, _LEVELS).astype(np.uint8), change)


def _key(seed: int, name: str) -> int:
    message = json.dumps([seed, name, "shown"]).encode()
    return int.from_bytes(hashlib.blake2b(message, digest_size=16).digest(), "little")


def _spot(image: NDArray[np.uint8], radius: float) -> NDArray[np.float64]:
    """The direction that moves a square in the middle away from what it is: each value to the farther end."""
    height, width, channels = image.shape
    side = np.sqrt((radius * _LEVELS) ** 2 / channels) / _SPOT_CHANGE
    side = int(np.clip(np.ceil(side), 1, min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    direction = np.zeros(image.shape)
    spot = image[top : top + side, left : left + side]
    direction[top : top + side, left : left + side] = np.where(spot < 128, 1.0, -1.0)
    return direction


def _longest(title: str, image: NDArray[np.uint8], direction: NDArray[np.float64], radius: float) -> Perturbed:
    """The picture farthest along a direction, in whole grey levels, that is no further than the radius.

    Rounded and clipped, a larger multiple never gives a smaller change of any value: halving the interval finds it.
    """
    before, budget = image.astype(np.int64), (radius * _LEVELS) ** 2

    def change(multiple: float) -> NDArray[np.int64]:
        return np.clip(before + np.rint(multiple * direction).astype(np.int64), 0, _LEVELS) - before

    low, high = 0.0, float(_LEVELS) / max(float(np.abs(direction[direction != 0]).min(initial=1.0)), 1e-3)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if int((change(middle) ** 2).sum()) <= budget else (low, middle)
    found = change(low)
    return Perturbed(title, (before + found).astype(np.uint8), found)


def magnified(one: Perturbed) -> Perturbed:
    """A change by itself, around middle grey, times what makes it visible."""
    times = 127 // max(1, one.largest)
    pixels = np.clip(128 + times * one.change, 0, _LEVELS).astype(np.uint8)
    return Perturbed(f"that change, times {times}", pixels, one.change)


def gallery(image: NDArray[np.uint8], name: str, shown: Sequence[Perturbed]) -> Gallery:
    """An image and the pictures near it, side by side; the second, the random one, is magnified at the end.

    Args:
        image: Pixels; uint8 (H, W, 3).
        name: Name of the image.
        shown: What `perturbed` returns.
    """
    height, width = image.shape[:2]
    last = magnified(shown[1])
    return Gallery(
        [
            Captioned(small_png(image, _LONGEST), [name, f"{height} x {width} px"]),
            *(Captioned(small_png(one.pixels, _LONGEST), one.lines()) for one in shown),
            Captioned(small_png(last.pixels, _LONGEST), [last.title]),
        ]
    )
