"""`raycsr train`: one base classifier, judged by certificates, resumed by the same command."""

import time
from dataclasses import dataclass
from typing import Any

from raycsr.costs import CostSpec
from raycsr.data.options import DataOptions
from raycsr.distributed.options import ObjectiveOptions, WorkerOptions
from raycsr.models.spec import ModelOptions
from raycsr.results import own_checkpoint
from raycsr.store import Store
from raycsr.training.options import AugmentationOptions, TrainingOptions, ValidationOptions

_LINE_SECONDS = 30.0  # at least between lines about epochs that were not validated


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        checkpoint: Location of the checkpoint.
        metrics: Certified metrics of the last epoch, by name.
    """

    checkpoint: str
    metrics: dict[str, Any]


def train(
    *,
    data: DataOptions,
    model: ModelOptions,
    sigma: float,
    results: str,
    experiment: str = "default",
    name: str | None = None,
    costs: CostSpec = "uniform",
    objective: ObjectiveOptions = ObjectiveOptions(),
    training: TrainingOptions = TrainingOptions(),
    augmentation: AugmentationOptions = AugmentationOptions(),
    validation: ValidationOptions = ValidationOptions(),
    seed: int = 0,
    stream: bool | None = None,
    allow_test_images: bool = False,
    workers: WorkerOptions = WorkerOptions(),
    threads: int | None = None,
) -> Trained:
    """Trains a base classifier under noise, and judges it by certificates of held-out images.

    The same command continues a training that was interrupted, from its last finished epoch; while it runs, a second
    one of the same checkpoint is refused.

    Args:
        data: The images to train on; some are held out for validation.
        model: The architecture, or a checkpoint to fine-tune.
        sigma: Noise level in [0, 1] pixel units.
        results: Folder for the results, local or s3://bucket/prefix.
        experiment: Name of the experiment, a folder within the results; the checkpoint goes to its `checkpoints`.
        name: Name of the checkpoint; by default it is made of the objective, the model, sigma and a digest of all
            options.
        costs: Cost matrix.
        objective: The training objective.
        training: The optimiser and its schedule.
        augmentation: The random augmentation of an image before the noise.
        validation: The held-out images by whose certificates the training is judged.
        seed: Seed of the order of the images, the augmentation, the noise and the network's own randomness.
        stream: Whether to read the images anew each epoch, through Ray Data; by default where they do not fit in
            memory.
        allow_test_images: Whether to take images of which a folder, split or shard is named test, val or validation.
        workers: The workers that train together, on a Ray cluster; by default this process alone.
        threads: Number of torch threads on a CPU; by default all cores. Tiny networks are faster with 1.

    Returns:
        The checkpoint and its certified metrics.

    Raises:
        UserError: Something is wrong that can be known before training starts, or the loss is not finite.
    """
    import torch

    from raycsr.data.memory import read_pixels
    from raycsr.distributed.cluster import check_location, connect
    from raycsr.distributed.training.fit import entry_of, load_history, save
    from raycsr.distributed.training.job import claim, default_name, history_json, plan_of, words_of_epoch
    from raycsr.distributed.training.plan import TrainConfig, prepare
    from raycsr.distributed.training.ray_train import check_workers, fit
    from raycsr.models.base_classifier import BaseClassifier
    from raycsr.training.loop import Epoch
    from raycsr.training.validation import Metrics

    config = TrainConfig(
        data,
        model,
        sigma,
        costs,
        objective,
        training,
        augmentation,
        validation,
        seed,
        stream,
        allow_test_images,
    )
    if threads is not None:
        torch.set_num_threads(threads)
    check_workers(workers, training.batch_size)
    check_location(results)
    plan = prepare(config)
    folder = Store(results).at(f"{experiment}/checkpoints")
    name = name or default_name(config)
    checkpoint = f"{folder.location}/{name}.pt"
    with own_checkpoint(checkpoint) as owner:
        claim(folder, name, config)
        resume = checkpoint if folder.exists(f"{name}.pt") else None
        history = load_history(resume) if resume else []
        print(plan_of(plan, checkpoint, workers, begun_in=history[-1].get("precision") if history else None))
        if len(history) == training.epochs:
            print(f"finished before: {words_of_epoch(history[-1])}")
            return Trained(checkpoint, history[-1]["metrics"])
        if plan.stream or workers.number > 1:
            connect()
        pixels = None if plan.stream else read_pixels(plan.source, plan.listing.images, plan.model.preprocessing)

        shown = time.monotonic()

        def after(epoch: Epoch, metrics: Metrics | None, model: BaseClassifier, state: dict[str, Any]) -> None:
            nonlocal shown
            owner.check()
            history.append(entry_of(epoch, metrics))
            if metrics is not None or time.monotonic() - shown > _LINE_SECONDS:
                print(words_of_epoch(history[-1]), flush=True)
                shown = time.monotonic()
            save(plan, model, state, history, checkpoint)
            folder.write(f"{name}.json", history_json(config, history))

        fit(plan, pixels, resume=resume, after_epoch=after, progress=True, workers=workers)
        print(checkpoint)
        return Trained(checkpoint, history[-1]["metrics"])
