"""DnCNN, which predicts the noise by convolutions and batch norms, in the form of denoised-smoothing.

Zhang, Zuo, Chen, Meng & Zhang (IEEE TIP 2017); Salman, Sun, Yang, Kapoor & Kolter (NeurIPS 2020), whose files load.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from raycsr.models.denoisers.denoiser import Denoiser

_EPS = 1e-4  # of the batch norms of the published files


class DnCNN(Denoiser):
    """DnCNN: pixels - network(pixels). A new one denoises nothing yet: its last convolution is 0."""

    archs: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "dncnn": {"depth": 17, "channels": 64},
        "cifar_dncnn": {"depth": 17, "channels": 64},  # as the published files call them
        "cifar_dncnn_wide": {"depth": 17, "channels": 128},
        "imagenet_dncnn": {"depth": 17, "channels": 64},
    }

    @classmethod
    def build(cls, depth: int, channels: int) -> nn.Sequential:
        """Returns `depth` 3 x 3 convolutions of `channels`, batch norms between all but the first and the last."""
        if depth < 2 or channels < 1:
            raise ValueError(f"depth {depth} and channels {channels} make no DnCNN: give 2 and 1 at least")
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers.append(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
            layers += [nn.BatchNorm2d(channels, eps=_EPS), nn.ReLU(inplace=True)]
        layers.append(nn.Conv2d(channels, 3, 3, padding=1, bias=False))
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        for one in convolutions:
            nn.init.orthogonal_(one.weight)
            if one.bias is not None:
                nn.init.zeros_(one.bias)
        nn.init.zeros_(convolutions[-1].weight)
        return nn.Sequential(*layers)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps noisy pixels to pixels, float32 (N, 3, H, W)."""
        return pixels - self.network(self.in_its_dtype(pixels)).float()
