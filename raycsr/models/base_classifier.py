"""The base classifier f: pixels in [0, 1] -> logits, normalisation inside, any timm architecture."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from raycsr.errors import UserError, similar
from raycsr.models import cifar_resnet, stem_resnet  # noqa: F401  (registers these networks with timm)
from raycsr.models.hub import offline_without_network
from raycsr.models.rules import Rule
from raycsr.models.spec import ModelOptions, Preprocessing

HUBS = ("hf-hub:", "local-dir:")  # what timm calls models that say their own architecture and have weights

# of timm and the networks' own code, which were given arguments of whatever kind
_CREATION_ERRORS = (RuntimeError, ValueError, TypeError, OSError, AssertionError, LookupError, AttributeError)


class BaseClassifier(nn.Module):
    """A network behind its normalisation: f of the smoothing theorems, all that follows x + sigma * eps."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        arch: str,
        args: Mapping[str, Any],
        num_classes: int,
        preprocessing: Preprocessing,
        mean: Sequence[float],
        std: Sequence[float],
        class_names: Sequence[str] | None = None,
        training_info: Mapping[str, Any] | None = None,
        rules: Sequence[Rule] = (),
    ) -> None:
        """Puts normalisation in front of a network.

        Args:
            network: Network: normalised images (N, 3, H, W) -> logits (N, num_classes).
            arch: The network's timm name.
            args: Further arguments of the architecture, as in `timm.create_model`.
            num_classes: Number of classes m.
            preprocessing: Preprocessing that turns images into the pixels it takes.
            mean: Per-channel mean that is subtracted, in [0, 1] pixel units.
            std: Per-channel standard deviation that is divided by, in [0, 1] pixel units.
            class_names: Names of the classes in order, where known.
            training_info: Facts about its training (objective, sigma, epochs, ...), where known.
            rules: Decision rules tuned for it; they are no part of it, but come with its checkpoint.
        """
        super().__init__()
        self.network = network
        self.arch = arch
        self.args = dict(args)
        self.num_classes = num_classes
        self.preprocessing = preprocessing
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.class_names = None if class_names is None else tuple(class_names)
        self.training_info = dict(training_info or {})
        self.rules = tuple(rules)
        self.precision = "fp32"  # that the network computes in; `prepare_for_inference` gives it another
        # (pixels - mean) / std as one affine operation: pixels * scale + shift
        scale = 1 / torch.tensor(self.std).view(1, 3, 1, 1)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", -torch.tensor(self.mean).view(1, 3, 1, 1) * scale)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps pixels to logits.

        Args:
            pixels: Pixels in [0, 1], or beyond where noise was added, as they are not clipped; float32 (N, 3, H, W).

        Returns:
            Logits (N, num_classes) in the network's dtype.
        """
        normalised = torch.addcmul(self.shift, pixels, self.scale)  # (N, 3, H, W)
        return self.network(normalised.to(next(self.network.parameters()).dtype))

    @property
    def training_sigma(self) -> float | None:
        """Sigma of the noise it was trained with, in [0, 1] pixel units; None where unknown."""
        return self.training_info.get("sigma")

    @property
    def components(self) -> list[dict[str, Any]]:
        """What determines its logits: one entry a network, in order: arch, args and sha256 of the weights."""
        return [{"arch": self.arch, "args": self.args, "sha256": weights_sha256(self)}]


def weights_sha256(module: nn.Module) -> str:
    """Returns the sha256 over names, dtypes, shapes and bytes of a module's state, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def create_base_classifier(options: ModelOptions) -> BaseClassifier:
    """Creates a timm model as a base classifier, with seeded random weights or timm's pretrained ones.

    Args:
        options: The model; `name` is a timm name, and `pretrained` no file.

    Returns:
        The base classifier, on the CPU. The caller's random state is left as it was.

    Raises:
        UserError: timm does not know the name, its arguments do not fit, its weights cannot be had, or it does not
            map 3 channels to logits.
    """
    size = _input_size(options)
    try:
        network = _create_network(options)
        config = resolve_model_data_config(network)
    except _CREATION_ERRORS as error:
        raise UserError(_creation_failed(options, error)) from error
    channels = options.args.get("in_chans", config["input_size"][0])
    if channels != 3 or len(config["mean"]) != 3 or len(config["std"]) != 3:
        raise UserError(f"model {options.name!r} takes images of {channels} channels: give one that takes 3, RGB.")
    if not isinstance(getattr(network, "num_classes", None), int) or network.num_classes < 1:
        raise UserError(f"model {options.name!r} with args {options.args} gives no logits: give it num_classes.")
    return BaseClassifier(
        network,
        arch=options.name,
        args=options.args,
        num_classes=network.num_classes,
        preprocessing=Preprocessing(
            input_size=size or tuple(config["input_size"][1:]),
            interpolation=config["interpolation"],
            crop_pct=config["crop_pct"],
            crop_mode=config["crop_mode"],
        ),
        mean=config["mean"],
        std=config["std"],
    )


