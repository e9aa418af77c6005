"""From a timm name, a checkpoint or `ModelOptions` to a base classifier ready for inference."""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import timm
import torch

from raycsr.errors import UserError, first_of, nearest, similar
from raycsr.models.base_classifier import HUBS, BaseClassifier, create_base_classifier, not_pretrained
from raycsr.models.checkpoints import assemble, is_raycsr, read_checkpoint
from raycsr.models.denoisers import (
    Denoiser,
    DenoiserContents,
    assemble_denoiser,
    create_denoiser,
    denoiser_archs,
    denoiser_in,
    diffusers_in,
    is_denoiser,
)
from raycsr.models.published import settings_of_timm
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.models.weights import Contents, read_file, weights_in

_FILES = (".pt", ".pth", ".tar", ".ckpt", ".bin", ".safetensors")


def load_base_classifier(
    model: str | ModelOptions,
    *,
    num_classes: int | None = None,
    device: str | torch.device = "cpu",
    new_head: bool = False,
) -> BaseClassifier:
    """Loads or creates a base classifier, in eval mode and without gradients for its weights.

    Where weights are given, all of the network's are those; or they are refused.

    Args:
        model: Name of a timm model, the path or s3:// URI of a checkpoint, or `ModelOptions`.
        num_classes: Number of classes that the model must have. A model with random weights gets a head of that size.
        device: Device to put the model on.
        new_head: Whether to replace a head of another number of classes, with a warning that names the new tensors, as
            a training does.

    Returns:
        A module that maps pixels (N, 3, H, W) in [0, 1] to logits (N, num_classes).

    Raises:
        UserError: The name is unknown or ambiguous, the weights cannot be read or do not fit, it has another number
            of classes, or it does not take images of 3 channels and its input size.

    Example:
        >>> model = load_base_classifier("cifar_resnet8", num_classes=10)
        >>> model(torch.rand(2, 3, 32, 32)).shape  # pixels in [0, 1] -> logits
        torch.Size([2, 10])
    """
    options = ModelOptions(model) if isinstance(model, str) else model
    if options.num_classes is None and (new_head or not has_weights(options)):
        options = replace(options, num_classes=num_classes)
    if _is_checkpoint(options.name):
        base_classifier = _assemble(_checkpoint(options), options, new_head)
    elif isinstance(options.pretrained, str):
        base_classifier = _assemble(_file_of_weights(options, options.pretrained), options, new_head)
    else:
        base_classifier = _of_timm(options, new_head)
    if num_classes not in (None, base_classifier.num_classes):
        raise UserError(
            f"model {options.name!r} has {base_classifier.num_classes} classes, {num_classes} are needed: "
            "choose another, or give it a new head by `raycsr train` on those classes."
        )
    if options.denoisers:
        base_classifier = _behind(base_classifier, options)
    base_classifier.eval().requires_grad_(False)
    _try_forward(base_classifier, options.name)
    return base_classifier.to(device)


def has_weights(options: ModelOptions) -> bool:
    """Whether weights are given, by whatever option; else they are random."""
    return bool(options.pretrained) or options.name.startswith(HUBS) or _is_checkpoint(options.name)


def denoiser_has_weights(options: DenoiserOptions) -> bool:
    """Whether weights of a denoiser are given, by whatever option; else they are random."""
    return options.pretrained is not None or not _is_denoiser_arch(options.name)


def warn_of_random_weights(options: ModelOptions) -> None:
    """Warns of a classifier, and of each denoiser in front of it, whose weights are random: nobody gave any."""
    if not has_weights(options):
        warnings.warn(
            f"model {options.name!r} has random weights, of init_seed {options.init_seed}: for its own, set "
            "model.pretrained to true or to a file of them",
            stacklevel=2,
        )
    warn_of_random_denoisers(options)


def warn_of_random_denoisers(options: ModelOptions) -> None:
    """Warns of each denoiser in front of a classifier whose weights are random."""
    for one in options.denoisers:
        if not denoiser_has_weights(one):
            warnings.warn(
                f"denoiser {one.name!r} has random weights, of init_seed {options.init_seed}: for its own, set "
                "model.denoiser.pretrained to a file of them",
                stacklevel=2,
            )


