"""Weights in a file: read without running code, found in what trainers put around them, all of them used or refused."""

import argparse
import hashlib
import io
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from raycsr.errors import UserError
from raycsr.models.int8 import Calibration
from raycsr.models.rules import Rule
from raycsr.models.spec import Preprocessing
from raycsr.store import FileMissing, Store

Weights = dict[str, torch.Tensor]

THE_WAY_IN = "say which network they are of by model.name ARCH, a timm name, and give the file as model.pretrained FILE"
_AS_TRAINED = "give model.name ARCH and model.pretrained FILE, with num_classes, input_size and args as in training"

# What a weights_only load may build beside tensors: options of a training, and NumPy's numbers. None of it runs code.
_scalar = np.float64(0).__reduce__()[0]
_SAFE: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"},
    (_scalar, "numpy.core.multiarray.scalar"),  # as NumPy 1 calls it
    (_scalar, "numpy._core.multiarray.scalar"),  # as NumPy 2 does
]
_STATES = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")  # what trainers call the weights
_WRAPPERS = ("module", "_orig_mod")  # of (Distributed)DataParallel and AveragedModel, of torch.compile
_NORMALISATIONS = ({"mean", "std"}, {"means", "stds"}, {"means", "sds"}, {"mu", "sigma"})  # the former is subtracted


@dataclass(frozen=True)
class Contents:
    """What a file says of a base classifier; None is what timm's configuration of the architecture says.

    Attributes:
        path: Location of the file, for messages.
        arch: The network's timm name.
        weights: State of the network, under names that may still have wrappers around them.
        args: The network's further arguments, as in `timm.create_model`.
        num_classes: Number of classes; None is what the head has.
        preprocessing: Preprocessing that turns images into the pixels it takes.
        mean: Per-channel mean that is subtracted.
        std: Per-channel standard deviation that is divided by.
        class_names: Names of the classes in order, where known.
        training_info: Facts about its training, where known.
        rules: Decision rules that were tuned for it.
        denoisers: What the file says of the denoisers in front of it (`DenoiserContents`), in their order.
        calibration: What makes the network one in int8.
    """

    path: str
    arch: str
    weights: Weights
    args: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    preprocessing: Preprocessing | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    class_names: tuple[str, ...] | None = None
    training_info: Mapping[str, Any] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    denoisers: tuple[Any, ...] = ()
    calibration: Calibration | None = None


def read_file(path: str) -> Any:
    """Reads a file of `torch.save`, or of safetensors where its name says so, without running code.

    Args:
        path: Local path or s3:// URI.

    Raises:
        UserError: There is no such file, it is damaged, or loading it would run code.
    """
    data = _read(path)
    try:
        if path.endswith(".safetensors"):
            return safetensors.torch.load(data)
        # PyTorch does not compare its archives' checksums, so a flipped bit would pass for a weight.
        changed = zipfile.ZipFile(io.BytesIO(data)).testzip() if data.startswith(b"PK") else None
        with torch.serialization.safe_globals(_SAFE):
            content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # on arbitrary bytes these fail in any way
        if blocked := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"loading {path} would run {blocked[1]}, and code in checkpoints is never run: "
                "save it again as a dict of tensors and plain values."
            ) from error
        if "TorchScript" in str(error):
            raise UserError(f"{path} is TorchScript, which is code: save the network's state_dict().") from error
        raise UserError(f"{path} is damaged or not a PyTorch checkpoint: give another file.") from error
    if changed is not None:
        raise UserError(f"{path} is damaged: its record {changed!r} has another checksum: copy the file again.")
    return content


def _read(path: str) -> bytes:
    try:
        return Store(path).read()
    except FileMissing as error:
        raise UserError(
            f"cannot read the checkpoint {path}: there is no such file: "
            "check the path; a model of the Hugging Face hub is 'hf-hub:owner/name'."
        ) from error


def weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Returns the sha256 over names, dtypes, shapes and bytes of a module's state, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def is_state(value: Any) -> bool:
    """Whether this is the state of a network: tensors by name."""
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items())
    )


def weights_in(path: str, content: Any, *, ema: bool) -> Weights:
    """Finds a network's weights in what a trainer wrote: a bare state, or one entry of a dict.

    Args:
        path: Location of the file, for messages.
        content: Content that `read_file` returned.
        ema: Take the moving average of the weights (an entry such as state_dict_ema), not the last ones.

    Raises:
        UserError: There are no such weights, or several.
    """
    entries: dict[str, Any] = content if isinstance(content, dict) and not is_state(content) else {"": content}
    states = {name: value for name, value in entries.items() if isinstance(name, str) and is_state(value)}
    averages = [name for name in states if "ema" in re.split("[^a-z]+", name.lower())]
    last = [name for name in states if name not in averages]
    if ema and not averages:
        raise UserError(f"{path} holds no EMA weights: leave model.ema out.")
    if averages and not last and not ema:
        raise UserError(f"{path} holds EMA weights alone ({', '.join(averages)}): take them by model.ema true.")
    if averages and not ema:
        warnings.warn(f"{path} also holds EMA weights ({', '.join(averages)}): model.ema true takes them", stacklevel=2)
    found = averages if ema else [name for name in last if name in _STATES] or last
    if not found:
        raise UserError(
            f"{path} holds no weights, which are tensors by name, bare or under one of {', '.join(_STATES)}: "
            "save the network's state_dict()."
        )
    if len(found) > 1:
        raise UserError(f"{path} holds weights of several networks, {', '.join(found)}: save the one to load.")
    return states[found[0]]