def _input_size(options: ModelOptions) -> tuple[int, int] | None:
    """Height and width that the options ask for, by either of the two ways that some networks have."""
    sizes = {
        name: tuple(size) if isinstance(size, list | tuple) else (size, size)
        for name, size in (
            ("model.input_size", options.input_size),
            ("img_size of model.args", options.args.get("img_size")),
        )
        if size is not None
    }
    for name, size in sizes.items():
        if not (len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
            raise UserError(f"{name} is {size}: give a height and width in pixels, 1 or more.")
    if len(set(sizes.values())) > 1:
        raise UserError(f"{' and '.join(f'{name} {size}' for name, size in sizes.items())} differ: leave one out.")
    return next(iter(sizes.values()), None)


def heads_of(arch: str) -> tuple[str, ...]:
    """The modules of a timm model that give its logits; none where timm does not say."""
    known = timm.models.get_pretrained_cfg(arch)
    heads = known.classifier if known else None
    return (heads,) if isinstance(heads, str) else tuple(heads or ())


def not_pretrained(pretrained: BaseClassifier, options: ModelOptions) -> list[str]:
    """The tensors that timm did not take from pretrained weights, and without a word left random.

    Args:
        pretrained: Module that `create_base_classifier` returned.
        options: Options that it was created by.
    """
    state, first = pretrained.network.state_dict(), _create_network(replace(options, pretrained=False)).state_dict()
    same = [name for name, tensor in state.items() if torch.equal(tensor, first[name])]
    if not same:
        return []
    second = _create_network(replace(options, pretrained=False, init_seed=options.init_seed + 1)).state_dict()
    return [name for name in same if not torch.equal(first[name], second[name])]  # constants are no news


def _create_network(options: ModelOptions) -> Any:
    kwargs = dict(options.args)
    if options.num_classes is not None:
        kwargs["num_classes"] = options.num_classes
    cfg = timm.models.get_pretrained_cfg(options.name)
    if options.input_size is not None and cfg is not None and cfg.fixed_input_size:
        kwargs["img_size"] = options.input_size  # a vision transformer, say, is built for one input size
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(options.init_seed)
        from_hub = bool(options.pretrained) or options.name.startswith("hf-hub:")
        with offline_without_network() if from_hub else nullcontext():
            return timm.create_model(options.name, pretrained=bool(options.pretrained), **kwargs)


def _creation_failed(options: ModelOptions, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    known = timm.list_models() if "." not in options.name else timm.list_models(include_tags=True)
    if isinstance(error, OSError) and (options.pretrained or options.name.startswith("hf-hub:")):
        return (
            f"the weights of model {options.name!r} are not on this machine and cannot be downloaded; give a file of "
            "them, as model.pretrained FILE with the architecture as model.name, or load them once where there is a "
            "network"
        )
    if options.name in known or options.name.startswith(HUBS):
        return f"model {options.name!r} with args {options.args} cannot be created: {reason}"
    near = ", ".join(similar(options.name, known)) or "see timm.list_models()"
    return f"model.name {options.name!r} is neither a timm model nor a file: {reason} Nearest names: {near}."
