"""Checkpoints of base classifiers: raycsr's own format, and those of others' code (`published`)."""

import io
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from raycsr.errors import UserError, shown
from raycsr.models.base_classifier import BaseClassifier, create_base_classifier, heads_of
from raycsr.models.denoisers import Denoiser, DenoiserContents, assemble_denoiser
from raycsr.models.int8 import Calibration
from raycsr.models.published import from_published
from raycsr.models.rules import rule_of_dict
from raycsr.models.spec import ModelOptions, Preprocessing
from raycsr.models.weights import (
    THE_WAY_IN,
    Contents,
    Weights,
    load_weights,
    normalisation_in,
    num_classes_of,
    read_file,
    unwrapped,
    weights_in,
)
from raycsr.store import Store

FORMAT, BEHIND_DENOISERS, IN_INT8 = FORMATS = "raycsr/1", "raycsr/2", "raycsr/3"
"""Within one format fields are only added, and a reader passes over those that it does not know. Others are refused.

The second is that of a classifier behind denoisers, which a reader of the first alone must not load without them, and
the third that of one in int8, behind denoisers or not.
"""


def save_checkpoint(
    path: str | os.PathLike[str],
    base_classifier: BaseClassifier,
    *,
    training_info: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    training_state: Mapping[str, Any] | None = None,
) -> None:
    """Writes a base classifier as one file, which appears whole or not at all.

    Args:
        path: Local path or s3:// URI.
        base_classifier: Base classifier to save.
        training_info: Facts about its training in JSON values: objective, sigma, epochs, ...; by default those it has.
        class_names: Names of its classes in order. Default: those it has.
        training_state: State that an unfinished training needs to continue: tensors and plain values.

    Raises:
        UserError: It cannot be written, or its weights are rounded to int8 already.
    """
    if base_classifier.calibration is not None and not base_classifier.awaits_int8:
        raise UserError(
            "the base classifier is prepared for inference in int8, and a checkpoint holds the weights that it was "
            "rounded from: save the one that was prepared"
        )
    names = base_classifier.class_names if class_names is None else class_names
    in_int8 = base_classifier.calibration is not None
    description = {
        "format": IN_INT8 if in_int8 else BEHIND_DENOISERS if base_classifier.in_front else FORMAT,
        "arch": base_classifier.arch,
        "args": base_classifier.args,
        "num_classes": base_classifier.num_classes,
        "preprocessing": replace(base_classifier.preprocessing, input_size=base_classifier.network_size).to_dict(),
        "mean": base_classifier.mean,
        "std": base_classifier.std,
        "class_names": names,
        "training": base_classifier.training_info if training_info is None else training_info,
        "rules": [rule.to_dict() for rule in base_classifier.rules],
    }
    if base_classifier.calibration is not None:
        description["int8"] = base_classifier.calibration.to_dict()
    plain = json.loads(json.dumps(description))  # refuses now what weights_only would refuse on loading
    content = plain | {"state_dict": _on_cpu(base_classifier.network)}
    if base_classifier.in_front:
        content["denoisers"] = [_described(one) for one in base_classifier.in_front]
    if training_state is not None:
        content["training_state"] = training_state
    buffer = io.BytesIO()
    torch.save(content, buffer)
    Store(path).write("", buffer.getvalue())


def _on_cpu(network: nn.Module) -> Weights:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def _described(denoiser: Denoiser) -> dict[str, Any]:
    facts = {"arch": denoiser.arch, "args": denoiser.args, "sigma": denoiser.sigma, "input_size": denoiser.input_size}
    return {**json.loads(json.dumps(facts | denoiser.told)), "state_dict": _on_cpu(denoiser.network)}


def load_checkpoint(path: str | os.PathLike[str]) -> BaseClassifier:
    """Reads a checkpoint of raycsr, or of others' code that says which network it is of (`published`).

    Args:
        path: Local path or s3:// URI.

    Returns:
        The base classifier, on the CPU. A published checkpoint does not say its training sigma.

    Raises:
        UserError: There is no such file, it is no checkpoint, loading it would run code, or its weights do
            not fit.
    """
    return assemble(read_checkpoint(os.fspath(path)))


def read_checkpoint(path: str, *, ema: bool = False) -> Contents:
    """Reads what a checkpoint says, which is checked when it is assembled.

    Args:
        path: Local path or s3:// URI.
        ema: Take the moving average of the weights, where there is one beside them.

    Raises:
        UserError: There is no such file, it is no checkpoint, or loading it would run code.
    """
    content = read_file(path)
    if is_raycsr(path, content):
        if ema:
            raise UserError(f"{path} holds no EMA weights beside those to load: leave model.ema out.")
        return _of_raycsr(path, content)
    if published := from_published(path, content, ema=ema):
        return published
    raise UserError(
        f"{path} is not a checkpoint of raycsr ({FORMAT!r}) nor of code whose files say which network they are of "
        f"(locuslab/smoothing and its kin, macer, pytorch/examples, timm's train.py): {THE_WAY_IN}."
    )


