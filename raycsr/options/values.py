"""A value of an option, from YAML, a word or a program, as its annotation asks for it."""

import csv
import json
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from raycsr.errors import MOST_MISTAKES, Mistakes, UserError, behind, refuse_credentials, shown, similar
from raycsr.options.annotations import (
    Hints,
    alternatives_of,
    element_of,
    forms_of,
    group_of,
    hints_of,
    mapping_of,
    scalars_of,
    wanted,
)
from raycsr.options.strict_yaml import FLOAT, INTEGER, read_yaml, whole_number

_MOST_BYTES = 2**20  # of a file of options
_SHOWN = 60  # characters of a wrong value that a message repeats

_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _shown(value: Any) -> str:
    """A wrong value as a message repeats it."""
    if isinstance(value, str):
        return shown(value)
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


def _wrong(hint: Any, value: Any, name: str) -> UserError:
    quotes = "; a word of YAML that reads as another type stands in quotes"
    is_word = isinstance(value, int | float) and str in alternatives_of(hint)
    return UserError(f"{name} is {_shown(value)}; give {wanted(hint)}{quotes if is_word else ''}")


def as_hinted(hint: Any, value: Any, name: str) -> Any:
    """A value of YAML or of a program as an annotation asks for it.

    Args:
        hint: The annotation.
        value: Value that was given: a mapping for a group, a list, or what may be written for a list.
        name: Name of the option, for messages.

    Raises:
        UserError: the value is of another type; an option of a group is unknown.
    """
    if Any in alternatives_of(hint):
        return value
    if value is None and types.NoneType in alternatives_of(hint):
        return None
    if isinstance(value, Mapping) and group_of(hint) is not None:
        return _as_group(hints_of(group_of(hint)), value, name)
    if isinstance(value, Mapping) and mapping_of(hint) is not None:
        return {key: as_hinted(mapping_of(hint), one, f"{name}.{key}") for key, one in value.items()}
    if isinstance(value, list | tuple) and element_of(hint) is not None:
        return [as_hinted(element_of(hint), one, f"{name}[{i}]") for i, one in enumerate(value)]
    if isinstance(value, str):
        return from_words(hint, [value], name)
    scalars = scalars_of(hint)
    if type(value) in scalars:
        return _checked(hint, value, name)
    if type(value) is int and float in scalars:
        return float(_checked(hint, value, name))
    if element_of(hint) is not None and isinstance(value, bool | int | float):
        return [as_hinted(element_of(hint), value, name)]
    raise _wrong(hint, value, name)


def _as_group(hints: Hints, value: Any, name: str) -> dict[str, Any]:
    prefix = f"{name}." if name else ""
    if not isinstance(value, Mapping):
        what = "empty" if value is None else _shown(value)
        raise UserError(f"it is {what}, no mapping; give options as `name: value`, a line each")
    mistakes, group = Mistakes(), {}
    for key, one in value.items():
        if len(mistakes.found) >= MOST_MISTAKES:
            break
        with mistakes.noted():
            if key not in hints and "." in key:
                raise UserError(
                    f"{_shown(prefix + key)} is no option of a file; write it in groups, as in sampling: {{n: 1}}"
                )
            if key not in hints:
                raise unknown_option(f"{prefix}{key}", {f"{prefix}{one}": hint for one, hint in hints.items()})
            group[key] = as_hinted(hints[key], one, f"{prefix}{key}")
    mistakes.refuse()
    return group


def unknown_option(name: str, known: Hints, dashes: str = "") -> UserError:
    """Names the options that a misspelt one may mean: first those of the same last part, wherever they stand."""
    names = _names(known)
    same = [one for one in names if one.split(".")[-1] == name.split(".")[-1]]
    close = same[:3] or similar(name, names)
    meant = " or ".join(f"{dashes}{one}" for one in close)
    fix = f"did you mean {meant}?" if close else f"choose from {', '.join(f'{dashes}{one}' for one in known)}"
    return UserError(f"{_shown(f'{dashes}{name}')} is no option; {fix}")


def _names(hints: Hints, prefix: str = "") -> list[str]:
    """All options, those of groups with their dots."""
    names = []
    for name, hint in hints.items():
        names.append(f"{prefix}{name}")
        if group_of(hint) is not None:
            names += _names(hints_of(group_of(hint)), f"{prefix}{name}.")
    return names


