"""What a verb would do, before it does it: plans as records, which are printed as words or as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from raycsr.errors import first_of, printable
from raycsr.progress import duration
from raycsr.reports.document import Column, Table
from raycsr.reports.leaderboard import cells
from raycsr.reports.text import as_text

_SHOWN = 6  # rules and costs named in the words of a plan


@dataclass(frozen=True)
class SamplingPlan:
    """What one run would sample, and what its votes can certify at most.

    Attributes:
        model: The model, as `ModelOptions.label` writes it.
        num_classes: Number of classes.
        input_size: Height and width of the images, in pixels.
        precision: Precision of the network.
        device: Device that samples.
        rules: Specs of the decision rules.
        costs: Specs of the cost matrices.
        num_images: Number of images of the run.
        num_to_sample: Number of images that lack samples.
        sigma: Noise level, in [0, 1] pixel units.
        n0: Selection samples of an image.
        n: Estimation samples of an image; of a sequential design the largest number of them.
        design: `fixed` or `sequential`.
        forward_passes: Number of passes of the classifier; of a sequential design the largest number of them.
        alpha: Failure probability of one image's certificate.
        largest_radius: L2 radius of an image whose votes all agree, in [0, 1] pixel units.
        decides: Statements that a sequential design decides about each image, in words; None of a fixed one.
        notes: Lines about the data and its classes.
        seconds: Expected duration on all actors, where the speed is known; of a sequential design the longest.
        actors: Number of actors that sample; 0 is this process.
        denoisers: The denoisers in front of the classifier, a line each.
        memory: Memory that all parts take on the device, in words; None where it cannot be worked out.
        passes_a_copy: Number of passes of the classifier for one noisy copy, more than one behind a denoiser that is
            told several levels.
    """

    model: str
    num_classes: int
    input_size: tuple[int, int]
    precision: str
    device: str
    rules: tuple[str, ...]
    costs: tuple[str, ...]
    num_images: int
    num_to_sample: int
    sigma: float
    n0: int
    n: int
    design: str
    forward_passes: int
    alpha: float
    largest_radius: float
    decides: str | None
    notes: tuple[str, ...]
    seconds: float | None = None
    actors: int = 0
    denoisers: tuple[str, ...] = ()
    memory: str | None = None
    passes_a_copy: int = 1

    def __str__(self) -> str:
        """The plan in words."""
        (height, width), at_most = self.input_size, "at most " if self.design == "sequential" else ""
        where = f"on {self.actors} actors" if self.actors else "in this process"
        takes = "" if self.seconds is None else f", {at_most}about {duration(self.seconds)} {where}"
        left = f", of which {self.num_to_sample:,} to sample" if self.num_to_sample else ", all sampled"
        return _lines(
            f"model     {self.model}, {self.num_classes} classes, {height} x {width} px, "
            f"{self.precision} on {self.device}",
            *(f"behind    {one}" for one in self.denoisers),
            *([] if self.memory is None else [f"memory    {self.memory}"]),
            f"rules     {first_of(self.rules, _SHOWN)}",
            *([f"costs     {first_of(self.costs, _SHOWN)}"] if self.costs else []),
            f"images    {self.num_images:,}{left}",
            f"samples   {self.n0:,} + {at_most}{self.n:,} an image at sigma {self.sigma:g}: "
            f"{at_most}{self.forward_passes:,} forward passes{_a_copy(self.passes_a_copy)}{takes}",
            f"radius    {self.largest_radius:.4g} at most (L2, [0, 1] pixel units, alpha {self.alpha:g})",
            *([] if self.decides is None else [f"decided   {self.decides}"]),
            *self.notes,
        )


@dataclass(frozen=True)
class TrainingPlan:
    """What one training would do.

    Attributes:
        checkpoint: Location of the checkpoint that is written.
        model: The model, as `ModelOptions.label` writes it.
        num_parameters: Number of its parameters, without those of denoisers.
        input_size: Height and width of the images, in pixels.
        precision: Precision of the forward passes; `auto` where several workers decide it.
        device: Device of this process; None where several workers train.
        workers: Number of workers that train together.
        objective: Name of the objective.
        objective_args: Hyper-parameters of the objective.
        sigma: Noise level, in [0, 1] pixel units.
        costs: Spec of the cost matrix.
        data: Source of the images.
        num_images: Number of images to train on.
        num_held_out: Number of images that are held out for validation.
        streamed: Whether images are read anew each epoch; the batches are the same.
        reading: That in words, and why.
        epochs: Number of epochs.
        batch_size: Images of a batch, over all workers.
        notes: Lines about the data and its classes.
        denoisers: The denoisers in front of the classifier, a line each.
        part: The part that is trained; the other stays as it is.
    """

    checkpoint: str
    model: str
    num_parameters: int
    input_size: tuple[int, int]
    precision: str
    device: str | None
    workers: int
    objective: str
    objective_args: dict[str, Any]
    sigma: float
    costs: str
    data: str
    num_images: int
    num_held_out: int
    streamed: bool
    reading: str
    epochs: int
    batch_size: int
    notes: tuple[str, ...]
    denoisers: tuple[str, ...] = ()
    part: str = "classifier"

    def __str__(self) -> str:
        """The plan in words."""
        height, width = self.input_size
        other = "classifier" if self.part == "denoisers" else "denoisers"
        arguments = ", ".join(f"{key}={value}" for key, value in self.objective_args.items())
        return _lines(
            f"train     {self.checkpoint}",
            f"model     {self.model}, {self.num_parameters:,} parameters, {height} x {width} px, "
            f"{self.precision} on {self.device or f'{self.workers} workers'}",
            *(f"behind    {one}" for one in self.denoisers),
            *([f"trains    the {self.part} alone; of the {other} nothing changes"] if self.denoisers else []),
            f"objective {self.objective}{arguments and f'({arguments})'} at sigma {self.sigma:g}, costs {self.costs}",
            f"data      {self.data}",
            f"images    {self.num_images:,} to train on, {self.num_held_out:,} held out; "
            f"{self.epochs} epochs of batches of {self.batch_size}",
            f"read      {self.reading}",
            *self.notes,
        )


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep would do.

    Attributes:
        folder: Location of the sweep.
        data: Source of the images.
        space: The search space: dotted option -> kind of domain -> its values.
        num_trials: Number of trials; None where they go on until the time is up.
        concurrent: Trials at a time, where the cluster is known.
        cpus_per_trial: CPUs of each worker of a trial.
        gpus_per_trial: GPUs of each worker of a trial.
        scheduler: `fifo` or `asha`.
        max_hours: Time budget of the whole sweep, in hours.
        metrics: Spec of a cost matrix -> metric that its trials compete in.
        notes: Lines about the data and its classes.
    """

    folder: str
    data: str
    space: dict[str, dict[str, list]]
    num_trials: int | None
    concurrent: int | None
    cpus_per_trial: float
    gpus_per_trial: float
    scheduler: str
    max_hours: float | None
    metrics: dict[str, str]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """The plan in words."""
        domains = [(key, kind, cells(values)) for key, d in self.space.items() for kind, values in d.items()]
        wide, next_wide = (max((len(words[place]) for words in domains), default=0) for place in (0, 1))
        space = [f"{key:<{wide}}  {kind:<{next_wide}}  {values}" for key, kind, values in domains]
        by = {name: [costs for costs, m in self.metrics.items() if m == name] for name in self.metrics.values()}
        judged = ", ".join(f"{name} ({', '.join(costs)})" if len(by) > 1 else name for name, costs in by.items())
        trials = "trials until the time is up" if self.num_trials is None else f"{self.num_trials} trials"
        concurrent = "" if self.concurrent is None else f"{self.concurrent} at a time, "
        longest = "" if self.max_hours is None else f", at most {self.max_hours:g} h"
        return _lines(
            f"sweep     {self.folder}",
            f"data      {self.data}",
            *(f"{label:<10}{words}" for label, words in zip(("space", *("" for _ in space)), space, strict=False)),
            f"trials    {trials}, {concurrent}{self.cpus_per_trial:g} CPUs and {self.gpus_per_trial:g} GPUs each, "
            f"{self.scheduler}{longest}",
            f"judged by {judged} on held-out images",
            *self.notes,
        )


