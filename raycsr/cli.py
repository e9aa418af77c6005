"""The `raycsr` command: one verb, one function; typed options from its signature, YAML by --config."""

import atexit
import functools
import importlib
import inspect
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from raycsr.errors import UserError, refuse_credentials
from raycsr.signals import handle_stops, ignore_stops, status, was_terminated

# verb -> module and function, and what it does; a module is imported only when its verb is asked for
VERBS = {
    "quickstart": (
        "raycsr.pipelines.quickstart:quickstart",
        "train, certify and report on handwritten digits",
    ),
    "sample": ("raycsr.pipelines.sample:sample", "images -> votes, on Ray; continues what was interrupted"),
    "certify": ("raycsr.pipelines.certify:certify", "votes -> certificates, for any cost matrix"),
    "report": ("raycsr.pipelines.report:report", "certificates -> a table and certified curves"),
    "train": ("raycsr.pipelines.train:train", "images -> a base classifier, judged by certificates"),
    "sweep": ("raycsr.pipelines.sweep:sweep", "trainings over a space, on Ray Tune; keeps those that certify best"),
    "tune-rule": ("raycsr.pipelines.tune_rule:tune_rule", "training images -> a cost-sensitive decision rule"),
    "evaluate": ("raycsr.pipelines.evaluate:evaluate", "sample, certify and report"),
    "validate": (
        "raycsr.pipelines.validate:validate",
        "check a sample, train or sweep, and print its plan",
    ),
    "ls": ("raycsr.pipelines.ls:ls", "what a results folder holds, and how far each run is: raycsr ls RESULTS"),
}

VALIDATED = ("sample", "train", "sweep")

# options that may be repeated; each occurrence adds a value, and the command line replaces YAML's list
_LISTS = ("--run", "--costs", "--radii", "--rules")


