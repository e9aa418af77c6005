"""Checkpoints of base classifiers: raycsr's own format, and those of five papers' code (`published`).

A file is never unpickled as code: `torch.load(weights_only=True)` always.
"""

import contextlib
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pyarrow import fs
from torch import nn

from raycsr.errors import UserError, refuse_credentials
from raycsr.models.base_classifier import BaseClassifier, create_base_classifier
from raycsr.models.published import from_published
from raycsr.models.rules import Rule
from raycsr.models.spec import ModelOptions, Preprocessing

FORMAT = "raycsr/1"


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
        base_classifier: What to save.
        training_info: How it was trained, in JSON values: objective, sigma, epochs, ... Default: what it has.
        class_names: Names of its classes in order. Default: those it has.
        training_state: What an unfinished training needs to go on: tensors and plain values.

    Raises:
        UserError: It cannot be written.
    """
    names = base_classifier.class_names if class_names is None else class_names
    description = {
        "format": FORMAT,
        "arch": base_classifier.arch,
        "args": base_classifier.args,
        "num_classes": base_classifier.num_classes,
        "preprocessing": base_classifier.preprocessing.to_dict(),
        "mean": base_classifier.mean,
        "std": base_classifier.std,
        "class_names": names,
        "training": base_classifier.training_info if training_info is None else training_info,
        "rules": [rule.to_dict() for rule in base_classifier.rules],
    }
    plain = json.loads(json.dumps(description))  # refuses now what weights_only would refuse on loading
    state_dict = {
        name: tensor.detach().cpu().contiguous() for name, tensor in base_classifier.network.state_dict().items()
    }
    unfinished = {} if training_state is None else {"training_state": training_state}
    buffer = io.BytesIO()
    torch.save(plain | {"state_dict": state_dict} | unfinished, buffer)
    _write(os.fspath(path), buffer.getvalue())


def load_checkpoint(path: str | os.PathLike[str]) -> BaseClassifier:
    """Reads a checkpoint of raycsr, or of the code of Cohen et al., SmoothAdv, MACER, Consistency or SmoothMix.

    Args:
        path: Local path or s3:// URI.

    Returns:
        The base classifier, on the CPU. A published checkpoint does not say its training sigma.

    Raises:
        UserError: There is no such file, it is no checkpoint, loading it would run code, or its weights do
            not fit.
    """
    path = os.fspath(path)
    content = _load(path)
    if _is_raycsr(content):
        return _from_raycsr(path, content)
    if published := from_published(path, content):
        base_classifier, weights = published
        _load_weights(path, base_classifier.arch, base_classifier.network, weights)
        return base_classifier
    raise UserError(
        f"{path} is not a checkpoint of raycsr ({FORMAT!r}), of locuslab/smoothing and its kin (arch and state_dict) "
        "or of macer (net and epoch): load its weights with timm and write it with save_checkpoint."
    )


def is_raycsr_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether there is a checkpoint of raycsr's own format: only such a file can hold rules."""
    try:
        return _is_raycsr(_load(os.fspath(path)))
    except UserError:
        return False


def _is_raycsr(content: Any) -> bool:
    return isinstance(content, dict) and content.get("format") == FORMAT


def load_training_state(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Reads what an unfinished training left in its checkpoint; None where it is finished.

    Raises:
        UserError: There is no such file, or it is no checkpoint.
    """
    return _load(os.fspath(path)).get("training_state")


def _load(path: str) -> Any:
    try:
        return torch.load(io.BytesIO(_read(path)), weights_only=True, map_location="cpu")
    except UserError:
        raise
    except Exception as error:  # on arbitrary bytes torch.load fails in any way
        if blocked := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"loading {path} would run {blocked[1]}, and code in checkpoints is never run: "
                "save it again as a dict of tensors and plain values."
            ) from error
        raise UserError(f"{path} is damaged or not a PyTorch checkpoint: give another file.") from error


def _from_raycsr(path: str, content: dict[str, Any]) -> BaseClassifier:
    preprocessing = dict(content["preprocessing"], input_size=tuple(content["preprocessing"]["input_size"]))
    side = preprocessing["input_size"][0]
    created = create_base_classifier(
        ModelOptions(content["arch"], num_classes=content["num_classes"], args=content["args"], input_size=side)
    )
    _load_weights(path, created.arch, created.network, content["state_dict"])
    return BaseClassifier(
        created.network,
        arch=content["arch"],
        args=content["args"],
        num_classes=content["num_classes"],
        preprocessing=Preprocessing(**preprocessing),
        mean=content["mean"],
        std=content["std"],
        class_names=content["class_names"],
        training_info=content["training"],
        rules=[Rule.from_dict(rule) for rule in content.get("rules", ())],
    )


def _load_weights(path: str, arch: str, network: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    misfits = [
        f"{name} is {given.get(name, 'absent')}, expected {expected.get(name, 'absent')}"
        for name in {**expected, **given}
        if expected.get(name) != given.get(name)
    ]
    if misfits:
        raise UserError(f"{path}: {len(misfits)} weights do not fit a {arch}: {'; '.join(misfits[:3])}.")
    network.load_state_dict(state_dict)


def _filesystem(path: str) -> tuple[fs.FileSystem, str]:
    refuse_credentials(path)
    return fs.FileSystem.from_uri(path) if "://" in path else (fs.LocalFileSystem(), path)


def _read(path: str) -> bytes:
    try:
        filesystem, name = _filesystem(path)
        with filesystem.open_input_file(name) as file:
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a URI of no known file system
        raise UserError(
            f"cannot read the checkpoint {path}: {str(error).splitlines()[0]}: "
            "check the path; a model of the Hugging Face hub is 'hf-hub:owner/name'."
        ) from error


def _write(path: str, data: bytes) -> None:
    try:
        filesystem, name = _filesystem(path)
        if isinstance(filesystem, fs.LocalFileSystem):
            _write_local(name, data)
        else:
            with filesystem.open_output_stream(name) as stream:  # an object appears when its stream closes
                stream.write(data)
    except (OSError, ValueError) as error:  # ValueError: a URI of no known file system
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"cannot write the checkpoint {path}: {reason}; free some space, or choose a place that you can write to"
        ) from error


def _write_local(name: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(os.path.abspath(name)), exist_ok=True)
    temporary = f"{name}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
