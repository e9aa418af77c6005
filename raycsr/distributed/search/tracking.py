"""Trackers of experiments that follow a sweep, beside Tune's own files: MLflow, Weights & Biases."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from ray import tune

from raycsr.credentials import has_credentials, without_credentials
from raycsr.distributed.options import TrackingOptions
from raycsr.errors import UserError, refuse_credentials


def trackers(options: TrackingOptions, sweep: str) -> list[tune.Callback]:
    """Returns Tune's callbacks for the trackers that are asked for.

    Args:
        options: Options of the trackers.
        sweep: Name of the sweep in the trackers.

    Raises:
        UserError: A tracker's package is not installed, or its address carries a password.
    """
    callbacks: list[tune.Callback] = []
    if options.mlflow is not None:
        _refuse_missing("mlflow")
        if has_credentials(options.mlflow):
            raise UserError(
                "tracking.mlflow carries a password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
            )
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        callbacks.append(_Follower("mlflow", MLflowLoggerCallback(tracking_uri=options.mlflow, experiment_name=sweep)))
    if options.wandb is not None:
        _refuse_missing("wandb")
        refuse_credentials(options.wandb)
        from ray.air.integrations.wandb import WandbLoggerCallback

        # its actors run on the cluster, which does not have the driver's environment; the key Ray hands on itself
        settings = {name.lower(): value for name in ("MODE", "DIR") if (value := os.environ.get(f"WANDB_{name}"))}
        callbacks.append(_Follower("wandb", WandbLoggerCallback(project=options.wandb, group=sweep, **settings)))
    return callbacks


def _refuse_missing(package: str) -> None:
    if find_spec(package) is None:
        raise UserError(f"tracking.{package} needs a package that is not installed: pip install 'raycsr[{package}]'")


def _told(hook: str) -> Callable[..., None]:
    """A tracker's hook whose failure is told, and stops no trial."""

    def call(self: "_Follower", *args: Any, **kwargs: Any) -> None:
        try:
            getattr(self.tracker, hook)(*args, **kwargs)
        except Exception as error:  # of a server, a network, a library: whatever it is, trials do not need a tracker
            if not self.failed:
                why = without_credentials(f"{type(error).__name__}: {error}")
                print(f"tracking.{self.name} does not follow any more: {why}", flush=True)
            self.failed = True

    return call


class _Follower(tune.Callback):
    """A tracker's callback. What is wrong with its settings is raised before the first trial."""

    def __init__(self, name: str, tracker: tune.Callback) -> None:
        self.name, self.tracker, self.failed = name, tracker, False

    def setup(self, *args: Any, **kwargs: Any) -> None:
        self.tracker.setup(*args, **kwargs)

    on_trial_start = _told("on_trial_start")
    on_trial_restore = _told("on_trial_restore")
    on_trial_result = _told("on_trial_result")
    on_trial_save = _told("on_trial_save")
    on_trial_complete = _told("on_trial_complete")
    on_trial_error = _told("on_trial_error")
    on_experiment_end = _told("on_experiment_end")
