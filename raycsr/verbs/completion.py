"""Completion: what a shell needs to complete verbs, their options, names, and the values of those that take few."""

import argparse
import functools
import hashlib
import re
from typing import Any, Literal

from raycsr.catalogue import KINDS, config_files
from raycsr.errors import UserError
from raycsr.options.help import options_of
from raycsr.verbs import VALIDATED, VERBS, function_of

_KIND_OF = {  # option -> kind of what it may name, beside files
    **dict.fromkeys(("data.source", "test.source"), "sources"),
    **dict.fromkeys(("rule", "rules"), "rules"),
    **dict.fromkeys(("answer", "answers"), "answers"),
    "costs": "costs",
    "model.denoiser.name": "denoisers",
    "objective.name": "objectives",
    "search.metric": "metrics",
}


def completion(shell: Literal["bash", "zsh", "fish"]) -> str:
    """Prints a script that has a shell complete `raycsr`: verbs, options, files, names, and values where there are few.

    For bash it belongs into `~/.local/share/bash-completion/completions/raycsr`, for zsh into a file `_raycsr` of a
    folder on `fpath`, for fish into `~/.config/fish/completions/raycsr.fish`. Print it again after an upgrade.

    Args:
        shell: The shell.

    Returns:
        The script.

    Raises:
        UserError: where shtab, which writes such scripts, is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise UserError("completion needs shtab, which is not installed; pip install 'raycsr[completion]'") from None

    command = argparse.ArgumentParser(prog="raycsr")
    verbs = command.add_subparsers()
    for name, verb in VERBS.items():
        of_verb = verbs.add_parser(name, help=verb.what)
        if name == "validate":
            validated = of_verb.add_subparsers()
            for one in VALIDATED:
                _add_options(validated.add_parser(one, help=VERBS[one].what), one, shtab.FILE)
        else:
            _add_options(of_verb, name, shtab.FILE)
    script = shtab.complete(command, shell=shell)
    print(script)
    return script


def _add_options(parser: argparse.ArgumentParser, verb: str, files: Any) -> None:
    options = [
        (one.name, one.positional, one.values, one.in_words(briefly=True)) for one in options_of(function_of(verb))
    ]
    for name, positional, values, about in [*options, ("config", False, (), "YAML file of options.")]:
        action = parser.add_argument(name if positional else f"--{name}", choices=values or None, help=about)
        names = [] if values else _names(verb, name)
        if not values:
            action.complete = _or_files(names) if names else files  # type: ignore[attr-defined]
    parser.add_argument("--help-all", action="store_true", help="show all options")


def _names(verb: str, option: str) -> list[str]:
    """What an option may name: plain names, and how specs begin."""
    if (verb, option) == ("configs", "name"):
        return [one.name for one in config_files()]
    if (verb, option) == ("ls", "results"):
        return list(KINDS)
    kind = _KIND_OF.get(option)
    begins = [re.match(r"[a-z][\w-]*(:|$)", form) for form in (_known(kind) if kind else ())]
    return [begin[0] for begin in begins if begin]


@functools.cache
def _known(kind: str) -> list[str]:
    return list(KINDS[kind]())


def _or_files(names: list[str]) -> dict[str, Any]:
    """Names, or else files, as shtab takes them for each shell."""
    words = " ".join(names)
    function = f"_raycsr_{hashlib.sha256(words.encode()).hexdigest()[:8]}"
    return {
        "bash": function,
        "zsh": f"{{compadd -- {words}; _files}}".replace(":", r"\:"),  # there a colon ends what is asked
        "fish": f"(printf '%s\\n' {words}; __fish_complete_path (commandline -ct))",
        "preamble": {"bash": f'{function}() {{\n  compgen -W "{words}" -- "$1"\n  compgen -f -- "$1"\n}}'},
    }
