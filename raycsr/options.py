"""Options as people write them, on a command line and in YAML, as the values that annotations ask for.

The annotations of a function, and of the dataclasses among its options, are the only list of what there is: what is
a group, what is a list, and what may be left empty. One mechanism reads them for all verbs.
"""

import csv
import functools
import json
import math
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import yaml

from raycsr.errors import UserError, refuse_credentials, shown, similar

# A text in which a comma is part of one value, as in `seed:cat,dog`: several are several words, or the option again,
# and an option that takes one is not repeated.
Spec = Annotated[str, "has commas of its own"]

_MOST_BYTES = 2**20  # of a file of options
_MOST_VALUES = 100_000  # in it, those counted that an alias repeats
_SHOWN = 60  # characters of a wrong value that a message repeats

_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
# what is a matrix or a rule by itself, and so no class after another's comma
_A_SPEC = re.compile(r"uniform|argmax|tuned|(seed|pair|offset|expected_cost):.*|[^*]*\.(csv|tsv|npy)", re.IGNORECASE)

Hints = dict[str, Any]


# Files ----------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values (no octal numbers, no dates, `no` is a word), no tags, and no key twice."""

    yaml_constructors: typing.ClassVar[dict] = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rsplit(":", 1)[-1] in ("null", "bool", "float", "str", "seq", "map")
    }
    yaml_implicit_resolvers: typing.ClassVar[dict] = {}  # type: ignore[misc]

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _check_size(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        named = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for i, key in enumerate(named):
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="a key is no name; put it in quotes", problem_mark=key.start_mark)
            if any(key.value == other.value for other in named[:i]):
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def _check_size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """The values under a node, those counted that an alias repeats: a short file can mean billions."""
    if sizes.get(node) == 0:  # on the way to itself
        raise yaml.MarkedYAMLError(problem="an alias stands for itself", problem_mark=node.start_mark)
    if node not in sizes:
        sizes[node] = 0
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        below = [] if isinstance(node, yaml.ScalarNode) else [_check_size(part, sizes) for part in parts]
        if sum(below) > _MOST_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {_MOST_VALUES:,} values", problem_mark=node.start_mark)
        sizes[node] = 1 + sum(below)
    return sizes[node]


def _construct_integer(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    return _integer(loader.construct_scalar(node))


def _integer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:  # thousands of digits
        return text


for _tag, _pattern, _first in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", _INTEGER.pattern, list("-+0123456789")),
    ("float", rf"{_FLOAT.pattern}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.0123456789")),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_integer)


def _yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        UserError: the text is none, or one that no person would write.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise UserError(f"{line}{' '.join(str(error.problem or error.context).split())}") from None
    except RecursionError:
        raise UserError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError) as error:
        raise UserError(" ".join(str(error).split())) from None


def read_config(path: str, hints: Hints) -> dict[str, Any]:
    """The options in a YAML file, as the annotations ask for them.

    Raises:
        UserError: the file cannot be read or is no mapping; an option is unknown, twice there or of a wrong type.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise UserError(f"it has {file.stat().st_size:,} bytes, which is no file of options")
        text = file.read_text(encoding="utf-8-sig")
        refuse_credentials(text)
        return _as_group(hints, _yaml(text), "")
    except OSError as error:
        raise UserError(f"config {path!r} cannot be read: {error.strerror or error}; give a local YAML file") from None
    except UnicodeDecodeError:
        raise UserError(f"config {path!r} is no text in UTF-8; give a YAML file of options") from None
    except ValueError as error:  # a path with a null byte
        raise UserError(f"config {path!r} cannot be read: {error}") from None
    except RecursionError:
        raise UserError(f"config {path!r}: it is nested too deeply") from None
    except UserError as error:
        raise UserError(f"config {path!r}: {error}") from None


# Annotations ----------------------------------------------------------------------------------------------


@functools.cache
def hints_of(function: Any) -> Hints:
    """The options of a function, or the fields of a dataclass: name -> annotation."""
    hints = typing.get_type_hints(function, include_extras=True)
    return {name: hint for name, hint in hints.items() if name != "return"}


def _alternatives(hint: Any) -> list[Any]:
    """The members of a union, without what is only said about them."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        return [one for member in typing.get_args(hint) for one in _alternatives(member)]
    return _alternatives(typing.get_args(hint)[0]) if typing.get_origin(hint) is Annotated else [hint]


def _group(hint: Any) -> Any:
    """The dataclass that a value may be written as a mapping of, or None."""
    return next((one for one in _alternatives(hint) if is_dataclass(one)), None)


def _element(hint: Any) -> Any:
    """The annotation of a list's elements, or None where the option takes no list."""
    lists = (one for one in _alternatives(hint) if typing.get_origin(one) in (list, tuple))
    return next((typing.get_args(one)[0] for one in lists), None)


def _mapping(hint: Any) -> Any:
    """The annotation of the values of a mapping with any keys, or None."""
    mappings = (one for one in _alternatives(hint) if typing.get_origin(one) is dict)
    return next((typing.get_args(one)[1] for one in mappings), None)


