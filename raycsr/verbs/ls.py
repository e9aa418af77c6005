"""Listing: what a results folder holds and how far each run is, or what an option may name; starts no Ray."""

import os
import sys
import time
from typing import Any

import pandas as pd
import pyarrow as pa

from raycsr.catalogue import KINDS
from raycsr.errors import UserError, printable, similar
from raycsr.reports.document import Column, Table
from raycsr.reports.text import as_text
from raycsr.results import Run, find_experiments, list_runs
from raycsr.results.collect import check_sweep
from raycsr.results.counts import ImageCounts
from raycsr.results.locations import or_warn
from raycsr.results.notes import model_of
from raycsr.results.predictions import PredictionSet, find_predictions
from raycsr.results.state import RunState
from raycsr.store import Store

WATCH_SECONDS = 5.0  # between two looks
_CLEAR = "\033[2J\033[H"  # a terminal
_COLUMNS = {  # of `list_runs` -> as they are shown
    "run_id": Column("run"),
    "experiment": Column("experiment"),
    "model": Column("model"),
    "sigma": Column("sigma", numeric=True),
    "n": Column("n", numeric=True),
    "num_images": Column("images", numeric=True),
    "done": Column("done", numeric=True),
    "missing": Column("missing", numeric=True),
    "errored": Column("errored", numeric=True),
}


def ls(results: str, *, watch: bool = False) -> pd.DataFrame:
    """Lists runs and how far each is, sweeps, checkpoints, predictions; or all models, objectives, costs and the like.

    Of each run's images, `done` have votes under every decision rule, `missing` are still to be sampled, and
    `errored` could not be. A run is running, finished, stopped (continue it by the same command) or died; or it is of
    the schema_version of another raycsr, which can read it. It starts no Ray.

    Args:
        results: Folder of results, of an experiment or of a run, local or s3://bucket/prefix; or one of models,
            denoisers, objectives, sources, costs, rules, answers, metrics, methods: what there is of them, a line each.
            A folder of such a name is ./models.
        watch: Whether to look again every few seconds, as long as a run is running.

    Returns:
        One row a run, as `raycsr.list_runs`, with done, missing and errored; or a row a name, with what it is.

    Raises:
        UserError: where there is nothing.
    """
    if results in KINDS:
        if watch:
            raise UserError(f"watch looks at runs, and {results} are names; leave --watch out, or give ./{results}")
        return _names(results)
    known: dict[str, dict[str, pa.Table]] = {}
    runs = _listed(results, known)
    while watch and (runs["state"] == "running").any():
        time.sleep(WATCH_SECONDS)
        print(_CLEAR if sys.stdout.isatty() else "", flush=True)
        runs = _listed(results, known)
    return runs


def _listed(results: str, known: dict[str, dict[str, pa.Table]]) -> pd.DataFrame:
    """Prints what is there now; `known` keeps what was read of each run, for the next look."""
    store = Store(results)
    if not store.names("") and not os.path.isdir(store.location):
        kinds = "".join(f", or {kind} to list those that there are" for kind in similar(results.casefold(), KINDS)[:1])
        raise UserError(f"there is nothing at {store.location!r}; give the --results of a command that has run{kinds}")
    runs = list_runs(results)
    each = zip(runs["location"], runs["state"], strict=True)
    progress = [_progress(location, state, known.setdefault(location, {})) for location, state in each]
    runs = runs[[one is not None for one in progress]].reset_index(drop=True)
    counts = pd.DataFrame([one for one in progress if one is not None], columns=ImageCounts._fields)
    runs[["done", "missing", "errored"]] = counts[["done", "missing", "errored"]]
    others = [line for experiment in find_experiments(results) for line in _others(experiment)]
    others += [_predictions(one) for one in find_predictions(results)]
    if len(runs):
        print(_table(runs))
        print(f"\nname a run as {_name(runs.iloc[0], store)}; the beginning of an id is enough where no other has it")
    elif not others:
        print(f"no runs at {store.location}")
    for line in others:
        print(printable(line))
    return runs


def _names(kind: str) -> pd.DataFrame:
    """What there is of a kind, a line each."""
    known = KINDS[kind]()
    width = max(map(len, known))
    for name, about in known.items():
        print(printable(f"{name:<{width}}  {about}"))
    if os.path.isdir(kind):
        print(f"\nthe folder {kind} is listed by: raycsr ls ./{kind}")
    return pd.DataFrame({"name": list(known), "about": list(known.values())})


def _progress(location: str, state: str, known: dict[str, pa.Table]) -> ImageCounts | None:
    """How far a run is; None where it is damaged, of which a warning says more."""
    if state.startswith("schema_version"):
        return ImageCounts(0, 0, 0, 0)
    return or_warn(lambda: Run(Store(location)).progress(known))


def _table(runs: pd.DataFrame) -> str:
    rows = [
        [
            *(f"{run[name]:,}" if isinstance(run[name], int) else str(run[name]) for name in _COLUMNS),
            str(RunState(run["state"], run["owner"], run["since"])),
        ]
        for run in ({**one, "n": _samples(one["n"])} for one in runs.to_dict("records"))
    ]
    return as_text(Table([*_COLUMNS.values(), Column("state")], rows))


def _samples(n: Any) -> Any:
    """The samples of an image: a column of which one run has none, as its votes say when to stop, is one of floats."""
    return "-" if pd.isna(n) else int(n) if isinstance(n, float) else n


def _name(run: pd.Series, listed: Store) -> str:
    """The shortest way to name a run, from what was listed."""
    return (
        f"--run {listed.location}" if run["location"] == listed.location else f"--run {listed.location}/{run['run_id']}"
    )


def _others(experiment: Store) -> list[str]:
    """A line for each sweep and checkpoint of an experiment."""
    sweeps = [_sweep(experiment.at(f"sweeps/{name}")) for name in experiment.names("sweeps")]
    checkpoints = [name for name in experiment.names("checkpoints") if name.endswith(".pt")]
    return [*sweeps, *(f"checkpoint {experiment.location}/checkpoints/{name}" for name in checkpoints)]


def _predictions(one: PredictionSet) -> str:
    try:
        facts = one.facts()
    except UserError as error:
        return f"predictions {one.store.location}: {error}"
    how = f"{model_of(facts)} at sigma {facts['sigma']:g}, rule {facts['rule']['spec']}, {facts['answer']['spec']}"
    return f"predictions {one.store.location}: {one.count():,} images, by {how}"


def _sweep(sweep: Store) -> str:
    if not sweep.exists("leaderboard.md"):
        return f"sweep {sweep.location}: no leaderboard yet"
    try:
        check_sweep(sweep)
        return f"sweep {sweep.location}: {sweep.num_rows('trials.parquet'):,} trials, leaderboard.md"
    except UserError as error:
        return f"sweep {sweep.location}: {error}"
