"""The base classifier f: pixels in [0, 1] -> logits, normalisation inside, any timm architecture."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, cast

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from raycsr.errors import UserError, similar
from raycsr.models import cifar_resnet, rrcm, stem_resnet  # noqa: F401  (registers these networks with timm)
from raycsr.models.denoisers import RESIZING, Denoiser, resized
from raycsr.models.hub import offline_without_network
from raycsr.models.int8 import Calibration
from raycsr.models.rules import Rule
from raycsr.models.spec import ModelOptions, Preprocessing
from raycsr.models.weights import weights_sha256

Part = Literal["all", "denoisers", "classifier"]

COMBINING = "mean of logits"
"""What several answers of denoisers to one image become; it stands in the identity of runs that have several."""

HUBS = ("hf-hub:", "local-dir:")  # what timm calls models that say their own architecture and have weights

# of timm and the networks' own code, which were given arguments of whatever kind
_CREATION_ERRORS = (RuntimeError, ValueError, TypeError, OSError, AssertionError, LookupError, AttributeError)


class BaseClassifier(nn.Module):
    """A network behind its normalisation, and behind denoisers: f of the theorems, all that follows x + sigma * eps.

    Attributes:
        denoisers: The denoisers in front, in their order; mostly none.
        network: The network, normalised images -> logits.
        network_size: Height and width of the pixels that the network takes.
        preprocessing: How images become the pixels that f takes: those of the first part.
        calibration: What makes the network another one, in int8, when it is prepared for inference; mostly None.
    """

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
        denoisers: Sequence[Denoiser] = (),
        calibration: Calibration | None = None,
    ) -> None:
        """Puts normalisation in front of a network, and denoisers in front of that.

        Args:
            network: Network: normalised images (N, 3, H, W) -> logits (N, num_classes).
            arch: The network's timm name.
            args: Further arguments of the architecture, as in `timm.create_model`.
            num_classes: Number of classes m.
            preprocessing: Preprocessing that turns images into the pixels it takes, where there are no denoisers.
            mean: Per-channel mean that is subtracted, in [0, 1] pixel units.
            std: Per-channel standard deviation that is divided by, in [0, 1] pixel units.
            class_names: Names of the classes in order, where known.
            training_info: Facts about its training (objective, sigma, epochs, ...), where known.
            rules: Decision rules tuned for it; they are no part of it, but come with its checkpoint.
            denoisers: Denoisers in front, in their order. Pixels are resized between parts of different sizes.
            calibration: What makes the network one in int8; it was measured behind these denoisers.
        """
        super().__init__()
        self.denoisers = nn.ModuleList(denoisers)
        self.network = network
        self.arch = arch
        self.args = dict(args)
        self.num_classes = num_classes
        self.network_size = preprocessing.input_size
        self.preprocessing = replace(preprocessing, input_size=self.sizes[0])
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.class_names = None if class_names is None else tuple(class_names)
        self.training_info = dict(training_info or {})
        self.rules = tuple(rules)
        self.calibration = calibration
        self.precision = "fp32"  # that the network computes in; `prepare_for_inference` gives it another
        # (pixels - mean) / std as one affine operation: pixels * scale + shift
        scale = 1 / torch.tensor(self.std).view(1, 3, 1, 1)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", -torch.tensor(self.mean).view(1, 3, 1, 1) * scale)

    def forward(self, pixels: torch.Tensor, part: Part = "all") -> torch.Tensor:
        """Maps pixels to logits.

        Args:
            pixels: Pixels in [0, 1], or beyond where noise was added, as they are not clipped; float32 (N, 3, H, W).
            part: Part to compute: all of it; the denoisers alone, which give pixels (and are told one level each); or
                what comes behind them alone, which takes pixels that have no noise.

        Returns:
            Logits (N, num_classes) in the network's dtype; of the denoisers, float32 pixels (N, 3, H', W').
        """
        answers = [pixels]
        if part != "classifier":
            for denoiser, size in zip(self.in_front, self.sizes, strict=False):
                answers = [one for noisy in answers for one in denoiser.answers(resized(noisy, size))]
        if part == "denoisers":
            (pixels,) = answers
            return pixels
        logits = [self._classified(one) for one in answers]
        return logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0)

    def _classified(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the classifier says of pixels (N, 3, H, W) that have no noise: logits (N, num_classes)."""
        if self.in_front:
            pixels = resized(pixels, self.network_size)
        normalised = torch.addcmul(self.shift, pixels, self.scale)  # (N, 3, H, W)
        logits = self.network(normalised.to(next(self.network.parameters(), normalised).dtype))  # in int8 it has none
        if self.precision != "int8":
            return logits
        finite = normalised.sum(dim=(1, 2, 3)).isfinite()  # (N,); a fiftieth of what a look at each pixel takes
        return torch.where(finite[:, None], logits, torch.nan)  # int8 takes what is not for some number or other

    @property
    def awaits_int8(self) -> bool:
        """Whether it is quantised and not prepared for inference: until it is, it computes in float32."""
        return self.calibration is not None and self.precision != "int8"

    @property
    def num_passes(self) -> int:
        """Number of passes of the classifier for one noisy image: the answers of its denoisers."""
        return math.prod(one.num_answers for one in self.in_front)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width that each part takes: one without a size of its own takes that of the part behind it."""
        sizes = [self.network_size]
        for denoiser in reversed(self.in_front):
            sizes.insert(0, denoiser.input_size or sizes[0])
        return sizes

    @property
    def in_front(self) -> list[Denoiser]:
        """The denoisers, as a list."""
        return cast(list[Denoiser], [*self.denoisers])

    @property
    def training_sigma(self) -> float | None:
        """Sigma of the noise it is made for, in [0, 1] pixel units, of denoisers the first's; None where unknown."""
        if self.in_front:
            return self.in_front[0].sigma
        return self.training_info.get("sigma", getattr(self.network, "sigma", None))  # some networks are told it

    @property
    def components(self) -> list[dict[str, Any]]:
        """What determines its logits: one entry a part, in order: arch, args and sha256 of the weights.

        Behind denoisers that of the classifier also says its size, and how pixels are resized, and in int8 its
        calibration. What has neither has the entry that it always had.
        """
        state = {name: one for name, one in self.state_dict().items() if not name.startswith("denoisers.")}
        classifier: dict[str, Any] = {"arch": self.arch, "args": self.args, "sha256": weights_sha256(state)}
        if self.calibration is not None:
            classifier["int8"] = self.calibration.digest
        if not self.in_front:
            return [classifier]
        classifier |= {"kind": "classifier", "input_size": list(self.network_size), "resizing": RESIZING}
        classifier |= {"combining": COMBINING} if self.num_passes > 1 else {}
        of_denoisers = [
            {**one.component, "input_size": list(size)} for one, size in zip(self.in_front, self.sizes, strict=False)
        ]
        return [*of_denoisers, classifier]

    @property
    def parts(self) -> tuple[str, ...]:
        """Its denoisers in words, a line each."""
        return tuple(
            f"{one.arch}{'' if one.sigma is None else f' for sigma {one.sigma:g}'}{_told(one)}, {height} x {width} px, "
            f"{sum(weights.numel() for weights in one.parameters()):,} parameters"
            for one, (height, width) in zip(self.in_front, self.sizes, strict=False)
        )

    def behind(self, denoisers: Sequence[Denoiser], trained_on: Sequence[Mapping[str, Any]] = ()) -> "BaseClassifier":
        """Returns the classifier, which has none yet, behind denoisers.

        Args:
            denoisers: Denoisers in their order.
            trained_on: Sets of images that they were trained on; they are noted beside those of the classifier.
        """
        known = self.training_info.get("trained_on", [])
        known = [*known] if isinstance(known, list) else [known]
        known += [one for i, one in enumerate(trained_on) if one not in [*known, *trained_on[:i]]]
        return BaseClassifier(
            self.network,
            arch=self.arch,
            args=self.args,
            num_classes=self.num_classes,
            preprocessing=self.preprocessing,
            mean=self.mean,
            std=self.std,
            class_names=self.class_names,
            training_info={**self.training_info, **({"trained_on": known} if known else {})},
            rules=self.rules,
            denoisers=denoisers,
            calibration=self.calibration,
        )


def _told(denoiser: Denoiser) -> str:
    """The levels that a denoiser is told, where they are others than its sigma, and what all of its answers cost."""
    told = f", told {', '.join(f'{level:g}' for level in denoiser.levels)}" if denoiser.told else ""
    passes = denoiser.num_answers
    several = f" ({passes} passes of it and of what is behind, {COMBINING})" if passes > 1 else ""
    return f"{told}{denoiser.more}{several}"


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