def _scalars(hint: Any) -> list[Any]:
    """What a value may be beside a list, a mapping or a group."""
    return [
        one
        for one in _alternatives(hint)
        if one is not types.NoneType and not is_dataclass(one) and typing.get_origin(one) not in (list, tuple, dict)
    ]


def _wanted(hint: Any) -> str:
    """What a value must be, in words."""
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
    words |= {Any: "a value", list: "a list"}
    parts = []
    for one in _alternatives(hint):
        if typing.get_origin(one) is Literal:
            parts.append(f"one of {', '.join(map(str, typing.get_args(one)))}")
        elif is_dataclass(one):
            parts.append(f"a group of options: {', '.join(hints_of(_group(one)))}")
        elif _element(one) is not None:
            parts.append(f"a list, each {_wanted(_element(one))}")
        else:
            parts.append(words.get(one, "a mapping"))
    return " or ".join(parts)


# Values ---------------------------------------------------------------------------------------------------


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
    is_word = isinstance(value, int | float) and str in _alternatives(hint)
    return UserError(f"{name} is {_shown(value)}; give {_wanted(hint)}{quotes if is_word else ''}")


def as_hinted(hint: Any, value: Any, name: str) -> Any:
    """A value of YAML or of a program as an annotation asks for it.

    Args:
        hint: the annotation.
        value: what was given: a mapping for a group, a list or what it may be written as for a list.
        name: of the option, for messages.

    Raises:
        UserError: the value is of another type; an option of a group is unknown.
    """
    if Any in _alternatives(hint):
        return value
    if value is None and types.NoneType in _alternatives(hint):
        return None
    if isinstance(value, Mapping) and _group(hint) is not None:
        return _as_group(hints_of(_group(hint)), value, name)
    if isinstance(value, Mapping) and _mapping(hint) is not None:
        return {key: as_hinted(_mapping(hint), one, f"{name}.{key}") for key, one in value.items()}
    if isinstance(value, list | tuple) and _element(hint) is not None:
        return [as_hinted(_element(hint), one, f"{name}[{i}]") for i, one in enumerate(value)]
    if isinstance(value, str):
        return _from_words(hint, [value], name)
    scalars = _scalars(hint)
    if type(value) in scalars:
        return _checked(hint, value, name)
    if type(value) is int and float in scalars:
        return float(_checked(hint, value, name))
    if _element(hint) is not None and isinstance(value, bool | int | float):
        return [as_hinted(_element(hint), value, name)]
    raise _wrong(hint, value, name)


def _as_group(hints: Hints, value: Any, name: str) -> dict[str, Any]:
    prefix = f"{name}." if name else ""
    if not isinstance(value, Mapping):
        what = "empty" if value is None else _shown(value)
        raise UserError(f"it is {what}, no mapping; give options as `name: value`, a line each")
    for key in value:
        if key not in hints and "." in key:
            raise UserError(
                f"{_shown(prefix + key)} is no option of a file; write it in groups, as in sampling: {{n: 1}}"
            )
        if key not in hints:
            raise _unknown(f"{prefix}{key}", {f"{prefix}{one}": hint for one, hint in hints.items()})
    return {key: as_hinted(hints[key], one, f"{prefix}{key}") for key, one in value.items()}


def _unknown(name: str, known: Hints, dashes: str = "") -> UserError:
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
        if _group(hint) is not None:
            names += _names(hints_of(_group(hint)), f"{prefix}{name}.")
    return names


