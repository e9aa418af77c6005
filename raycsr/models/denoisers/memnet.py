"""MemNet, whose blocks remember what earlier ones found (Tai et al., ICCV 2017), in the form of denoised-smoothing."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from raycsr.models.denoisers.denoiser import Denoiser


class _BatchNormConv(nn.Sequential):
    def __init__(self, channels: int, further: int, kernel: int = 3) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, further, kernel, padding=kernel // 2, bias=False)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.relu_conv1 = _BatchNormConv(channels, channels)
        self.relu_conv2 = _BatchNormConv(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.relu_conv2(self.relu_conv1(x))


class _Memory(nn.Module):
    def __init__(self, channels: int, blocks: int, remembered: int) -> None:
        super().__init__()
        self.recursive_unit = nn.ModuleList(_Residual(channels) for _ in range(blocks))
        self.gate_unit = _BatchNormConv((blocks + remembered) * channels, channels, kernel=1)

    def forward(self, x: torch.Tensor, before: list[torch.Tensor]) -> torch.Tensor:
        found = []
        for block in self.recursive_unit:
            x = block(x)
            found.append(x)
        return self.gate_unit(torch.cat([*found, *before], dim=1))


class _MemNet(nn.Module):
    """Pixels (N, 3, H, W) -> minus their noise; parts are named as in the published files."""

    def __init__(self, channels: int, memories: int, blocks: int) -> None:
        super().__init__()
        self.feature_extractor = _BatchNormConv(3, channels)
        self.dense_memory = nn.ModuleList(_Memory(channels, blocks, i + 1) for i in range(memories))
        self.reconstructor = _BatchNormConv(channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        remembered = [self.feature_extractor(x)]  # (N, channels, H, W) each
        for memory in self.dense_memory:
            remembered.append(memory(remembered[-1], remembered))
        return self.reconstructor(remembered[-1])


class MemNet(Denoiser):
    """MemNet: pixels + network(pixels)."""

    archs: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "memnet": {"channels": 64, "memories": 3, "blocks": 6},
        "imagenet_memnet": {"channels": 64, "memories": 3, "blocks": 6},
    }

    @classmethod
    def build(cls, channels: int, memories: int, blocks: int) -> nn.Module:
        """Returns so many memory blocks of so many residual blocks each."""
        return _MemNet(channels, memories, blocks)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps noisy pixels to pixels, float32 (N, 3, H, W)."""
        return pixels + self.network(self.in_its_dtype(pixels)).float()
