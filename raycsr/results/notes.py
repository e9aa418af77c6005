"""The JSON files of a run, read so that one which is damaged is one line that names it, and never a traceback."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from raycsr.certification import NEWEST
from raycsr.errors import DamagedFile
from raycsr.results.schema import READABLE_SCHEMAS
from raycsr.store import Store

_MOST = 10**12  # samples, pixels or whatever is counted
_MOST_CLASSES = 50_000  # a cost matrix of more has 20 GB and more

Check = Callable[[Any], bool]


def read_note(store: Store, name: str, fields: Mapping[str, Check], fix: str, optional: tuple[str, ...] = ()) -> dict:
    """A JSON object.

    Args:
        store: Store that the file is in.
        name: Name of the file.
        fields: Required fields -> what tells good values.
        fix: What to do about a damaged file.
        optional: Names of the fields that may be left out.

    Raises:
        DamagedFile: it is no JSON object, or a field is not as it must be.
        UserError: it cannot be read at all.
    """
    facts, where = _object(store, name, fix), f"{store.location}/{name}"
    _check(facts, where, fields, fix, optional)
    return facts


def _object(store: Store, name: str, fix: str) -> dict:
    data = store.read(name)
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise DamagedFile(f"{store.location}/{name}", "it is no JSON object", fix)
    return facts


def _check(facts: dict, where: str, fields: Mapping[str, Check], fix: str, optional: tuple[str, ...] = ()) -> None:
    for field, is_good in fields.items():
        if not is_good(facts.get(field)) and (field in facts or field not in optional):
            raise DamagedFile(where, f"its {field} is not what was written", fix)


def is_text(value: Any) -> bool:
    """Whether a value is text that can be written, as UTF-8."""
    return isinstance(value, str) and not any("\ud800" <= one <= "\udfff" for one in value)


def is_texts(value: Any) -> bool:
    """Whether a value is a list of texts."""
    return isinstance(value, list) and all(map(is_text, value))


def is_count(value: Any) -> bool:
    """Whether a value is a number of things, 0 or more."""
    return type(value) is int and 0 <= value <= _MOST


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(is_count(one) and one > 0 for one in value)


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= _MOST and math.isfinite(value)


def _is_preprocessing(value: Any) -> bool:
    return isinstance(value, dict) and _is_size(value.get("input_size", [1, 1]))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_noise(value: Any) -> bool:
    return _is_object(value) and is_text(value.get("table")) and _is_positive(value.get("total_variation"))


_MANIFEST: dict[str, Check] = {
    "schema_version": lambda value: type(value) is int,
    "experiment": is_text,
    "model": is_text,
    "sigma": _is_positive,
    "n0": is_count,
    "n": lambda value: value is None or is_count(value),
    "sampling": lambda value: is_text(value) and value in NEWEST,
    "precision": is_text,
    "noise": _is_noise,
    "num_classes": lambda value: is_count(value) and 0 < value <= _MOST_CLASSES,
    "class_names": lambda value: value is None or is_texts(value),
    "preprocessing": _is_preprocessing,
    "batch_size": lambda value: is_count(value) and value > 0,
    "begun": is_text,
    "data": lambda value: _is_object(value) and is_text(value.get("images", "")),
    "config": lambda value: _is_object(value) and _is_data(value.get("data", {})),
    "versions": lambda value: _is_object(value) and is_text(value.get("raycsr", "")),
}
_OPTIONAL = (
    "n0",
    "n",
    "precision",
    "noise",
    "class_names",
    "preprocessing",
    "batch_size",
    "begun",
    "data",
    "config",
    "versions",
)
_SHOWN = ("experiment", "model", "sigma", "n0", "n", "precision")


def _is_data(value: Any) -> bool:
    return _is_object(value) and all(
        value.get(name) is None or is_text(value[name]) for name in ("source", "path", "split")
    )


def read_manifest(store: Store) -> dict:
    """A run's manifest; of one of another schema version, what can be shown of it.

    Raises:
        DamagedFile: it is not what was written.
        UserError: it cannot be read at all.
    """
    fix = "put back the run from a copy, or move its folder away and sample it again"
    facts, where = _object(store, "manifest.json", fix), f"{store.location}/manifest.json"
    version = facts.get("schema_version")
    if version is None or (type(version) is int and version not in READABLE_SCHEMAS):
        return facts | {name: None for name in _SHOWN if isinstance(facts.get(name), dict | list)}
    _check(facts, where, _MANIFEST, fix, _OPTIONAL)
    if facts.get("class_names") is not None and len(facts["class_names"]) != facts["num_classes"]:
        raise DamagedFile(where, "it has not as many class_names as num_classes", fix)
    return {"class_names": None, **facts}


def model_of(facts: Mapping[Any, Any]) -> str:
    """The model of a run, or of predictions, as people read it: as it was named, and int8 where it is that.

    It is another classifier than that of the same weights in float32, which a file's name need not say.

    Args:
        facts: What was noted: `model` and, where it is known, `precision`.
    """
    return f"{facts.get('model')}{' int8' if facts.get('precision') == 'int8' else ''}"


def read_rule(store: Store, name: str) -> dict:
    """A decision rule of a run: id, kind, spec.

    Raises:
        DamagedFile: it is not what was written.
    """
    fix = "move it away, and `raycsr sample` with its rules writes it again"
    fields: dict[str, Check] = {"id": lambda value: f"{value}.json" == name.rsplit("/", 1)[-1]}
    return read_note(store, name, {**fields, "kind": is_text, "spec": is_text}, fix)


def read_owner(store: Store, name: str) -> dict:
    """Who holds what is in a folder, or held it last.

    Raises:
        DamagedFile: it is not what was written.
    """
    fields: dict[str, Check] = {
        "host": is_text,
        "boot": is_text,
        "pid": lambda value: is_count(value) and value < 1 << 31,
        "started": lambda value: value is None or is_text(value),
        "released": lambda value: isinstance(value, bool),
        "since": is_text,
    }
    return read_note(store, name, fields, "where nobody works on it, delete this file", ("since",))
