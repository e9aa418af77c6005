"""What the annotation of an option asks for: a group, a list, a mapping, and what may be left empty."""

import functools
import types
import typing
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union

from raycsr.forms import Forms

Hints = dict[str, Any]


@functools.cache
def hints_of(function: Any) -> Hints:
    """The options of a function, or the fields of a dataclass: name -> annotation."""
    hints = typing.get_type_hints(function, include_extras=True)
    return {name: hint for name, hint in hints.items() if name != "return"}


def alternatives_of(hint: Any) -> list[Any]:
    """The members of a union, without what is only said about them."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        return [one for member in typing.get_args(hint) for one in alternatives_of(member)]
    return alternatives_of(typing.get_args(hint)[0]) if typing.get_origin(hint) is Annotated else [hint]


def group_of(hint: Any) -> Any:
    """The dataclass that a value may be written as a mapping of, or None."""
    return next((one for one in alternatives_of(hint) if is_dataclass(one)), None)


def element_of(hint: Any) -> Any:
    """The annotation of a list's elements, or None where the option takes no list."""
    lists = (one for one in alternatives_of(hint) if typing.get_origin(one) in (list, tuple))
    return next((typing.get_args(one)[0] for one in lists), None)


def forms_of(hint: Any) -> Forms | None:
    """How the text of an option, or each text of its list, may be written where a comma may be part of one."""
    element = element_of(hint)
    members = [hint if element is None else element, *typing.get_args(hint)]
    said = (about for one in members if typing.get_origin(one) is Annotated for about in typing.get_args(one)[1:])
    return next((about for about in said if isinstance(about, Forms)), None)


def mapping_of(hint: Any) -> Any:
    """The annotation of the values of a mapping with any keys, or None."""
    mappings = (one for one in alternatives_of(hint) if typing.get_origin(one) is dict)
    return next((typing.get_args(one)[1] for one in mappings), None)


def scalars_of(hint: Any) -> list[Any]:
    """What a value may be beside a list, a mapping or a group."""
    return [
        one
        for one in alternatives_of(hint)
        if one is not types.NoneType and not is_dataclass(one) and typing.get_origin(one) not in (list, tuple, dict)
    ]


def wanted(hint: Any) -> str:
    """What a value must be, in words."""
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
    words |= {Any: "a value", list: "a list"}
    parts = []
    for one in alternatives_of(hint):
        if typing.get_origin(one) is Literal:
            parts.append(f"one of {', '.join(map(str, typing.get_args(one)))}")
        elif is_dataclass(one):
            parts.append(f"a group of options: {', '.join(hints_of(group_of(one)))}")
        elif element_of(one) is not None:
            parts.append(f"a list, each {wanted(element_of(one))}")
        else:
            parts.append(words.get(one, "a mapping"))
    return " or ".join(parts)
