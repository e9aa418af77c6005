"""Options of a command line, wherever they stand, over those of the files that it names."""

from collections.abc import Mapping, Sequence
from typing import Any

from raycsr.errors import Mistakes, UserError, refuse_credentials, shown
from raycsr.options.annotations import Hints, element_of, forms_of, group_of, hints_of, mapping_of, wanted
from raycsr.options.strict_yaml import FLOAT
from raycsr.options.values import from_words, read_config, unknown_option


def read_words(words: Sequence[str], hints: Hints, positional: Sequence[str] = ()) -> dict[str, Any]:
    """What a command line says: options wherever they stand, over the files that its --config name.

    Whole groups come before single options of them. An option with a list takes several words, may be repeated, and
    may have its values between commas, unless they have commas themselves. Of another that is repeated, the last
    counts.

    Args:
        words: Options, their values, and positionals.
        hints: The options there are: name -> annotation.
        positional: Names of the options that are given without their names, in order.

    Returns:
        The options as nested dicts.

    Raises:
        UserError: naming each option that is unknown, lacks a value or has a wrong one, or is given twice.
    """
    refuse_credentials("\n".join(words))
    mistakes = Mistakes()
    written, free = _occurrences(words, {**hints, "config": str}, mistakes)
    such_as = ", such as --run" if "run" in hints else ""
    for word in free[len(positional) :]:
        mistakes.note(f"{shown(word)} is no option; every option begins with --{such_as}")
    options: dict[str, list[str]] = {}
    for name, values in [*written, *((name, [word]) for name, word in zip(positional, free, strict=False))]:
        options[name] = options.get(name, []) + values
    result: dict[str, Any] = {}
    for path in options.pop("config", []):
        with mistakes.noted():
            result = _merged(result, read_config(path, hints), hints)
    for name, values in sorted(options.items(), key=lambda option: option[0].count(".")):
        hint = _hint_of(name, hints)
        is_one = name in positional or (element_of(hint) is None and forms_of(hint) is not None)
        if len(set(values)) > 1 and is_one:  # elsewhere these are several
            mistakes.note(f"--{name} is given {len(values)} values, {', '.join(map(shown, values))}; it takes one")
            continue
        words = values if element_of(hint) is not None else values[-1:]
        with mistakes.noted():
            result = _with(result, name, name.split("."), from_words(hint, words, name), hints)
    mistakes.refuse()
    return result


def _occurrences(
    words: Sequence[str], hints: Hints, mistakes: Mistakes
) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """Each option as it is written, with its values; and the words that are no option's value."""
    written: list[tuple[str, list[str]]] = []
    free: list[str] = []
    several, values = False, free  # whether the option under way takes more than one word, and those it has
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            several, values = True, [value] if equals else []  # of an unknown one any words may be values
            with mistakes.noted():
                several = element_of(_hint_of(name, hints)) is not None
                written.append((name, values))
        elif word.startswith("-") and len(word) > 1 and not FLOAT.fullmatch(word):
            mistakes.note(f"{shown(word)} is no option; every option begins with --")
            several, values = True, []
        elif several or not values:
            values.append(word)
        else:
            free.append(word)
    for name, given in written:
        if not given:
            mistakes.note(f"--{name} needs a value; give {wanted(_hint_of(name, hints))}")
    return [(name, given) for name, given in written if given], free


def _hint_of(name: str, hints: Hints) -> Any:
    """The annotation of a dotted option; below an option that is a mapping, any key may be set."""
    first, *further = name.split(".")
    hint = hints.get(first)
    for key in further:
        group = group_of(hint)
        hint = hints_of(group).get(key) if group is not None else hint if hint is Any else mapping_of(hint)
    if hint is None:
        raise unknown_option(name, hints, "--")
    return hint


def _with(options: Mapping[str, Any], name: str, keys: Sequence[str], value: Any, hints: Hints) -> dict[str, Any]:
    """The options with a value at a dotted place, the end of a name; what else is in groups and mappings there stays.

    Raises:
        UserError: What a part is given of is no group, but a list or a single value.
    """
    key, *rest = keys
    below = options.get(key)
    if rest and not (below is None or isinstance(below, dict)):
        whole = name.removesuffix(f".{'.'.join(rest)}")
        what = f"a list of {len(below)}" if isinstance(below, list) else shown(str(below))
        group = group_of(_hint_of(whole, hints))
        named = isinstance(below, str) and group is not None and "name" in hints_of(group)
        fix = f"give that as --{whole}.name" if named else "write it in there, or leave one of the two out"
        raise UserError(f"--{name} sets a part of {whole}, which is {what}; {fix}")
    below = below if isinstance(below, dict) else {}
    if rest:
        value = _with(below, name, rest, value, hints)
    elif (group := group_of(_hint_of(name, hints))) is not None and isinstance(value, dict):
        value = _merged(below, value, hints_of(group))
    return {**options, key: value}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any], hints: Hints) -> dict[str, Any]:
    """Options over others: groups option by option, anything else as a whole."""
    merged = dict(below)
    for key, value in above.items():
        group = group_of(hints[key])
        if group is not None and isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = _merged(merged[key], value, hints_of(group))
        merged[key] = value
    return merged