def _checked(hint: Any, value: Any, name: str) -> Any:
    """Refuses numbers that are none, and those that no computer's numbers hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} is {value}; give a finite number")
    if type(value) is int and abs(value) >= 2**63:
        raise UserError(f"{name} is {_shown(value)}; give a number of less than 20 digits")
    return value


def from_words(hint: Any, words: Sequence[str], name: str) -> Any:
    """What the words after an option mean: one value, or a list where the annotation has one."""
    element = element_of(hint)
    if words == ["null"] and types.NoneType in alternatives_of(hint):
        return None
    is_group = group_of(hint) is not None and words[0].startswith("{")
    is_one = is_group or (scalars_of(hint) and not _is_list(words[0], element))
    if element is None or (len(words) == 1 and is_one):
        return _from_word(hint, words[0], name)
    values: list[Any] = []
    for word in words:
        if word.startswith("["):
            values += as_hinted(list[element], _of_option(word, name), name)  # type: ignore[valid-type]
        else:
            values += [_from_word(element, part, name) for part in _parts(word, element, name)]
    return values


def _is_list(word: str, element: Any) -> bool:
    return word.startswith("[") or (forms_of(element) is None and "," in word and not os.path.isfile(word))


def _parts(word: str, element: Any, name: str) -> list[str]:
    """The values in a word: those between its commas, but where commas are part of a value, the word itself."""
    forms = forms_of(element)
    if word.startswith("{") and group_of(element) is not None:
        return [word]
    if forms is not None:
        first, *others = word.split(",")
        several = others and ":" not in first and forms.is_one(first)
        if not os.path.isfile(word) and (several or any(forms.is_one(part.strip()) for part in others)):
            raise UserError(
                f"{name} is {shown(word)}: a comma separates classes; give several as --{name} A --{name} B, as "
                f"--{name} A B, or in YAML as [A, B] (a class with such a name is given by its index)"
            )
        return [word]
    if '"' not in word:
        return [part.strip() for part in word.split(",")]
    try:
        return next(csv.reader([word], skipinitialspace=True, strict=True))
    except csv.Error:
        raise UserError(f'{name} is {shown(word)}, whose quotes do not match; write "a, b",c') from None


def _from_word(hint: Any, word: str, name: str) -> Any:
    scalars = scalars_of(hint)
    if group_of(hint) is not None or mapping_of(hint) is not None:
        if word.startswith("{"):
            return as_hinted(hint, _of_option(word, name), name)
        if not scalars and mapping_of(hint) is None:
            if os.path.isfile(word):
                return read_config(word, hints_of(group_of(hint)))
            raise _wrong(hint, word, name)
    if Any in scalars or (list in scalars and word.startswith("[")):
        return _of_option(word, name)
    if bool in scalars and word.lower() in _BOOLEANS:
        return _BOOLEANS[word.lower()]
    number = _number(word, scalars)
    if number is not None:
        return _checked(hint, number, name)
    if str in scalars or any(word in typing.get_args(one) for one in scalars if typing.get_origin(one) is Literal):
        return word
    raise _wrong(hint, word, name)


def _number(word: str, scalars: Sequence[Any]) -> int | float | None:
    """The number that a word is, of the kind that is wanted; None where it is none."""
    if int in scalars and INTEGER.fullmatch(word):
        number = whole_number(word)
        return number if isinstance(number, int) else None
    if float in scalars and (FLOAT.fullmatch(word) or word.lower().strip("+-.") in ("inf", "nan")):
        return float(word.replace(".inf", "inf").replace(".nan", "nan"))
    return None


def _of_option(word: str, name: str) -> Any:
    try:
        return read_yaml(word)
    except UserError as error:
        raise UserError(f"{name} is {shown(word)}: {error}") from None


def listed(values: Any) -> Any:
    """The values of a list that a program may give as one, as a command line may: `costs="seed:8"`, `radii=0.5`."""
    return [values] if isinstance(values, str | os.PathLike | int | float) else values


def read_config(path: str, hints: Hints) -> dict[str, Any]:
    """The options in a YAML file, as the annotations ask for them.

    Raises:
        UserError: the file cannot be read or is no mapping; each option that is unknown, twice there or of a wrong
            type.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise UserError(f"it has {file.stat().st_size:,} bytes, which is no file of options")
        text = file.read_text(encoding="utf-8-sig")
        refuse_credentials(text)
        return _as_group(hints, read_yaml(text), "")
    except OSError as error:
        raise UserError(
            f"config {path!r} cannot be read: {error.strerror or error}; give a local YAML file, as "
            "`raycsr configs` prints them"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"config {path!r} is no text in UTF-8; give a YAML file of options") from None
    except ValueError as error:  # a path with a null byte
        raise UserError(f"config {path!r} cannot be read: {error}") from None
    except RecursionError:
        raise UserError(f"config {path!r}: it is nested too deeply") from None
    except UserError as error:
        raise behind(f"config {path!r}: ", error) from None
