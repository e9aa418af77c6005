"""The training loop: an iterable of batches in, a callback an epoch. It knows no ray and no storage."""

import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import torch
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from raycsr.errors import UserError, nearest
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.prepare import resolve_precision
from raycsr.progress import Progress
from raycsr.training.batches import Batch, parts_of
from raycsr.training.objectives import Objective
from raycsr.training.options import TrainingOptions
from raycsr.training.ranks import averaged, gathered, num_workers, rank, take_buffers_of_first

_WARMUP_START = 1e-3  # share of the learning rate that a linear warm-up begins with
_SHOWN_IMAGES = 5  # of a batch whose loss is not finite


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch.

    Attributes:
        number: 1 for the first.
        loss: Mean of the loss over the epoch's batches.
        lr: Learning rate that the next step would have.
        images_per_second: Over the epoch, loading included.
        precision: That the network was computed in.
    """

    number: int
    loss: float
    lr: float
    images_per_second: float
    precision: str


class Batches(Protocol):
    """What a trainer takes: each iteration is one epoch of about `len()` batches.

    Attributes:
        generator: All its randomness; saved and restored with the training.
    """

    generator: torch.Generator

    def __len__(self) -> int:
        """Returns the number of batches of an epoch."""

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of an epoch."""


def check_training(options: TrainingOptions) -> None:
    """Refuses options that cannot be trained with.

    Raises:
        UserError: naming the option and its value.
    """
    if options.optimizer not in _OPTIMIZERS:
        raise UserError(f"unknown optimizer {options.optimizer!r}: {nearest(options.optimizer, _OPTIMIZERS)}")
    if options.schedule not in _SCHEDULES:
        raise UserError(f"unknown schedule {options.schedule!r}: {nearest(options.schedule, _SCHEDULES)}")
    for name in ("epochs", "batch_size", "split_batches", "lr", "step_factor"):
        if not getattr(options, name) > 0:
            raise UserError(f"training.{name} must be positive, got {getattr(options, name)}")
    if not 0 <= options.momentum < 1:
        raise UserError(f"training.momentum must lie in [0, 1), got {options.momentum}")
    if not options.weight_decay >= 0:
        raise UserError(f"training.weight_decay must be 0 or more, got {options.weight_decay}")
    if options.batch_size % options.split_batches:
        multiple = max(options.batch_size // options.split_batches, 1) * options.split_batches
        raise UserError(
            f"training.batch_size is {options.batch_size}, which training.split_batches, {options.split_batches}, does "
            f"not divide; give a batch_size of {multiple}"
        )
    if not 0 <= options.warmup_epochs < options.epochs:
        raise UserError(f"training.warmup_epochs is {options.warmup_epochs}: give less than epochs, {options.epochs}")
    _check_milestones(options)
    if options.clip_norm is not None and not options.clip_norm > 0:
        raise UserError(f"training.clip_norm must be positive, got {options.clip_norm}; leave it out not to clip")
    if options.ema is not None and not 0 < options.ema < 1:
        raise UserError(f"training.ema must lie between 0 and 1, got {options.ema}; leave it out for no average")


def _check_milestones(options: TrainingOptions) -> None:
    milestones = list(options.milestones)
    if options.schedule != "step":
        if milestones:
            raise UserError(
                f"training.milestones {milestones} are for the schedule step and training.schedule is "
                f"{options.schedule}: give step, or leave them out"
            )
        return
    if not milestones:
        raise UserError("training.schedule is step and there are no training.milestones: give some, or constant")
    if not all(0 < epoch < options.epochs for epoch in milestones):
        raise UserError(f"training.milestones {milestones} must lie between 0 and {options.epochs}")
    if min(milestones) <= options.warmup_epochs:
        raise UserError(
            f"training.milestones {milestones} must lie beyond the warm-up, training.warmup_epochs, "
            f"{options.warmup_epochs:g}: training.lr would never be reached"
        )


class Trainer:
    """Trains a base classifier in place, on the device it is on.

    Several workers (`raycsr.training.ranks`) that each have a trainer of equal weights keep them equal: gradients
    are averaged (DistributedDataParallel), and on GPUs batch norm sees the whole batch. On CPUs it sees a worker's
    share, and the statistics of the first worker are kept.

    Attributes:
        epoch: Epochs that are done.
        precision: That the network is computed in, the same on all workers.
    """

    def __init__(
        self,
        model: BaseClassifier,
        batches: Batches,
        *,
        objective: Objective,
        sigma: float,
        generator: torch.Generator,
        costs: torch.Tensor | None = None,
        options: TrainingOptions = TrainingOptions(),
        part: Literal["classifier", "denoisers"] = "classifier",
    ) -> None:
        """Makes the optimiser and its schedule.

        Args:
            model: The base classifier.
            batches: The images.
            objective: The loss of a batch.
            sigma: Noise level in [0, 1] pixel units.
            generator: Source of the noise, on the model's device.
            costs: Cost matrix on the model's device, for objectives that use one; (m, m).
            options: Optimiser, schedule, precision.
            part: Part that is trained: the denoisers, or what is behind them. The other stays as it is, in eval mode.

        Raises:
            UserError: The options cannot be trained with.
        """
        check_training(options)
        self.epoch = 0
        self._step = 0
        parts: dict[str, nn.Module] = {"classifier": model.network, "denoisers": model.denoisers}
        parts.pop(part).requires_grad_(True)
        (self._fixed,) = (one.requires_grad_(False) for one in parts.values())
        self._model = model.to(memory_format=torch.channels_last)
        self._network = self._model if num_workers() == 1 else _in_parallel(self._model)
        self._average = None
        if options.ema is not None:
            self._average = AveragedModel(model, use_buffers=True)
        self._batches = batches
        self._objective = objective
        self._sigma = sigma
        self._generator = generator
        self._costs = costs
        self._options = options
        self._device = model.scale.device
        self._names = "image_ids" in inspect.signature(objective).parameters
        self._steps = options.epochs * len(batches) * options.split_batches
        self._optimizer = _optimizer(model, options)
        self._schedule = _schedule(self._optimizer, options, len(batches) * options.split_batches)
        self.precision = _common_precision(options.precision, self._device)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self.precision == "fp16")

    @property
    def model(self) -> BaseClassifier:
        """The classifier to judge and to keep: the average of the weights where there is one."""
        return self._model if self._average is None else cast(BaseClassifier, self._average.module)

    def run(self, on_epoch: Callable[[Epoch], None] | None = None, *, progress: bool = False) -> None:
        """Trains the epochs that are left.

        Args:
            on_epoch: Called after each epoch, on all workers, with the model in eval mode.
            progress: Show each epoch's progress.

        Raises:
            UserError: The loss is not finite.
        """
        a_epoch, epochs = len(self._batches), self._options.epochs
        with Progress(
            epochs * a_epoch, "train", "batches", lambda: self._rate(shown), shown=progress, begun=self.epoch * a_epoch
        ) as shown:
            while self.epoch < epochs:
                shown.go_on(f"epoch {self.epoch + 1} of {epochs}")
                self._run_epoch(shown, on_epoch)
        self._model.requires_grad_(False)

    def _rate(self, shown: Progress) -> str:
        speed = shown.speed.per_second()
        return "" if speed is None else f"{speed * self._options.batch_size:,.0f} images/s"

    def _run_epoch(self, shown: Progress, on_epoch: Callable[[Epoch], None] | None) -> None:
        self._network.train()
        self._fixed.eval()
        start, images, losses = time.perf_counter(), 0, []
        checked: tuple[torch.Tensor, Batch] | None = None
        for loaded in self._batches:
            for batch in parts_of(loaded, self._options.split_batches):
                losses.append(self.step(batch))
                images += len(batch.labels)
                if checked is not None:  # a step late, so that the device never waits for the host
                    self._refuse_not_finite(*checked, self._step - 2)
                checked = losses[-1], batch
            shown.update()
        shown.pause()  # a validation has its own, and what is told of the epoch a line
        if checked is not None:
            self._refuse_not_finite(*checked, self._step - 1)
        self._network.eval()
        self.epoch += 1
        take_buffers_of_first(self._model)
        if self._average is not None:
            take_buffers_of_first(self._average)
        if on_epoch is not None:
            loss = averaged(torch.stack(losses).mean()).item() if losses else float("nan")
            speed = num_workers() * images / (time.perf_counter() - start)
            on_epoch(Epoch(self.epoch, loss, float(self._schedule.get_last_lr()[0]), speed, self.precision))

    def step(self, batch: Batch) -> torch.Tensor:
        """Takes one step and returns its loss, a detached scalar on the device."""
        images, labels = self._on_device(batch.images).float() / 255, self._on_device(batch.labels)
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(self._device.type, dtype, enabled=self.precision != "fp32"):
            loss = self._objective(
                self._network,
                images,
                labels,
                sigma=self._sigma,
                costs=self._costs,
                progress=self._step / self._steps,
                generator=self._generator,
                **({"image_ids": batch.image_ids} if self._names else {}),
            )
        loss = self._weight(batch) * loss
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        if self._options.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._options.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._update_average()
        if self._step + 1 < self._steps:  # a one_cycle schedule refuses the step after its last
            self._schedule.step()
        self._step += 1
        return loss.detach()

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()  # from pageable memory the host would wait for the GPU
        return tensor.to(self._device, non_blocking=True)

    def _weight(self, batch: Batch) -> torch.Tensor:
        """What this worker's loss counts in the mean over workers: by its images, which may be fewer than others'."""
        number = 0 if batch.repeated else len(batch.labels)
        count = torch.full((), number, dtype=torch.float32, device=self._device)
        return count / averaged(count).clamp(min=torch.finfo(torch.float32).tiny)  # 0 where no worker has an image

    def _update_average(self) -> None:
        if self._average is not None and self._options.ema is not None:
            # or a short training would be judged by its first weights
            warming_up = (1 + self._step) / (10 + self._step)
            self._average.multi_avg_fn = get_ema_multi_avg_fn(min(self._options.ema, warming_up))
            self._average.update_parameters(self._model)

    def _refuse_not_finite(self, loss: torch.Tensor, batch: Batch, step: int) -> None:
        if torch.isfinite(loss):
            return
        shown = ", ".join(batch.image_ids[:_SHOWN_IMAGES])
        more = len(batch.image_ids) - _SHOWN_IMAGES
        raise UserError(
            f"the loss is {loss.item()} at step {step} (epoch {self.epoch + 1}) on images {shown}"
            f"{f' and {more} more' if more > 0 else ''}: lower training.lr, {self._options.lr:g}, set "
            "training.clip_norm, or train in fp32"
        )

    def state_dict(self) -> dict[str, Any]:
        """All but `model`'s weights that later processes need to go on from here: tensors and plain values.

        All workers must call it; all get the same, which holds each worker's random state.
        """
        random = {"noise": self._generator.get_state(), "batches": self._batches.generator.get_state()}
        random["torch"] = torch.get_rng_state()  # of dropout and stochastic depth
        if self._device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self._device)
        average = None
        if self._average is not None:
            average = {"count": int(self._average.n_averaged), "weights": self._model.state_dict()}
        return {
            "epoch": self.epoch,
            "step": self._step,
            "device": self._device.type,
            "precision": self.precision,
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "random": gathered(random),
            "average": average,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was called; the model must hold the weights that `model` then had.

        A worker beyond those of that moment has the random state that it was made with.

        Raises:
            UserError: The training began on another kind of device, whose noise this one cannot go on with.
        """
        began = state.get("device", "cuda" if "cuda" in state["random"][0] else "cpu")  # states of before have none
        if began != self._device.type:
            raise UserError(
                f"the training began on {began} and would go on on {self._device.type}, which draws other noise: go on "
                f"on {began}, or begin anew under another --name, or with the checkpoint as model.name"
            )
        self.epoch, self._step, self.precision = state["epoch"], state["step"], state["precision"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average is not None and state["average"] is not None:
            self._average.module.load_state_dict(self._model.state_dict())
            self._average.n_averaged.fill_(state["average"]["count"])
            self._model.load_state_dict(state["average"]["weights"])
        self._batches.generator.set_state(state["random"][0]["batches"].cpu())  # of the order: the same on all workers
        if rank() < len(state["random"]):
            random = state["random"][rank()]
            self._generator.set_state(random["noise"].cpu())
            torch.set_rng_state(random["torch"].cpu())
            if self._device.type == "cuda" and "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"].cpu(), self._device)


_OPTIMIZERS = ("sgd", "adamw")
_SCHEDULES = ("one_cycle", "cosine", "step", "constant")


def _common_precision(precision: str, device: torch.device) -> str:
    """What is meant on the devices of all workers: bf16 where each is fast at it."""
    found = gathered(resolve_precision(precision, device))
    return "fp32" if "fp32" in found else found[0]


def _in_parallel(model: BaseClassifier) -> DistributedDataParallel:
    on_gpu = model.scale.device.type == "cuda"
    network = convert_sync_batchnorm(model) if on_gpu else model
    # An objective may call the network several times a step: a broadcast between would spoil what backward needs.
    return DistributedDataParallel(
        network, device_ids=[model.scale.device] if on_gpu else None, broadcast_buffers=False
    )


def _optimizer(model: BaseClassifier, options: TrainingOptions) -> Optimizer:
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    if options.optimizer == "adamw":
        return AdamW(trained, lr=options.lr, weight_decay=options.weight_decay)
    nesterov = options.nesterov and options.momentum > 0  # without momentum there is none to be Nesterov's
    return SGD(trained, options.lr, options.momentum, weight_decay=options.weight_decay, nesterov=nesterov)


def _schedule(optimizer: Optimizer, options: TrainingOptions, steps_per_epoch: int) -> LRScheduler:
    total = options.epochs * steps_per_epoch
    warmup = round(options.warmup_epochs * steps_per_epoch)
    if options.schedule == "one_cycle":
        share = warmup / total or 0.3
        return OneCycleLR(optimizer, options.lr, total_steps=total, pct_start=share, cycle_momentum=False)
    after: LRScheduler
    if options.schedule == "cosine":
        after = CosineAnnealingLR(optimizer, T_max=total - warmup)
    elif options.schedule == "step":
        steps = [epoch * steps_per_epoch - warmup for epoch in options.milestones]
        after = MultiStepLR(optimizer, milestones=steps, gamma=options.step_factor)
    else:
        after = ConstantLR(optimizer, factor=1.0)
    if not warmup:
        return after
    rising = LinearLR(optimizer, start_factor=_WARMUP_START, total_iters=warmup)
    return SequentialLR(optimizer, [rising, after], milestones=[warmup])
