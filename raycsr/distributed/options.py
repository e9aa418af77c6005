"""The options that say what runs where, and for how long."""

import math
import os
from dataclasses import dataclass, field
from typing import Any, Literal

from raycsr.certification import METRICS
from raycsr.distributed.cluster import NODE_SECONDS


@dataclass(frozen=True)
class PoolOptions:
    """The actors that sample. Images are decoded beside them, on CPUs that the actors leave free.

    Attributes:
        actors: Largest number of actors. 0 samples in this process, without Ray, which suits small jobs: there is no
            start to wait for.
        elastic: Whether to begin with the first actor that finds a place, and to grow as nodes come, on a cluster that
            scales or whose nodes may go away. By default all actors must fit at once, and a run that has lost its last
            node ends after 10 minutes.
        cpus_per_actor: Number of CPUs that an actor without a GPU reserves; fractions share a CPU.
        gpus_per_actor: Number of GPUs that an actor reserves; above 0, it reserves no CPU. Fractions share a GPU and
            its memory. Of 0 actors compute on CPUs, whatever their nodes have.
        threads_per_actor: Number of torch threads of an actor; by default cpus_per_actor, rounded up.
    """

    actors: int = 2
    elastic: bool = False
    cpus_per_actor: float = 0.5
    gpus_per_actor: float = 0.0
    threads_per_actor: int | None = None

    @property
    def resources(self) -> dict[str, float]:
        """The resources that Ray reserves for an actor."""
        if self.gpus_per_actor > 0:
            return {"num_cpus": 0, "num_gpus": self.gpus_per_actor}
        return {"num_cpus": self.cpus_per_actor}

    @property
    def needs(self) -> list[dict[str, float]]:
        """The resources that some node must have: for an actor, and for a task that decodes."""
        gpus, cpus = self.gpus_per_actor, self.cpus_per_actor
        return [{"GPU": gpus} if gpus > 0 else {"CPU": cpus}, {"CPU": 1}]

    @property
    def gpus(self) -> float | None:
        """Number of GPUs that a worker reserves; None where this process is the worker, with those that it sees."""
        return self.gpus_per_actor if self.actors else None

    @property
    def patience(self) -> float:
        """Seconds for which a run whose last node is gone waits for another."""
        return math.inf if self.elastic else NODE_SECONDS

    @property
    def threads(self) -> int:
        """Number of torch threads of an actor, or of this process. Ray sets none that suit a fraction of a CPU."""
        cpus = self.cpus_per_actor if self.actors else os.cpu_count() or 1
        return self.threads_per_actor or max(1, math.ceil(cpus))


@dataclass(frozen=True)
class WorkerOptions:
    """The workers that train together: each takes its shard of every batch.

    Attributes:
        number: Number of workers; training.batch_size must be a multiple of it.
        cpus: Number of CPUs of each worker, where there are several.
        gpus: Number of GPUs of each worker, where there are several.
    """

    number: int = 1
    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def threads(self) -> int:
        """Number of torch threads of each worker."""
        return max(1, int(self.cpus))

    @property
    def needs(self) -> list[dict[str, float]]:
        """The resources that some node must have for one worker."""
        return [{"CPU": self.cpus, "GPU": self.gpus}]


@dataclass(frozen=True)
class SearchOptions:
    """How the search space is searched.

    Attributes:
        metric: Certified metric on the held-out images by which trials are ranked; one of {metrics}. By default it
            is rob_cs, and rob_cost under costs that differ in size.
        budget: Accuracy that the best trial may lose against the most accurate one of the same sigma and costs. Without
            such a limit, a classifier that answers with seed classes only would win by rob_cs.
        samples: Number of draws of the random hyper-parameters for each point of the grid; -1 goes on until
            `max_hours`.
        scheduler: Scheduler of the trials: fifo trains each to its end; asha stops trials early whose metric is low
            among those of equal sigma and costs.
        grace_epochs: Number of epochs before asha may stop a trial.
        reduction: Reduction factor of asha: one in so many trials goes on at each of its rungs.
        max_hours: Time budget of the whole sweep, in hours.
        cpus_per_trial: Number of CPUs of a trial, which is also that of its torch threads.
        gpus_per_trial: Number of GPUs of a trial; fractions share a GPU.
        max_concurrent: Number of trials at a time; by default as many as fit while one CPU stays free. Where
            trials have GPUs it may be more than fit now: the others wait for nodes that an autoscaler brings.
        workers_per_trial: Number of workers that train a trial together, each with the CPUs and GPUs above.
        seed: Seed of the random hyper-parameters.
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
        """The workers of a trial."""
        return WorkerOptions(self.workers_per_trial, self.cpus_per_trial, self.gpus_per_trial)


SearchOptions.__doc__ = str(SearchOptions.__doc__).replace("{metrics}", ", ".join(METRICS))  # which is the help


@dataclass(frozen=True)
class TrackingOptions:
    """Trackers of experiments: each trial is a run there, with its point of the space and its certified metrics.

    Attributes:
        mlflow: Tracking URI of MLflow, such as http://host:5000 or sqlite:///mlflow.db; the sweep is an experiment
            there.
        wandb: Project of Weights & Biases; the sweep is a group there. The key is read from WANDB_API_KEY;
            WANDB_MODE=offline keeps everything on the machine of the driver.
    """

    mlflow: str | None = None
    wandb: str | None = None


@dataclass(frozen=True)
class ObjectiveOptions:
    """The training objective, which is minimised.

    Attributes:
        name: One of gaussian, macer, smoothadv, consistency, smoothmix, cat_rs, easy, margin_cs, gaussian_cs, macer_cs,
            smoothadv_cs, consistency_cs, smoothmix_cs, cat_rs_cs, easy_cs; denoise, stability, stability_cs, which
            train the denoisers in front of a classifier that stays as it is; or what an installed package adds. Those
            that end in _cs need costs.
        args: Hyper-parameters of the objective, which `raycsr.training.objectives` describes.
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
        pilot_images: Number of images of a certification that are sampled beforehand, at even steps from the listing:
            they say what a run of each n and alpha would certify. With 16 a share may be 25 points off, with 400 five.
    """

    json: bool = False
    time_one_batch: bool = False
    devices: int = 1
    hourly_price: float = 0.0
    pilot_images: int = 16
