"""ImageNet's stem before three stages of nine basic blocks: the network of Xin et al. (ICML 2025) for larger images."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn


class ThreeStageResNet(ResNet):
    """A ResNet of timm without its fourth stage."""

    def __init__(self, **kwargs: Any) -> None:
        """Creates a network of three stages of nine basic blocks of 64, 128 and 256 channels, with random weights."""
        super().__init__(block=BasicBlock, layers=(9, 9, 9), channels=(64, 128, 256), **kwargs)
        self.layer4 = nn.Identity()


default_cfgs = generate_default_cfgs(
    {
        "stem_resnet56": {
            "input_size": (3, 160, 160),  # Imagenette's there; HAM10000 has 299
            "num_classes": 10,
            "pool_size": (10, 10),
            "crop_pct": 160 / 192,
            "interpolation": "bilinear",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "conv1",
            "classifier": "fc",
        }
    }
)


@register_model
def stem_resnet56(pretrained: bool = False, **kwargs: Any) -> ThreeStageResNet:
    """ResNet of 56 layers: a 7 x 7 convolution and pooling, then three stages of nine basic blocks."""
    return build_model_with_cfg(ThreeStageResNet, "stem_resnet56", pretrained, **kwargs)
