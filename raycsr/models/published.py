"""Checkpoints as other papers' code writes them: what they hold, as a base classifier of ours and its weights.

What they hold was read in the code on github.com (commits cff781d, a11954a, cb1fd33 and 1b6837f of the last four):

- locuslab/smoothing (Cohen, Rosenfeld & Kolter, ICML 2019), Hadisalman/smoothing-adversarial (SmoothAdv, Salman et
  al., NeurIPS 2019), jh-jeong/smoothing-consistency (Jeong & Shin, NeurIPS 2020) and jh-jeong/smoothmix (Jeong et
  al., NeurIPS 2021), with the last two's own trainings of the others' methods: {epoch, arch, state_dict, optimizer},
  the state of a Sequential of normalisation "0" and network "1", parts or all of it in a DataParallel. CIFAR's mean
  and standard deviation, or ImageNet's, are constants there, and no part of the state in most files.
- RuntianZ/macer (Zhai et al., ICLR 2020): {net, epoch}, the state of the network alone, always a ResNet-110 for
  32 x 32 pixels, which takes them as they are: no normalisation.

Nothing in them but tensors and plain values: SGD keeps no NumPy scalars, so weights_only refuses none of them.
"""

from typing import Any

import torch

from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier, create_base_classifier
from raycsr.models.spec import ModelOptions, Preprocessing

Weights = dict[str, torch.Tensor]

_CIFAR = Preprocessing((32, 32), "bilinear", 1.0, "center")
# ImageNet's ResNet-50 was tested on a 224 pixel crop of 256; timm's own weights of that name on another.
_IMAGENET = Preprocessing((224, 224), "bilinear", 224 / 256, "center")
_ARCHITECTURES = {  # what a file calls it -> timm's name, and how the images become pixels
    "resnet50": ("resnet50", _IMAGENET),
    "cifar_resnet20": ("cifar_resnet20", _CIFAR),
    "cifar_resnet110": ("cifar_resnet110", _CIFAR),
    "imagenet32_resnet110": ("cifar_resnet110", _CIFAR),  # of SmoothAdv: 1000 classes, normalised as CIFAR
}


def from_published(path: str, content: Any) -> tuple[BaseClassifier, Weights] | None:
    """Recognises a checkpoint of another paper's code.

    Args:
        path: Where it is, for messages.
        content: What `torch.load` gave.

    Returns:
        A base classifier that has still to be given the weights, and those, by the names of its network; None where
        this is no such checkpoint. None of them says its training sigma.

    Raises:
        UserError: The architecture is none of ours.
    """
    if not isinstance(content, dict):
        return None
    if isinstance(content.get("arch"), str) and _is_state(content.get("state_dict")):
        return _from_sequential(path, content["arch"], _without_wrappers(content["state_dict"]))
    if "epoch" in content and _is_state(content.get("net")):
        weights = _without_wrappers(content["net"])
        return _create("cifar_resnet110", _CIFAR, weights, mean=(0.0,) * 3, std=(1.0,) * 3), weights
    return None


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()
    )


def _from_sequential(path: str, arch: str, state_dict: Weights) -> tuple[BaseClassifier, Weights]:
    if arch not in _ARCHITECTURES:
        raise UserError(f"{path} holds arch {arch!r}: of published checkpoints, {', '.join(_ARCHITECTURES)} load.")
    weights = {name[2:]: tensor for name, tensor in state_dict.items() if name.startswith("1.")}
    normalisation = {
        ours: tuple(state_dict[theirs].tolist())
        for ours, theirs in (("mean", "0.means"), ("std", "0.sds"))
        if theirs in state_dict
    }
    name, preprocessing = _ARCHITECTURES[arch]
    return _create(name, preprocessing, weights, **normalisation), weights


def _create(
    arch: str,
    preprocessing: Preprocessing,
    weights: Weights,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> BaseClassifier:
    """A base classifier with the weights' number of classes; normalised as its architecture is, unless told."""
    head = weights.get("fc.weight", torch.empty(0))
    created = create_base_classifier(ModelOptions(arch, num_classes=len(head) or None))
    return BaseClassifier(
        created.network,
        arch=arch,
        args={},
        num_classes=created.num_classes,
        preprocessing=preprocessing,
        mean=created.mean if mean is None else mean,
        std=created.std if std is None else std,
    )


def _without_wrappers(state_dict: Weights) -> Weights:
    """The state without the "module" that a DataParallel puts into names."""
    return {
        ".".join(part for part in name.split(".") if part != "module"): tensor for name, tensor in state_dict.items()
    }
