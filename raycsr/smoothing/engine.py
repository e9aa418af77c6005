"""The engine: images in, the votes of the base classifier on their noisy copies out, all on the device."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raycsr.errors import UserError
from raycsr.models.decisions import Decisions
from raycsr.models.rules import Rule, parse_rules
from raycsr.smoothing.coming import Coming
from raycsr.smoothing.forward_pass import KINDS, Fetched, ForwardPass, PassShape, is_out_of_memory
from raycsr.smoothing.noise import PHASES, Copies, Noise, Purpose, noise_key, noise_scheme
from raycsr.smoothing.options import CHUNK, Draws

NOT_FINITE = "the logits are not finite"

_SELECTION, _ESTIMATION, _PADDING = range(KINDS)  # of votes; the last are of rows that nobody asked for

# (selection votes, estimation votes: int64 (N, m) each, labels: (N,)) -> whether they are enough, bool (N,). Each row
# is decided by itself; it has the votes of an image under one rule.
Enough = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


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
        wanted: Places of the rules whose votes are to be enough; None for all rules.
    """

    image: torch.Tensor
    image_id: str
    label: int = 0
    counts0: np.ndarray | None = None
    counts: np.ndarray | None = None
    batch_size: int | None = None
    wanted: Sequence[int] | None = None

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
        batch_size: Number of rows of the passes that drew them.
    """

    position: int
    counts0: np.ndarray
    counts: np.ndarray
    drawn: int
    error: str | None
    batch_size: int


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


@dataclass(frozen=True)
class _UnderWay:
    """The images whose votes are on their way, in the order of the votes."""

    images: list[_InFlightImage]
    votes: Fetched


class Sampler:
    """Counts the votes of noisy copies of images, several of them in one forward pass.

    Noise is added exactly and never clipped (`lattice`); whatever the network does then is the base classifier.
    Forward passes have one fixed shape, whose rows belong to the images that are next:
    as one has its votes, another takes its place, and only the last pass is padded. An image's votes depend neither on
    its company nor on when it came. Votes stay on the device until there is something to decide, and then the
    device goes on with other images, as long as these fill a pass.

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
        self._is_behind = self.device.type == "cuda"  # it has the next pass already when votes of the last are awaited
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
    def sample(self, requests: Iterable[Request | None]) -> Iterator[Counted]:
        """Counts the votes of images of one size.

        Args:
            requests: The images; they are taken as there is room for them. None says that there is none now: what is
                under way goes on, and before the next pass it is asked again.

        Yields:
            The votes of each, as it is done; positions do not count what was None.
        """
        coming = Coming(requests)
        in_flight: list[_InFlightImage] = []
        under_way: _UnderWay | None = None
        while True:
            yield from self._admit(in_flight, coming)
            if under_way is not None and _waiting(in_flight) < self._num_micro_batches:
                yield from self._finish_or_continue(under_way, in_flight)  # they may fill the pass
                under_way = None
                continue
            batch = self._next_micro_batches(in_flight)
            if not batch:
                if coming.is_over:
                    return
                continue
            before, fits = under_way, True
            try:
                under_way = self._forward(batch)
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.batch_size == 1:
                    raise
                fits = False
            if not fits:  # behind the error, which holds all that its pass took
                self._halve()
                coming.again.extend((image.position, image.request) for image in in_flight)  # all, in smaller passes
                in_flight, under_way = [], None
                continue
            if not self._is_behind:
                before, under_way = under_way, None
            if before is not None:
                yield from self._finish_or_continue(before, in_flight)

    def _admit(self, in_flight: list[_InFlightImage], coming: Coming[Request]) -> Iterator[Counted]:
        """Admits images until there are micro-batches for a whole pass, or no slot or no image is left.

        Yields:
            Those that cannot go on here.
        """
        waiting = _waiting(in_flight)
        free = sorted({*range(self._num_slots)} - {image.slot for image in in_flight}, reverse=True)
        while waiting < self._num_micro_batches and free:
            following = coming.next()
            if following is None:
                return
            position, request = following
            if request.batch_size not in (None, self.batch_size):
                reason = f"its votes were drawn in batches of {request.batch_size}; batches are {self.batch_size} now"
                none = np.zeros_like(request.counts, np.int64)
                yield Counted(position, none, none, 0, reason, self.batch_size)
                continue
            in_flight.append(self._admitted(position, request, free.pop()))
            waiting += len(in_flight[-1].micro_batches)

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

    def _forward(self, batch: list[tuple[_InFlightImage, _MicroBatch]]) -> _UnderWay | None:
        """Adds the votes of one forward pass, and sends those of the images that have no others to come."""
        cells, copies = np.full(self.batch_size, _PADDING), []
        for i, (image, micro_batch) in enumerate(batch):
            key = noise_key(self.seed, image.request.image_id, self._phases[micro_batch.kind], micro_batch.chunk)
            copies.append(Copies(image.slot, key, micro_batch.offset))
            first = i * self._rows
            cells[first : first + micro_batch.valid] = KINDS * image.slot + micro_batch.kind
            image.drawn += micro_batch.valid
        self._pass.run(copies, cells)
        ended = list({id(image): image for image, _ in batch if not image.micro_batches}.values())
        return _UnderWay(ended, self._pass.fetch([image.slot for image in ended])) if ended else None

    def _finish_or_continue(self, under_way: _UnderWay, in_flight: list[_InFlightImage]) -> Iterator[Counted]:
        """Waits for votes, and lets each of the images continue to its next check, or finishes it.

        Yields:
            The votes of those that are finished, which are in flight no more.
        """
        votes = under_way.votes.wait()  # (images, rules, KINDS, m + 1)
        so_far = [(of_image[:, _SELECTION, :-1], of_image[:, _ESTIMATION, :-1]) for of_image in votes]
        for image, (counts0, counts) in zip(under_way.images, so_far, strict=True):
            if image.request.counts0 is not None:
                counts0 += image.request.counts0
            if image.request.counts is not None:
                counts += image.request.counts
        broken = np.asarray(votes[:, :, :_PADDING, -1].any(axis=(1, 2)))
        done = self._are_enough(under_way.images, so_far, ~broken)
        finished: list[Counted] = []
        for image, (counts0, counts), is_broken, is_done in zip(under_way.images, so_far, broken, done, strict=True):
            if not (is_broken or is_done):
                n = next(check for check in self._checks if check > image.n)
                image.micro_batches.extend(_micro_batches(_ESTIMATION, image.n, n, self._rows))
                image.n = n
                continue
            in_flight.remove(image)
            error = NOT_FINITE if is_broken else None
            kept = (0 * counts0, 0 * counts) if is_broken else (counts0.copy(), counts.copy())
            finished.append(Counted(image.position, *kept, image.drawn, error, self.batch_size))
        yield from finished

    def _are_enough(
        self, images: Sequence[_InFlightImage], so_far: Sequence[tuple[np.ndarray, np.ndarray]], asked: np.ndarray
    ) -> np.ndarray:
        """Whether images have votes enough, bool (images,): all of theirs, or as many as each wanted rule needs.

        Of all images and rules at once: that takes little more than of one.
        """
        done = np.array([image.n >= self.n for image in images])
        rows = [
            (i, rule)
            for i in np.flatnonzero(asked & ~done).tolist()
            for rule in images[i].request.wanted or range(len(self.rules))
        ]
        if not rows or self._enough is None:
            return done
        counts0, counts = (np.stack([so_far[i][kind][rule] for i, rule in rows]) for kind in (0, 1))
        of_images = np.array([i for i, _ in rows])
        enough = self._enough(counts0, counts, np.array([images[i].request.label for i, _ in rows]))
        done[of_images] = True
        done[of_images[~enough]] = False
        return done

    def _halve(self) -> None:
        self.out_of_memory += 1
        self.set_batch_size(self.batch_size // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _waiting(in_flight: Sequence[_InFlightImage]) -> int:
    """Micro-batches that could be in the next pass."""
    return sum(len(image.micro_batches) for image in in_flight)


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
