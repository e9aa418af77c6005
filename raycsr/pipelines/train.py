"""`raycsr train`: one base classifier, judged by certificates, resumed by the same command."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from raycsr.data import DataOptions, read_pixels
from raycsr.errors import UserError, printable
from raycsr.models import BaseClassifier, ModelOptions, resolve_precision
from raycsr.options import Spec
from raycsr.pipelines.cluster import check_location, connect
from raycsr.pipelines.fit import entry_of, load_history, save
from raycsr.pipelines.plan import ObjectiveOptions, Plan, TrainConfig, prepare
from raycsr.pipelines.pool import worker_device
from raycsr.pipelines.space import first_difference
from raycsr.pipelines.workers import WorkerOptions, check_workers, fit
from raycsr.results import SCHEMA_VERSION, own_checkpoint, refuse_other_schema
from raycsr.store import Store
from raycsr.training import AugmentationOptions, Epoch, Metrics, TrainingOptions, ValidationOptions

_LINE_SECONDS = 30.0  # at least between lines about epochs that were not validated


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        checkpoint: Its location.
        metrics: Certified metrics of the last epoch, by name.
    """

    checkpoint: str
    metrics: Metrics


def train(
    *,
    data: DataOptions,
    model: ModelOptions,
    sigma: float,
    results: str,
    experiment: str = "default",
    name: str | None = None,
    costs: Spec = "uniform",
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
    one is refused.

    Args:
        data: The images to train on; some are held out for validation.
        model: The architecture, or a checkpoint to fine-tune.
        sigma: Noise level in [0, 1] pixel units.
        results: Folder of results, local or s3://bucket/prefix.
        experiment: Folder of this experiment within the results; the checkpoint goes to its `checkpoints`.
        name: Of the checkpoint; by default the objective, the model, sigma and a digest of all options.
        costs: Cost matrix: uniform, seed:cat,dog, pair:cat/dog,3/8 or a path to a .csv, .tsv or .npy.
        objective: The loss.
        training: Optimiser and schedule.
        augmentation: What is done to an image before the noise.
        validation: What the training is judged by.
        seed: Of the order, the augmentation, the noise and the network's own randomness.
        stream: Read the images anew each epoch, through Ray Data; by default where they do not fit in memory.
        allow_test_images: Take images although a folder, split or shard of them is named test, val or validation.
        workers: Workers that train together, on a Ray cluster; by default this process alone.
        threads: Torch threads on a CPU; by default all cores. Tiny networks are faster with 1.

    Returns:
        The checkpoint and its certified metrics.

    Raises:
        UserError: where anything is wrong that can be known before training starts, or the loss is not finite.
    """
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
        _claim(folder, name, config)
        resume = checkpoint if folder.exists(f"{name}.pt") else None
        history = load_history(resume) if resume else []
        print(describe(plan, checkpoint, workers, begun_in=history[-1].get("precision") if history else None))
        if len(history) == training.epochs:
            print(f"finished before: {_words(history[-1])}")
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
                print(_words(history[-1]), flush=True)
                shown = time.monotonic()
            save(plan, model, state, history, checkpoint)
            folder.write(f"{name}.json", _history_json(config, history))

        fit(plan, pixels, resume=resume, after_epoch=after, progress=True, workers=workers)
        print(checkpoint)
        return Trained(checkpoint, history[-1]["metrics"])


def default_name(config: TrainConfig) -> str:
    """The objective, the model, sigma and a digest of all options."""
    model = Path(config.model.name).stem
    digest = hashlib.sha256(_config_json(config).encode()).hexdigest()[:8]
    return f"{config.objective.name}-{model}-sigma{config.sigma:g}-{digest}"


def describe(plan: Plan, checkpoint: str, workers: WorkerOptions, begun_in: str | None = None) -> str:
    """The plan, in words; `begun_in` is the precision of a training that goes on."""
    config, (height, width) = plan.config, plan.model.preprocessing.input_size
    training, held = config.training, len(plan.held_out.mixed) + len(plan.held_out.extra)
    parameters = sum(p.numel() for p in plan.model.parameters())
    arguments = ", ".join(f"{key}={value}" for key, value in config.objective.args.items())
    lines = [
        f"train     {checkpoint}",
        f"model     {config.model.label}, {parameters:,} parameters, {height} x {width} px, "
        + _where(begun_in or training.precision, workers),
        f"objective {config.objective.name}{f'({arguments})' if arguments else ''} at sigma {config.sigma:g}, "
        f"costs {config.costs}",
        f"data      {plan.source}",
        f"images    {len(plan.held_out.left):,} to train on, {held:,} held out"
        f"{', streamed' if plan.stream else ''}; {training.epochs} epochs of batches of {training.batch_size}",
        *plan.listing.notes,
    ]
    return "\n".join(map(printable, lines))


def _where(precision: str, workers: WorkerOptions) -> str:
    """Precision and device; what auto is on other workers is known after their first epoch."""
    if workers.number > 1:
        return f"{precision} on {workers.number} workers"
    return f"{resolve_precision(precision, worker_device())} on {worker_device()}"


def _words(entry: dict) -> str:
    """One line about an epoch."""
    text = (
        f"epoch {entry['number']:>3}: loss {entry['loss']:.4f}, lr {entry['lr']:.2g}, "
        f"{entry['images_per_second']:,.0f} images/s in {entry['precision']}"
    )
    if entry["metrics"] is not None:
        numbers = {name: v for name, v in entry["metrics"].items() if name != "collapsed"}
        text += "; " + ", ".join(f"{name} {'-' if v is None else f'{v:.3f}'}" for name, v in numbers.items())
        if entry["metrics"].get("collapsed"):  # histories of before have none
            text += f"; collapsed: {entry['metrics']['collapsed']}"
    return text


def _claim(folder: Store, name: str, config: TrainConfig) -> None:
    """Writes the options down; refuses a name that another training has, and a folder that cannot be written."""
    if not folder.exists(f"{name}.json"):
        folder.write(f"{name}.json", _history_json(config, []))
        return
    where = f"{folder.location}/{name}.json"
    try:
        begun = dict(json.loads(folder.read(f"{name}.json")))
        refuse_other_schema(begun, where)
        changed = first_difference(dict(begun["config"]), json.loads(_config_json(config)))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(
            f"{where} is damaged; delete it to go on from the checkpoint under these options, or give another --name"
        ) from error
    if changed is not None:
        raise UserError(
            f"{folder.location}/{name}.pt was trained with {changed}; put it back to go on, or give another --name"
        )


def _config_json(config: TrainConfig) -> str:
    return json.dumps(asdict(config), sort_keys=True)


def _history_json(config: TrainConfig, history: list[dict]) -> bytes:
    facts = {"schema_version": SCHEMA_VERSION, "config": asdict(config), "history": history}
    return json.dumps(facts, indent=1).encode()
