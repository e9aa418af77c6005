"""Reweighting: Gaussian augmentation with more weight on sensitive images (the baseline of Xin, Backes, Zhang 2023)."""

import torch
from torch import nn
from torch.nn import functional

from raycsr.errors import UserError


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
    """Returns mean CE + weight * (sum_i s_i CE_i / sum_i s_i), s_i the sum of the label's row of C.

    CE_i is that of f(x_i + sigma * eps), as in `gaussian`. Where all seed classes cost the same, the second
    mean is the published one, over the images of the seed classes. It is 0 for a batch without any.

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
    if costs is None:
        raise UserError("gaussian_cs got no cost matrix; give costs, or use gaussian.")
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    logits = model(images + sigma * noise)  # (N, m)
    ce = functional.cross_entropy(logits.float(), labels, reduction="none")  # (N,)
    sensitivity = costs.sum(dim=1)[labels]  # (N,)
    total = sensitivity.sum().clamp(min=torch.finfo(costs.dtype).tiny)  # 0 / tiny is 0: no branch, no host sync
    return ce.mean() + weight * (sensitivity / total * ce).sum()