@dataclass(frozen=True)
class AttackPlan:
    """What an attack of a run would do.

    Attributes:
        run: Location of the run.
        attacks: Location of what is found.
        costs: Spec of the cost matrix.
        rule: Spec of the decision rule.
        answer: Spec of the answer.
        num_images: Number of images, those that were attacked before among them.
        num_to_attack: Number of images that lack an attack.
        num_attacks: Number of attacks that are lacking: one an image and radius.
        radii: L2 radii of the attacks, in [0, 1] pixel units; none where each image has its own.
        times: Multiple of each image's certified radius, where no radii are named.
        steps: Gradient steps of an attack.
        noises: Noisy copies of an image in each step.
        n0: Votes of a verdict that choose its class.
        n: Votes of a verdict that prove it.
        notes: Lines about the data; none.
        passes_a_copy: Number of passes of the classifier for one noisy copy.
    """

    run: str
    attacks: str
    costs: str
    rule: str
    answer: str
    num_images: int
    num_to_attack: int
    num_attacks: int
    radii: tuple[float, ...]
    times: float | None
    steps: int
    noises: int
    n0: int
    n: int
    notes: tuple[str, ...] = ()
    passes_a_copy: int = 1

    def __str__(self) -> str:
        """The plan in words."""
        at = ", ".join(f"{radius:g}" for radius in self.radii)
        where = f"radius {at}" if self.radii else f"{self.times:g} times its certified radius"
        left = f", of which {self.num_to_attack:,} to attack" if self.num_attacks else ", all attacked"
        each, more = self.num_attacks * self.passes_a_copy, _a_copy(self.passes_a_copy)
        passes, votes = each * self.steps * self.noises, each * (self.n0 + self.n)
        return _lines(
            f"run       {self.run}",
            f"attacks   {self.attacks}",
            f"costs     {self.costs}, rule {self.rule}, answer {self.answer}",
            f"images    {self.num_images:,}{left}, each at {where} (L2, [0, 1] pixel units)",
            f"gradients {self.steps} steps of {self.noises} noisy copies: {passes:,} forward and backward passes{more}",
            f"verdicts  {self.n0:,} + {self.n:,} votes: {votes:,} forward passes{more}",
        )


