"""The trials of a sweep, on Ray Tune: one training each, and what came of it."""

import contextlib
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
from ray import tune
from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial

from raycsr.certification import METRICS
from raycsr.credentials import without_credentials
from raycsr.data.memory import Pixels
from raycsr.data.sources import Listing
from raycsr.distributed.options import SearchOptions, Space, WorkerOptions
from raycsr.distributed.search.asha import AshaByGroup
from raycsr.distributed.search.space import at_point, param_space
from raycsr.distributed.search.trial_records import (
    CHECKPOINT,
    Keeper,
    TrialRecord,
    TrialsLeft,
    read_record,
    read_records,
    report_of,
    seconds_spent,
    write_record,
)
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.distributed.training.fit import entry_of, load_history, refuse_other_loss, save
from raycsr.distributed.training.plan import Plan, prepare
from raycsr.distributed.training.ray_train import fit
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.spec import Preprocessing
from raycsr.reports.leaderboard import cells
from raycsr.results import Ownership
from raycsr.store import Store
from raycsr.training.loop import Epoch
from raycsr.training.validation import Metrics

_WAITING = 0.001  # CPUs of a trial whose workers train: Tune refuses none


@dataclass(frozen=True)
class Sweep:
    """A sweep with everything checked that can be checked without the cluster and without a model.

    Attributes:
        config: Training that trials differ from.
        space: Search space of the trials.
        search: Options of the search.
        corners: Trainings at the corners of the space.
        listing: Listing of the data.
        metrics: Cost spec -> metric that its trials compete in.
    """

    config: TrainConfig
    space: Space
    search: SearchOptions
    corners: list[TrainConfig]
    listing: Listing
    metrics: dict[str, str]

    @property
    def num_trials(self) -> int | None:
        """How many trials there will be; None where they go on until the time is up."""
        grid = math.prod(len(domain["grid"]) for domain in self.space.values() if "grid" in domain)
        return grid * self.search.samples if self.search.samples > 0 else None


