"""Noise of a denoiser's own, made of the noisy image itself: what is drawn is then a function of that image alone.

Whole numbers k of grey levels are hashed into 64 bits, and these and the place of an element into a normal number. So a
stochastic denoiser is a function like any other, for which the theorems hold as they stand (Cohen, Rosenfeld & Kolter,
ICML 2019, ask nothing else of f): it needs no key beside its pixels, and gives each noisy copy the same answer in any
batch, run or attack. The hash is exact on every device, as no product in it reaches 2^63.
"""

import math

import torch

_WORD = 2**32 - 1
_ODD = (0x7FEB352D, 0x46AC6B35, 0x1E3779B9, 0x2545F491)  # below 2^31, so that no product overflows


def own_noise(pixels: torch.Tensor, stream: int) -> torch.Tensor:
    """Standard normal numbers that each image makes of its own grey levels.

    Args:
        pixels: Noisy pixels k / 255 of whole k; float32 (N, C, H, W). Others are rounded to these before.
        stream: Number of the draw, from 0; each has numbers of its own.

    Returns:
        float32 (N, C, H, W), without gradients.

    Example:
        >>> own_noise(torch.zeros(1, 1, 1, 2), stream=0)
        tensor([[[[ 0.2979, -0.5014]]]])
    """
    levels = torch.round(255 * pixels.detach()).to(torch.int64).flatten(1)  # N D
    place = torch.arange(levels.shape[1], device=levels.device)  # D
    one, other = (_mixed(levels * odd + _mixed(place + odd)).sum(dim=1, keepdim=True) for odd in _ODD[:2])  # N 1 each
    bits = _mixed(one + _mixed(other + _mixed(place * _ODD[2] + stream * _ODD[3])))  # N D
    first, second = ((_mixed(bits + odd) >> 8).float() / 2**24 for odd in _ODD[2:])  # in [0, 1)
    drawn = torch.sqrt(-2 * torch.log(1 - first)) * torch.cos(2 * math.pi * second)  # Box & Muller, 1958
    return drawn.view(pixels.shape)


def _mixed(numbers: torch.Tensor) -> torch.Tensor:
    """Whole numbers -> words of 32 bits, each bit of which hangs on all of the lowest 32 of a number."""
    word = numbers & _WORD
    for odd, shift in zip(_ODD[:3], (16, 15, 16), strict=True):
        word = ((word ^ (word >> shift)) * odd) & _WORD
    return word ^ (word >> 15)
