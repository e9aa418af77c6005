"""What a denoiser is, of whatever kind: a part in front of the classifier, pixels -> pixels."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from raycsr.models.weights import Weights, weights_in, weights_sha256

RESIZING = "bilinear, antialiased"
"""How pixels are resized between parts; it stands in the identity of runs whose parts differ in size."""


@dataclass(frozen=True)
class DenoiserContents:
    """What a file says of a denoiser.

    Attributes:
        path: Location of the file, for messages.
        arch: Architecture.
        weights: State of its network, under names that may still have wrappers around them.
        args: Further arguments of the architecture.
        sigma: Noise level that it is made for, in [0, 1] pixel units, where the file says one.
        input_size: Height and width that it takes; None where it takes any.
        levels: Noise levels that it is told, where they are other than sigma alone.
        trained_on: Sets of images that it was trained on, as far as they are known.
    """

    path: str
    arch: str
    weights: Weights
    args: Mapping[str, Any] = field(default_factory=dict)
    sigma: float | None = None
    input_size: tuple[int, int] | None = None
    levels: tuple[float, ...] = ()
    trained_on: tuple[dict[str, Any], ...] = ()


class Denoiser(nn.Module):
    """A denoiser: noisy pixels -> pixels, in [0, 1] units both, whatever scale its network has inside.

    A kind of denoiser is a subclass in a file of its own. The pixels that it takes and gives are float32, for noise is
    exact there; its `network` alone is cast to the precision of a run (`cast`), and its batch norms are folded. Each
    image is denoised by itself and by the same function in each call.

    One that is told the noise level may be told several, one after another, all for noise of the one sigma that it is
    made for: each answer then goes through what comes behind, and f is the mean of the logits, as over an ensemble
    (Horvath, Mueller, Fischer & Vechev, ICLR 2022). That is a function of the noisy image alone, and any such function
    is an f of the theorem (Cohen, Rosenfeld & Kolter, ICML 2019), which asks no more of it. One that needs noise of its
    own makes it of the noisy image (`own_noise`), and so is such a function, too.

    Attributes:
        archs: The architectures of the kind: name -> arguments of `build`, which `args` may change.
        needs_sigma: Whether sigma decides what it computes, so that it must be said.
        draws: Whether it makes noise of its own of its pixels, which then have to be whole grey levels: it comes first.
        takes_levels: Whether `forward` takes the place of a level as its second argument; such a kind needs a sigma.
        network: The network, which holds all of its weights.
        arch: Its architecture.
        args: Further arguments of the architecture.
        sigma: Noise level that it is made for, in [0, 1] pixel units; None where it is unknown.
        input_size: Height and width that it takes; None where it takes any.
        levels: Noise levels that it is told, in [0, 1] pixel units, each in a pass of its own; mostly sigma alone.
    """

    archs: ClassVar[Mapping[str, Mapping[str, Any]]]
    needs_sigma: ClassVar[bool] = False
    takes_levels: ClassVar[bool] = False
    draws: bool = False
    sigma: float | None
    levels: tuple[float, ...]

    def __init__(
        self,
        arch: str,
        args: Mapping[str, Any] | None = None,
        *,
        sigma: float | None = None,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        """Creates a denoiser with random weights; its attributes say what the arguments are."""
        super().__init__()
        self.arch, self.args = arch, json.loads(json.dumps(args or {}))  # as its checkpoint and its run have them
        self.input_size = input_size
        self.network = self.build(**{**self.archs[arch], **self.args})
        self.sigma, self.levels = None, ()
        if sigma is not None:
            self.make_for(sigma)

    def make_for(self, sigma: float, levels: Sequence[float] = ()) -> None:
        """Says the noise level that it is made for, and those that it is told; a kind may work out more of them.

        Args:
            sigma: Noise level, in [0, 1] pixel units.
            levels: Levels that it is told; by default sigma alone.
        """
        self.sigma = float(sigma)
        self.levels = tuple(map(float, levels)) or (self.sigma,)

    @classmethod
    def build(cls, *_: Any, **args: Any) -> nn.Module:
        """Returns the network of such arguments, with random weights. Every kind has its own."""
        raise NotImplementedError

    @classmethod
    def of_file(cls, path: str, content: Any) -> DenoiserContents | None:
        """Recognises a file of others' code that says which denoiser it is of, or must be of.

        That of denoised-smoothing is {epoch, arch, state_dict, optimizer}; a kind with another format has its own.

        Args:
            path: Location of the file, for messages.
            content: Content that `read_file` returned.

        Returns:
            What it says; None where it is of no such kind.
        """
        if not isinstance(content, dict) or content.get("arch") not in cls.archs:
            return None
        return DenoiserContents(path, content["arch"], weights_in(path, content, ema=False))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps noisy pixels to pixels. Every kind has its own.

        Args:
            pixels: Pixels in [0, 1] and noise, so beyond it too; float32 (N, 3, H, W).

        Returns:
            Pixels in [0, 1] units; float32 (N, 3, H', W').
        """
        raise NotImplementedError

    def answers(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Maps noisy pixels (N, 3, H, W) to pixels (N, 3, H', W'), once for each level that it is told."""
        if not self.takes_levels:
            return [self(pixels)]
        return [self(pixels, level) for level in range(len(self.levels))]

    @property
    def num_answers(self) -> int:
        """Number of answers to a noisy image, each of which goes through what is behind."""
        return max(len(self.levels), 1)

    @property
    def more(self) -> str:
        """What else a plan says of it, after a comma; mostly nothing."""
        return ""

    def in_its_dtype(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in the dtype of the network."""
        return tensor.to(next(self.network.parameters()).dtype)

    def cast(self, dtype: torch.dtype) -> None:
        """Has the network compute in another dtype; a kind may keep parts of it as they are."""
        self.network.to(dtype)

    @property
    def component(self) -> dict[str, Any]:
        """What determines its pixels, as it stands in the identity of a run."""
        return {
            "kind": "denoiser",
            "arch": self.arch,
            "args": self.args,
            "sigma": self.sigma,
            **self.told,
            "sha256": weights_sha256(self.network.state_dict()),
        }

    @property
    def told(self) -> dict[str, list[float]]:
        """The levels that it is told, where they are other than sigma alone; what it is without them has no entry."""
        return {} if self.levels in ((), (self.sigma,)) else {"levels": [*self.levels]}


def resized(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resizes pixels (N, 3, H, W) to a height and width, with gradients; pixels of that size are left alone."""
    if tuple(pixels.shape[-2:]) == tuple(size):
        return pixels
    return functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