def main(argv: list[str] | None = None) -> int:
    """Runs one verb.

    Returns:
        The exit status: 0, 1 where images are errored, trials failed or something broke, 2 where the user can mend
        something, 130 or 143 where it was interrupted or terminated.
    """
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help"):
        print(_help())
        return 0
    verb, rest = args[0], args[1:]
    handle_stops()
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        return _report_errors(command(verb, rest)())
    except UserError as error:
        print(f"raycsr {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _stopped(verb, signal.SIGINT)
    except SystemExit:
        if not was_terminated():
            raise
        return _stopped(verb, signal.SIGTERM)
    except Exception as error:
        traceback.print_exc()
        reason = str(error).strip().splitlines() or [""]
        print(f"raycsr {verb}: failed by {type(error).__name__}: {reason[-1]}", file=sys.stderr)
        return 1
    finally:
        atexit.register(ignore_stops)  # before Ray's own, which was registered when the verb imported it


def _stopped(verb: str, number: signal.Signals) -> int:
    print(
        f"raycsr {verb}: stopped by {number.name}; what is committed is kept, run the same command to go on",
        file=sys.stderr,
        flush=True,
    )
    atexit.register(leave, status(number))
    return status(number)


def leave(status: int) -> None:
    """Ends a process that was stopped, at its exit; its unwinding has given back what it held.

    Before Ray's own hook, which would take Ray away under threads that still use it: its core then ends the process
    with a status of its own. Ray cleans up behind a driver that is gone, as it does behind one that is killed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def parser(verb: str, function: Callable) -> ArgumentParser:
    """The parser of a verb: precedence command line > --config > defaults; an unknown key is an error."""
    made = _Parser(prog=f"raycsr {verb}", allow_abbrev=False, description=(function.__doc__ or "").split("\n\n")[0])
    made.add_argument("--config", action="config", help="YAML file of options; the command line goes before it")
    kinds = {one.kind for one in inspect.signature(function).parameters.values()}
    made.add_function_arguments(
        function, as_group=False, as_positional=inspect.Parameter.KEYWORD_ONLY not in kinds, fail_untyped=True
    )
    return made


def command(verb: str, rest: list[str]) -> functools.partial:
    """What a command line calls, with its arguments.

    Raises:
        UserError: naming what is wrong with it.
    """
    if verb not in VERBS:
        raise UserError(f"no such verb; use one of {', '.join(VERBS)}")
    _refuse_credentials(rest)
    function = _function(verb)
    if verb == "validate":
        return _validation(function, rest)
    return functools.partial(function, **_arguments(parser(verb, function), function, rest))


def _function(verb: str) -> Callable:
    module, name = VERBS[verb][0].split(":")
    return getattr(importlib.import_module(module), name)


def _validation(validate: Callable, rest: list[str]) -> functools.partial:
    """The options of the verb that is to be validated, and those of its timing beside them."""
    verb = rest[0] if rest else ""
    if verb in ("-h", "--help"):
        print(f"usage: raycsr validate {'|'.join(VALIDATED)} [--config F] [--results R] [options of that verb]")
        print("       [--time_one_batch true] [--devices N] [--hourly_price P]; see raycsr validate VERB --help")
        sys.exit(0)
    if verb not in VALIDATED:
        raise UserError(f"validate what? give one of {', '.join(VALIDATED)}, and its options")
    function = _function(verb)
    options = parser(f"validate {verb}", function)
    timing = inspect.signature(validate).parameters["timing"].annotation
    options.add_class_arguments(timing, as_group=False)
    given = _arguments(options, function, rest[1:])
    of_timing = timing(**{field.name: given.pop(field.name) for field in fields(timing)})
    return functools.partial(validate, verb, given, of_timing)


def _arguments(options: ArgumentParser, function: Callable, rest: list[str]) -> dict[str, Any]:
    single = [name for name, one in inspect.signature(function).parameters.items() if one.annotation is str]
    lists = [option for option in _LISTS if option.removeprefix("--") not in single]  # `train` has one --costs
    parsed = options.instantiate(options.parse_args(_join_lists(rest, lists)))
    return {key: value for key, value in vars(parsed).items() if key != "config"}


def _refuse_credentials(rest: list[str]) -> None:
    """Before the parser repeats them in --print_config or a message."""
    refuse_credentials(" ".join(rest))
    pairs = zip(["", *rest], rest, strict=False)
    for path in [word.removeprefix("--config=") for before, word in pairs if "--config" in (before, word[:8])]:
        if Path(path).is_file():
            refuse_credentials(Path(path).read_text(errors="replace"))


def _report_errors(result: Any) -> int:
    """Names failed trials and errored images; the locations of runs come last, for programs to read."""
    failures = getattr(result, "failures", {})
    if failures:
        shown = "; ".join(f"{trial}: {why}" for trial, why in failures.items())
        print(f"raycsr: {len(failures)} of {len(result.trials)} trials failed: {shown}", file=sys.stderr)
    result = getattr(result, "outcomes", result)
    outcomes = [one for one in result if hasattr(one, "errors")] if isinstance(result, list) else []
    errors = {image_id: why for outcome in outcomes for image_id, why in outcome.errors.items()}
    if errors:
        shown = "; ".join(f"{image_id}: {why}" for image_id, why in list(errors.items())[:10])
        more = f"; and {len(errors) - 10} more" if len(errors) > 10 else ""
        print(
            f"raycsr: {len(errors)} images could not be sampled and certify nothing: {shown}{more}",
            file=sys.stderr,
        )
    for outcome in outcomes:
        print(outcome.run.location)
    return 1 if errors or failures else 0


def _join_lists(args: list[str], lists: Sequence[str] = _LISTS) -> list[str]:
    """Gathers repeated list options into one JSON list each; `--radii 0.25,0.5` is a list by itself."""
    kept: list[str] = []
    values: dict[str, list] = {}
    words = iter(args)
    for word in words:
        option, equals, value = word.partition("=")
        if option not in lists:
            kept.append(word)
            continue
        value = value if equals else next(words, "")
        if value.startswith("["):
            kept += [option, value]
        elif option == "--radii":
            values.setdefault(option, []).extend(_number(part) for part in value.split(","))
        else:
            values.setdefault(option, []).append(value)
    for option, given in values.items():
        kept += [option, json.dumps(given)]
    return kept


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # the parser says what is wrong with it


def _help() -> str:
    lines = [f"  {verb:<11} {what}" for verb, (_, what) in VERBS.items()]
    return "\n".join(
        [
            "usage: raycsr VERB [options]",
            "",
            "Certifies cost-sensitive robustness by randomized smoothing, on Ray.",
            "",
            *lines,
            "",
            "raycsr VERB --help shows the options of a verb.",
        ]
    )


class _Parser(ArgumentParser):
    """Says what is wrong in one line, instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(f"{' '.join(message.split())} (see `{self.prog} --help`)")


if __name__ == "__main__":
    sys.exit(main())
