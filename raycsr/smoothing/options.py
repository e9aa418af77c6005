"""How the votes of an image are drawn."""

import math
from dataclasses import dataclass
from typing import Literal

from raycsr.certification import MOST_SAMPLES
from raycsr.errors import UserError


@dataclass(frozen=True)
class Draws:
    """How many noisy copies of an image are drawn, from which noise, and how many at once.

    Attributes:
        sigma: Standard deviation of the noise, in [0, 1] pixel units.
        n0: Selection samples an image.
        n: Estimation samples an image, at most.
        seed: Seed of the noise; an image's noise depends on it and on the image's id.
        batch_size: Rows of a forward pass, a power of two.
    """

    sigma: float
    n0: int
    n: int
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Refuses what cannot be sampled with.

        Raises:
            UserError: naming the option and its value.
        """
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise UserError(f"sigma must be a positive number of [0, 1] pixel units, got {self.sigma}")
        if self.n0 < 1 or self.n < 1:
            raise UserError(f"n0 and n must be at least 1, got n0={self.n0}, n={self.n}")
        if max(self.n0, self.n) > MOST_SAMPLES:
            raise UserError(f"n0 and n must be at most {MOST_SAMPLES:,}, got n0={self.n0}, n={self.n}")
        if self.batch_size < 1 or self.batch_size & (self.batch_size - 1):
            raise UserError(f"batch_size must be a power of two, got {self.batch_size}; try 64")


@dataclass(frozen=True)
class SamplingOptions:
    """How the votes of an image are drawn; what the radii mean is settled here.

    Attributes:
        sigma: Standard deviation of the Gaussian noise, in [0, 1] pixel units; several: a run each.
        n0: Selection samples an image, which choose the class that the certificate speaks of.
        n: Estimation samples an image, from other noise; the largest attainable radius grows with it. With `radii`,
            at most.
        radii: Radii to decide, in [0, 1] pixel units: each image is sampled until it is known whether its radii reach
            them (the standard one, and the cost-sensitive one under each of the costs), which most images need few
            samples for. Its certificates then hold whatever said when to stop, and it can go on later.
        seed: Of the noise.
        batch_size: Rows of a forward pass, a power of two; by default as many as a short search finds fastest. Halved
            where memory runs out.
        precision: Of the network; `auto` is bf16 where the workers' device is fast at it, else fp32.
            Noise is always drawn and added in fp32.
        compile: Compile the network with torch.compile: slower to start, faster after.
    """

    sigma: float | list[float] = 0.5
    n0: int = 100
    n: int = 10_000
    radii: list[float] | None = None
    seed: int = 0
    batch_size: int | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False

    @property
    def design(self) -> str:
        """What chooses n: `fixed`, before the first vote, or `sequential`, the votes."""
        return "fixed" if self.radii is None else "sequential"

    def draws(self, sigma: float, batch_size: int) -> Draws:
        """What is drawn for an image at one sigma, so many rows at once."""
        return Draws(sigma, self.n0, self.max_samples, self.seed, batch_size)

    @property
    def max_samples(self) -> int:
        """Largest number of estimation samples of an image: n, in whole chunks where an image may go on later."""
        return self.n if self.radii is None else -(-self.n // CHUNK) * CHUNK


NOISE_SCHEME = "v1"
"""Part of a run's identity: any change to what follows is a new scheme."""
CHUNK = 64
"""Samples drawn under one key. A constant of the scheme, never the batch size."""
