"""YAML as it is read here: what a person writes for options, and nothing that surprises."""

import re
import typing
from typing import Any

import yaml

from raycsr.errors import UserError

_MOST_VALUES = 100_000  # of a text, those counted that an alias repeats

INTEGER = re.compile(r"[-+]?[0-9][0-9_]*")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


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
    return whole_number(loader.construct_scalar(node))


def whole_number(text: str) -> int | str:
    """The number that a text is; the text where Python makes none of it."""
    try:
        return int(text)
    except ValueError:  # thousands of digits
        return text


for _tag, _pattern, _first in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", INTEGER.pattern, list("-+0123456789")),
    ("float", rf"{FLOAT.pattern}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.0123456789")),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_integer)


def read_yaml(text: str) -> Any:
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
