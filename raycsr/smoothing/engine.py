"""The engine: images in, the votes of the base classifier on their noisy copies out, all on the device."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raycsr.errors import UserError
from raycsr.models.decisions import Decisions
from raycsr.models.rules import Rule, parse_rules
from raycsr.smoothing.forward_pass import KINDS, Fetched, ForwardPass, PassShape
from raycsr.smoothing.noise import PHASES, Copies, Noise, Purpose, noise_key, noise_scheme
from raycsr.smoothing.options import CHUNK, Draws

NOT_FINITE = "the logits are not finite"

_SELECTION, _ESTIMATION, _PADDING = range(KINDS)  # of votes; the last are of rows that nobody asked for

# (selection votes, estimation votes: int64 (rules, m) each, label) -> whether they are enough
Enough = Callable[[np.ndarray, np.ndarray, int], bool]


@dataclass(frozen=True)
class Request:
    """An image to sample.

    Attributes:
        image: (C, H, W), uint8 in 0..255 or floating point in [0, 1] of whole grey levels, on any device.
        image_id: Name of its noise.
        label: Class of the image, where votes are drawn until they are enough for it.
        counts0: Selection votes that were drawn for it before, int64 (rules, m); None where it is new. A rule that does
            not go on has none.
        counts: Estimation votes that were drawn before, whole chunks of them, as many under each rule that goes on.
        batch_size: Number of rows of the passes that drew them; it goes on in such passes alone, since other shapes may
            round logits in another way. None where it is new.
    """

    image: torch.Tensor
    image_id: str
    label: int = 0
    counts0: np.ndarray | None = None
    counts: np.ndarray | None = None
    batch_size: int | None = None

    def samples_before(self) -> int:
        """Estimation samples that were drawn for it before.

        Raises:
            UserError: where its rules went different ways, or stopped within a chunk.
        """
        if self.counts is None:
            return 0
        totals = self.counts.sum(axis=1)
        drawn = sorted({int(total) for total in totals if total})
        if len(drawn) > 1 or any(total % CHUNK for total in drawn):
            raise UserError(
                f"image {self.image_id!r} has {' and '.join(map(str, drawn))} estimation votes from before; what goes "
                f"on together has one number of them under all rules, a multiple of {CHUNK}"
            )
        return drawn[0] if drawn else 0


@dataclass(frozen=True)
class Counted:
    """The votes of one image.

    Attributes:
        position: Position of the image among those that were given.
        counts0: The selection votes; int64 (rules, m).
        counts: The estimation votes; those from before are among both; int64 (rules, m).
        drawn: Number of samples that were drawn for it now.
        error: None, or why its votes are all zero.
    """

    position: int
    counts0: np.ndarray
    counts: np.ndarray
    drawn: int
    error: str | None


@dataclass(frozen=True)
class _MicroBatch:
    """Rows of a forward pass that share an image: a chunk of noise, or a part of a chunk where batches are smaller."""

    kind: int  # of votes: _SELECTION or _ESTIMATION
    chunk: int
    offset: int  # of the micro-batch's first row within the chunk
    valid: int  # rows that vote


@dataclass
class _InFlightImage:
    """An in-flight image: one that is being sampled."""

    position: int
    request: Request
    slot: int
    micro_batches: deque[_MicroBatch]
    n: int  # estimation samples when the micro-batches are drawn
    drawn: int = 0
    fetched: Fetched | None = None  # its votes so far


class Sampler:
    """Counts the votes of noisy copies of images, several of them in one forward pass.

    Noise is added exactly and never clipped (`lattice`); whatever the network does then is the base classifier.
    Forward passes have one fixed shape, whose rows belong to the images that are next:
    as one has its votes, another takes its place, and only the last pass is padded. An image's votes depend neither on
    its company nor on when it came. Votes stay on the device until there is something to decide, and then the
    device goes on with other images.

    Attributes:
        rules: The decision rules, each once.
        n: Number of estimation samples of an image, at most.
        batch_size: Number of rows of a forward pass; halved when the device runs out of memory.
        out_of_memory: Number of times that this happened.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        draws: Draws,
        *,
        rules: Sequence[Rule | str] = ("argmax",),
        device: torch.device | str = "cpu",
        checks: Sequence[int] = (),
        enough: Enough | None = None,
        purpose: Purpose = "certification",
        noise: Noise = "lattice",
    ) -> None:
        """Plans the forward passes of an image.

        Args:
            network: float32 pixels (batch_size, C, H, W), channels last -> logits (batch_size, m).
            draws: The noisy copies of an image.
            rules: Decision rules, or how a person writes them (`parse_rules`, with the classes that the network has);
                one forward pass serves them all.
            device: Device of the network.
            checks: Numbers of estimation samples, multiples of CHUNK, after which `enough` is asked; 0 asks it of the
                selection votes alone.
            enough: Whether an image has votes enough before it has n; never, where it is None.
            purpose: What the votes are for; noise is shared by none of them (`PHASES`).
            noise: Its scheme; `float32` takes any floating point pixels, and has no theorem.

        Raises:
            UserError: where a rule is unknown.
        """
        self.network = network
        self.sigma, self.n0, self.n, self.seed = float(draws.sigma), draws.n0, draws.n, draws.seed
        self.rules = _resolved(rules, network)
        self.device = torch.device(device)
        self.out_of_memory = 0
        self._checks = [*sorted(check for check in checks if check < self.n and enough is not None), self.n]
        self._enough = enough
        self._phases, self._scheme = PHASES[purpose], noise
        self._decide = Decisions(self.rules, self.device)
        self.set_batch_size(draws.batch_size)

    def set_batch_size(self, batch_size: int) -> None:
        """Takes another size of forward passes, between two calls of `sample`."""
        self.batch_size = batch_size
        self._rows = min(batch_size, CHUNK)  # of a micro-batch
        self._num_micro_batches = batch_size // self._rows  # of a forward pass
        self._num_slots = 2 * self._num_micro_batches  # a pass of images, and one of those whose votes are on their way
        noise = noise_scheme(self._scheme, self.sigma, self._rows, self.device)
        shape = PassShape(batch_size, self._rows, self._num_slots)
        self._pass = ForwardPass(self.network, self._decide, noise, shape, self.device)

    def count(self, image: torch.Tensor, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Counts the votes of one image.

        Args:
            image: (C, H, W), uint8 in 0..255 or floating point in [0, 1] of whole grey levels, on any device.
            image_id: Name of the image's noise.

        Returns:
            counts0 and counts, int64 (rules, m) each.

        Raises:
            FloatingPointError: where a logit is not finite.
        """
        (counted,) = self.sample([Request(image, image_id)])
        if counted.error is not None:
            raise FloatingPointError(counted.error)
        return counted.counts0, counted.counts

    @torch.inference_mode()
    def sample(self, requests: Iterable[Request]) -> Iterator[Counted]:
        """Counts the votes of images of one size.

        Args:
            requests: The images; they are taken as there is room for them.

        Yields:
            The votes of each, as it is done.
        """
        coming, again = iter(enumerate(requests)), deque[tuple[int, Request]]()
        in_flight: list[_InFlightImage] = []
        fetched: list[_InFlightImage] = []  # whose votes were asked for in the last pass
        while True:
            yield from self._admit(in_flight, coming, again)
            batch = self._next_micro_batches(in_flight)
            if not batch and not fetched:
                return
            ended = []
            if batch:
                try:
                    self._forward(batch)
                except RuntimeError as error:
                    if not is_out_of_memory(error) or self.batch_size == 1:
                        raise
                    self._halve()
                    again.extend((image.position, image.request) for image in in_flight)  # all over, in smaller passes
                    in_flight, fetched = [], []
                    continue
                ended = list({id(image): image for image, _ in batch if not image.micro_batches}.values())
                for image in ended:
                    image.fetched = self._pass.fetch(image.slot)
            # The device has the next pass already when the host waits for votes of the one before.
            due, fetched = (fetched, ended) if self.device.type == "cuda" else (ended, [])
            for image in due:
                counted = self._finish_or_continue(image)
                if counted is not None:
                    in_flight.remove(image)
                    yield counted

    def _admit(
        self, in_flight: list[_InFlightImage], coming: Iterator[tuple[int, Request]], again: deque[tuple[int, Request]]
    ) -> Iterator[Counted]:
        """Admits images until there are micro-batches for a whole pass, or no slot or no image is left.

        Yields:
            Those that cannot go on here.
        """

        def waiting() -> int:
            return sum(len(image.micro_batches) for image in in_flight)

        while waiting() < self._num_micro_batches and len(in_flight) < self._num_slots:
            position, request = again.popleft() if again else next(coming, (-1, None))
            if request is None:
                return
            if request.batch_size not in (None, self.batch_size):
                reason = f"its votes were drawn in batches of {request.batch_size}; batches are {self.batch_size} now"
                none = np.zeros_like(request.counts, np.int64)
                yield Counted(position, none, none, 0, reason)
                continue
            slot = min(set(range(self._num_slots)) - {image.slot for image in in_flight})
            in_flight.append(self._admitted(position, request, slot))

    def _admitted(self, position: int, request: Request, slot: int) -> _InFlightImage:
        self._pass.put(slot, request.image)
        before = request.samples_before()
        if before >= self.n:
            raise UserError(f"image {request.image_id!r} has {before:,} samples and can have n={self.n:,}; raise n")
        new = request.counts0 is None
        n = next(check for check in self._checks if check > before or (new and check == before))
        micro_batches = deque(_micro_batches(_ESTIMATION, before, n, self._rows))
        if new:
            micro_batches.extendleft(reversed([*_micro_batches(_SELECTION, 0, self.n0, self._rows)]))
        return _InFlightImage(position, request, slot, micro_batches, n)

    def _next_micro_batches(self, in_flight: list[_InFlightImage]) -> list[tuple[_InFlightImage, _MicroBatch]]:
        """The micro-batches of the next pass: those of the image that was admitted first, then of the next."""
        batch: list[tuple[_InFlightImage, _MicroBatch]] = []
        for image in in_flight:
            while image.micro_batches and len(batch) < self._num_micro_batches:
                batch.append((image, image.micro_batches.popleft()))
        return batch

    def _forward(self, batch: list[tuple[_InFlightImage, _MicroBatch]]) -> None:
        """Adds the votes of one forward pass."""
        cells, copies = np.full(self.batch_size, _PADDING), []
        for i, (image, micro_batch) in enumerate(batch):
            key = noise_key(self.seed, image.request.image_id, self._phases[micro_batch.kind], micro_batch.chunk)
            copies.append(Copies(image.slot, key, micro_batch.offset))
            first = i * self._rows
            cells[first : first + micro_batch.valid] = KINDS * image.slot + micro_batch.kind
            image.drawn += micro_batch.valid
        self._pass.run(copies, cells)

    def _finish_or_continue(self, image: _InFlightImage) -> Counted | None:
        """Finishes an image, and returns its votes, or lets it continue to its next check, and returns None."""
        assert image.fetched is not None
        votes = image.fetched.wait().copy()
        counts0, counts, broken = votes[:, _SELECTION, :-1], votes[:, _ESTIMATION, :-1], votes[:, :_PADDING, -1]
        if image.request.counts0 is not None:
            counts0 += image.request.counts0
        if image.request.counts is not None:
            counts += image.request.counts
        if broken.any():
            return Counted(image.position, 0 * counts0, 0 * counts, image.drawn, NOT_FINITE)
        if image.n < self.n and not (self._enough and self._enough(counts0, counts, image.request.label)):
            n = next(check for check in self._checks if check > image.n)
            image.micro_batches.extend(_micro_batches(_ESTIMATION, image.n, n, self._rows))
            image.n = n
            return None
        return Counted(image.position, counts0, counts, image.drawn, None)

    def _halve(self) -> None:
        self.out_of_memory += 1
        self.set_batch_size(self.batch_size // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _micro_batches(kind: int, start: int, stop: int, rows: int) -> Iterator[_MicroBatch]:
    """The micro-batches that hold the samples from `start`, the first of a chunk, to `stop` of one kind of votes."""
    for chunk in range(start // CHUNK, -(-stop // CHUNK)):
        valid = min(CHUNK, stop - chunk * CHUNK)
        for offset in range(0, valid, rows):
            yield _MicroBatch(kind, chunk, offset, min(rows, valid - offset))


def _resolved(rules: Sequence[Rule | str], network: object) -> tuple[Rule, ...]:
    """The rules, each once; those in words are for the classes that the network says it has."""
    if not rules:
        raise UserError("rules is empty; give argmax at least")
    resolved: list[Rule] = []
    for rule in rules:
        resolved += [rule] if isinstance(rule, Rule) else _parsed(rule, network)
    return tuple({rule.id: rule for rule in resolved}.values())


def _parsed(spec: str, network: object) -> list[Rule]:
    return parse_rules(
        [spec],
        num_classes=getattr(network, "num_classes", None),
        class_names=getattr(network, "class_names", None),
        stored=getattr(network, "rules", ()),
    )


def is_out_of_memory(error: Exception) -> bool:
    """CUDA has a type for it; the CPU allocator says it in words."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
