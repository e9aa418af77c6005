"""What a program makes of the words of a command that a page or a manifest names."""

import importlib
import re
from collections.abc import Sequence

import click
import pytest
from manifests import ROOT

from raycsr.cli import VERBS, arguments, command


def understood(words: Sequence[str]) -> bool:
    """Has the program itself read a command's words; True for the programs of others.

    Raises:
        UserError, click.UsageError: where it does not understand them.
    """
    match words:
        case ["docker" | "helm" | "kubectl" | "aws" | "export" | "pip" | "curl" | ".", *_]:
            return True  # the shell has parsed it, that is all that can be said here
        case ["python", path, *_] if path.endswith(".py"):
            return (ROOT / path).is_file()
        case ["ray", *rest]:
            from ray.scripts.scripts import cli

            group = cli
            while isinstance(group, click.Group):
                group, rest = group.commands[rest[0]], rest[1:]
            job = group.make_context(group.name, list(rest)).params.get("entrypoint")
            return understood(list(job)) if job else True
        case [variable, *rest] if re.match(r"[A-Z_]+=", variable):
            return understood(rest)
        case ["serve", "run", target, *rest]:
            pytest.importorskip("ray.serve", reason="pip install 'raycsr[serve]'", exc_type=ImportError)
            module, name = target.split(":")
            return bool(getattr(importlib.import_module(module), name)(dict(word.split("=", 1) for word in rest)))
        case ["raycsr", verb, *rest] | ["python", "-m", "raycsr", verb, *rest]:
            return bool(command(verb, list(rest)))
        case ["python", "-m", module, *rest] if module.startswith("jobs."):
            name = module.removeprefix("jobs.")
            assert (ROOT / "jobs" / f"{name}.py").is_file()
            if name in VERBS:
                return understood(["raycsr", name, *rest])
        case _:
            return False
    function = getattr(importlib.import_module(module), name.replace("-", "_"))
    return bool(arguments(module, function, rest))
