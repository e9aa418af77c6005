"""Gaussian augmentation, reweighted by costs (the baseline of Xin, Backes, Zhang 2023)."""

import torch
from torch import nn
from torch.nn import functional

from raycsr.training.objectives.reweighting import reweighted


def gaussian_cs(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    sigma: float,
    costs: torch.Tensor | None,
    progress: float,
    generator: torch.Generator,
    weight: float = 1.0,
) -> torch.Tensor:
    """Returns the `reweighted` cross-entropies of f(x_i + sigma * eps): those of `gaussian`.

    Args:
        model: The base classifier.
        images: float32 pixels (N, 3, H, W) in [0,1].
        labels: int64 (N,).
        sigma: Noise level in [0,1] pixel units.
        costs: Cost matrix (m, m).
        progress: Share of the training that is done; this objective does not use it.
        generator: Source of the noise, on the device of the images.
        weight: Of the sensitive images' mean.

    Returns:
        The loss, a scalar.

    Raises:
        UserError: There is no cost matrix.
    """
    logits = model(images + sigma * torch.randn(images.shape, generator=generator, device=images.device))  # (N, m)
    ce = functional.cross_entropy(logits.float(), labels, reduction="none")  # (N,)
    return reweighted(ce, labels, costs, weight, "gaussian_cs")
