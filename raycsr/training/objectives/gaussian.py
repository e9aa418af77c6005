"""Gaussian augmentation: cross-entropy on a noisy copy of an image (Cohen, Rosenfeld, Kolter, ICML 2019)."""

import torch
from torch import nn
from torch.nn import functional

from raycsr.training.objectives.reweighting import Reduction


def gaussian(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    sigma: float,
    costs: torch.Tensor | None,
    progress: float,
    generator: torch.Generator,
    reduction: Reduction = "mean",
) -> torch.Tensor:
    """Returns the mean cross-entropy of f(x + sigma * eps).

    Args:
        model: The base classifier.
        images: Pixels in [0, 1]; float32 (N, 3, H, W).
        labels: Classes of the images; int64 (N,).
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix, which this objective does not use; (m, m).
        progress: Share of the training that is done; this objective does not use it.
        generator: Source of the noise, on the device of the images.
        reduction: "mean" for the loss of the batch, "none" for that of each image.

    Returns:
        The loss, a scalar; or each image's, (N,).
    """
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    logits = model(images + sigma * noise)  # (N, m)
    return functional.cross_entropy(logits.float(), labels, reduction=reduction)
