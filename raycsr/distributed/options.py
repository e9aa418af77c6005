"""What runs where, and for how long, as a user says it."""

import math
import os
from dataclasses import dataclass, field
from typing import Any, Literal

from raycsr.certification import METRICS
from raycsr.distributed.cluster import NODE_SECONDS


@dataclass(frozen=True)
class PoolOptions:
    """The actors that sample. Decoding runs beside them, on CPUs that they leave free.

    Attributes:
        actors: How many, at most; 0 samples in this process, without Ray, which suits small jobs: there is no start to
            wait for.
        elastic: Begin with the first actor that finds a place, and grow as nodes come, on a cluster that scales or
            whose nodes may go away; by default all actors must fit at once, and a run that has lost its last node ends
            after 10 minutes.
        cpus_per_actor: CPUs that an actor without a GPU reserves; fractions share a CPU.
        gpus_per_actor: GPUs of an actor; above 0, actors reserve no CPU.
        threads_per_actor: Torch threads of an actor; by default cpus_per_actor, rounded up.
    """

    actors: int = 2
    elastic: bool = False
    cpus_per_actor: float = 0.5
    gpus_per_actor: float = 0.0
    threads_per_actor: int | None = None

    @property
    def resources(self) -> dict[str, float]:
        """What Ray reserves for an actor."""
        if self.gpus_per_actor > 0:
            return {"num_cpus": 0, "num_gpus": self.gpus_per_actor}
        return {"num_cpus": self.cpus_per_actor}

    @property
    def needs(self) -> list[dict[str, float]]:
        """What some node must have: for an actor, and for the tasks that decode."""
        gpus, cpus = self.gpus_per_actor, self.cpus_per_actor
        return [{"GPU": gpus} if gpus > 0 else {"CPU": cpus}, {"CPU": 1}]

    @property
    def patience(self) -> float:
        """Seconds that a run whose last node is gone waits for another."""
        return math.inf if self.elastic else NODE_SECONDS

    @property
    def threads(self) -> int:
        """Torch threads of an actor, or of this process. Ray sets none that suit a fraction of a CPU."""
        cpus = self.cpus_per_actor if self.actors else os.cpu_count() or 1
        return self.threads_per_actor or max(1, math.ceil(cpus))


@dataclass(frozen=True)
class WorkerOptions:
    """The workers that train together: each takes its shard of every batch.

    Attributes:
        number: How many; training.batch_size is a multiple of it.
        cpus: CPUs of each, where there are several.
        gpus: GPUs of each, where there are several.
    """

    number: int = 1
    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def threads(self) -> int:
        """The torch threads of each."""
        return max(1, int(self.cpus))

    @property
    def needs(self) -> list[dict[str, float]]:
        """What some node must have for one of them."""
        return [{"CPU": self.cpus, "GPU": self.gpus}]


@dataclass(frozen=True)
class SearchOptions:
    """How the space is searched.

    Attributes:
        metric: Certified metric of the held-out images that trials compete in, one of {metrics}. By default
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


SearchOptions.__doc__ = str(SearchOptions.__doc__).replace("{metrics}", ", ".join(METRICS))  # which is the help


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


@dataclass(frozen=True)
class ObjectiveOptions:
    """The loss that is minimised.

    Attributes:
        name: One of gaussian, macer, smoothadv, consistency, smoothmix, margin_cs, gaussian_cs, macer_cs, smoothadv_cs,
            consistency_cs, smoothmix_cs; or what an installed package adds. Those that end in _cs need costs.
        args: Its hyper-parameters, as in `raycsr.training.objectives`.
    """

    name: str = "gaussian"
    args: dict[str, Any] = field(default_factory=dict)


Space = dict[str, dict[str, list]]


@dataclass(frozen=True)
class PlanOptions:
    """How a plan is priced and printed.

    Attributes:
        json: Print the plan as one JSON document, and nothing else, on the standard output.
        time_one_batch: Time a few batches on this machine, and sample a few images of a certification.
        devices: Number of devices like this machine's that will do the work.
        hourly_price: Price of one such device for an hour.
    """

    json: bool = False
    time_one_batch: bool = False
    devices: int = 1
    hourly_price: float = 0.0
