"""Short labels of runs, no two alike."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import PurePath
from typing import Any, NamedTuple

import pandas as pd

_ID = 6  # characters of a run's id in a label
_BEHIND = "behind "  # before each denoiser in the label of a model


class Named(NamedTuple):
    """What a run's label is made of.

    Attributes:
        model: Path or name of the model, and in brackets what more its label says.
        after: What to write after it.
        location: Location of the run, which ends with its id.
        denoisers: Paths or names of the denoisers in front, whose last parts the model's label says in this order.
        facts: What else may tell runs of one model apart, the same at each place for all runs; empty where not known.
    """

    model: str
    after: str
    location: str
    denoisers: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()


def denoisers_named(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths or names of the denoisers in front, as a run notes them; none where it is of before that."""
    return tuple(f"{one.get('pretrained') or one.get('name')}".rstrip("/") for one in _in_front(manifest))


def _in_front(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The denoisers as a user named them."""
    noted = manifest.get("config", {}).get("model")
    in_front = noted.get("denoiser") if isinstance(noted, dict) else None
    return [one for one in (in_front if isinstance(in_front, list) else [in_front]) if isinstance(one, dict)]


def facts_named(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """What of a run its label leaves out, and what often is all that differs between two of one model."""
    size = manifest.get("preprocessing", {}).get("input_size", [])
    data, n = manifest.get("config", {}).get("data", {}), manifest.get("n")
    sigmas = [f"{one['sigma']}" for one in _in_front(manifest) if one.get("sigma") is not None]
    return (
        f"denoiser of σ={', '.join(sigmas)}" if sigmas else "",
        f"{manifest.get('precision') or ''}",
        "compiled" if manifest.get("compile") else "",
        f"{'x'.join(map(str, size))} px" if size else "",
        f"n={n:,}" if n is not None else f"{manifest.get('sampling') or ''}",
        f"n0={manifest['n0']:,}" if manifest.get("n0") is not None else "",
        f"seed {manifest['seed']}" if manifest.get("seed") is not None else "",
        f"{data.get('source') or ''}",
        PurePath(f"{data.get('path') or ''}").name,
        f"{data.get('split') or ''}",
        f"noise {manifest.get('noise_scheme')}" if manifest.get("noise_scheme") else "",
    )


def distinct_labels(runs: Sequence[Named]) -> list[str]:
    """A short label for each run, and no two alike.

    Args:
        runs: The runs. A label is the file's name; where that is not enough, with the nearest folders that differ, of
            the model and then of its denoisers, then with such facts as differ, then with the id's beginning, and of
            copies of one run with the location.
    """
    runs = [run._replace(model=run.model.rstrip("/")) for run in runs]  # of a folder
    labels = [run.model.rsplit("/", 1)[-1] + run.after for run in runs]
    for same in _alike(labels):
        for i, name in zip(same, _tell_apart([runs[i].model for i in same]), strict=True):
            labels[i] = name + runs[i].after
    for same in _alike(labels):
        in_order = zip(*(runs[i].denoisers for i in same), strict=False)  # the first of all runs, the second, ...
        names = [_tell_apart([*paths]) for paths in in_order]
        for place, i in enumerate(same):
            labels[i] = _behind(labels[i], runs[i].denoisers, [of_all[place] for of_all in names])
    for place in range(max((len(run.facts) for run in runs), default=0)):
        for same in _alike(labels):
            told = {i: "".join(runs[i].facts[place : place + 1]) for i in same}  # a table has none
            if len(set(told.values())) > 1:
                for i in same:
                    labels[i] = f"{labels[i]} {told[i]}".rstrip()
    for same in _alike(labels):
        ids = {i: runs[i].location.rsplit("/", 1)[-1][:_ID] for i in same}
        places = dict(zip(same, _tell_apart([runs[i].location for i in same]), strict=True))
        for i in same:
            labels[i] += f" {ids[i] if list(ids.values()).count(ids[i]) == 1 else places[i]}"
    return labels


def _alike(labels: list[str]) -> list[list[int]]:
    positions = pd.Series(range(len(labels))).groupby(labels).agg(list)
    return [same for same in positions if len(same) > 1]


def _behind(label: str, denoisers: Sequence[str], names: Sequence[str]) -> str:
    """A label that says its denoisers by these names, in place of the last parts of their paths."""
    parts = label.rsplit(_BEHIND, len(names))
    for i, (path, name) in enumerate(zip(denoisers, names, strict=False), 1):
        if i < len(parts):
            parts[i] = name + parts[i].removeprefix(PurePath(path).name)
    return _BEHIND.join(parts)


def _tell_apart(paths: list[str]) -> list[str]:
    """File names of paths with the folders that tell them apart, the nearest first; `…` for folders between."""
    names, *levels = zip_longest(*(path.split("/")[::-1] for path in paths), fillvalue="")
    parts = [[name] for name in names]
    for folders in levels:
        if len({tuple(one) for one in parts}) == len(set(paths)):
            break
        differ = len(set(folders)) > 1
        for one, folder in zip(parts, folders, strict=True):
            if differ or one[-1] != "…":
                one.append(folder if differ else "…")
    return ["/".join(part for part in reversed(one) if part) for one in parts]
