"""Training on several workers: Ray Train starts them, DistributedDataParallel keeps their weights the same.

Epochs come back to the caller, who alone writes and prints: a training, or a trial of a sweep.
"""

import io
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import ray
import torch
from ray.util.queue import Empty, Queue

from raycsr.data.memory import Pixels
from raycsr.distributed.cluster import connect, user_errors_of_workers
from raycsr.distributed.options import WorkerOptions
from raycsr.distributed.pool import worker_device
from raycsr.distributed.training.fit import AfterEpoch, fit_shard
from raycsr.distributed.training.plan import Plan
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.checkpoints import load_training_state
from raycsr.models.loading import load_base_classifier
from raycsr.models.weights import load_weights
from raycsr.training.loop import Epoch
from raycsr.training.options import TrainingOptions
from raycsr.training.ranks import rank
from raycsr.training.validation import Metrics

_ATTEMPTS = 3  # a worker that is lost takes the others with it; all begin again after the last epoch
_POLL_SECONDS = 1.0


def check_workers(workers: WorkerOptions, options: TrainingOptions) -> None:
    """Refuses workers among whom a batch, or a part of it (`split_batches`), cannot be sharded.

    Raises:
        UserError: naming what is wrong.
    """
    if workers.number < 1 or workers.cpus < 0 or workers.gpus < 0:
        raise UserError(f"{workers.number} workers of {workers.cpus:g} CPUs and {workers.gpus:g} GPUs cannot be had")
    number, parts = workers.number, max(options.split_batches, 1)
    if number > 1 and options.batch_size % (number * parts):  # else a worker's parts differ, or have an image twice
        words = f"{number * parts}, {number} workers with {parts} parts each" if parts > 1 else f"the {number} workers"
        raise UserError(f"training.batch_size is {options.batch_size}; give a multiple of {words}")


def fit(
    plan: Plan,
    pixels: Pixels | None,
    *,
    resume: str | None,
    after_epoch: AfterEpoch,
    progress: bool,
    workers: WorkerOptions = WorkerOptions(),
) -> None:
    """Trains the plan's model: in this process, or on several workers where they are asked for.

    Args:
        plan: Plan of the training.
        pixels: All images of the plan's listing that can be decoded; None streams them.
        resume: Checkpoint to continue from.
        after_epoch: Function that is called in this process after each epoch.
        progress: Whether to show progress.
        workers: Number of workers, and the resources of each.

    Raises:
        UserError: The loss is not finite, or what else a user can mend.
    """
    state = None
    if resume is not None:
        saved = load_base_classifier(resume, num_classes=plan.model.num_classes)
        load_weights(resume, plan.model.arch, plan.model, saved.state_dict())
        state = load_training_state(resume)
    if workers.number == 1:
        with user_errors_of_workers() if pixels is None else nullcontext():  # which alone are streamed through Ray
            fit_shard(plan, pixels, state=state, device=worker_device(), after_epoch=after_epoch, progress=progress)
    else:
        _fit_on_workers(plan, pixels, state, after_epoch, progress, workers)


def _fit_on_workers(
    plan: Plan,
    pixels: Pixels | None,
    state: dict[str, Any] | None,
    after_epoch: AfterEpoch,
    progress: bool,
    workers: WorkerOptions,
) -> None:
    from ray.train import TrainingFailedError  # half a second, which one worker need not wait for

    kept = None
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with user_errors_of_workers(workers.needs):
                kept = kept or ray.put(pixels)
                work = {"plan": ray.put(plan), "pixels": kept, "state": ray.put(state), "progress": progress}
                for epoch, metrics, state in _epochs(plan.model, work, workers):
                    after_epoch(epoch, metrics, plan.model, state)
            return
        except TrainingFailedError:
            if attempt == _ATTEMPTS:
                raise
            print(f"a worker was lost; going on after the last epoch, attempt {attempt + 1} of {_ATTEMPTS}", flush=True)


def _epochs(
    model: BaseClassifier, work: dict[str, Any], workers: WorkerOptions
) -> Iterator[tuple[Epoch, Metrics | None, dict[str, Any]]]:
    """Yields each epoch as it ends: itself, its metrics and the state; the model has its weights then.

    Raises:
        TrainingFailedError: A worker failed.
    """
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.WARNING)  # it announces each step of its own start
    ended: Queue = Queue(actor_options={"num_cpus": 0})
    with tempfile.TemporaryDirectory() as folder:  # nothing of ours is written there
        trainer = TorchTrainer(
            _work,
            train_loop_config={**work, "ended": ended, "threads": workers.threads},
            scaling_config=ScalingConfig(
                num_workers=workers.number,
                use_gpu=workers.gpus > 0,
                resources_per_worker={"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})},
            ),
            run_config=RunConfig(storage_path=folder, name="workers"),
        )
        running = _Fit(trainer.fit)
        running.start()
        while running.is_alive() or not ended.empty():
            try:
                sent = ended.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            content = torch.load(io.BytesIO(sent), map_location="cpu", weights_only=True)
            model.load_state_dict(content["weights"])
            yield Epoch(**content["epoch"]), content["metrics"], content["state"]
        ended.shutdown(force=True)
        if running.error is not None:
            raise running.error


class _Fit(threading.Thread):
    """A trainer's fit beside the caller, who takes the epochs; a daemon, so that a signal ends the process."""

    def __init__(self, fit: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._fit = fit
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._fit()
        except Exception as error:  # raised again by the caller
            self.error = error


def _work(config: dict[str, Any]) -> None:
    """What each worker does; the first sends each epoch back, in a form that is read without a GPU."""
    from ray.train.torch import get_device

    connect()
    torch.set_num_threads(config["threads"])
    plan, pixels, state = ray.get([config["plan"], config["pixels"], config["state"]])

    def after(epoch: Epoch, metrics: Metrics | None, model: BaseClassifier, state: dict[str, Any]) -> None:
        if rank() == 0:
            buffer = io.BytesIO()
            content = {"epoch": asdict(epoch), "metrics": metrics, "weights": model.state_dict(), "state": state}
            torch.save(content, buffer)
            config["ended"].put(buffer.getvalue())

    fit_shard(
        plan,
        pixels,
        state=state,
        device=get_device(),
        after_epoch=after,
        progress=config["progress"] and rank() == 0,
    )
