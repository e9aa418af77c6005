"""The `raycsr` command: one verb, one function; typed options from its signature, YAML by --config."""

import atexit
import functools
import inspect
import itertools
import os
import platform
import re
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from raycsr.credentials import without_credentials
from raycsr.errors import MOST_MISTAKES, ClusterLostError, UserError, mistakes_in, nearest, printable
from raycsr.options import arguments_of, hints_of, read_words
from raycsr.options.annotations import wanted
from raycsr.options.help import brief_help, full_help, group_help, options_of, positionals
from raycsr.signals import handle_stops, ignore_stops, status, was_terminated
from raycsr.verbs import VALIDATED, VERBS, Verb, function_of

_ORDER = (
    "Precedence: the command line goes before --config, wherever that stands; a later --config goes before an earlier "
    "one; and all of them go before defaults. Lists: `--radii 0.25 0.5`, `--radii 0.25,0.5`, "
    "`--radii 0.25 --radii 0.5` and `--radii '[0.25, 0.5]'` mean the same; costs and rules contain commas themselves, "
    "so the second way is not for them. Of any other option that is given twice, the last value counts."
)

_HELP = re.compile(r"-h|--help|--help-all|--([\w.]+)\.help")  # the brief one, that of all options, and of a group
_PACKAGES = ("ray", "torch", "timm")  # whose versions matter for results


def main(argv: list[str] | None = None) -> int:
    """Runs one verb.

    Returns:
        The exit status: 0, 1 where images are errored, trials failed, a report lacks a part or something broke, 2 where
        the user can mend something, 130 or 143 where it was interrupted or terminated.
    """
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help", "--help-all"):
        print(_help())
        return 0
    if args[0] == "--version":
        print(_version())
        return 0
    verb, rest = args[0], args[1:]
    handle_stops()
    warnings.formatwarning = lambda message, *_, **__: f"warning: {without_credentials(str(message))}\n"
    try:
        ended = _report_errors(command(verb, rest)())
        sys.stdout.flush()
        return ended
    except UserError as error:
        lines = [f"raycsr {verb}: {one}" for one in mistakes_in(error)[:MOST_MISTAKES]]
        lines += [f"raycsr {verb}: there may be more mistakes"] if len(lines) == MOST_MISTAKES else []
        print("\n".join(lines), file=sys.stderr, flush=True)
        if isinstance(error, ClusterLostError):
            atexit.register(leave, 2)  # Ray would ask the cluster that is gone to let it leave
        return 2
    except KeyboardInterrupt:
        return _stopped(verb, signal.SIGINT)
    except SystemExit:
        if not was_terminated():
            raise
        return _stopped(verb, signal.SIGTERM)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and not _is_read():
            return status(signal.SIGPIPE)
        reason = str(error).strip().splitlines() or [""]
        last = f"raycsr {verb}: failed by {type(error).__name__}: {reason[-1]}"
        print(without_credentials(f"{traceback.format_exc()}{last}"), file=sys.stderr)
        return 1
    finally:
        atexit.register(ignore_stops)  # before Ray's own, which was registered when the verb imported it


def run_job(function: Callable) -> int:
    """Runs a function as a command of its own, `python -m jobs.NAME`: options as `arguments` reads them.

    Returns:
        The exit status: 2 where the user can mend something.
    """
    name = f"jobs.{Path(inspect.getfile(function)).stem}"  # run so, its module is __main__
    try:
        function(**arguments(f"python -m {name}", function, sys.argv[1:]))
    except UserError as error:
        print("\n".join(f"{name}: {one}" for one in mistakes_in(error)), file=sys.stderr)
        return 2
    return 0


def _stopped(verb: str, number: signal.Signals) -> int:
    print(
        f"raycsr {verb}: stopped by {number.name}; what is committed is kept, run the same command to go on",
        file=sys.stderr,
        flush=True,
    )
    atexit.register(leave, status(number))
    return status(number)


