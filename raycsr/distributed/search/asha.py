"""Successive halving among comparable trials only."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

from raycsr.certification import METRICS


class AshaByGroup(FIFOScheduler):
    """ASHA (Li et al., MLSys 2020) within each group of trials.

    rob_cs under one cost matrix says nothing about rob_cs under another: a single ASHA over both would stop every
    trial of the harder one.
    """

    def __init__(self, *, group: Callable[[Trial], Hashable], metric: Callable[[Trial], str], **asha: Any) -> None:
        """Makes no scheduler yet: groups appear with their first trial.

        Args:
            group: Function: trial -> what it shares with those it may be compared with.
            metric: Function: trial -> metric of `METRICS` that it and its group compete in.
            **asha: Other arguments of Ray Tune's scheduler.
        """
        super().__init__()
        self._group = group
        self._metric_of = metric
        self._asha = asha
        self._schedulers: dict[Hashable, AsyncHyperBandScheduler] = {}

    def _of(self, trial: Trial) -> AsyncHyperBandScheduler:
        group = self._group(trial)
        if group not in self._schedulers:
            metric = self._metric_of(trial)
            mode = "max" if METRICS[metric].more_is_better else "min"
            self._schedulers[group] = AsyncHyperBandScheduler(metric=metric, mode=mode, **self._asha)
        return self._schedulers[group]

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Hands the trial to its group."""
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict) -> str:
        """Asks the trial's group whether it goes on."""
        return self._of(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict) -> None:
        """Tells the trial's group."""
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Tells the trial's group."""
        self._of(trial).on_trial_remove(tune_controller, trial)

    def recall(self, trial: Any, results: Iterable[dict]) -> None:
        """Takes up what a trial reported to an earlier scheduler: with all of them it is what that one was.

        Args:
            trial: Trial with its trial_id and config.
            results: Results of the trial, in their order.
        """
        self.on_trial_add(None, trial)
        for result in results:
            self.on_trial_result(None, trial, result)