def warn_of_other_sigma(base_classifier: BaseClassifier, name: str, sigma: float) -> None:
    """Warns where noise of sigma is not what the first part was made for, or what the network was calibrated under."""
    trained = base_classifier.training_sigma
    if trained is not None and not math.isclose(trained, sigma, rel_tol=1e-6):
        denoisers = base_classifier.in_front
        what = f"denoiser {denoisers[0].arch!r} of model {name!r} is made for" if denoisers else None
        warnings.warn(
            f"{what or f'model {name!r} was trained at'} sigma {trained:g} and is sampled at {sigma:g}; "
            "certificates hold, but radii will be short",
            stacklevel=2,
        )
    calibration = base_classifier.calibration
    if calibration is not None and not math.isclose(calibration.sigma, sigma, rel_tol=1e-6):
        warnings.warn(
            f"model {name!r} was quantised to int8 for sigma {calibration.sigma:g} and is sampled at {sigma:g}; "
            "certificates hold, but radii will be short",
            stacklevel=2,
        )


def _is_checkpoint(name: str) -> bool:
    """Whether the name means a file; one that also means a timm model is refused."""
    if os.path.isfile(name) and timm.is_model(name):
        raise UserError(
            f"model.name {name!r} is a timm model and a file here: "
            f"say './{name}' for the file, or rename the file for the timm model."
        )
    return not name.startswith(HUBS) and _is_file(name)


def _is_file(name: str) -> bool:
    """Whether the name means a file, be there one or not."""
    return "/" in name or os.path.isfile(name) or name.endswith(_FILES)


def _behind(base_classifier: BaseClassifier, options: ModelOptions) -> BaseClassifier:
    """The classifier behind the denoisers that are asked for."""
    if base_classifier.in_front:
        raise UserError(f"{options.name} holds the denoisers in front of its classifier: leave model.denoiser out.")
    if base_classifier.calibration is not None:
        raise UserError(
            f"{options.name} is quantised to int8 without denoisers in front: leave model.denoiser out, or quantise "
            "the model that it was made of behind them"
        )
    denoisers: list[Denoiser] = []
    trained_on: list[dict[str, Any]] = []
    for asked in options.denoisers:
        if asked.input_size is not None and asked.input_size < 1:
            raise UserError(f"model.denoiser.input_size is {asked.input_size}: give a height and width in pixels.")
        if not denoiser_has_weights(asked):
            size = None if asked.input_size is None else (asked.input_size, asked.input_size)
            seed = options.init_seed
            how: Any = {"sigma": asked.sigma, "input_size": size, "levels": asked.levels, "init_seed": seed}
            denoisers.append(create_denoiser(asked.name, asked.args, **how))
            continue
        found = _denoiser_contents(asked)
        if asked.levels is not None and len(found) > 1:
            raise UserError(f"{asked.name} holds {len(found)} denoisers, with levels of their own: leave levels out.")
        for contents in found:
            denoisers.append(
                assemble_denoiser(contents, sigma=asked.sigma, input_size=asked.input_size, levels=asked.levels)
            )
            trained_on += contents.trained_on
    if any(one.draws for one in denoisers[1:]):
        raise UserError("a denoiser of several reverse_steps makes its noise of whole grey levels: put it first.")
    return base_classifier.behind(denoisers, trained_on)


def _denoiser_contents(options: DenoiserOptions) -> Sequence[DenoiserContents]:
    """What the file of a denoiser says, or of several in their order."""
    if options.pretrained is not None:
        if not _is_denoiser_arch(options.name):
            raise UserError(f"{options.name!r} brings its own weights: leave model.denoiser.pretrained out.")
        path = options.pretrained
        content = read_file(path)
        if is_raycsr(path, content):
            raise UserError(f"{path} is a checkpoint of raycsr: say model.denoiser.name {path} alone.")
        return [DenoiserContents(path, options.name, weights_in(path, content, ema=False), args=options.args)]
    path = options.name
    if not (_is_file(path) or os.path.isdir(path)):
        near = similar(path, denoiser_archs())
        raise UserError(
            f"model.denoiser.name {path!r} is neither a denoiser nor a file: "
            f"{nearest(path, near) if near else 'see raycsr ls denoisers'}"
        )
    if options.args:
        raise UserError(f"{path!r} brings its own architecture and weights: leave model.denoiser.args out.")
    folder = diffusers_in(path) if os.path.isdir(path) or path.startswith("s3://") else None
    if folder is not None:
        return [folder]
    content = read_file(path)
    if is_raycsr(path, content):
        contents = read_checkpoint(path)
        if not contents.denoisers:
            raise UserError(f"{path} holds a classifier and no denoiser: give it as model.name.")
        known = contents.training_info.get("trained_on", [])
        return [
            replace(one, trained_on=tuple(known if isinstance(known, list) else [known])) for one in contents.denoisers
        ]
    found = denoiser_in(path, content)
    if found is None:
        raise UserError(
            f"{path} is not a checkpoint of raycsr with a denoiser, nor one of denoised-smoothing: say which denoiser "
            "it is of by model.denoiser.name ARCH, one of `raycsr ls denoisers`, and give it as "
            "model.denoiser.pretrained FILE"
        )
    return [found]