def without_wrappers(weights: Weights) -> Weights:
    """The weights without what DataParallel, AveragedModel and torch.compile put into names."""
    bare = {".".join(part for part in name.split(".") if part not in _WRAPPERS): t for name, t in weights.items()}
    return bare if len(bare) == len(weights) else weights  # else they are of two networks


def unwrapped(weights: Weights, names: Collection[str]) -> Weights:
    """The weights under a network's own names.

    A trainer's module holds the network under a name of its own: model., net., backbone., ... What stands before the
    most of the network's names comes off, and tensors of anything else keep theirs, so they are seen.

    Args:
        weights: Weights as a file has them.
        names: Names of the network's state.
    """
    if not any(name.split(".")[0] in _WRAPPERS for name in names):
        weights = without_wrappers(weights)
    if "n_averaged" not in names:
        weights = {name: tensor for name, tensor in weights.items() if name != "n_averaged"}  # AveragedModel counts
    starts = [(name, [0, *(dot.end() for dot in re.finditer(r"\.", name))]) for name in weights]
    prefixes = Counter(name[:start] for name, possible in starts for start in possible if name[start:] in names)
    if not prefixes:
        return weights
    prefix = min(prefixes, key=lambda one: (-prefixes[one], len(one)))
    bare = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return bare if len(bare) == len(weights) else weights


def normalisation_in(weights: Weights, names: Collection[str]) -> list[str]:
    """Finds the normalisation that many train as the first part of a network, and whose numbers stand in its file.

    Args:
        weights: Weights by the network's names, and what else the file has.
        names: Names of the network's state.

    Returns:
        Names of its mean and of its standard deviation, three numbers each; none where there is no such layer, or
        several.
    """
    layers: dict[str, list[str]] = {}
    for name in sorted(weights.keys() - names):  # a mean comes before a deviation
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    found = [
        tensors
        for tensors in layers.values()
        if {name.rpartition(".")[2] for name in tensors} in _NORMALISATIONS
        and all(weights[name].numel() == 3 for name in tensors)
    ]
    return found[0] if len(found) == 1 else []


def num_classes_of(weights: Weights, heads: Iterable[str]) -> int | None:
    """The number of classes of a head, under whatever wrappers; None where there is none of that name."""
    for head in heads:
        found = [name for name in weights if f".{name}".endswith(f".{head}.weight") and weights[name].ndim > 0]
        if found:
            return len(weights[min(found, key=len)])  # a block's fc is deeper than the network's
    return None


def load_weights(
    path: str,
    arch: str,
    network: nn.Module,
    weights: Weights,
    *,
    heads: Collection[str] = (),
    fix: str = _AS_TRAINED,
) -> list[str]:
    """Gives a network all of its weights from a file.

    Args:
        path: Location of the weights, for messages.
        arch: The network's name, for messages.
        network: The network.
        weights: Weights by the network's names.
        heads: Modules that may stay as they are where the file's have another shape.
        fix: What to do about weights that do not fit, for messages.

    Returns:
        Names of the tensors that stayed as they were.

    Raises:
        UserError: naming the first tensor that is missing, unexpected, misshapen, or not of finite numbers.
    """
    expected = network.state_dict()
    given = {name: tensor for name, tensor in weights.items() if name in expected}
    missing = [
        name for name in expected if name not in given and not name.endswith("num_batches_tracked")
    ]  # of old PyTorch: a count that no logit depends on
    unexpected = [name for name in weights if name not in expected]
    differing = [name for name, tensor in given.items() if tensor.shape != expected[name].shape]
    new = [name for name in differing if name.rpartition(".")[0] in heads]
    misshapen = [name for name in differing if name not in new]
    misfits = [
        f"{kind} {names[0]} {shape(names[0])}{f' and {len(names) - 1} more' if len(names) > 1 else ''}"
        for kind, names, shape in (
            ("missing", missing, lambda name: tuple(expected[name].shape)),
            ("unexpected", unexpected, lambda name: tuple(weights[name].shape)),
            (
                "misshapen",
                misshapen,
                lambda name: f"{tuple(weights[name].shape)} where {tuple(expected[name].shape)} is expected",
            ),
        )
        if names
    ]
    if misfits:
        raise UserError(f"the weights in {path} are not those of {arch}: {'; '.join(misfits)}: {fix}.")
    _refuse_values(path, given, expected)
    network.load_state_dict({**expected, **{name: given[name] for name in given if name not in new}})
    return new


def _refuse_values(path: str, given: Weights, expected: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in given.items():
        plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
        if not plain or tensor.is_floating_point() != expected[name].is_floating_point() or tensor.is_complex():
            kind = str(tensor.dtype if plain else tensor.layout).removeprefix("torch.")
            raise UserError(
                f"{name} in {path} is {kind}, expected {str(expected[name].dtype).removeprefix('torch.')}: "
                "save the weights as plain floating-point tensors."
            )
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise UserError(f"{name} in {path} has values that are not finite: give a checkpoint that was not broken.")