@dataclass(frozen=True)
class Price:
    """What some work takes on devices such as this machine's, and what that costs.

    Attributes:
        seconds: Duration on all the devices together, in seconds.
        devices: Number of devices.
        hourly_price: Price of one device for an hour; None where none is given.
        price: Price of the work; None where no hourly price is given.
    """

    seconds: float
    devices: int
    hourly_price: float | None
    price: float | None

    def __str__(self) -> str:
        """The price in words."""
        price = "" if self.price is None else f", {self.price:,.2f} at {self.hourly_price:g} an hour"
        return f"{duration(self.seconds)} on {self._devices}{price}"

    @property
    def _devices(self) -> str:
        return f"{self.devices} such device{'s' * (self.devices != 1)}"

    def columns(self) -> list[Column]:
        """What a table of prices has, the same devices and hourly price in each row."""
        return [Column(title, numeric=True) for title in ("time", *([] if self.hourly_price is None else ["price"]))]

    def cells(self) -> list[str]:
        """The cells of `columns`."""
        return [duration(self.seconds), *([] if self.hourly_price is None else [f"{self.price or 0:,.2f}"])]


@dataclass(frozen=True)
class SamplingPrice(Price):
    """What a run takes under one sampling design, by the speed of this machine.

    Attributes:
        design: `fixed` or `sequential`.
        samples_per_image: Samples of an image, selection samples among them; of a sequential design on average.
        radii: L2 radii that a sequential design decides, in [0, 1] pixel units; none of a fixed one.
        pilot_images: Number of images that the average was estimated from; 0 of a fixed design.
        samples_per_second: Speed of this machine's device.
        batch_size: Rows of a forward pass.
    """

    design: str
    samples_per_image: float
    radii: tuple[float, ...]
    pilot_images: int
    samples_per_second: float
    batch_size: int

    @property
    def speed(self) -> str:
        """What it goes by, in words."""
        speed = f"speed     {self.samples_per_second:,.0f} samples/s, batches of {self.batch_size}"
        price = "" if self.hourly_price is None else f", each at {self.hourly_price:g} an hour"
        return f"{speed}; on {self._devices}{price}:"

    def row(self) -> list[str]:
        """What `designs` says of it."""
        radii = ", ".join(f"{radius:g}" for radius in self.radii)
        decides = f"sequential, to decide radius {radii}, by {self.pilot_images} images"
        words = "fixed" if self.design == "fixed" else decides
        return [words, f"{self.samples_per_image:,.0f}", *self.cells()]


def designs(prices: Sequence[SamplingPrice]) -> str:
    """What a run takes under each sampling design, as a table for a terminal."""
    columns = [Column("design"), Column("samples an image", numeric=True), *prices[0].columns()]
    return as_text(Table(columns, [price.row() for price in prices]))


@dataclass(frozen=True)
class TrainingPrice(Price):
    """What a training takes, or all trials of a sweep; validation is not counted.

    Attributes:
        corners: Number of trainings that were timed; of a sweep those at the corners of its space.
    """

    corners: int

    def __str__(self) -> str:
        """The price in words."""
        corners = f", by the {self.corners} corners of the space" if self.corners > 1 else ""
        return f"takes     {super().__str__()}{corners}"


@dataclass(frozen=True)
class AttackPrice(Price):
    """What an attack takes, by one of one image at one radius."""

    def __str__(self) -> str:
        """The price in words."""
        return f"takes     {super().__str__()}"


def as_json(plan: SamplingPlan | TrainingPlan | SweepPlan | AttackPlan, prices: Sequence[Price]) -> dict[str, Any]:
    """A plan and its prices as values for JSON: the fields of the records, and `prices`."""
    fields = asdict(plan)
    return {
        **fields,
        "notes": [" ".join(note.split()) for note in fields["notes"]],
        "prices": [asdict(price) for price in prices],
    }


def _a_copy(passes: int) -> str:
    return f", {passes} a noisy copy" if passes > 1 else ""


def _lines(*lines: str) -> str:
    return "\n".join(map(printable, lines))
