"""`raycsr train`: one base classifier, judged by certificates, resumed by the same command."""

import time
from dataclasses import dataclass
from typing import Any

from raycsr.distributed.training.arguments import TrainArguments
from raycsr.options import takes
from raycsr.results import own_checkpoint
from raycsr.store import Store

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


@takes(TrainArguments)
def train(asked: TrainArguments) -> Trained:
    """Trains a base classifier under noise, and judges it by certificates of held-out images.

    The same command continues a training that was interrupted, from its last finished epoch; while it runs, a second
    one of the same checkpoint is refused.

    Args:
        asked: Options of the verb; a caller gives its fields as keyword arguments.

    Returns:
        The checkpoint and its certified metrics.

    Raises:
        UserError: Something is wrong that can be known before training starts, or the loss is not finite.
    """
    import torch

    from raycsr.data.memory import read_pixels
    from raycsr.distributed.cluster import connect
    from raycsr.distributed.training.fit import entry_of, load_history, save
    from raycsr.distributed.training.job import check, claim, default_name, history_json, plan_of, words_of_epoch
    from raycsr.distributed.training.ray_train import fit
    from raycsr.models.base_classifier import BaseClassifier
    from raycsr.training.loop import Epoch
    from raycsr.training.validation import Metrics

    config, workers = asked.config, asked.workers
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    plan = check(asked)
    folder = Store(asked.results).at(f"{asked.experiment}/checkpoints")
    name = asked.name or default_name(config)
    checkpoint = f"{folder.location}/{name}.pt"
    with own_checkpoint(checkpoint) as owner:
        claim(folder, name, plan)
        resume = checkpoint if folder.exists(f"{name}.pt") else None
        history = load_history(resume, config) if resume else []
        print(plan_of(plan, checkpoint, workers, begun_in=history[-1].get("precision") if history else None))
        if len(history) == config.training.epochs:
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
            folder.write(f"{name}.json", history_json(plan, history))

        fit(plan, pixels, resume=resume, after_epoch=after, progress=True, workers=workers)
        print(checkpoint)
        return Trained(checkpoint, history[-1]["metrics"])
