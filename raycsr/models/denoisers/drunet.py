"""DRUNet, a U-Net of residual blocks that is told the noise level (Zhang et al., IEEE TPAMI 2022), for pixels in color.

Files of its code, DPIR, hold the state alone, without a word of what it is of: the name is drunet, the file is
`pretrained`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from raycsr.models.denoisers.denoiser import Denoiser

_SIDES = 8  # of which height and width must be multiples: three halvings


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.res = nn.Sequential(_conv(channels, channels), nn.ReLU(inplace=True), _conv(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.res(x)


class _UNet(nn.Module):
    """Pixels and a plane of sigma, (N, 4, H, W) -> pixels (N, 3, H, W); parts are named as in the published files."""

    def __init__(self, channels: Sequence[int], blocks: int) -> None:
        super().__init__()
        one, two, three, four = channels

        def residuals(width: int) -> list[nn.Module]:
            return [_Residual(width) for _ in range(blocks)]

        def down(width: int, wider: int) -> nn.Sequential:
            return nn.Sequential(*residuals(width), nn.Conv2d(width, wider, 2, stride=2, bias=False))

        def up(wider: int, width: int) -> nn.Sequential:
            return nn.Sequential(nn.ConvTranspose2d(wider, width, 2, stride=2, bias=False), *residuals(width))

        self.m_head = _conv(4, one)
        self.m_down1, self.m_down2, self.m_down3 = down(one, two), down(two, three), down(three, four)
        self.m_body = nn.Sequential(*residuals(four))
        self.m_up3, self.m_up2, self.m_up1 = up(four, three), up(three, two), up(two, one)
        self.m_tail = _conv(one, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.m_head(x)  # (N, channels[0], H, W)
        second = self.m_down1(first)
        third = self.m_down2(second)
        fourth = self.m_down3(third)  # (N, channels[3], H / 8, W / 8)
        found = self.m_up3(self.m_body(fourth) + fourth)
        found = self.m_up1(self.m_up2(found + third) + second)
        return self.m_tail(found + first)


class DRUNet(Denoiser):
    """DRUNet: the U-Net sees the pixels and a plane of sigma; borders are repeated up to a multiple of 8."""

    archs: ClassVar[Mapping[str, Mapping[str, Any]]] = {"drunet": {"channels": [64, 128, 256, 512], "blocks": 4}}
    needs_sigma = True
    takes_levels = True

    @classmethod
    def build(cls, channels: Sequence[int], blocks: int) -> nn.Module:
        """Returns the U-Net: its four widths, and the residual blocks at each."""
        return _UNet(channels, blocks)

    def forward(self, pixels: torch.Tensor, level: int = 0) -> torch.Tensor:
        """Maps noisy pixels to pixels, float32 (N, 3, H, W), told one of its levels."""
        height, width = pixels.shape[-2:]
        padded = functional.pad(pixels, (0, -width % _SIDES, 0, -height % _SIDES), mode="replicate")
        plane = torch.full_like(padded[:, :1], self.levels[level])  # (N, 1, H', W')
        found = self.network(self.in_its_dtype(torch.cat([padded, plane], dim=1)))
        return found[..., :height, :width].float()


def _conv(channels: int, further: int) -> nn.Conv2d:
    return nn.Conv2d(channels, further, 3, padding=1, bias=False)