def _is_read() -> bool:
    """Whether anybody reads what is printed: in `raycsr ls models | head` nobody does any more, which is no failure."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)  # that nobody reads is told unasked; a write that failed left no trace
    if not any(event & select.POLLERR for _, event in output.poll(0)):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest when it ends
    return False


def leave(status: int) -> None:
    """Ends a process that was stopped, at its exit; its unwinding has given back what it held.

    Before Ray's own hook, which would take Ray away under threads that still use it: its core then ends the process
    with a status of its own. Ray cleans up behind a driver that is gone, as it does behind one that is killed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@functools.cache  # a program's second call has it: making it costs several times what parsing does
def parser(name: str, function: Callable, *groups: type) -> ArgumentParser:
    """The parser of a function, and of dataclasses whose fields stand beside its options; its help is not shown."""
    made = _Parser(prog=name, allow_abbrev=False)
    made.add_argument("--config", action="config")
    for one in (arguments_of(function), *groups):
        if isinstance(one, type):
            made.add_class_arguments(one, as_group=False, fail_untyped=True)
        else:
            made.add_function_arguments(one, as_group=False, as_positional=bool(positionals(one)), fail_untyped=True)
    return made


def arguments(name: str, function: Callable, words: Sequence[str], *groups: type) -> dict[str, Any]:
    """What a command line calls a function with: command line > --config > defaults.

    Args:
        name: Name of the command, for messages and help.
        function: The function.
        words: The command line after that name.
        groups: Dataclasses whose fields are options beside the function's.

    Raises:
        UserError: naming what is wrong.
        SystemExit: after a help or --print_config.
    """
    asked = next((asked for word in words if (asked := _HELP.fullmatch(word))), None)
    if asked is not None:
        print(_help_of(name, function, asked, *groups), end="")
        sys.exit(0)
    options = parser(name, function, *groups)
    printed = [word for word in words if word.partition("=")[0] == "--print_config"]
    hints = {key: hint for one in (function, *groups) for key, hint in hints_of(one).items()}
    given = read_words([word for word in words if word not in printed], hints, positionals(function))
    try:
        parsed = options.parse_object(given)
        if printed:
            print(options.dump(parsed, skip_default="skip_default" in printed[-1]), end="")
            sys.exit(0)
        made = options.instantiate(parsed)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        options.error(str(error))
    for one in options_of(function, *groups):
        if one.required and vars(made).get(one.name) == []:
            raise UserError(f"{one.name} is an empty list; give {wanted(one.hint)}")
    return {key: value for key, value in vars(made).items() if key != "config"}


def _help_of(name: str, function: Callable, asked: re.Match[str], *groups: type) -> str:
    """The help that a word asks for: of the common options, of all, or of a group.

    Raises:
        UserError: where there is no such group.
    """
    options = options_of(function, *groups)
    verb = VERBS.get(name.rpartition(" ")[2], Verb("", ""))
    example = f"validate {verb.example}" if name.startswith("raycsr validate ") else verb.example
    if asked[1]:
        if text := group_help(options, asked[1]):
            return text
        known = dict.fromkeys(one.group for one in options if one.group)
        raise UserError(f"{asked[0]!r}: no options of such a group; {nearest(asked[1], known)}")
    if asked[0] == "--help-all" or not name.startswith("raycsr "):
        return full_help(name, function, options, _ORDER, example)
    common = [field.name for one in groups for field in fields(one)] or verb.common  # of a plan: what it adds
    return brief_help(name, function, options, common, example)


def command(verb: str, rest: list[str]) -> functools.partial:
    """What a command line calls, with its arguments.

    Raises:
        UserError: naming what is wrong with it.
    """
    if verb not in VERBS:
        what = "option" if verb.startswith("-") else "verb"
        raise UserError(f"no such {what}; {nearest(verb, VERBS if what == 'verb' else ('--help', '--version'))}")
    function = function_of(verb)
    if verb == "validate":
        return _validation(function, rest)
    return functools.partial(function, **arguments(f"raycsr {verb}", function, rest))


