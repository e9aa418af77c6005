"""Noisy copies of a batch: what an objective sees of the smoothed classifier."""

import torch
from torch import nn


def draw_noise(images: torch.Tensor, k: int, sigma: float, generator: torch.Generator) -> torch.Tensor:
    """Returns sigma * eps for k copies of each image, (N, k, 3, H, W)."""
    shape = (len(images), k, *images.shape[1:])
    return sigma * torch.randn(shape, generator=generator, device=images.device)


def logits_of_copies(model: nn.Module, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Returns the float32 logits (N, k, m) of all copies x + noise, of one forward pass of N * k rows."""
    copies = images[:, None] + noise  # (N, k, 3, H, W)
    return model(copies.flatten(0, 1)).float().unflatten(0, noise.shape[:2])


def cross_entropy_of_copies(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns each image's mean cross-entropy over its copies: (N, k, m) -> (N,)."""
    return -logits.log_softmax(dim=2).mean(dim=1).gather(1, labels[:, None]).squeeze(1)


def ramp(progress: float, warmup: float) -> float:
    """Returns what grows from 0 to 1 over the first `warmup` of the training, and stays there."""
    return min(progress / warmup, 1.0) if warmup > 0 else 1.0


def lengths(values: torch.Tensor) -> torch.Tensor:
    """Returns the L2 length of what each noisy copy has: (N, k, 3, H, W) -> (N, k, 1, 1, 1)."""
    return values.flatten(2).norm(dim=2)[:, :, None, None, None]
