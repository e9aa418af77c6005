"""The training loop: an iterable of batches in, a callback an epoch. It knows no ray and no storage."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from raycsr.errors import UserError
from raycsr.models import BaseClassifier
from raycsr.training.objectives import Objective


@dataclass(frozen=True)
class TrainingOptions:
    """How the weights are optimised: SGD with Nesterov momentum.

    Attributes:
        epochs: Passes over the images.
        lr: Largest learning rate.
        momentum: Momentum of SGD.
        weight_decay: Weight decay on all weights.
        schedule: "one_cycle" warms up over the first 30 % of steps, "cosine" starts at `lr`; both end at 0.
        precision: "bf16" computes the network under autocast; the weights stay float32.
    """

    epochs: int = 10
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["one_cycle", "cosine"] = "one_cycle"
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch.

    Attributes:
        number: 1 for the first.
        loss: Mean of the loss over the epoch's batches.
        lr: Learning rate that the next step would have.
    """

    number: int
    loss: float
    lr: float


class Batches(Protocol):
    """What `train` takes: each iteration is one epoch of `len()` batches."""

    def __len__(self) -> int:
        """Returns the number of batches of an epoch."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yields float32 pixels (B, 3, H, W) in [0,1] and int64 labels (B,)."""


def train(
    model: BaseClassifier,
    batches: Batches,
    *,
    objective: Objective,
    sigma: float,
    generator: torch.Generator,
    costs: torch.Tensor | None = None,
    options: TrainingOptions = TrainingOptions(),
    on_epoch: Callable[[Epoch], None] | None = None,
) -> None:
    """Trains a base classifier in place, on the device it is on.

    Args:
        model: The base classifier; in eval mode whenever `on_epoch` is called, and afterwards.
        batches: The images.
        objective: The loss of a batch.
        sigma: Noise level in [0,1] pixel units.
        generator: Source of the noise, on the model's device.
        costs: Cost matrix (m, m) on the model's device, for objectives that use one.
        options: Optimiser and schedule.
        on_epoch: Called after each epoch.

    Raises:
        UserError: The loss is not finite.
    """
    device = model.scale.device
    model.requires_grad_(True).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=options.lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        nesterov=True,
    )
    total_steps = options.epochs * len(batches)
    scheduler: LRScheduler
    if options.schedule == "one_cycle":
        scheduler = OneCycleLR(optimizer, max_lr=options.lr, total_steps=total_steps)
    else:
        scheduler = CosineAnnealingLR(optimizer, T_max=total_steps)
    step = 0
    for number in range(1, options.epochs + 1):
        model.train()
        losses = []
        for images, labels in batches:
            with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                loss = objective(
                    model,
                    images.to(device),
                    labels.to(device),
                    sigma=sigma,
                    costs=costs,
                    progress=step / total_steps,
                    generator=generator,
                )
            if not torch.isfinite(loss):
                raise UserError(
                    f"the loss is {loss.item()} at step {step} (epoch {number}): "
                    f"lower the learning rate, {options.lr}, or try precision fp32."
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
            step += 1
        model.eval()
        if on_epoch is not None:
            on_epoch(Epoch(number, sum(losses) / len(losses), float(scheduler.get_last_lr()[0])))
    model.requires_grad_(False)
