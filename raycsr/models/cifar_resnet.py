"""The CIFAR ResNets of He et al. (CVPR 2016, section 4.2), depth 6n + 2, registered with timm.

Parameter names, shapes and the projection shortcuts (option B) are those of the checkpoints published by
Cohen, Rosenfeld and Kolter (ICML 2019), so those load. Global pooling makes any input size possible.
"""

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn


def _conv3x3(in_chans: int, out_chans: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_chans, out_chans, kernel_size=3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, a 1x1 projection where the shape changes."""

    def __init__(self, in_chans: int, out_chans: int, stride: int) -> None:
        """Creates a block; `stride` is that of the first convolution and of the projection."""
        super().__init__()
        self.conv1 = _conv3x3(in_chans, out_chans, stride)
        self.bn1 = nn.BatchNorm2d(out_chans)
        self.conv2 = _conv3x3(out_chans, out_chans)
        self.bn2 = nn.BatchNorm2d(out_chans)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if in_chans != out_chans:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_chans, out_chans, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_chans),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, in_chans, H, W) to (N, out_chans, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class CifarResNet(nn.Module):
    """A CIFAR ResNet: three stages of 16, 32 and 64 channels."""

    def __init__(self, depth: int, num_classes: int = 10, in_chans: int = 3) -> None:
        """Creates a network of `depth` = 6n + 2 layers with random weights."""
        super().__init__()
        self.num_classes = num_classes
        blocks = (depth - 2) // 6
        self.conv1 = _conv3x3(in_chans, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self._stage(16, 16, blocks, stride=1)
        self.layer2 = self._stage(16, 32, blocks, stride=2)
        self.layer3 = self._stage(32, 64, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(in_chans: int, out_chans: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_chans, out_chans, stride)
        return nn.Sequential(first, *(BasicBlock(out_chans, out_chans, 1) for _ in range(blocks - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, in_chans, H, W) to logits (N, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))  # (N, 16, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))  # (N, 64, H/4, W/4)
        return self.fc(self.avgpool(x).flatten(1))


_CFG = {
    "input_size": (3, 32, 32),
    "num_classes": 10,
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": (0.4914, 0.4822, 0.4465),  # of CIFAR-10, as in the published checkpoints
    "std": (0.2023, 0.1994, 0.2010),
    "first_conv": "conv1",
    "classifier": "fc",
}
default_cfgs = generate_default_cfgs({f"cifar_resnet{depth}": _CFG for depth in (8, 20, 56, 110)})


def _create(depth: int, pretrained: bool, **kwargs: Any) -> CifarResNet:
    return build_model_with_cfg(CifarResNet, f"cifar_resnet{depth}", pretrained, depth=depth, **kwargs)


@register_model
def cifar_resnet8(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """CIFAR ResNet of 8 layers."""
    return _create(8, pretrained, **kwargs)


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """CIFAR ResNet of 20 layers."""
    return _create(20, pretrained, **kwargs)


@register_model
def cifar_resnet56(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """CIFAR ResNet of 56 layers."""
    return _create(56, pretrained, **kwargs)


@register_model
def cifar_resnet110(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """CIFAR ResNet of 110 layers."""
    return _create(110, pretrained, **kwargs)
