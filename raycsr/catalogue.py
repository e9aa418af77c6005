"""What the options may name, by kind: each with a line of its own, as its file begins with or its record has it.

Packages' own are among them. What needs PyTorch is imported where it is asked for.
"""

import inspect
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from raycsr.errors import UserError


def config_files() -> list[Traversable]:
    """The configs that come with raycsr."""
    return list(files("raycsr").joinpath("configs").iterdir())


def _models() -> dict[str, str]:
    from raycsr.models.cifar_resnet import default_cfgs

    own = {
        name: f"the CIFAR ResNet of {name.removeprefix('cifar_resnet')} layers, for 32 x 32 pixels"
        for name in default_cfgs
    }
    return {
        **own,
        "any of timm's": "such as resnet50; python -c \"import timm; print(*timm.list_models('*net50*'))\" searches",
        "hf-hub:OWNER/NAME": "a model of that hub, with its weights",
        "local-dir:FOLDER": "the same in a folder of this machine",
        "CHECKPOINT.pt": "of raycsr, locuslab/smoothing, SmoothAdv, MACER, Consistency, SmoothMix, pytorch/examples or "
        "timm's train.py; local or s3://",
    }


def _denoisers() -> dict[str, str]:
    from raycsr.models.denoisers import denoiser_archs

    of_files = {"CHECKPOINT.pt": "of raycsr, whose denoisers are taken, or of denoised-smoothing; local or s3://"}
    return {arch: _line_of(kind) for arch, kind in denoiser_archs().items()} | of_files


def _objectives() -> dict[str, str]:
    from raycsr.training.objectives import Reweighted, find_objective, objective_names

    def about(name: str) -> str:
        found = find_objective(name)
        costly = f"{name.removesuffix('_cs')}, in which the images of costly classes count more"
        return costly if isinstance(found, Reweighted) else _line_of(found)

    return {name: _or_why_not(about, name) for name in objective_names()}


def _sources() -> dict[str, str]:
    from raycsr.data.sources import find_source, source_names

    return {name: _or_why_not(lambda name: find_source(name).layout, name) for name in source_names()}


def _costs() -> dict[str, str]:
    from raycsr.costs.specs import cost_kinds

    of_files = {"FILE.csv, .tsv, .xlsx or .npy": "a table of real numbers, row = true class, column = answer"}
    return {kind.form: _line_of(kind.values) for kind in cost_kinds().values()} | of_files


def _rules() -> dict[str, str]:
    from raycsr.models.rules import rule_kinds

    tuned = {"tuned": "those that `raycsr tune-rule` stored in the checkpoint"}
    return {kind.forms[0]: _line_of(kind) for kind in rule_kinds().values()} | tuned


def _answers() -> dict[str, str]:
    from raycsr.certification.answers import KINDS

    return {kind.forms[0]: _line_of(kind.thresholds) for kind in KINDS.values()}


def _metrics() -> dict[str, str]:
    from raycsr.certification import METRICS

    return {name: metric.about for name, metric in METRICS.items()}


def _methods() -> dict[str, str]:
    from raycsr.certification.methods import METHODS, NEWEST

    words = {}
    for name, method in METHODS.items():
        parts = ["n fixed beforehand" if method.design == "fixed" else "votes say when to stop"]
        parts += [
            "the radius itself is tested" if method.by_evidence else "two shares are bounded",
            f"by {method.bound}",
        ]
        parts += ["harmless classes may rule a target out together"] if method.set_route else []
        parts += ["the default" if method is NEWEST[method.design] else "of before"]
        words[name] = "; ".join(parts).replace("; by ", " by ")
    return words


def _or_why_not(about: Callable[[str], str], name: str) -> str:
    """A line about a name; of a package's that cannot be used, why."""
    try:
        return about(name)
    except UserError as error:
        return str(error)


def _line_of(one: Any) -> str:
    """The first line of the file that something is in, without the name that it may begin with."""
    module = inspect.getmodule(one)
    first = (module.__doc__ if module and module.__doc__ else one.__doc__ or "no word of what it is").splitlines()[0]
    name, colon, rest = first.partition("`: ")
    return (rest if colon and name.startswith("`") else first).rstrip(".")


KINDS: dict[str, Callable[[], dict[str, str]]] = {
    "models": _models,
    "denoisers": _denoisers,
    "objectives": _objectives,
    "sources": _sources,
    "costs": _costs,
    "rules": _rules,
    "answers": _answers,
    "metrics": _metrics,
    "methods": _methods,
}
"""Kind -> what makes a line of each that there is: its name, or a form of it, -> what it is."""
