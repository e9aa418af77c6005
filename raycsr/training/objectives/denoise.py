"""Squared error of a denoiser, whatever classifier stands behind it (Zhang et al., IEEE TIP 2017)."""

import torch
from torch import nn

from raycsr.models.denoisers import resized


def denoise(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    sigma: float,
    costs: torch.Tensor | None,
    progress: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Returns the mean squared error of denoised pixels. It trains the denoisers in front of the classifier.

    Args:
        model: The base classifier, behind denoisers.
        images: Pixels in [0, 1]; float32 (N, 3, H, W).
        labels: Classes of the images, which this objective does not use; int64 (N,).
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix, which this objective does not use; (m, m).
        progress: Share of the training that is done; this objective does not use it.
        generator: Source of the noise, on the device of the images.

    Returns:
        The loss, a scalar.
    """
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return squared_errors(model(images + sigma * noise, part="denoisers"), images).mean()


def squared_errors(denoised: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Returns each image's mean squared error, (N, 3, H', W') of (N, 3, H, W) at the denoised size -> (N,)."""
    height, width = denoised.shape[-2:]
    return (denoised.float() - resized(images, (height, width))).square().flatten(1).mean(dim=1)
