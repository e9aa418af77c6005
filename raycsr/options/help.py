"""Help about options, of annotations and docstrings alone: the few that most calls need, those of a group, or all."""

import argparse
import functools
import inspect
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal

import docstring_parser

from raycsr.options.annotations import alternatives_of, forms_of, group_of, hints_of, scalars_of, wanted
from raycsr.options.whole import arguments_of

_MOST = 16  # options that a help without a choice of common ones shows
_WIDTH, _LEAST = 100, 40  # columns at most, and at least
_BRIEFLY = re.compile(r"(.+?)[.;](?=\s|$)")  # what of a description stands before its first full stop or semicolon

CONFIG = "YAML file of options; the command line takes precedence over it, wherever it stands."


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        name: Name with its dots, such as `sampling.n`.
        hint: Annotation.
        about: What its docstring says of it.
        required: Whether each call must give it.
        default: Value where a call does not.
        positional: Whether it is given without its name.
        heading: What the docstring says of its group.
    """

    name: str
    hint: Any
    about: str
    required: bool
    default: Any = None
    positional: bool = False
    heading: str = ""

    @property
    def group(self) -> str:
        """What stands before the last dot; empty where nothing does."""
        return self.name.rpartition(".")[0]

    @property
    def values(self) -> tuple[str, ...]:
        """The words that it takes, where these are few."""
        scalars = scalars_of(self.hint)
        words = [str(word) for one in scalars if typing.get_origin(one) is Literal for word in typing.get_args(one)]
        return tuple(["true", "false"] if scalars == [bool] else words)

    @property
    def placeholder(self) -> str:
        """What stands for its value."""
        return f"{{{','.join(self.values)}}}" if self.values else self.name.rpartition(".")[2].upper()

    def in_words(self, *, briefly: bool) -> str:
        """What help says of it: how its description begins, or all of that and its type; its forms and its default."""
        first = _BRIEFLY.match(self.about)
        said = [f"{first[1]}." if briefly and first else self.about]
        forms = forms_of(self.hint)
        said += [f"Forms: {forms.in_words()}."] if forms is not None else []
        facts = [] if briefly or self.values else [wanted(self.hint).removesuffix(" or null")]
        facts += (
            [] if self.required or self.default in (None, "", {}, []) else [f"default: {_as_written(self.default)}"]
        )
        return " ".join([*said, f"({'; '.join(facts)})"] if facts else said)


def _as_written(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return ",".join(map(_as_written, default)) if isinstance(default, list | tuple) else str(default)


def options_of(*takers: Any) -> list[Option]:
    """The options of functions, or of dataclasses, in their order, groups taken apart."""
    return [option for one in takers for option in _walk(arguments_of(one))]


def _walk(owner: Any, prefix: str = "", heading: str = "", needed: bool = True, given: Any = None) -> Iterator[Option]:
    """Options of a function, or of a dataclass, `given` being the one that stands where nothing is said."""
    about, free = _docs_of(owner), [] if isinstance(owner, type) else positionals(owner)
    defaults = _defaults_of(owner) if given is None else vars(given)
    for name, hint in hints_of(owner).items():
        group, others, default = group_of(hint), scalars_of(hint), defaults.get(name)
        must = needed and name not in defaults
        if group is None or others:
            yield Option(prefix + name, hint, about.get(name, ""), must, default, name in free, heading)
        if group is not None:
            must = must and not others and types.NoneType not in alternatives_of(hint)
            below = default if is_dataclass(default) else None
            yield from _walk(group, f"{prefix}{name}.", about.get(name, ""), must, below)


def _defaults_of(owner: Any) -> dict[str, Any]:
    """The defaults of those that have one."""
    if not is_dataclass(owner):
        parameters = inspect.signature(owner).parameters.values()
        return {one.name: one.default for one in parameters if one.default is not one.empty}
    made = {one.name: one.default if one.default_factory is MISSING else one.default_factory() for one in fields(owner)}
    return {name: default for name, default in made.items() if default is not MISSING}


def positionals(function: Any) -> list[str]:
    """The options that may be given without their names: a function's own that are not for keywords alone."""
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.kind is not one.KEYWORD_ONLY]


@functools.cache
def _docs_of(owner: Any) -> dict[str, str]:
    """What the docstrings of a function, or of a dataclass and those that it extends, say of each option."""
    owners = reversed(owner.__mro__) if isinstance(owner, type) else [owner]
    parsed = [docstring_parser.parse(one.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE) for one in owners]
    return {one.arg_name: " ".join((one.description or "").split()) for doc in parsed for one in doc.params}


Section = tuple[str, Sequence[Option]]  # a title, and what stands below it


