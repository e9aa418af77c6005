"""The trials of a sweep, on Ray Tune: one training each, and what came of it."""

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from ray import tune
from ray.tune import Checkpoint, CheckpointConfig, FailureConfig, ResultGrid, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial
from ray.tune.search.basic_variant import BasicVariantGenerator

from raycsr.certification import METRICS
from raycsr.credentials import without_credentials
from raycsr.data import Listing, Pixels
from raycsr.errors import UserError
from raycsr.models import BaseClassifier, Preprocessing
from raycsr.pipelines.asha import AshaByGroup
from raycsr.pipelines.fit import entry_of, load_history, save
from raycsr.pipelines.leaderboard import cell
from raycsr.pipelines.plan import Plan, TrainConfig, prepare
from raycsr.pipelines.space import Space, at_point, param_space
from raycsr.pipelines.workers import WorkerOptions, fit
from raycsr.store import Store
from raycsr.training import Epoch, Metrics

_CHECKPOINT = "checkpoint.pt"
_WAITING = 0.001  # CPUs of a trial whose workers train: Tune refuses none


@dataclass(frozen=True)
class SearchOptions:
    """How the space is searched.

    Attributes:
        metric: Certified metric of the held-out images that trials compete in: rob_cs, rob_cost, acr, ... By default
            rob_cs, and rob_cost under costs that differ in size.
        budget: The best trial is sought among those whose accuracy is at most this much below that of the most
            accurate one of the same sigma and costs: rob_cs alone is won by answering with seed classes only.
        samples: Draws of the random hyper-parameters, for each point of the grid; -1 goes on until `max_hours`.
        scheduler: asha stops trials early that do badly at the metric, among those of equal sigma and costs.
        grace_epochs: Epochs before asha may stop a trial.
        reduction: One in so many trials goes on at each of asha's rungs.
        max_hours: Time budget of the whole sweep.
        cpus_per_trial: CPUs of a trial, and its torch threads.
        gpus_per_trial: GPUs of a trial; fractions share one.
        max_concurrent: Trials at a time; by default as many as fit while one CPU stays free. Where trials have GPUs
            it may be more than fit now: they wait for nodes that an autoscaler brings.
        workers_per_trial: Workers that train a trial together, each with the CPUs and GPUs above.
        seed: Of the random hyper-parameters.
    """

    metric: str | None = None
    budget: float = 0.05
    samples: int = 1
    scheduler: Literal["fifo", "asha"] = "fifo"
    grace_epochs: int = 1
    reduction: int = 3
    max_hours: float | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    max_concurrent: int | None = None
    workers_per_trial: int = 1
    seed: int = 0

    @property
    def workers(self) -> WorkerOptions:
        """Those of a trial."""
        return WorkerOptions(self.workers_per_trial, self.cpus_per_trial, self.gpus_per_trial)


