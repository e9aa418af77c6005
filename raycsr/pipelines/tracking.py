"""Trackers of experiments that follow a sweep, beside Tune's own files: MLflow, Weights & Biases."""

from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit

from ray import tune

from raycsr.errors import UserError


@dataclass(frozen=True)
class TrackingOptions:
    """Trackers of experiments: each trial is a run there, with its point of the space and its certified metrics.

    Attributes:
        mlflow: Tracking URI of MLflow, such as http://host:5000 or sqlite:///mlflow.db; the sweep is an experiment.
        wandb: Project of Weights & Biases; the sweep is a group. The key is in WANDB_API_KEY; WANDB_MODE=offline
            keeps everything on the machine of the driver.
    """

    mlflow: str | None = None
    wandb: str | None = None


def trackers(options: TrackingOptions, sweep: str) -> list[tune.Callback]:
    """Returns Tune's callbacks for the trackers that are asked for.

    Args:
        options: The trackers.
        sweep: What the sweep is called there.

    Raises:
        UserError: A tracker's package is not installed, or its address carries a password.
    """
    callbacks: list[tune.Callback] = []
    if options.mlflow is not None:
        _refuse_missing("mlflow")
        if urlsplit(options.mlflow).password is not None:
            raise UserError(
                "tracking.mlflow carries a password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
            )
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        callbacks.append(MLflowLoggerCallback(tracking_uri=options.mlflow, experiment_name=sweep))
    if options.wandb is not None:
        _refuse_missing("wandb")
        from ray.air.integrations.wandb import WandbLoggerCallback

        callbacks.append(WandbLoggerCallback(project=options.wandb, group=sweep))
    return callbacks


def _refuse_missing(package: str) -> None:
    if find_spec(package) is None:
        raise UserError(f"tracking.{package} needs a package that is not installed: pip install 'raycsr[{package}]'")