def _checked(hint: Any, value: Any, name: str) -> Any:
    """Refuses numbers that are none, and those that no computer's numbers hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} is {value}; give a finite number")
    if type(value) is int and abs(value) >= 2**63:
        raise UserError(f"{name} is {_shown(value)}; give a number of less than 20 digits")
    return value


def _from_words(hint: Any, words: Sequence[str], name: str) -> Any:
    """What the words after an option mean: one value, or a list where the annotation has one."""
    element = _element(hint)
    if words == ["null"] and types.NoneType in _alternatives(hint):
        return None
    if element is None or (len(words) == 1 and not _is_list(words[0], element) and _scalars(hint)):
        return _from_word(hint, words[0], name)
    values: list[Any] = []
    for word in words:
        if word.startswith("["):
            values += as_hinted(list[element], _of_option(word, name), name)  # type: ignore[valid-type]
        else:
            values += [_from_word(element, part, name) for part in _parts(word, element, name)]
    return values


def _is_list(word: str, element: Any) -> bool:
    return word.startswith("[") or (element != Spec and "," in word and not os.path.isfile(word))


def _parts(word: str, element: Any, name: str) -> list[str]:
    """The values in a word: those between its commas, but where commas are part of a value, the word itself."""
    if element == Spec:
        parts = word.split(",")
        several = _A_SPEC.fullmatch(parts[0]) and ":" not in parts[0] and len(parts) > 1
        if not os.path.isfile(word) and (several or any(_A_SPEC.fullmatch(part.strip()) for part in parts[1:])):
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
    scalars = _scalars(hint)
    if _group(hint) is not None or _mapping(hint) is not None:
        if word.startswith("{"):
            return as_hinted(hint, _of_option(word, name), name)
        if not scalars and _mapping(hint) is None:
            if os.path.isfile(word):
                return read_config(word, hints_of(_group(hint)))
            raise _wrong(hint, word, name)
    if Any in scalars:
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
    if int in scalars and _INTEGER.fullmatch(word):
        number = _integer(word)
        return number if isinstance(number, int) else None
    if float in scalars and (_FLOAT.fullmatch(word) or word.lower().strip("+-.") in ("inf", "nan")):
        return float(word.replace(".inf", "inf").replace(".nan", "nan"))
    return None


def _of_option(word: str, name: str) -> Any:
    try:
        return _yaml(word)
    except UserError as error:
        raise UserError(f"{name} is {shown(word)}: {error}") from None


def listed(values: Any) -> Any:
    """The values of a list that a program may give as one, as a command line may: `costs="seed:8"`, `radii=0.5`."""
    return [values] if isinstance(values, str | os.PathLike | int | float) else values


# Command lines --------------------------------------------------------------------------------------------


def read_words(words: Sequence[str], hints: Hints, positional: Sequence[str] = ()) -> dict[str, Any]:
    """What a command line says: options wherever they stand, over the files that its --config name.

    Whole groups come before single options of them. An option with a list takes several words, may be repeated, and
    may have its values between commas, unless they have commas themselves. Of another that is repeated, the last
    counts.

    Args:
        words: options, their values, and positionals.
        hints: the options there are: name -> annotation.
        positional: those that are given without their name, in order.

    Returns:
        The options as nested dicts.

    Raises:
        UserError: naming the option that is unknown, lacks a value or has a wrong one, or is given twice.
    """
    refuse_credentials("\n".join(words))
    written, free = _occurrences(words, {**hints, "config": str})
    if len(free) > len(positional):
        raise UserError(f"{shown(free[len(positional)])} is no option; every option begins with --")
    options: dict[str, list[str]] = {}
    for name, values in [*written, *((name, [word]) for name, word in zip(positional, free, strict=False))]:
        options[name] = options.get(name, []) + values
    result: dict[str, Any] = {}
    for path in options.pop("config", []):
        result = _merged(result, read_config(path, hints), hints)
    for name, values in sorted(options.items(), key=lambda option: option[0].count(".")):
        hint = _hint_of(name, hints)
        if len(set(values)) > 1 and (hint == Spec or name in positional):  # elsewhere these are several
            raise UserError(f"--{name} is given {len(values)} values, {', '.join(map(shown, values))}; it takes one")
        words = values if _element(hint) is not None else values[-1:]
        result = _with(result, name.split("."), _from_words(hint, words, name), hint)
    return result


def _occurrences(words: Sequence[str], hints: Hints) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """Each option as it is written, with its values; and the words that are no option's value."""
    written: list[tuple[str, list[str]]] = []
    free: list[str] = []
    several = False  # whether the option under way takes more than one word
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            several = _element(_hint_of(name, hints)) is not None
            written.append((name, [value] if equals else []))
        elif word.startswith("-") and len(word) > 1 and not _FLOAT.fullmatch(word):
            raise UserError(f"{shown(word)} is no option; every option begins with --")
        elif written and (several or not written[-1][1]):
            written[-1][1].append(word)
        else:
            free.append(word)
    bare = next((name for name, values in written if not values), None)
    if bare is not None:
        raise UserError(f"--{bare} needs a value; give {_wanted(_hint_of(bare, hints))}")
    return written, free


def _hint_of(name: str, hints: Hints) -> Any:
    """The annotation of a dotted option; below an option that is a mapping, any key may be set."""
    first, *further = name.split(".")
    hint = hints.get(first)
    for key in further:
        group = _group(hint)
        hint = hints_of(group).get(key) if group is not None else hint if hint is Any else _mapping(hint)
    if hint is None:
        raise _unknown(name, hints, "--")
    return hint


def _with(options: Mapping[str, Any], keys: Sequence[str], value: Any, hint: Any) -> dict[str, Any]:
    """The options with a value at a dotted place; what else stands there in groups and mappings stays."""
    key, *rest = keys
    below = options.get(key)
    below = below if isinstance(below, dict) else {}
    if rest:
        value = _with(below, rest, value, hint)
    elif _group(hint) is not None and isinstance(value, dict):
        value = _merged(below, value, hints_of(_group(hint)))
    return {**options, key: value}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any], hints: Hints) -> dict[str, Any]:
    """Options over others: groups option by option, anything else as a whole."""
    merged = dict(below)
    for key, value in above.items():
        group = _group(hints[key])
        if group is not None and isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = _merged(merged[key], value, hints_of(group))
        merged[key] = value
    return merged
