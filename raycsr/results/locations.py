"""From what a user says (a path, a URI, a unique prefix, a results folder) to runs."""

import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pandas as pd

from raycsr.errors import DamagedFile, UserError
from raycsr.options import listed
from raycsr.results.notes import model_of
from raycsr.results.runs import Run
from raycsr.results.schema import READABLE_SCHEMAS
from raycsr.results.state import RunState, run_state
from raycsr.store import READERS, Store

T = TypeVar("T")

_FOLDERS = {"runs", "sweeps", "checkpoints", "predictions"}  # of an experiment


def find_experiments(location: str | os.PathLike[str]) -> list[Store]:
    """The experiments' folders in a results folder, or the one that the location is; sorted by location.

    Example:
        >>> [experiment.location.rsplit("/", 1)[-1] for experiment in find_experiments(results)]
        ['hand']
    """
    store = Store(location)
    children = store.names("")
    return [store] if _FOLDERS & set(children) else [store.at(name) for name in children]


def find_runs(location: str | os.PathLike[str]) -> list[Run]:
    """All runs at or under a location: a run, a folder of runs, an experiment, or a results folder; sorted by location.

    Example:
        >>> [found.run_id for found in find_runs(results)]
        ['0000000000000000']
        >>> [found.run_id for found in find_runs(f"{results}/hand/runs")]
        ['0000000000000000']
    """
    store = Store(location)
    if store.exists("manifest.json"):
        return [Run(store)]
    experiments = find_experiments(location)
    runs = [experiment.at(f"runs/{name}") for experiment in experiments for name in experiment.names("runs")]
    found = [run for run in runs if run.exists("manifest.json")]
    return [Run(run) for run in found or _directly_in(store)]


def runs_at(locations: str | Iterable[str]) -> list[str]:
    """The locations of all runs in each folder, each once; what is no folder of runs (a prefix, a table) as it is.

    Example:
        >>> runs_at(results) == [run]
        True
    """
    found: list[str] = []
    for location in listed(locations):
        runs = [] if os.path.isfile(location) else find_runs(location)
        found += [run.location for run in runs] or [location]
    return list(dict.fromkeys(found))


def resolve_run(location: str | os.PathLike[str]) -> Run:
    """The one run that a location means: its folder, a unique prefix of it, or a folder holding one run.

    Raises:
        UserError: where it means none or several; the message lists them.

    Example:
        >>> resolve_run(run).run_id
        '0000000000000000'
        >>> resolve_run(results).location == run  # the only one there
        True
    """
    location = os.fspath(location)
    runs = find_runs(location)
    if not runs and "/" in location.rstrip("/"):
        parent, prefix = location.rstrip("/").rsplit("/", 1)
        runs = [run for run in find_runs(parent) if run.run_id.startswith(prefix)]
    if len(runs) == 1:
        return runs[0]
    if not runs and Store(location).exists("predictions.json"):
        raise UserError(
            f"{location!r} is no run but a set of predictions, a folder that is copied and deleted by itself; "
            "raycsr.load_predictions reads it"
        )
    if not runs:
        raise UserError(f"no run at {location!r}; give the folder that `raycsr sample` printed, or a prefix of it")
    several = ", ".join(run.location for run in runs[:5])
    raise UserError(f"{location!r} means {len(runs)} runs ({several}{', ...' if len(runs) > 5 else ''}); name one")


def list_runs(results: str | os.PathLike[str]) -> pd.DataFrame:
    """Lists the runs under a results folder, an experiment's folder, or `s3://bucket/prefix`.

    Returns:
        One row a run: location, experiment, run_id, model (its name, and int8 where it is in that), sigma, n0, n,
        precision, num_images, finished; state (running, finished, died or stopped), and for a run that is held, or
        whose driver died, owner and since (`raycsr.results.state.RunState`). Of a run of another schema the state is
        its schema_version.

    Example:
        >>> list_runs(results)[["run_id", "experiment", "model", "sigma", "num_images"]]
                     run_id experiment    model  sigma  num_images
        0  0000000000000000       hand  digits0    0.5           6
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
        "state",
        "owner",
        "since",
    ]
    with ThreadPoolExecutor(READERS) as pool:
        rows = pool.map(lambda run: or_warn(lambda: _row(run)), find_runs(results))
        return pd.DataFrame([row for row in rows if row is not None], columns=columns)


def or_warn(read: Callable[[], T]) -> T | None:
    """What is read of a run, or None where it is damaged: a warning names the file, and others are read on."""
    try:
        return read()
    except DamagedFile as error:
        warnings.warn(f"a run is left out: {error}", stacklevel=3)
        return None


def _directly_in(store: Store) -> list[Store]:
    """Runs that lie directly in a folder, as they do in `<experiment>/runs`."""
    return [store.at(name) for name in store.names("") if store.exists(f"{name}/manifest.json")]


def _row(run: Run) -> dict:
    manifest = run.manifest(any_schema=True)
    version = manifest.get("schema_version")
    readable = version in READABLE_SCHEMAS
    finished = readable and run.finished()
    state = run_state(run, finished) if readable else RunState(f"schema_version {version}")
    return {
        "location": run.location,
        "run_id": run.run_id,
        "num_images": run.num_images() if readable else 0,
        "finished": finished,
        "state": state.word,
        "owner": state.owner,
        "since": state.since,
        "model": model_of(manifest),
        **{name: manifest.get(name) for name in ("experiment", "sigma", "n0", "n", "precision")},
    }
