"""The options that say how the votes of an image are sampled."""

import math
from dataclasses import dataclass
from typing import Literal

from raycsr.certification import MOST_SAMPLES
from raycsr.errors import Mistakes, UserError

MOST_SIGMA = 14
"""Noise of 3,570 grey levels, beside which no image is seen; its table has 73,000 edges."""

MOST_ROWS = 2**15
"""Of a forward pass: a power of two for which a GPU can have a row of programs each (65,535), that draw the noise."""


@dataclass(frozen=True)
class Draws:
    """How many noisy copies of an image are drawn, with which noise, and how many in one forward pass.

    Attributes:
        sigma: Standard deviation of the noise, in [0, 1] pixel units.
        n0: Number of selection samples of an image.
        n: Largest number of estimation samples of an image.
        seed: Seed of the noise; an image's noise depends on it and on the image's id.
        batch_size: Number of rows of a forward pass, a power of two.
    """

    sigma: float
    n0: int
    n: int
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Refuses what cannot be sampled with.

        Raises:
            UserError: naming each option and its value.
        """
        mistakes = Mistakes()
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            mistakes.note(f"sigma must be a positive number of [0, 1] pixel units, got {self.sigma}; try 0.5")
        elif self.sigma > MOST_SIGMA:
            mistakes.note(f"sigma is {self.sigma:g} in [0, 1] pixel units; give {MOST_SIGMA} at most")
        if self.n0 < 1 or self.n < 1:
            mistakes.note(f"n0 and n must be at least 1, got n0={self.n0}, n={self.n}")
        if max(self.n0, self.n) > MOST_SAMPLES:
            mistakes.note(f"n0 and n must be at most {MOST_SAMPLES:,}, got n0={self.n0}, n={self.n}")
        if self.batch_size < 1 or self.batch_size & (self.batch_size - 1):
            mistakes.note(f"batch_size must be a power of two, got {self.batch_size}; try 64")
        elif self.batch_size > MOST_ROWS:
            mistakes.note(f"batch_size is {self.batch_size:,}; give {MOST_ROWS:,} at most")
        mistakes.refuse()


@dataclass(frozen=True)
class SamplingOptions:
    """How the votes of an image are sampled: the noise, which gives the radii their meaning, and the number of samples.

    Attributes:
        sigma: Standard deviation of the Gaussian noise, in [0, 1] pixel units; a list gives a run for each.
        n0: Number of selection samples of an image, which choose the class that its certificate is about.
        n: Number of estimation samples of an image, drawn with independent noise; the largest attainable radius grows
            with it. With `radii` it is the largest number.
        radii: Radii to decide, in [0, 1] pixel units. Each image is sampled only until it is known whether its radii
            (the standard and the multiclass one, and the cost-sensitive one under each of the costs) reach them; most
            images need few samples. The certificates hold whenever sampling stops, and an image can be continued later.
        seed: Seed of the noise.
        batch_size: Number of rows of a forward pass, a power of two; by default a short search finds the fastest. It is
            halved where memory runs out.
        precision: Precision of the network; `auto` is bf16 where the workers' device is fast at it, else fp32, which
            rounds nothing to TF32. `fp8` is bf16 with products of 8 bits in the linear layers of transformers and their
            kin, for GPUs that compute in it. A model that `raycsr quantise` made is in int8, and in nothing else. Noise
            is whole grey levels, added exactly, whatever the precision.
        compile: Whether to compile the network by torch.compile, which is slower to start and faster after; by default
            on GPUs, for networks that can be.
    """

    sigma: float | list[float] = 0.5
    n0: int = 64
    n: int = 10_000
    radii: list[float] | None = None
    seed: int = 0
    batch_size: int | None = None
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16", "fp8", "int8"] = "auto"
    compile: bool | None = None

    @property
    def design(self) -> str:
        """The sampling design: `fixed`, where n is chosen beforehand, or `sequential`, where the votes end sampling."""
        return "fixed" if self.radii is None else "sequential"

    def draws(self, sigma: float, batch_size: int) -> Draws:
        """The draws of an image at one sigma, with so many rows in a forward pass."""
        return Draws(sigma, self.n0, self.max_samples, self.seed, batch_size)

    @property
    def max_samples(self) -> int:
        """Largest number of estimation samples of an image: n, in whole chunks where an image may go on later."""
        return self.n if self.radii is None else -(-self.n // CHUNK) * CHUNK


NOISE_SCHEME = "v2"
"""Name of the noise scheme, part of a run's identity: any change to the noise is a new scheme."""
CHUNK = 64
"""Number of samples that are drawn under one key: a constant of the noise scheme, never the batch size."""


@dataclass(frozen=True)
class AttackOptions:
    """What is spent on an attack of one image at one radius, and on its verdict.

    Attributes:
        steps: Gradient steps.
        noises: Noisy copies of the image in each step.
        n: Votes of the verdict; more tell apart what is closer to the border.
        seed: Seed of the draw of images, of the attack's noise and of the verdict's.
    """

    steps: int = 20
    noises: int = 32
    n: int = 1000
    seed: int = 0


def check_attack(options: AttackOptions) -> None:
    """Refuses what cannot be attacked or judged with.

    Raises:
        UserError: naming the option and its value.
    """
    for name, value, least in (("steps", options.steps, 1), ("noises", options.noises, 1), ("n", options.n, 20)):
        if not least <= value <= MOST_SAMPLES:
            why = "; fewer votes prove nothing at 1e-6, even if all agree" if name == "n" else ""
            raise UserError(f"{name} is {value}; give {least} or more{why}")