def assemble(
    contents: Contents,
    *,
    num_classes: int | None = None,
    input_size: int | None = None,
    init_seed: int = 0,
    new_head: bool = False,
) -> BaseClassifier:
    """Builds the base classifier that a file describes, all of its weights from the file.

    Args:
        contents: Contents of the file.
        num_classes: Number of classes it must have; None takes the file's.
        input_size: Height and width of its input in px; None takes the file's.
        init_seed: Seed of a new head.
        new_head: Whether to make a new head, with a warning, where the file's head has another number of classes.

    Raises:
        UserError: What the file says does not hold together, or its weights do not fit.
    """
    _check(contents)
    path = contents.path
    in_file = num_classes_of(contents.weights, heads_of(contents.arch))
    if contents.num_classes is not None and in_file not in (None, contents.num_classes):
        raise UserError(f"{path} is damaged: it says {contents.num_classes} classes, and its head has {in_file}.")
    in_file = contents.num_classes if in_file is None else in_file
    replaced = new_head and num_classes not in (None, in_file)
    if contents.calibration is not None and input_size is not None:
        raise UserError(f"{path} is quantised to int8 for images of one size: leave model.input_size out.")
    if not new_head and in_file is not None and num_classes not in (None, in_file):
        raise UserError(
            f"{path} has {in_file} classes, model.num_classes says {num_classes}: "
            "leave it out, choose another file, or give it a new head by `raycsr train` on those classes."
        )
    if contents.preprocessing is not None and input_size is None:
        side: int | None = contents.preprocessing.input_size[0]
    else:
        side = input_size
    created = create_base_classifier(
        ModelOptions(
            contents.arch,
            num_classes=in_file if num_classes is None else num_classes,
            args=dict(contents.args),
            input_size=side,
            init_seed=init_seed,
        )
    )
    contents = _normalised(contents, created)
    heads = heads_of(contents.arch) if replaced else ()
    new = load_weights(path, contents.arch, created.network, contents.weights, heads=heads)
    if new:
        warnings.warn(
            f"the head in {path} is of {in_file} classes, so that of {num_classes} is new and untrained: "
            f"{', '.join(new)}",
            stacklevel=2,
        )
    preprocessing = contents.preprocessing or created.preprocessing
    if input_size is not None:
        preprocessing = replace(preprocessing, input_size=(input_size, input_size))
    return BaseClassifier(
        created.network,
        arch=contents.arch,
        args=contents.args,
        num_classes=created.num_classes,
        preprocessing=preprocessing,
        mean=contents.mean or created.mean,
        std=contents.std or created.std,
        class_names=None if new else contents.class_names,
        training_info=contents.training_info,
        rules=() if new else contents.rules,
        denoisers=[assemble_denoiser(one) for one in contents.denoisers],
        calibration=contents.calibration,
    )


def _normalised(contents: Contents, created: BaseClassifier) -> Contents:
    """The contents under the network's own names, with the normalisation that stands among its weights.

    Raises:
        UserError: The user gave another, or it is none.
    """
    names = created.network.state_dict().keys()
    weights = unwrapped(contents.weights, names)
    layer = normalisation_in(weights, names)
    if not layer:
        return replace(contents, weights=weights)
    mean, std = (tuple(map(float, weights[name].flatten())) for name in layer)
    said = contents.args.get("pretrained_cfg_overlay") or {}
    for what, its, given in (("mean", mean, created.mean), ("std", std, created.std)):
        if what in said and any(not math.isclose(*pair, rel_tol=1e-5) for pair in zip(its, given, strict=True)):
            raise UserError(
                f"{contents.path} holds a normalisation by {what} {[round(one, 4) for one in its]}, and model.args "
                f"says {list(given)}: leave that out."
            )
    weights = {name: tensor for name, tensor in weights.items() if name not in layer}
    normalised = replace(contents, weights=weights, mean=mean, std=std)
    _check(normalised)
    return normalised


