"""Fitting a plan's model on this process's device, as one of the workers of a training or the only one."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch

from raycsr.data.memory import Pixels, read_pixels
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.distributed.training.plan import Plan
from raycsr.distributed.training.streamed_batches import StreamedBatches
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.progress import Progress
from raycsr.training.augmentation import Augmentation
from raycsr.training.batches import InMemoryBatches
from raycsr.training.loop import Batches, Epoch, Trainer
from raycsr.training.objectives import definition_of
from raycsr.training.ranks import rank
from raycsr.training.validation import Metrics, certified_metrics

# (epoch, certified metrics where it was validated, the classifier to keep, what a later process needs to go on)
AfterEpoch = Callable[[Epoch, Metrics | None, BaseClassifier, dict[str, Any]], None]


def fit_shard(
    plan: Plan,
    pixels: Pixels | None,
    *,
    state: dict[str, Any] | None,
    device: torch.device,
    after_epoch: AfterEpoch,
    progress: bool,
) -> None:
    """Trains the plan's model; where there are several workers, on this worker's shard of each batch.

    Args:
        plan: Plan of the training.
        pixels: All images of the plan's listing that can be decoded; None streams them.
        state: State to continue from, with the weights that the plan's model has.
        device: Device to train on.
        after_epoch: Function that is called after each epoch.
        progress: Whether to show progress.
    """
    config = plan.config
    torch.manual_seed(config.seed + rank())
    model = plan.model.to(device)
    batches, held, num_random = _split(plan, pixels)
    trainer = trainer_of(plan, model, batches)
    if state is not None:
        _go_on(trainer, state)

    def after(epoch: Epoch) -> None:
        metrics = None
        if epoch.number % config.validation.every == 0 or epoch.number == config.training.epochs:
            with Progress(len(held), "validate", "images", shown=progress) as shown:
                metrics = certified_metrics(
                    trainer.model,
                    held.images,
                    held.labels,
                    num_random,
                    costs=plan.costs,
                    sigma=config.sigma,
                    options=config.validation,
                    progress=shown.update,
                )
        after_epoch(epoch, metrics, trainer.model, trainer.state_dict())

    trainer.run(after, progress=progress)


def _go_on(trainer: Trainer, state: dict[str, Any]) -> None:
    try:
        trainer.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise UserError(
            f"the checkpoint's training state is not of this training ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}): begin anew under another --name, or with it as model.name."
        ) from error


def trainer_of(plan: Plan, model: BaseClassifier, batches: Batches) -> Trainer:
    """The trainer of a plan's model, on the device that the model is on."""
    device = model.scale.device
    return Trainer(
        model,
        batches,
        objective=plan.objective,
        sigma=plan.config.sigma,
        generator=torch.Generator(device).manual_seed(plan.config.seed + 1 + rank()),
        costs=torch.tensor(plan.costs.values, dtype=torch.float32, device=device),
        options=plan.config.training,
        part=plan.part,
    )


def _split(plan: Plan, pixels: Pixels | None) -> tuple[InMemoryBatches | StreamedBatches, Pixels, int]:
    """Batches of the images to train on, the held-out images, and how many of those are drawn from all classes."""
    config, generator = plan.config, torch.Generator().manual_seed(plan.config.seed)
    listed, preprocessing = plan.listing.images, plan.model.preprocessing
    held_rows = listed.iloc[np.concatenate([plan.held_out.random, plan.held_out.seed_class])]
    of_all_classes = set(listed["image_id"].iloc[plan.held_out.random])
    augment = Augmentation(config.augmentation, preprocessing.input_size)
    batches: InMemoryBatches | StreamedBatches
    if pixels is None:
        held = read_pixels(plan.source, held_rows, preprocessing)
        batches = StreamedBatches(
            plan.source,
            listed.iloc[plan.held_out.left],
            preprocessing,
            batch_size=config.training.batch_size,
            generator=generator,
            augmentation=augment,
        )
    else:
        where = {image_id: position for position, image_id in enumerate(pixels.image_ids)}

        def positions(rows: pd.DataFrame) -> np.ndarray:
            return np.array([where.get(i, -1) for i in rows["image_id"]], np.int64)  # -1: cannot be decoded

        of_held = positions(held_rows)
        held = pixels.take(of_held[of_held >= 0])
        batches = InMemoryBatches(
            pixels.images,
            pixels.labels,
            subset=positions(listed.iloc[plan.held_out.left]),
            batch_size=config.training.batch_size,
            generator=generator,
            image_ids=pixels.image_ids,
            augment=augment,
        )
    num_random = sum(image_id in of_all_classes for image_id in held.image_ids)
    if not num_random:  # said before the first epoch, whose weights would be lost
        raise UserError(
            f"none of the {len(of_all_classes)} images that are held out for validation can be decoded, the first "
            f"{held_rows['image_id'].iloc[0]!r}; mend them, or hold out more by validation.images"
        )
    return batches, held, num_random


def save(plan: Plan, model: BaseClassifier, state: dict[str, Any], history: list[dict], path: str) -> None:
    """Writes the checkpoint after an epoch; all but the last epoch's hold what it takes to go on."""
    config = plan.config
    training_info = {
        "objective": config.objective.name,
        "objective_args": config.objective.args,
        "definition": definition_of(config.objective.name),
        "sigma": config.sigma,
        "costs": config.costs,
        "data": asdict(plan.source.options),
        "trained_on": plan.trained_on,
        "history": history,
    }
    save_checkpoint(
        path,
        model,
        training_info=training_info,
        class_names=plan.listing.class_names,
        training_state=None if len(history) == config.training.epochs else state,
    )


def load_history(checkpoint: str, config: TrainConfig | None = None) -> list[dict]:
    """The epochs that a checkpoint has seen, one entry each (`entry_of`).

    Args:
        checkpoint: Location of the checkpoint.
        config: The training that is to go on from it; none, where it is only read.

    Raises:
        UserError: It is none of a training; or epochs are left, and the objective was another loss when it began.
    """
    info = load_base_classifier(checkpoint).training_info
    history = info.get("history")
    if not history:
        raise UserError(f"{checkpoint} is there and none that `raycsr train` wrote; give another --name.")
    if config is not None and len(history) < config.training.epochs:
        refuse_other_loss(checkpoint, config.objective.name, info.get("definition", 1))
    return history


def refuse_other_loss(what: str, objective: str, begun: int) -> None:
    """Refuses to go on with what was begun when an objective was another loss.

    Args:
        what: What goes on, as a message begins.
        objective: Name of the objective.
        begun: Its definition then; 1 of what does not say so.

    Raises:
        UserError: where its definition is another now.
    """
    if begun != (now := definition_of(objective)):
        raise UserError(
            f"{what} was begun when {objective} was another loss (definition {begun}, now {now}): give another --name "
            "to begin anew, or finish it with the raycsr that began it"
        )


def entry_of(epoch: Epoch, metrics: Metrics | None) -> dict:
    """One epoch of a history, in JSON values: a metric that is about no image is null."""
    shown = None if metrics is None else {name: None if v != v else v for name, v in metrics.items()}
    return {**asdict(epoch), "metrics": shown}