def run_trials(
    sweep: Sweep,
    folder: Store,
    prefix: str,
    *,
    concurrent: int,
    trackers: list[tune.Callback],
    pixels: dict[Preprocessing, Pixels],
    owner: Ownership,
) -> pd.DataFrame:
    """Runs the trials that are left.

    Tune's own files, pickles among them, are in a folder of the driver that goes away: what a sweep goes on from is in
    `trial_records`.

    Args:
        sweep: Sweep to run.
        folder: Folder of the sweep.
        prefix: Prefix of the trials' ids.
        concurrent: Number of trials at a time.
        trackers: Callbacks of trackers.
        pixels: Preprocessing -> all images; without those that are streamed.
        owner: Ownership of the sweep.

    Returns:
        One row a trial, as `_rows` has them.
    """
    config, search, metrics = sweep.config, sweep.search, sweep.metrics
    records = read_records(folder, prefix)
    for record in records.values():
        _settle(record, config)  # the driver may have died before it wrote that the last epoch was the last
    ended = sum(record.ended for record in records.values())
    keeper = Keeper(folder, records, owner, seconds_spent(folder))
    budget = math.inf if search.max_hours is None else search.max_hours * 3600
    total = sweep.num_trials
    if records:
        print("going on with the sweep that is there")
    if ended != total and keeper.spent < budget:
        _refuse_other_losses(sweep, folder)
        scheduler = None
        if search.scheduler == "asha":
            scheduler = _asha(sweep)
            for record in records.values():
                scheduler.recall(SimpleNamespace(trial_id=record.trial, config=record.point), record.results)
        trainable = tune.with_parameters(
            _trial,
            config=config,
            listing=sweep.listing,
            pixels=pixels,
            workers=search.workers,
            folder=folder,
            cwd=os.getcwd(),
        )
        alone = search.workers_per_trial == 1  # else the trial only waits for its workers, which reserve their own
        resources = {"cpu": search.cpus_per_trial, "gpu": search.gpus_per_trial} if alone else {"cpu": _WAITING}
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's own tables; `TrialProgress` says what matters
        # Tune's own handler of Ctrl-C ends the sweep as if it were done, with winners among trials that are not
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
        with tempfile.TemporaryDirectory(prefix="raycsr-sweep-", ignore_cleanup_errors=True) as scratch:
            grid = Tuner(
                tune.with_resources(trainable, resources),
                param_space=param_space(sweep.space),
                tune_config=TuneConfig(
                    num_samples=search.samples,
                    search_alg=TrialsLeft(prefix, records, max_concurrent=concurrent, seed=search.seed),
                    time_budget_s=None if search.max_hours is None else budget - keeper.spent,
                    scheduler=scheduler,
                    trial_name_creator=lambda trial: trial.trial_id,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=RunConfig(
                    name="sweep",
                    storage_path=scratch,
                    failure_config=FailureConfig(max_failures=2),  # a worker that was lost; from its last checkpoint
                    callbacks=[keeper, TrialProgress(total, config.costs, metrics, before=ended), *trackers],
                    verbose=0,
                ),
            ).fit()
        for result in grid:
            record = records[str(result.path).rsplit("/", 1)[-1]]
            if result.error is not None:
                record.error = _last_line(result.error)
            elif record.results:  # Tune says nothing of those that it stopped when the time was up
                record.ended = True
            _settle(record, config)  # what failed after its last epoch has lost nothing
            if record.results or record.error is not None:
                write_record(folder, record)
        keeper.note_time()
    return _rows(folder, records, config, metrics, out_of_time=keeper.spent >= budget)


def _refuse_other_losses(sweep: Sweep, folder: Store) -> None:
    """Trials of two losses would stand in one table under the name of one."""
    begun = json.loads(folder.read("sweep.json")).get("definitions", {})
    for name in sorted({corner.objective.name for corner in sweep.corners}):
        refuse_other_loss(f"the sweep in {folder.location}", name, begun.get(name, 1))


def _settle(record: TrialRecord, config: TrainConfig) -> None:
    """Notes that a trial whose last epoch is recorded is finished, whatever became of it then."""
    if at_point(config, record.point).training.epochs in record.epochs:
        record.ended, record.error = True, None


def _asha(sweep: Sweep) -> AshaByGroup:
    config, search = sweep.config, sweep.search

    def costs_of(trial: Trial) -> str:
        return trial.config.get("costs", config.costs)

    return AshaByGroup(
        group=lambda trial: (trial.config.get("sigma", config.sigma), costs_of(trial)),
        metric=lambda trial: sweep.metrics[costs_of(trial)],
        time_attr="epoch",
        max_t=max(corner.training.epochs for corner in sweep.corners),
        grace_period=search.grace_epochs,
        reduction_factor=search.reduction,
        stop_last_trials=False,
    )


def _trial(
    point: dict[str, Any],
    *,
    config: TrainConfig,
    listing: Listing,
    pixels: dict[Preprocessing, Pixels],
    workers: WorkerOptions,
    folder: Store,
    cwd: str,
) -> None:
    """Trains at one point; a mistake that the user can mend is reported, not retried."""
    with contextlib.suppress(OSError):  # Tune has each trial in a folder of its own, and names of files are the user's
        os.chdir(cwd)
    torch.set_num_threads(workers.threads)
    logging.getLogger("ray").setLevel(logging.WARNING)
    trial = tune.get_context().get_trial_id()
    checkpoint = f"{folder.location}/{trial}/{CHECKPOINT}"
    try:
        plan = prepare(at_point(config, point), listing)
        with _tried_again():
            if not folder.exists("sweep.json"):
                raise UserError(f"a node does not see {folder.location}; give results that all nodes share, or s3://")
            begun = folder.exists(f"{trial}/{CHECKPOINT}")
            history = load_history(checkpoint) if begun else []
            record = read_record(folder, trial)
        for entry in history:  # a driver that died, or a worker after it saved, may not have told
            if entry["metrics"] is not None and (record is None or entry["number"] not in record.epochs):
                tune.report(report_of(entry))
        if len(history) < plan.config.training.epochs:
            _train(plan, pixels, workers, resume=checkpoint if begun else None, history=history, checkpoint=checkpoint)
    except UserError as error:
        tune.report({"error": str(error)})


@contextlib.contextmanager
def _tried_again() -> Iterator[None]:
    """What is wrong with the store is not wrong with the trial: Tune tries it again, and so does the next command.

    Raises:
        OSError: For a UserError.
    """
    try:
        yield
    except UserError as error:
        raise OSError(str(error)) from error


def _train(
    plan: Plan,
    pixels: dict[Preprocessing, Pixels],
    workers: WorkerOptions,
    *,
    resume: str | None,
    history: list[dict],
    checkpoint: str,
) -> None:
    def after(epoch: Epoch, metrics: Metrics | None, model: BaseClassifier, state: dict[str, Any]) -> None:
        history.append(entry_of(epoch, metrics))
        if metrics is not None:
            with _tried_again():
                save(plan, model, state, history, checkpoint)
            tune.report(report_of(history[-1]))

    held = None if plan.stream else pixels.get(plan.model.preprocessing)  # the driver's machine may have streamed them
    fit(plan, held, resume=resume, after_epoch=after, progress=False, workers=workers)


class TrialProgress(tune.Callback):
    """A line for each validation of a trial, with what is done and what time is left."""

    def __init__(self, trials: int | None, costs: str, metrics: dict[str, str], before: int = 0) -> None:
        """Counts nothing yet.

        Args:
            trials: Number of trials; None where they go on until the time is up.
            costs: Costs of trials whose point names none.
            metrics: Cost spec -> metric that its trials compete in.
            before: Trials that had ended before.
        """
        self._trials = trials
        self._costs, self._metrics = costs, metrics
        self._done, self._before = 0, before
        self._start: float | None = None

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Starts the clock."""
        self._start = self._start or time.monotonic()  # the cluster's start and the decoding are no trial's time

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **info: Any) -> None:
        """Shows a validation, or a mistake."""
        if "error" in result:
            print(f"trial {trial.trial_id} failed: {result['error']}", flush=True)
            return
        metric = self._metrics[trial.config.get("costs", self._costs)]
        shown = ", ".join(f"{name} {result[name]:.3f}" for name in dict.fromkeys(["accuracy", metric]))
        print(f"trial {trial.trial_id} {cells(trial.config.values())}: epoch {result['epoch']}, {shown}", flush=True)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Shows what is left."""
        self._done += 1
        print(f"{self._words()}", flush=True)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Shows what is left, and that this one failed."""
        self._done += 1
        print(f"trial {trial.trial_id} failed; {self._words()}", flush=True)

    def _words(self) -> str:
        done = self._before + self._done
        if self._start is None:
            return f"{done} trials done"
        minutes = (time.monotonic() - self._start) / 60
        if self._trials is None:
            return f"{done} trials done in {minutes:.1f} min"
        left = minutes / self._done * (self._trials - done)
        return f"{done} of {self._trials} trials done in {minutes:.1f} min, about {left:.1f} min left"


def _rows(
    folder: Store, records: dict[str, TrialRecord], config: TrainConfig, metrics_by: dict[str, str], out_of_time: bool
) -> pd.DataFrame:
    """One row a trial: what it was, what became of it, its certified metrics at its last validation."""
    if not records:
        raise UserError("the time was up before the first trial began; raise search.max_hours")
    rows = []
    for record in records.values():
        metrics = record.results[-1] if record.results else {}
        one, error = at_point(config, record.point), record.error
        if error is None and not metrics:
            error = None if out_of_time else "it reported no metric: it was never scheduled, or it starved"
            state = "not started" if out_of_time else "failed"
        else:
            state = "failed" if error else "finished" if metrics["epoch"] == one.training.epochs else "stopped"
        rows.append(
            {
                "trial": record.trial,
                "state": state,
                "error": error,
                "sigma": one.sigma,
                "costs": one.costs,
                "objective": one.objective.name,
                "model": one.model.name,
                "point": json.dumps(record.point),
                "epoch": metrics.get("epoch"),
                "precision": metrics.get("precision"),
                "seconds": metrics.get("seconds"),
                "metric": metrics_by[one.costs],
                **{name: metrics.get(name) for name in METRICS},
                "collapsed": metrics.get("collapsed", ""),
                "checkpoint": f"{folder.location}/{record.trial}/{CHECKPOINT}" if metrics else None,
            }
        )
    return pd.DataFrame(rows).sort_values("trial", ignore_index=True)


def _last_line(error: Exception) -> str:
    return without_credentials([line for line in str(error).splitlines() if line.strip()][-1].strip())
