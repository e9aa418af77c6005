"""Training one base classifier: images in memory or streamed, judged by certificates, resumed by the same command."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from raycsr.costs import CostMatrix
from raycsr.data import DataOptions, Listing, Pixels, Source, num_bytes, open_source, read_pixels
from raycsr.errors import UserError
from raycsr.models import (
    BaseClassifier,
    ModelOptions,
    load_base_classifier,
    load_training_state,
    save_checkpoint,
)
from raycsr.pipelines.pool import check_location, connect, worker_device
from raycsr.pipelines.stream import StreamedBatches
from raycsr.progress import Progress
from raycsr.results import Store
from raycsr.training import (
    AugmentationOptions,
    Epoch,
    HeldOut,
    InMemoryBatches,
    Trainer,
    TrainingOptions,
    ValidationOptions,
    augmentation,
    certified_metrics,
    check_training,
    check_validation,
    hold_out,
)
from raycsr.training.objectives import Objective, resolve_objective

_LINE_SECONDS = 30.0  # at least between lines about epochs that were not validated
_MEMORY_SHARE = 0.25  # of the machine's memory that decoded images may take


@dataclass(frozen=True)
class ObjectiveOptions:
    """The loss that is minimised.

    Attributes:
        name: gaussian, macer, smoothadv, consistency, smoothmix, or for given costs gaussian_cs, smoothadv_cs,
            smoothmix_cs, margin_cs.
        args: Its hyper-parameters, as in `raycsr.training.objectives`.
    """

    name: str = "gaussian"
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainConfig:
    """All that determines a training.

    Attributes:
        data: The images to train on; some are held out for validation.
        model: The architecture, or a checkpoint to fine-tune.
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix: uniform, seed:cat,dog, pair:cat/dog,3/8 or a path to a .csv.
        objective: The loss.
        training: Optimiser and schedule.
        augmentation: What is done to an image before the noise.
        validation: What the training is judged by.
        seed: Of the order, the augmentation, the noise and the network's own randomness.
        stream: Read the images anew each epoch, through Ray Data; by default where they do not fit in memory.
    """

    data: DataOptions
    model: ModelOptions
    sigma: float
    costs: str = "uniform"
    objective: ObjectiveOptions = ObjectiveOptions()
    training: TrainingOptions = TrainingOptions()
    augmentation: AugmentationOptions = AugmentationOptions()
    validation: ValidationOptions = ValidationOptions()
    seed: int = 0
    stream: bool | None = None


@dataclass(frozen=True)
class Plan:
    """A training with everything checked that can be checked before it starts."""

    config: TrainConfig
    source: Source
    listing: Listing
    costs: CostMatrix
    objective: Objective
    held_out: HeldOut
    model: BaseClassifier
    stream: bool


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        checkpoint: Its location.
        metrics: Certified metrics of the last epoch, by name.
    """

    checkpoint: str
    metrics: dict[str, float]


def train(
    *,
    data: DataOptions,
    model: ModelOptions,
    sigma: float,
    results: str,
    experiment: str = "default",
    name: str | None = None,
    costs: str = "uniform",
    objective: ObjectiveOptions = ObjectiveOptions(),
    training: TrainingOptions = TrainingOptions(),
    augmentation: AugmentationOptions = AugmentationOptions(),
    validation: ValidationOptions = ValidationOptions(),
    seed: int = 0,
    stream: bool | None = None,
    threads: int | None = None,
) -> Trained:
    """Trains a base classifier under noise, and judges it by certificates of held-out images.

    The same command continues a training that was interrupted, from its last finished epoch.

    Args:
        data: The images to train on; some are held out for validation. Give the training split.
        model: The architecture, or a checkpoint to fine-tune.
        sigma: Noise level in [0, 1] pixel units.
        results: Folder of results, local or s3://bucket/prefix.
        experiment: Folder of this experiment within the results; the checkpoint goes to its `checkpoints`.
        name: Of the checkpoint; by default the objective, the model, sigma and a digest of all options.
        costs: Cost matrix: uniform, seed:cat,dog, pair:cat/dog,3/8 or a path to a .csv.
        objective: The loss.
        training: Optimiser and schedule.
        augmentation: What is done to an image before the noise.
        validation: What the training is judged by.
        seed: Of the order, the augmentation, the noise and the network's own randomness.
        stream: Read the images anew each epoch, through Ray Data; by default where they do not fit in memory.
        threads: Torch threads on a CPU; by default all cores. Tiny networks are faster with 1.

    Returns:
        The checkpoint and its certified metrics.

    Raises:
        UserError: where anything is wrong that can be known before training starts, or the loss is not finite.
    """
    config = TrainConfig(data, model, sigma, costs, objective, training, augmentation, validation, seed, stream)
    if threads is not None:
        torch.set_num_threads(threads)
    plan = prepare(config)
    check_location(results)
    folder = Store(results).at(f"{experiment}/checkpoints")
    name = name or default_name(config)
    checkpoint = f"{folder.location}/{name}.pt"
    _claim(folder, name, config)
    print(describe(plan, checkpoint))
    resume = checkpoint if folder.exists(f"{name}.pt") else None
    history = load_history(resume) if resume else []
    if len(history) == training.epochs:
        print(f"finished before: {_words(history[-1])}")
        return Trained(checkpoint, history[-1]["metrics"])
    if plan.stream:
        connect()
    pixels = None if plan.stream else read_pixels(plan.source, plan.listing.images, plan.model.preprocessing)

    shown = time.monotonic()

    def after(epoch: Epoch, metrics: dict[str, float] | None, trainer: Trainer) -> None:
        nonlocal shown
        history.append(entry_of(epoch, metrics))
        if metrics is not None or time.monotonic() - shown > _LINE_SECONDS:
            print(_words(history[-1]), flush=True)
            shown = time.monotonic()
        save(plan, trainer, history, checkpoint)
        folder.write(f"{name}.json", _history_json(config, history))

    fit(plan, pixels, resume=resume, after_epoch=after, progress=True)
    print(checkpoint)
    return Trained(checkpoint, history[-1]["metrics"])