# What is printed ------------------------------------------------------------------------------------------


def brief_help(prog: str, function: Any, options: Sequence[Option], common: Sequence[str], example: str) -> str:
    """Help of a command: what it requires first, then common options, how to see the others, and an example.

    Args:
        prog: Name of the command.
        function: Function whose docstring says what it does.
        options: All options of the command.
        common: Names of those to show beside the required ones; all where none are named, and they are few.
        example: A call of the command; none where it is empty.
    """
    required = [one for one in options if one.required]
    few = [one for one in options if not one.required] if not common else []
    few = few[: max(_MOST - len(required), 0)]
    by_name = {one.name: one for one in options}
    shown = few or [by_name[name] for name in common if name in by_name and not by_name[name].required]
    shown = [*shown, Option("config", str, CONFIG, required=False)]
    cut = len(required) + len(shown) <= len(options)
    sections = [("required", required), ("common options" if cut else "options", shown)]
    groups = list(dict.fromkeys(one.group.partition(".")[0] for one in options if one.group))
    more = [f"All {len(options)} options: {prog} --help-all." if cut else f"More about them: {prog} --help-all."]
    more += [f"Those of a group: --{', --'.join(f'{group}.help' for group in groups)}."] if groups else []
    more += ["What a call would use: --print_config."]
    return _rendered(
        _usage(prog, options), _about(function), sections, [_wrapped(" ".join(more)), _call(example)], briefly=True
    )


def full_help(prog: str, function: Any, options: Sequence[Option], notes: str, example: str = "") -> str:
    """Help with all options, the required ones first, the others by their groups; as `brief_help` otherwise."""
    required = [one for one in options if one.required]
    own = [one for one in options if not one.required and not one.group]
    sections: list[Section] = [
        ("required", required),
        ("options", [*own, Option("config", str, CONFIG, required=False)]),
    ]
    for group in dict.fromkeys(one.group for one in options if one.group):
        sections.append(_section([one for one in options if one.group == group and not one.required], group))
    ends = [_wrapped(notes), _call(example)]
    return _rendered(_usage(prog, options), _about(function), sections, ends, briefly=False)


def group_help(options: Sequence[Option], group: str) -> str:
    """Help with all options of a group; empty where there is no such group."""
    of_group = [one for one in options if one.name.startswith(f"{group}.")]
    return _rendered(argparse.SUPPRESS, "", [_section(of_group, group)], [], briefly=False) if of_group else ""


def _section(options: Sequence[Option], group: str) -> Section:
    heading = next((one.heading.removesuffix(".") for one in options), "")
    return (f"{heading} (--{group}.*)" if heading else f"--{group}.*"), options


def _about(function: Any) -> str:
    return " ".join((function.__doc__ or "").split("\n\n")[0].split())


def _usage(prog: str, options: Sequence[Option]) -> str:
    needed = [
        (one.placeholder if one.required else f"[{one.placeholder}]")
        if one.positional
        else f"--{one.name} {one.placeholder}"
        for one in options
        if one.required or one.positional
    ]
    written = _wrapped(" ".join([prog, *needed, "[options]"]), "usage: ", " " * len("usage: "))
    return written.removeprefix("usage: ").replace("%", "%%")  # argparse writes that


def _call(example: str) -> str:
    """A call as a person types it, on several lines where it is long."""
    if not example:
        return ""
    lines = [""]
    for part in re.split(" (?=--)", f"raycsr {example}"):
        if lines[-1] and len(lines[-1]) + len(part) > _width() - 8:
            lines.append("")
        lines[-1] = f"{lines[-1]} {part}".strip()
    return "example:\n  " + " \\\n      ".join(lines)


def _rendered(usage: str, about: str, sections: Sequence[Section], ends: Sequence[str], *, briefly: bool) -> str:
    parser = argparse.ArgumentParser(
        usage=usage,
        description=_wrapped(about).replace("%", "%%") or None,
        epilog="\n\n".join(filter(None, ends)).replace("%", "%%") or None,
        add_help=False,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=_width()),
    )
    for title, of_section in sections:
        section = parser.add_argument_group(_wrapped(title))
        for one in of_section:
            words = one.in_words(briefly=briefly).replace("%", "%%")
            flag = one.name.upper() if one.positional else f"--{one.name}"
            section.add_argument(flag, metavar=one.placeholder, help=words)
    return parser.format_help()


def _width() -> int:
    return min(max(shutil.get_terminal_size().columns - 2, _LEAST), _WIDTH)


def _wrapped(text: str, first: str = "", others: str = "") -> str:
    return textwrap.fill(
        text, _width(), initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )
