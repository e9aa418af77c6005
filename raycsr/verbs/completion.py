"""Completion: what a shell needs to complete verbs, their options, and the values of those that take few."""

import argparse
from typing import Any, Literal

from raycsr.errors import UserError
from raycsr.options.help import options_of
from raycsr.verbs import VALIDATED, VERBS, function_of


def completion(shell: Literal["bash", "zsh", "fish"]) -> str:
    """Prints a script that has a shell complete `raycsr`: verbs, options, files, and values where there are few.

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
        if not values:
            action.complete = files  # type: ignore[attr-defined]
    parser.add_argument("--help-all", action="store_true", help="show all options")