def _is_denoiser_arch(name: str) -> bool:
    """Whether the name means an architecture; one that also means a file is refused."""
    if not is_denoiser(name):
        return False
    if os.path.isfile(name):
        raise UserError(f"model.denoiser.name {name!r} is a denoiser and a file here: say './{name}' for the file.")
    return True


def _assemble(contents: Contents, options: ModelOptions, new_head: bool) -> BaseClassifier:
    return assemble(
        contents,
        num_classes=options.num_classes,
        input_size=options.input_size,
        init_seed=options.init_seed,
        new_head=new_head,
    )


def _checkpoint(options: ModelOptions) -> Contents:
    if options.args or options.pretrained:
        raise UserError(
            f"{options.name!r} brings its own architecture and weights: leave out model.args and pretrained."
        )
    return read_checkpoint(options.name, ema=options.ema)


def _file_of_weights(options: ModelOptions, path: str) -> Contents:
    if options.name.startswith(HUBS):
        raise UserError(
            f"{options.name!r} has weights of its own: leave out model.pretrained, or give an architecture."
        )
    content = read_file(path)
    if is_raycsr(path, content):
        raise UserError(f"{path} is a checkpoint of raycsr, with its architecture: say model.name {path} alone.")
    settings = settings_of_timm(path, content, options.name)
    settings["args"] = {**settings.get("args", {}), **options.args}
    return Contents(path, options.name, weights_in(path, content, ema=options.ema), **settings)


def _of_timm(options: ModelOptions, new_head: bool) -> BaseClassifier:
    """A timm model with the weights of its name or repository, or seeded random ones."""
    if options.ema:
        raise UserError(f"model {options.name!r} has no EMA weights to choose: leave model.ema out.")
    if not has_weights(options):
        return create_base_classifier(options)
    options = replace(options, pretrained=True)
    base_classifier = create_base_classifier(options)
    changes = _changes(base_classifier, options)
    if changes and not new_head:
        raise UserError(
            f"the weights of {options.name!r} are not taken as they are: {'; '.join(changes)}: "
            "leave model.num_classes, input_size and args out, or give another model."
        )
    if changes:
        warnings.warn(f"the weights of {options.name!r} are changed: {'; '.join(changes)}", stacklevel=2)
    return base_classifier


def _changes(base_classifier: BaseClassifier, options: ModelOptions) -> list[str]:
    """What timm does to pretrained weights without a word, where it was asked for another head or size."""
    known: Any = base_classifier.network.pretrained_cfg
    changes = []
    new = not_pretrained(base_classifier, options)
    if base_classifier.num_classes != known["num_classes"]:
        changes.append(f"the head of {base_classifier.num_classes} classes is new, theirs has {known['num_classes']}")
    elif new:
        changes.append(f"{first_of(new, 3)} are not among them")
    size = options.args.get("img_size", options.input_size)
    side = size[0] if isinstance(size, list | tuple) else size
    if known.get("fixed_input_size") and side not in (None, known["input_size"][1]):
        changes.append(f"position embeddings are resampled from {known['input_size'][1]} to {side} px")
    return changes


def _try_forward(base_classifier: BaseClassifier, name: str) -> None:
    """One black image: arguments and weights that go together may still take no image of this size or of colour."""
    height, width = base_classifier.preprocessing.input_size
    try:
        with torch.inference_mode():
            shape = tuple(base_classifier(torch.zeros((1, 3, height, width))).shape)
    except Exception as error:  # the network's own code, with arguments of whatever kind
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model {name!r} cannot take images of {height} x {width} in 3 channels: {reason}; "
            "set model.input_size to a size it can take"
        ) from error
    if shape != (1, base_classifier.num_classes):
        raise UserError(
            f"model {name!r} gives an image {shape} numbers, where (1, {base_classifier.num_classes}) logits are "
            "expected: leave out the model.args that change its output."
        )