def prepare(config: TrainConfig, listing: Listing | None = None) -> Plan:
    """Checks all that can be checked before training starts, and creates the model.

    Args:
        config: The training.
        listing: Of its data, where it has been listed before.

    Raises:
        UserError: naming what is wrong.
    """
    source = open_source(config.data)
    listing = listing or source.list()
    costs, objective, held_out = check(config, listing)
    options, classes = config.model, len(listing.class_names)
    if options.pretrained and options.num_classes is None:
        options = replace(options, num_classes=classes)
    model = load_base_classifier(options, num_classes=classes)
    model.rules = ()  # those of a checkpoint were tuned for its weights
    _try_forward(model, options)
    stream = config.stream
    if stream is None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        stream = num_bytes(len(listing.images), model.preprocessing) > _MEMORY_SHARE * memory
    return Plan(config, source, listing, costs, objective, held_out, model, stream)


def check(config: TrainConfig, listing: Listing) -> tuple[CostMatrix, Objective, HeldOut]:
    """Checks all but the model.

    Raises:
        UserError: naming what is wrong.
    """
    check_training(config.training)
    if not config.sigma > 0:
        raise UserError(f"sigma must be a positive number of [0, 1] pixel units, got {config.sigma}")
    check_validation(config.validation, config.sigma)
    augmentation(config.augmentation, (1, 1))
    costs = CostMatrix.from_spec(config.costs, len(listing.class_names), listing.class_names)
    objective = resolve_objective(config.objective.name, config.objective.args, costs=costs)
    return costs, objective, hold_out(listing.images["label"].to_numpy(np.int64), costs, config.validation)


def _try_forward(model: BaseClassifier, options: ModelOptions) -> None:
    height, width = model.preprocessing.input_size
    try:
        with torch.inference_mode():
            model(torch.zeros((1, 3, height, width)))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"model {options.name!r} cannot take images of {height} x {width}: {str(error).splitlines()[0]}; "
            "set model.input_size to a size it can take"
        ) from error


def fit(
    plan: Plan,
    pixels: Pixels | None,
    *,
    resume: str | None,
    after_epoch: Callable[[Epoch, dict[str, float] | None, Trainer], None],
    progress: bool,
) -> None:
    """Trains the plan's model on this process's device.

    Args:
        plan: What to train.
        pixels: All images of the plan's listing that can be decoded; None streams them.
        resume: A checkpoint to go on from.
        after_epoch: Called with the epoch, the certified metrics where it was validated, and the trainer.
        progress: Show progress.
    """
    config, device = plan.config, worker_device()
    torch.manual_seed(config.seed)
    model = plan.model
    if resume is not None:
        model.load_state_dict(load_base_classifier(resume).state_dict())
    model.to(device)
    batches, held, num_mixed = _split(plan, pixels)
    trainer = Trainer(
        model,
        batches,
        objective=plan.objective,
        sigma=config.sigma,
        generator=torch.Generator(device).manual_seed(config.seed + 1),
        costs=torch.tensor(plan.costs.values, dtype=torch.float32, device=device),
        options=config.training,
    )
    if resume is not None and (state := load_training_state(resume)) is not None:
        trainer.load_state_dict(state)

    def after(epoch: Epoch) -> None:
        metrics = None
        if epoch.number % config.validation.every == 0 or epoch.number == config.training.epochs:
            with Progress(len(held), "validate", "images", shown=progress) as shown:
                metrics = certified_metrics(
                    model,
                    held.images,
                    held.labels,
                    num_mixed,
                    costs=plan.costs,
                    sigma=config.sigma,
                    options=config.validation,
                    progress=shown.update,
                )
        after_epoch(epoch, metrics, trainer)

    trainer.run(after, progress=progress)


