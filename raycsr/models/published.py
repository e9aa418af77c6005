"""Checkpoints as other papers' code writes them: what they hold, as a base classifier of ours and its weights.

What they hold was read in the code on github.com (commits cff781d, a11954a, cb1fd33 and 1b6837f of the last four):

- locuslab/smoothing (Cohen, Rosenfeld & Kolter, ICML 2019), Hadisalman/smoothing-adversarial (SmoothAdv, Salman et
  al., NeurIPS 2019), jh-jeong/smoothing-consistency (Jeong & Shin, NeurIPS 2020), jh-jeong/smoothmix (Jeong et al.,
  NeurIPS 2021) and alinlab/smoothing-catrs (CAT-RS, Jeong, Kim & Shin, AAAI 2023; commit 6a976c2), with the last
  three's own trainings of the others' methods: {epoch, arch, state_dict, optimizer}, the state of a Sequential of
  normalisation "0" and network "1", parts or all of it in a DataParallel. The data set's mean and standard deviation
  are constants there, and no part of the state in most files.
- RuntianZ/macer (Zhai et al., ICLR 2020): {net, epoch}, the state of the network alone, always a ResNet-110 for
  32 x 32 pixels, which takes them as they are: no normalisation.
- pytorch/examples (imagenet): {epoch, arch, state_dict, ...}, the state of a torchvision network in a DataParallel.
- huggingface/pytorch-image-models (train.py): {epoch, arch, state_dict, state_dict_ema, args, ...}, where args, an
  argparse.Namespace, says how the images became pixels and what the network was created with.
"""

import json
from argparse import Namespace
from typing import Any

import timm
import torch
import torchvision.models
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, resolve_data_config

from raycsr.errors import UserError
from raycsr.models import cifar_resnet  # noqa: F401  (registers the CIFAR ResNets with timm)
from raycsr.models.denoisers import denoiser_archs
from raycsr.models.spec import Preprocessing
from raycsr.models.weights import THE_WAY_IN, Contents, Weights, is_state, weights_in, without_wrappers

_CIFAR = Preprocessing((32, 32), "bilinear", 1.0, "center")
# ImageNet's ResNet-50 was tested on a 224 pixel crop of 256; timm's own weights of that name on another.
_IMAGENET = Preprocessing((224, 224), "bilinear", 224 / 256, "center")
_ARCHITECTURES = {  # what a file calls it -> timm's name, and how the images become pixels
    "resnet50": ("resnet50", _IMAGENET),
    "cifar_resnet20": ("cifar_resnet20", _CIFAR),
    "cifar_resnet110": ("cifar_resnet110", _CIFAR),
    "imagenet32_resnet110": ("cifar_resnet110", _CIFAR),  # of SmoothAdv: 1000 classes, normalised as CIFAR
    "cifar100_resnet110": ("cifar_resnet110", _CIFAR),  # of CAT-RS
}
_NORMALISATIONS: dict[str, dict[str, Any]] = {  # where they are not those of timm's name
    "cifar100_resnet110": {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)},
}


def from_published(path: str, content: Any, *, ema: bool = False) -> Contents | None:
    """Recognises a checkpoint of others' code that says which network it is of.

    Args:
        path: Location of the file, for messages.
        content: Content that `read_file` returned.
        ema: Take the moving average of the weights.

    Returns:
        What it says; None where this is no such checkpoint. None of them says its training sigma.

    Raises:
        UserError: The architecture is none of ours, or there are no such weights.
    """
    if not isinstance(content, dict) or is_state(content):
        return None
    if isinstance(content.get("arch"), str) and isinstance(content.get("state_dict"), dict):
        return _of_an_architecture(path, content, ema)
    if "epoch" in content and is_state(content.get("net")) and not ema:
        return _macer(path, without_wrappers(content["net"]))
    return None


def _of_an_architecture(path: str, content: dict[str, Any], ema: bool) -> Contents:
    arch = content["arch"]
    weights = without_wrappers(weights_in(path, content, ema=ema)) if content["state_dict"] else {}
    if any(name.startswith("1.") for name in weights) and arch in _ARCHITECTURES:
        return _of_a_sequential(path, arch, weights)
    if timm.is_model(arch) and isinstance(content.get("args"), Namespace):
        return Contents(path, arch, weights, **settings_of_timm(path, content, arch))
    if timm.is_model(arch) and arch in torchvision.models.list_models():
        return Contents(
            path, arch, weights, preprocessing=_IMAGENET, mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD
        )
    if arch in denoiser_archs():
        raise UserError(
            f"{path} holds a denoiser, {arch!r}: give it as model.denoiser.name, and a classifier's model.name."
        )
    raise UserError(
        f"{path} holds arch {arch!r}: of a Sequential of normalisation and network {', '.join(_ARCHITECTURES)} load, "
        f"of bare networks torchvision's and those of timm's train.py; for any other, {THE_WAY_IN}."
    )


def _of_a_sequential(path: str, arch: str, state_dict: Weights) -> Contents:
    weights = {name.removeprefix("1."): tensor for name, tensor in state_dict.items()}  # 0. is its normalisation's
    name, preprocessing = _ARCHITECTURES[arch]
    return Contents(path, name, weights, preprocessing=preprocessing, **_NORMALISATIONS.get(arch, {}))


def _macer(path: str, weights: Weights) -> Contents | None:
    """What MACER's code wrote, if the network is the one of its code; anyone may call an entry `net`."""
    with torch.device("meta"):
        expected = timm.create_model("cifar_resnet110").state_dict()
    shapes = {name: tensor.shape for name, tensor in expected.items() if not name.startswith("fc.")}
    if any(name not in weights or weights[name].shape != shape for name, shape in shapes.items()):
        return None
    return Contents(path, "cifar_resnet110", weights, preprocessing=_CIFAR, mean=(0.0,) * 3, std=(1.0,) * 3)


def settings_of_timm(path: str, content: Any, arch: str) -> dict[str, Any]:
    """What timm's train.py says of a network beside its weights: fields of `Contents`, none where it says nothing.

    Args:
        path: Location of the file, for messages.
        content: Content that `read_file` returned.
        arch: The network's timm name.

    Raises:
        UserError: It cannot be read.
    """
    if not isinstance(content, dict) or not isinstance(content.get("args"), Namespace):
        return {}
    said = vars(content["args"])
    known = timm.models.get_pretrained_cfg(arch)
    try:
        config = resolve_data_config(said, pretrained_cfg=known.to_dict() if known else {})
        args = {"in_chans": said.get("in_chans"), "global_pool": said.get("gp"), "bn_eps": said.get("bn_eps")}
        args |= said.get("model_kwargs") or {}
        return {
            "args": json.loads(json.dumps({name: value for name, value in args.items() if value is not None})),
            "preprocessing": Preprocessing(
                tuple(config["input_size"][1:]), config["interpolation"], float(config["crop_pct"]), config["crop_mode"]
            ),
            "mean": tuple(float(value) for value in config["mean"]),
            "std": tuple(float(value) for value in config["std"]),
        }
    except (AssertionError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise UserError(
            f"{path} holds args that are not those of timm's train.py ({error}): save its state_dict alone."
        ) from error
