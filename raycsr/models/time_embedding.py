"""How networks are told a step of diffusion or a level of noise."""

import math

import torch


def time_embedding(t: float, size: int, device: torch.device) -> torch.Tensor:
    """Cosines and sines of t, at frequencies from 1 down to 1 / 10,000 (Vaswani et al., 2017).

    Args:
        t: The step.
        size: Number of values, an even one.
        device: Device to have them on.

    Returns:
        float32 (1, size).
    """
    half = size // 2
    frequencies = torch.exp(torch.arange(half, device=device) * (-math.log(10_000) / half))
    angles = t * frequencies
    return torch.cat([angles.cos(), angles.sin()])[None]