def _split(plan: Plan, pixels: Pixels | None) -> tuple[InMemoryBatches | StreamedBatches, Pixels, int]:
    """Batches of the images to train on, the held-out images, and how many of those are drawn from all classes."""
    config, generator = plan.config, torch.Generator().manual_seed(plan.config.seed)
    listed, preprocessing = plan.listing.images, plan.model.preprocessing
    held_rows = listed.iloc[np.concatenate([plan.held_out.mixed, plan.held_out.extra])]
    of_all_classes = set(listed["image_id"].iloc[plan.held_out.mixed])
    batches: InMemoryBatches | StreamedBatches
    if pixels is None:
        held = read_pixels(plan.source, held_rows, preprocessing)
        batches = StreamedBatches(
            plan.source,
            listed.iloc[plan.held_out.left],
            preprocessing,
            batch_size=config.training.batch_size,
            generator=generator,
            options=config.augmentation,
        )
    else:
        where = {image_id: position for position, image_id in enumerate(pixels.image_ids)}

        def positions(rows: pd.DataFrame) -> np.ndarray:
            return np.array([where[i] for i in rows["image_id"] if i in where], np.int64)

        held = pixels.take(positions(held_rows))
        batches = InMemoryBatches(
            pixels.images,
            pixels.labels,
            subset=positions(listed.iloc[plan.held_out.left]),
            batch_size=config.training.batch_size,
            generator=generator,
            image_ids=pixels.image_ids,
            augment=augmentation(config.augmentation, preprocessing.input_size),
        )
    return batches, held, sum(image_id in of_all_classes for image_id in held.image_ids)


def save(plan: Plan, trainer: Trainer, history: list[dict], path: str) -> None:
    """Writes the checkpoint after an epoch; all but the last epoch's hold what it takes to go on."""
    config = plan.config
    training_info = {
        "objective": config.objective.name,
        "objective_args": config.objective.args,
        "sigma": config.sigma,
        "costs": config.costs,
        "data": asdict(plan.source.options),
        "history": history,
    }
    save_checkpoint(
        path,
        plan.model,
        training_info=training_info,
        class_names=plan.listing.class_names,
        training_state=None if len(history) == config.training.epochs else trainer.state_dict(),
    )


def load_history(checkpoint: str) -> list[dict]:
    """The epochs that a checkpoint has seen, one entry each (`entry_of`)."""
    return load_base_classifier(checkpoint).training_info["history"]


def entry_of(epoch: Epoch, metrics: dict[str, float] | None) -> dict:
    """One epoch of a history, in JSON values: a metric that is about no image is null."""
    shown = None if metrics is None else {name: None if math.isnan(v) else v for name, v in metrics.items()}
    return {**asdict(epoch), "metrics": shown}


def default_name(config: TrainConfig) -> str:
    """The objective, the model, sigma and a digest of all options."""
    model = Path(config.model.name).stem
    digest = hashlib.sha256(_config_json(config).encode()).hexdigest()[:8]
    return f"{config.objective.name}-{model}-sigma{config.sigma:g}-{digest}"


def describe(plan: Plan, checkpoint: str) -> str:
    """The plan, in words."""
    config, (height, width) = plan.config, plan.model.preprocessing.input_size
    training, held = config.training, len(plan.held_out.mixed) + len(plan.held_out.extra)
    parameters = sum(p.numel() for p in plan.model.parameters())
    arguments = ", ".join(f"{key}={value}" for key, value in config.objective.args.items())
    return "\n".join(
        [
            f"train     {checkpoint}",
            f"model     {config.model.name}, {parameters:,} parameters, {height} x {width} px, {training.precision} on "
            f"{worker_device()}",
            f"objective {config.objective.name}{f'({arguments})' if arguments else ''} at sigma {config.sigma:g}, "
            f"costs {config.costs}",
            f"images    {len(plan.held_out.left):,} to train on, {held:,} held out"
            f"{', streamed' if plan.stream else ''}; {training.epochs} epochs of batches of {training.batch_size}",
        ]
    )


def _words(entry: dict) -> str:
    """One line about an epoch."""
    text = (
        f"epoch {entry['number']:>3}: loss {entry['loss']:.4f}, lr {entry['lr']:.2g}, "
        f"{entry['images_per_second']:,.0f} images/s"
    )
    if entry["metrics"] is not None:
        text += "; " + ", ".join(f"{name} {'-' if v is None else f'{v:.3f}'}" for name, v in entry["metrics"].items())
    return text


def _claim(folder: Store, name: str, config: TrainConfig) -> None:
    """Writes the options down; refuses a name that another training has, and a folder that cannot be written."""
    if not folder.exists(f"{name}.json"):
        folder.write(f"{name}.json", _history_json(config, []))
    elif json.loads(folder.read(f"{name}.json"))["config"] != json.loads(_config_json(config)):
        raise UserError(
            f"{folder.location}/{name}.pt was trained with other options; give another --name, or leave it out"
        )


def _config_json(config: TrainConfig) -> str:
    return json.dumps(asdict(config), sort_keys=True)


def _history_json(config: TrainConfig, history: list[dict]) -> bytes:
    return json.dumps({"config": asdict(config), "history": history}, indent=1).encode()
