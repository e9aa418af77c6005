"""Vision transformers that take noise as it is: robust representation consistency models (rRCM), registered with timm.

They are pre-trained so that an image's representation stays the same along the path of its noise, and fine-tuned with a
linear head (Lei et al., ICLR 2025). Names and shapes of their tensors, and what is done before the first layer, were
read in jiachenlei/rRCM (commit 0793ebb: rrcm/vit.py, rrcm/rrcm_denoiser.py and rrcm_tune.py), whose fine-tuned weights
load. The code is raycsr's own, of timm's parts.
"""

import math
from typing import Any

import numpy as np
import torch
from timm.layers import PatchEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import Block
from torch import nn

from raycsr.models.time_embedding import time_embedding

_SIGMA_DATA = 0.5  # standard deviation of images in [-1, 1], as there
_SMALLEST, _LARGEST, _RHO = 0.002, 80.0, 7  # of its levels of noise (Karras et al., NeurIPS 2022, equation 5)


class _Encoder(nn.Module):
    """The transformer: an image and a token that tells how noisy it is -> its representation."""

    def __init__(self, image_size: int, patch_size: int, width: int, depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(image_size, patch_size, 3, width)
        self.blocks = nn.ModuleList(Block(width, heads, norm_layer=nn.LayerNorm) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 2 + self.patch_embed.num_patches, width))
        # What the pre-training compared. It comes with the weights, and nothing that votes looks at it.
        self.projection_head = nn.Sequential(
            *(nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()),
            nn.Linear(hidden, 256, bias=False),
        )

    def forward(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """Maps images (N, 3, H, W) and their level of noise to what the first token has become (N, width)."""
        tokens = self.patch_embed(x)  # N L width
        noise = time_embedding(t, tokens.shape[-1], x.device).to(tokens.dtype)  # 1 width
        first = torch.stack([self.cls_token[0], noise], dim=1).expand(len(x), -1, -1)  # N 2 width
        tokens = torch.cat([first, tokens], dim=1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, 0]


class RepresentationModel(nn.Module):
    """A fine-tuned rRCM: images in [-1, 1] with noise of one sigma -> logits."""

    def __init__(
        self,
        *,
        sigma: float | None = None,
        levels: int = 81,
        layernorm: bool,
        num_classes: int = 1000,
        in_chans: int = 3,
        **encoder: int,
    ) -> None:
        """Creates a network with random weights.

        Args:
            sigma: Standard deviation of the noise that it will be given, in [0, 1] pixel units.
            levels: Number of levels of noise at the end of its pre-training; 81 in all that is published.
            layernorm: Whether the representation is normalised before the head: on ImageNet it is, on CIFAR-10 not.
            num_classes: Number of classes.
            in_chans: Number of channels of an image: 3.
            **encoder: Sizes of its transformer.

        Raises:
            ValueError: There is no sigma, or none of its levels of noise is near.
        """
        super().__init__()
        if in_chans != 3:
            raise ValueError("it takes images of 3 channels")
        if sigma is None:
            raise ValueError("it has to be told how noisy its images are: give model.args {sigma: SIGMA}")
        if not _SMALLEST <= 2 * sigma <= _LARGEST:
            raise ValueError(f"sigma {sigma} is beyond its levels of noise: {_SMALLEST / 2:g} to {_LARGEST / 2:g}")
        self.num_classes, self.sigma, self.layernorm = num_classes, sigma, layernorm
        grid = np.linspace(_LARGEST ** (1 / _RHO), _SMALLEST ** (1 / _RHO), levels) ** _RHO
        level = float(grid[np.abs(grid - 2 * sigma).argmin()])  # images are in [-1, 1], where noise is twice as large
        self.scale = (level**2 + _SIGMA_DATA**2) ** -0.5
        self.t = 250 * math.log(level)
        self.base_model = _Encoder(**encoder)
        self.linear_head = nn.Linear(encoder["width"], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps noisy images (N, 3, H, W) in [-1, 1], which noise left, to logits (N, num_classes)."""
        seen = self.base_model(self.scale * x, self.t)
        return self.linear_head(self.base_model.norm(seen) if self.layernorm else seen)


def _cfg(size: int, classes: int, crop_pct: float) -> dict[str, Any]:
    return {
        "input_size": (3, size, size),
        "num_classes": classes,
        "crop_pct": crop_pct,
        "interpolation": "bicubic",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": "base_model.patch_embed.proj",
        "classifier": "linear_head",
    }


default_cfgs = generate_default_cfgs(
    {
        "rrcm_base_patch4_32": _cfg(32, 10, 1.0),
        "rrcm_base_patch16_224": _cfg(224, 1000, 1.0),
        "rrcm_small_patch16_224": _cfg(224, 1000, 1.0),
    }
)


def _create(variant: str, pretrained: bool, sizes: dict[str, Any], kwargs: dict[str, Any]) -> RepresentationModel:
    return build_model_with_cfg(RepresentationModel, variant, pretrained, **{**sizes, **kwargs})


@register_model
def rrcm_base_patch4_32(pretrained: bool = False, **kwargs: Any) -> RepresentationModel:
    """rRCM-B of CIFAR-10: 12 layers of 768 channels, patches of 4 pixels."""
    sizes = {"image_size": 32, "patch_size": 4, "width": 768, "depth": 12, "heads": 12, "hidden": 2048}
    return _create("rrcm_base_patch4_32", pretrained, {"layernorm": False, **sizes}, kwargs)


@register_model
def rrcm_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> RepresentationModel:
    """rRCM-B of ImageNet: 12 layers of 768 channels, patches of 16 pixels."""
    sizes = {"image_size": 224, "patch_size": 16, "width": 768, "depth": 12, "heads": 12, "hidden": 4096}
    return _create("rrcm_base_patch16_224", pretrained, {"layernorm": True, **sizes}, kwargs)


@register_model
def rrcm_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> RepresentationModel:
    """rRCM-S of ImageNet: 6 layers of 512 channels, patches of 16 pixels."""
    sizes = {"image_size": 224, "patch_size": 16, "width": 512, "depth": 6, "heads": 8, "hidden": 2048}
    return _create("rrcm_small_patch16_224", pretrained, {"layernorm": True, **sizes}, kwargs)
