"""SmoothAdv, reweighted by costs (the baseline of Xin, Chen, Backes, Zhang, ICML 2025)."""

import torch
from torch import nn

from raycsr.training.objectives.reweighting import reweighted
from raycsr.training.objectives.smoothadv import smoothadv_losses


def smoothadv_cs(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    sigma: float,
    costs: torch.Tensor | None,
    progress: float,
    generator: torch.Generator,
    weight: float = 1.0,
    k: int = 2,
    steps: int = 10,
    radius: float = 0.5,
    warmup: float = 0.1,
) -> torch.Tensor:
    """Returns the `reweighted` losses of `smoothadv`.

    Args:
        model: The base classifier.
        images: float32 pixels (N, 3, H, W) in [0,1].
        labels: int64 (N,).
        sigma: Noise level in [0,1] pixel units.
        costs: Cost matrix (m, m).
        progress: Share of the training that is done.
        generator: Source of the noise, on the device of the images.
        weight: Of the sensitive images' mean.
        k: Noisy copies an image, the same noise in the attack and in the loss: N * k rows a forward pass.
        steps: Gradient steps of the attack, of 2 * radius / steps each.
        radius: L2 distance that the attack moves an image at most, in [0,1] pixel units.
        warmup: Share of the training over which the radius grows from 0.

    Returns:
        The loss, a scalar.

    Raises:
        UserError: There is no cost matrix.
    """
    losses = smoothadv_losses(model, images, labels, sigma, progress, generator, k, steps, radius, warmup)
    return reweighted(losses, labels, costs, weight, "smoothadv_cs")