def _check(contents: Contents) -> None:
    """Refuses a description that no classifier can have."""
    classes, of_input = contents.num_classes, contents.preprocessing
    faults = {
        f"num_classes {classes}": classes is not None and classes < 1,
        f"mean {contents.mean}": contents.mean is not None and not _three_numbers(contents.mean),
        f"std {contents.std}": contents.std is not None
        and not (_three_numbers(contents.std) and min(contents.std) > 0),
        f"preprocessing {of_input}": of_input is not None and not _possible(of_input),
        f"class_names {contents.class_names}": contents.class_names is not None
        and not (len(contents.class_names) == classes and all(isinstance(name, str) for name in contents.class_names)),
        "rules for another number of classes": any(
            rule.num_classes is not None and rule.num_classes != classes for rule in contents.rules
        ),
    }
    for fault, found in faults.items():
        if found:
            raise UserError(f"{contents.path} is damaged: it says {fault}: give another checkpoint.")


def _three_numbers(values: Sequence[Any]) -> bool:
    return len(values) == 3 and all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def _possible(preprocessing: Preprocessing) -> bool:
    size = preprocessing.input_size
    return (
        len(size) == 2
        and all(isinstance(side, int) and side > 0 for side in size)
        and preprocessing.interpolation in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
        and isinstance(preprocessing.crop_pct, int | float)
        and 0 < preprocessing.crop_pct <= 1
        and preprocessing.crop_mode in ("center", "squash", "border")
    )


def is_raycsr_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether there is a checkpoint of raycsr's own format: only such a file can hold rules."""
    try:
        return is_raycsr(os.fspath(path), read_file(os.fspath(path)))
    except UserError:
        return False


def is_raycsr(path: str, content: Any) -> bool:
    """Whether this is what `save_checkpoint` wrote.

    Raises:
        UserError: It is, but that of another version of raycsr, in another format.
    """
    format_ = content.get("format") if isinstance(content, dict) else None
    if isinstance(format_, str) and format_.startswith("raycsr/") and format_ not in FORMATS:
        raise UserError(
            f"{path} is a checkpoint of raycsr in format {shown(format_)}, and this raycsr reads "
            f"{', '.join(map(repr, FORMATS))}: use the raycsr that wrote it."
        )
    return format_ in FORMATS


def load_training_state(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Reads what an unfinished training left in its checkpoint; None where it is finished.

    Raises:
        UserError: There is no such file, or it is no checkpoint of raycsr.
    """
    content = read_file(os.fspath(path))
    if not is_raycsr(os.fspath(path), content):
        raise UserError(f"{path} is not a checkpoint of raycsr ({FORMAT!r}), so no training goes on from it.")
    return content.get("training_state")


def _of_type(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{str(value)[:40]!r} is no {getattr(kind, '__name__', kind)}")
    return value


def _of_raycsr(path: str, content: dict[str, Any]) -> Contents:
    try:
        preprocessing = content["preprocessing"]
        return Contents(
            path,
            _of_type(content["arch"], str),
            weights_in(path, {"state_dict": content["state_dict"]}, ema=False),
            args=_of_type(content["args"], dict),
            num_classes=_of_type(content["num_classes"], int),
            preprocessing=Preprocessing(**dict(preprocessing, input_size=tuple(preprocessing["input_size"]))),
            mean=tuple(content["mean"]),
            std=tuple(content["std"]),
            class_names=None if content["class_names"] is None else tuple(content["class_names"]),
            training_info=_of_type(content["training"], dict),
            rules=tuple(rule_of_dict(rule) for rule in content.get("rules", ())),
            denoisers=_denoisers_of(path, content),
            calibration=Calibration.from_dict(content["int8"]) if content["format"] == IN_INT8 else None,
        )
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, UserError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise UserError(f"{path} is damaged: {reason}: give another checkpoint.") from error


def _denoisers_of(path: str, content: dict[str, Any]) -> tuple[DenoiserContents, ...]:
    """The denoisers that a checkpoint of raycsr holds, in their order."""
    if content["format"] == FORMAT or (content["format"] == IN_INT8 and "denoisers" not in content):
        return ()
    described = _of_type(content["denoisers"], list)
    if not described:
        raise ValueError("it says no denoisers")  # and a classifier alone is another one
    return tuple(
        DenoiserContents(
            path,
            _of_type(one["arch"], str),
            weights_in(path, {"state_dict": one["state_dict"]}, ema=False),
            args=_of_type(one["args"], dict),
            sigma=None if one["sigma"] is None else float(_of_type(one["sigma"], int | float)),
            input_size=None if one["input_size"] is None else _size(one["input_size"]),
            levels=tuple(float(_of_type(level, int | float)) for level in one.get("levels", ())),
        )
        for one in described
    )


def _size(value: Any) -> tuple[int, int]:
    height, width = (_of_type(side, int) for side in value)
    if min(height, width) < 1:
        raise ValueError(f"it says input_size {value}")
    return height, width
