"""How the votes of an image are drawn."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SamplingOptions:
    """How the votes of an image are drawn; what the radii mean is settled here.

    Attributes:
        sigma: Standard deviation of the Gaussian noise, in [0, 1] pixel units; several: a run each.
        n0: Selection samples an image, which choose the class that the certificate speaks of.
        n: Estimation samples an image, from other noise; the largest attainable radius grows with it.
        seed: Of the noise.
        batch_size: Rows of a forward pass, a power of two; halved where memory runs out.
        precision: Of the network; `auto` is bf16 where the workers' device is fast at it, else fp32.
            Noise is always drawn and added in fp32.
        compile: Compile the network with torch.compile: slower to start, faster after.
    """

    sigma: float | list[float] = 0.5
    n0: int = 100
    n: int = 10_000
    seed: int = 0
    batch_size: int = 64
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
