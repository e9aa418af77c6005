"""A classifier behind a denoiser whose every number is worked out in the head."""

import torch
from torch import nn
from torch.nn import functional


class Halved(nn.Module):
    """Its denoiser halves pixels (at half the size, where asked); class 1 where their mean is above .3."""

    def __init__(self, smaller=False):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))
        self.smaller = smaller

    def forward(self, pixels, part="all"):
        if part != "classifier":
            pixels = self.factor * pixels
            if self.smaller:
                pixels = functional.interpolate(pixels, scale_factor=0.5, mode="bilinear", antialias=True)
        if part == "denoisers":
            return pixels
        lead = 10 * (pixels.mean(dim=(1, 2, 3)) - 0.3)
        return torch.stack([torch.zeros_like(lead), lead], dim=1)