def _validation(validate: Callable, rest: list[str]) -> functools.partial:
    """The options of the verb that is to be validated, and those of its plan, which may stand before the verb, too."""
    planning = inspect.signature(validate).parameters["planning"].annotation
    names = [field.name for field in fields(planning)]
    before = list(itertools.takewhile(lambda word: word not in VALIDATED, rest))
    if any(_HELP.fullmatch(word) for word in before):
        about, name = VERBS["validate"], f"raycsr validate {'|'.join(VALIDATED)}"
        print(brief_help(name, validate, options_of(planning), (), about.example), end="")
        sys.exit(0)
    others = [word for i, word in enumerate(before) if (word.startswith("-") or not i) and _name(word) not in names]
    if others or len(before) == len(rest):
        raise UserError(f"validate what? give one of {', '.join(VALIDATED)}, and its options")
    verb = rest[len(before)]
    given = arguments(f"raycsr validate {verb}", function_of(verb), [*before, *rest[len(before) + 1 :]], planning)
    of_plan = planning(**{name: given.pop(name) for name in names})
    return functools.partial(validate, verb, arguments_of(function_of(verb))(**given), of_plan)


def _name(word: str) -> str:
    return word.partition("=")[0].removeprefix("--")


def _report_errors(result: Any) -> int:
    """Names failed trials and errored images; the locations of runs come last, for programs to read."""
    failures = getattr(result, "failures", {})
    if failures:
        shown = "; ".join(f"{trial}: {why}" for trial, why in failures.items())
        print(f"raycsr: {len(failures)} of {len(result.trials)} trials failed: {printable(shown)}", file=sys.stderr)
    broken = getattr(result, "broken_guarantee", "")
    if broken:
        print(f"raycsr: {printable(broken)}", file=sys.stderr)
    without = getattr(result, "errors", {})
    if without:
        what = "answered" if hasattr(result, "predictions") else "attacked"
        print(f"raycsr: {len(without)} images could not be {what}: {_first(without)}", file=sys.stderr)
    lacks = getattr(getattr(result, "report", result), "attrs", {}).get("lacks", [])  # of a report, which has said it
    result = getattr(result, "outcomes", result)
    outcomes = [one for one in result if hasattr(one, "errors")] if isinstance(result, list) else []
    errors = {image_id: why for outcome in outcomes for image_id, why in outcome.errors.items()}
    if errors:
        print(
            f"raycsr: {len(errors)} images could not be sampled and certify nothing: {_first(errors)}; "
            "--retry_errors true samples them again",
            file=sys.stderr,
        )
    for outcome in outcomes:
        print(outcome.run.location)
    return 1 if errors or failures or broken or without or lacks else 0


def _first(errors: Mapping[str, str]) -> str:
    """The first of some images, and what is wrong with each."""
    shown = "; ".join(f"{image_id}: {why}" for image_id, why in list(errors.items())[:10])
    return printable(shown) + (f"; and {len(errors) - 10} more" if len(errors) > 10 else "")


def _help() -> str:
    width = max(map(len, VERBS))
    return "\n".join(
        [
            "usage: raycsr VERB [options]",
            "",
            "Certifies cost-sensitive robustness by randomized smoothing, on Ray.",
            "",
            *(f"  {name:<{width}}  {verb.what}" for name, verb in VERBS.items()),
            "",
            "raycsr VERB --help shows the options of a verb, raycsr --version the version.",
        ]
    )


def _version() -> str:
    """The version, and those of what results depend on, without importing it."""
    beside = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in _PACKAGES)]
    return f"raycsr {version('raycsr')} ({', '.join(beside)})"


# jsonargparse's words for what a group of options lacks where the group itself may be left out
_OF_OPTIONAL_GROUP = re.compile(
    r"^Parser key \"([\w.]+)\": Does not validate .*(the following arguments are required: )(\w+) \(see .*$"
)


class _Parser(ArgumentParser):
    """Says what is wrong in one line, instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = _OF_OPTIONAL_GROUP.sub(r"\2\1.\3", " ".join(message.split()))
        raise UserError(f"{line} (see `{self.prog} --help`)")


if __name__ == "__main__":
    sys.exit(main())
