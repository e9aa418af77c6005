"""From what a user says (a path, a URI, a unique prefix, a results folder) to runs."""

import os

import pandas as pd

from raycsr.errors import UserError
from raycsr.results.runs import Run
from raycsr.results.store import Store


def find_runs(location: str | os.PathLike[str]) -> list[Run]:
    """All runs at or under a location: a run, an experiment, or a results folder; sorted by location."""
    store = Store(location)
    if store.exists("manifest.json"):
        return [Run(store)]
    experiments = [store] if "runs" in (children := store.names("")) else [store.at(name) for name in children]
    runs = [experiment.at(f"runs/{name}") for experiment in experiments for name in experiment.names("runs")]
    return [Run(run) for run in runs if run.exists("manifest.json")]


def resolve_run(location: str | os.PathLike[str]) -> Run:
    """The one run that a location means: its folder, a unique prefix of it, or a folder holding one run.

    Raises:
        UserError: where it means none or several; the message lists them.
    """
    location = os.fspath(location)
    runs = find_runs(location)
    if not runs and "/" in location.rstrip("/"):
        parent, prefix = location.rstrip("/").rsplit("/", 1)
        runs = [run for run in find_runs(parent) if run.run_id.startswith(prefix)]
        runs += [run for run in _siblings(parent) if run.run_id.startswith(prefix)]
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise UserError(f"no run at {location!r}; give the folder that `raycsr sample` printed, or a prefix of it")
    several = ", ".join(run.location for run in runs[:5])
    raise UserError(f"{location!r} means {len(runs)} runs ({several}{', ...' if len(runs) > 5 else ''}); name one")


def list_runs(results: str | os.PathLike[str]) -> pd.DataFrame:
    """Lists the runs under a results folder, an experiment's folder, or `s3://bucket/prefix`.

    Returns:
        One row a run: location, experiment, run_id, model, sigma, n0, n, precision, num_images, finished.
    """
    columns = [
        "location",
        "experiment",
        "run_id",
        "model",
        "sigma",
        "n0",
        "n",
        "precision",
        "num_images",
        "finished",
    ]
    return pd.DataFrame([_row(run) for run in find_runs(results)], columns=columns)


def _siblings(folder: str) -> list[Run]:
    """Runs that lie directly in a folder, as they do in `<experiment>/runs`."""
    store = Store(folder)
    return [Run(store.at(name)) for name in store.names("") if store.exists(f"{name}/manifest.json")]


def _row(run: Run) -> dict:
    manifest = run.manifest()
    return {
        "location": run.location,
        "run_id": run.run_id,
        "num_images": len(run.images()),
        "finished": run.finished(),
        **{name: manifest[name] for name in ("experiment", "model", "sigma", "n0", "n", "precision")},
    }
