"""Training objectives, one file each, all of the signature `Objective`."""

from typing import Protocol

import torch
from torch import nn

from raycsr.training.objectives.gaussian import gaussian


class Objective(Protocol):
    """What `train` minimises: the loss of one batch, a scalar."""

    def __call__(
        self,
        model: nn.Module,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        sigma: float,
        costs: torch.Tensor | None,
        progress: float,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Returns the loss of images (N, 3, H, W) in [0,1] with labels (N,); progress is in [0,1]."""


OBJECTIVES: dict[str, Objective] = {"gaussian": gaussian}

__all__ = ["OBJECTIVES", "Objective", "gaussian"]