def run_trials(
    folder: Store,
    config: TrainConfig,
    space: Space,
    search: SearchOptions,
    longest: int,
    concurrent: int,
    callbacks: list[tune.Callback],
    metrics: dict[str, str],
    listing: Listing,
    pixels: dict[Preprocessing, Pixels],
) -> ResultGrid:
    """Runs the trials that are left."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's own tables; `TrialProgress` says what matters
    # Tune's own handler of Ctrl-C ends the sweep as if it were done, with winners among trials that are not
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    alone = search.workers_per_trial == 1  # else the trial only waits for its workers, which reserve their own
    trainable = tune.with_resources(
        tune.with_parameters(_trial, config=config, listing=listing, pixels=pixels, workers=search.workers),
        {"cpu": search.cpus_per_trial, "gpu": search.gpus_per_trial} if alone else {"cpu": _WAITING},
    )
    if Tuner.can_restore(folder.location):
        print("going on with the sweep that is there")
        return Tuner.restore(folder.location, trainable, resume_unfinished=True, resume_errored=True).fit()
    storage, name = folder.location.rsplit("/", 1)
    scheduler = None
    if search.scheduler == "asha":

        def costs_of(trial: Trial) -> str:
            return trial.config.get("costs", config.costs)

        scheduler = AshaByGroup(
            group=lambda trial: (trial.config.get("sigma", config.sigma), costs_of(trial)),
            metric=lambda trial: metrics[costs_of(trial)],
            time_attr="epoch",
            max_t=longest,
            grace_period=search.grace_epochs,
            reduction_factor=search.reduction,
            stop_last_trials=False,
        )
    tuner = Tuner(
        trainable,
        param_space=param_space(space),
        tune_config=TuneConfig(
            num_samples=search.samples,
            search_alg=BasicVariantGenerator(max_concurrent=concurrent, random_state=search.seed),
            time_budget_s=search.max_hours and search.max_hours * 3600,
            scheduler=scheduler,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=2),  # a worker that was lost; from its last checkpoint
            callbacks=callbacks,
            verbose=0,
        ),
    )
    return tuner.fit()


def _trial(
    point: dict[str, Any],
    *,
    config: TrainConfig,
    listing: Listing,
    pixels: dict[Preprocessing, Pixels],
    workers: WorkerOptions,
) -> None:
    """Trains at one point; a mistake that the user can mend is reported, not retried."""
    torch.set_num_threads(workers.threads)
    logging.getLogger("ray").setLevel(logging.WARNING)  # or each checkpoint is announced
    try:
        plan = prepare(at_point(config, point), listing)
        found = tune.get_checkpoint()
        if found is None:
            _train(plan, pixels, workers, resume=None, history=[])
        else:
            with found.as_directory() as folder:
                path = f"{folder}/{_CHECKPOINT}"
                _train(plan, pixels, workers, resume=path, history=load_history(path))
    except UserError as error:
        tune.report({"error": str(error)})


def _train(
    plan: Plan,
    pixels: dict[Preprocessing, Pixels],
    workers: WorkerOptions,
    resume: str | None,
    history: list[dict],
) -> None:
    def after(epoch: Epoch, metrics: Metrics | None, model: BaseClassifier, state: dict[str, Any]) -> None:
        history.append(entry_of(epoch, metrics))
        if metrics is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            save(plan, model, state, history, f"{folder}/{_CHECKPOINT}")
            facts = {name: getattr(epoch, name) for name in ("loss", "images_per_second", "precision")}
            tune.report({**metrics, "epoch": epoch.number, **facts}, checkpoint=Checkpoint.from_directory(folder))

    held = None if plan.stream else pixels[plan.model.preprocessing]
    fit(plan, held, resume=resume, after_epoch=after, progress=False, workers=workers)


class TrialProgress(tune.Callback):
    """A line for each validation of a trial, with what is done and what time is left."""

    def __init__(self, trials: int | None, costs: str, metrics: dict[str, str]) -> None:
        """Counts nothing yet.

        Args:
            trials: How many there will be; None where they go on until the time is up.
            costs: Of trials whose point names none.
            metrics: Cost spec -> what its trials compete in.
        """
        self._trials = trials
        self._costs, self._metrics = costs, metrics
        self._done = 0
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
        print(f"trial {trial.trial_id} {short(trial.config.values())}: epoch {result['epoch']}, {shown}", flush=True)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Shows what is left."""
        self._done += 1
        print(f"{self._words()}", flush=True)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Shows what is left, and that this one failed."""
        self._done += 1
        print(f"trial {trial.trial_id} failed; {self._words()}", flush=True)

    def _words(self) -> str:
        if self._start is None:
            return f"{self._done} trials done"
        minutes = (time.monotonic() - self._start) / 60
        if self._trials is None:
            return f"{self._done} trials done in {minutes:.1f} min"
        left = minutes / self._done * (self._trials - self._done)
        return f"{self._done} of {self._trials} trials done in {minutes:.1f} min, about {left:.1f} min left"


def short(values: Iterable[Any]) -> str:
    """Values of the space in brackets, as people read them."""
    return "(" + ", ".join(cell(value) for value in values) + ")"


def rows_of(
    grid: ResultGrid, config: TrainConfig, search: SearchOptions, metrics_by: dict[str, str], start: float
) -> pd.DataFrame:
    """One row a trial: what it was, what became of it, its certified metrics at its last validation."""
    out_of_time = search.max_hours is not None and time.monotonic() - start >= search.max_hours * 3600
    rows = []
    for result in grid:
        metrics, point = result.metrics or {}, result.config or {}
        one = at_point(config, point)
        error = metrics.get("error") or (result.error and _last_line(result.error))
        if error is None and "epoch" not in metrics:
            error = None if out_of_time else "it reported no metric: it was never scheduled, or it starved"
            state = "not started" if out_of_time else "failed"
        else:
            state = "failed" if error else "finished" if metrics["epoch"] == one.training.epochs else "stopped"
        checkpoint = None
        if result.checkpoint is not None:
            scheme = "s3://" if result.filesystem.type_name == "s3" else ""
            checkpoint = f"{scheme}{result.checkpoint.path}/{_CHECKPOINT}"
        rows.append(
            {
                "trial": str(result.path).rsplit("/", 1)[-1],
                "state": state,
                "error": error,
                "sigma": one.sigma,
                "costs": one.costs,
                "objective": one.objective.name,
                "model": one.model.name,
                "point": json.dumps(point),
                "epoch": metrics.get("epoch"),
                "precision": metrics.get("precision"),
                "seconds": metrics.get("time_total_s"),
                "metric": metrics_by[one.costs],
                **{name: metrics.get(name) for name in METRICS},
                "collapsed": metrics.get("collapsed", ""),
                "checkpoint": checkpoint,
            }
        )
    return pd.DataFrame(rows).sort_values("trial", ignore_index=True)  # a restored sweep has them in another order


def _last_line(error: Exception) -> str:
    return without_credentials([line for line in str(error).splitlines() if line.strip()][-1].strip())
