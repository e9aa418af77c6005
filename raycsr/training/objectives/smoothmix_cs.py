"""SmoothMix, reweighted by costs (a baseline of Xin, Chen, Backes, Zhang, ICML 2025)."""

import torch
from torch import nn

from raycsr.training.objectives.reweighting import reweighted
from raycsr.training.objectives.smoothmix import smoothmix_losses


def smoothmix_cs(
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
    steps: int = 4,
    step: float = 2.0,
    eta: float = 5.0,
    warmup: float = 0.1,
) -> torch.Tensor:
    """Returns the `reweighted` losses of `smoothmix`.

    Args:
        model: The base classifier.
        images: float32 pixels (N, 3, H, W) in [0,1].
        labels: int64 (N,).
        sigma: Noise level in [0,1] pixel units.
        costs: Cost matrix (m, m).
        progress: Share of the training that is done.
        generator: Source of the noise and of the mixing weights, on the device of the images.
        weight: Of the sensitive images' mean.
        k: Noisy copies an image, the same noise in the attack and in the loss: two passes of N * k rows.
        steps: Gradient steps of the attack.
        step: L2 length of each, in units of sigma.
        eta: Weight of the mixed images.
        warmup: Share of the training over which that weight grows from 0.

    Returns:
        The loss, a scalar.

    Raises:
        UserError: There is no cost matrix.
    """
    losses = smoothmix_losses(model, images, labels, sigma, progress, generator, k, steps, step, eta, warmup)
    return reweighted(losses, labels, costs, weight, "smoothmix_cs")
