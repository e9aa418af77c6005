"""The engine: images in, the votes of the base classifier on their noisy copies out, all on the device."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raycsr.errors import UserError
from raycsr.models.decisions import Decisions
from raycsr.models.prepare import refuse_batch_dependence
from raycsr.models.rules import Rule, parse_rules
from raycsr.smoothing.noise import PHASES, Purpose, fill_noise
from raycsr.smoothing.options import CHUNK, check_sampling

NOT_FINITE = "the logits are not finite"

_SELECTION, _ESTIMATION = 0, 1  # an image's two kinds of votes
_PADDING = 2  # where the votes of rows go that nobody asked for

# (selection votes, estimation votes: int64 (rules, m) each, label) -> whether they are enough
Enough = Callable[[np.ndarray, np.ndarray, int], bool]


@dataclass(frozen=True)
class Votes:
    """Votes of the base classifier on noisy copies of N images.

    Attributes:
        counts0: int64 (N, rules, m), the selection votes.
        counts: int64 (N, rules, m), the estimation votes, drawn from other noise.
        image_ids: the N images' ids.
        rules: the decision rules' ids, in the order of the second axis.
        errors: per image None, or why its votes are all zero.
    """

    counts0: np.ndarray
    counts: np.ndarray
    image_ids: tuple[str, ...]
    rules: tuple[str, ...]
    errors: tuple[str | None, ...]


@dataclass(frozen=True)
class Request:
    """An image to sample.

    Attributes:
        image: (C, H, W), uint8 in 0..255 or floating point in [0, 1], on any device.
        image_id: names its noise.
        label: its class, where votes are drawn until they are enough for it.
        counts0: selection votes that were drawn for it before, int64 (rules, m); None where it is new. A rule that does
            not go on has none.
        counts: estimation votes that were drawn before, whole chunks of them, as many under each rule that goes on.
        batch_size: of the passes that drew them; it goes on in such passes alone, since other shapes may round logits
            in another way. None where it is new.
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
        position: of the image among those that were given.
        counts0: int64 (rules, m), the selection votes.
        counts: int64 (rules, m), the estimation votes; those from before are among both.
        drawn: samples that were drawn for it now.
        error: None, or why its votes are all zero.
    """

    position: int
    counts0: np.ndarray
    counts: np.ndarray
    drawn: int
    error: str | None


@dataclass(frozen=True)
class _Piece:
    """Rows of a forward pass that share an image: a chunk of noise, or a part of one where batches are smaller."""

    kind: int  # of votes: _SELECTION or _ESTIMATION
    chunk: int
    offset: int  # of the piece's first row within the chunk
    valid: int  # rows that vote


@dataclass
class _Flight:
    """An image that is being sampled."""

    position: int
    request: Request
    slot: int
    pieces: deque[_Piece]
    n: int  # estimation samples when the pieces are drawn
    drawn: int = 0
    looked: torch.Tensor | None = None  # its votes so far, on their way to the host
    arrived: torch.cuda.Event | None = None


class Sampler:
    """Counts the votes of noisy copies of images, several of them in one forward pass.

    Noise is drawn and added in float32 and never clipped (methods: "Precision"); whatever the network does
    then is the base classifier. Forward passes have one fixed shape, whose rows belong to the images that are next:
    as one has its votes, another takes its place, and only the last pass is padded. An image's votes depend neither on
    its company nor on when it came. Votes stay on the device until there is something to decide, and then the
    device goes on with other images.

    Attributes:
        rules: the decision rules, each once.
        n: estimation samples an image, at most.
        batch_size: rows of a forward pass; halved when the device runs out of memory.
        out_of_memory: how often that happened.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        *,
        sigma: float,
        n0: int,
        n: int,
        seed: int,
        batch_size: int,
        rules: Sequence[Rule | str] = ("argmax",),
        device: torch.device | str = "cpu",
        checks: Sequence[int] = (),
        enough: Enough | None = None,
        purpose: Purpose = "certification",
    ) -> None:
        """Plans the forward passes of an image.

        Args:
            network: float32 pixels (batch_size, C, H, W), channels last -> logits (batch_size, m).
            sigma: standard deviation of the noise, in [0, 1] pixel units.
            n0: selection samples an image.
            n: estimation samples an image.
            seed: of the run.
            batch_size: a power of two.
            rules: decision rules, or how a person writes them (`parse_rules`, with the classes that the network
                has); one forward pass serves them all.
            device: where the network is.
            checks: numbers of estimation samples, multiples of CHUNK, after which `enough` is asked.
            enough: whether an image has votes enough before it has n; never, where it is None.
            purpose: what the votes are for; noise is shared by none of them (`PHASES`).

        Raises:
            UserError: where sigma, n0, n or batch_size cannot be sampled with, or a rule is unknown.
        """
        check_sampling(sigma, n0, n, batch_size)
        self.network = network
        self.sigma, self.n0, self.n, self.seed = float(sigma), n0, n, seed
        self.rules = _resolved(rules, network)
        self.device = torch.device(device)
        self.out_of_memory = 0
        self._checks = [*sorted(check for check in checks if check < n and enough is not None), n]
        self._enough = enough
        self._phases = PHASES[purpose]
        self._decide = Decisions(self.rules, self.device)
        self.set_batch_size(batch_size)

    def set_batch_size(self, batch_size: int) -> None:
        """Takes another size of forward passes, between two calls of `sample`."""
        self.batch_size = batch_size
        self._rows = min(batch_size, CHUNK)  # of a piece
        self._pieces = batch_size // self._rows  # of a forward pass
        self._num_slots = 2 * self._pieces  # a pass of images, and one of those whose votes are looked at meanwhile
        self._pixels = torch.empty(0)
        self._votes = torch.empty(0)

    def count(self, image: torch.Tensor, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Counts the votes of one image.

        Args:
            image: (C, H, W), uint8 in 0..255 or floating point in [0, 1], on any device.
            image_id: names the image's noise.

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
            requests: the images; they are taken as there is room for them.

        Yields:
            The votes of each, as it is done.
        """
        coming, again = iter(enumerate(requests)), deque[tuple[int, Request]]()
        flights: list[_Flight] = []
        looked: list[_Flight] = []  # whose votes were asked for in the last pass
        while True:
            yield from self._board(flights, coming, again)
            batch = self._next_pieces(flights)
            if not batch and not looked:
                return
            ended = []
            if batch:
                try:
                    self._forward(batch)
                except RuntimeError as error:
                    if not is_out_of_memory(error) or self.batch_size == 1:
                        raise
                    self._halve()
                    again.extend((flight.position, flight.request) for flight in flights)  # all over, in smaller passes
                    flights, looked = [], []
                    continue
                ended = list({id(flight): flight for flight, _ in batch if not flight.pieces}.values())
                for flight in ended:
                    self._look(flight)
            # The device has the next pass already when the host waits for votes of the one before.
            due, looked = (looked, ended) if self.device.type == "cuda" else (ended, [])
            for flight in due:
                counted = self._settle(flight)
                if counted is not None:
                    flights.remove(flight)
                    yield counted

    def _board(
        self, flights: list[_Flight], coming: Iterator[tuple[int, Request]], again: deque[tuple[int, Request]]
    ) -> Iterator[Counted]:
        """Takes images on until there are pieces for a whole pass, or no slot or no image is left.

        Yields:
            Those that cannot go on here.
        """
        while sum(len(flight.pieces) for flight in flights) < self._pieces and len(flights) < self._num_slots:
            position, request = again.popleft() if again else next(coming, (-1, None))
            if request is None:
                return
            if request.batch_size not in (None, self.batch_size):
                reason = f"its votes were drawn in batches of {request.batch_size}; batches are {self.batch_size} now"
                none = np.zeros_like(request.counts, np.int64)
                yield Counted(position, none, none, 0, reason)
                continue
            slot = min(set(range(self._num_slots)) - {flight.slot for flight in flights})
            flights.append(self._started(position, request, slot))

    def _started(self, position: int, request: Request, slot: int) -> _Flight:
        pixels = request.image.to(self.device).permute(1, 2, 0)  # H W C
        pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
        if self._pixels.shape[1:] != pixels.shape:
            self._pixels = torch.empty((self._num_slots, *pixels.shape), device=self.device)  # slots H W C
            self._noise = torch.zeros((CHUNK, *pixels.shape), device=self.device)
            self._noisy = torch.zeros((self.batch_size, *pixels.shape), device=self.device)  # rows H W C
            self._drawn: tuple[str, int, int] | None = None
        self._pixels[slot] = pixels
        if len(self._votes):
            self._votes_of(slot).zero_()
        before = request.samples_before()
        if before >= self.n:
            raise UserError(f"image {request.image_id!r} has {before:,} samples and can have n={self.n:,}; raise n")
        n = next(check for check in self._checks if check > before)
        pieces = deque(_pieces(_ESTIMATION, before, n, self._rows))
        if request.counts0 is None:
            pieces.extendleft(reversed([*_pieces(_SELECTION, 0, self.n0, self._rows)]))
        return _Flight(position, request, slot, pieces, n)

    def _next_pieces(self, flights: list[_Flight]) -> list[tuple[_Flight, _Piece]]:
        """The pieces of the next pass: those of the image that came first, then of the next."""
        batch: list[tuple[_Flight, _Piece]] = []
        for flight in flights:
            while flight.pieces and len(batch) < self._pieces:
                batch.append((flight, flight.pieces.popleft()))
        return batch

    def _forward(self, batch: list[tuple[_Flight, _Piece]]) -> None:
        """Adds the votes of one forward pass."""
        targets = np.full(self.batch_size, _PADDING)
        for i, (flight, piece) in enumerate(batch):
            rows = slice(i * self._rows, (i + 1) * self._rows)
            self._add_noise(flight, piece, self._noisy[rows])
            targets[rows][: piece.valid] = flight.slot * (_PADDING + 1) + piece.kind
            flight.drawn += piece.valid
        logits = self.network(self._noisy.permute(0, 3, 1, 2))  # B C H W in, B m out
        num_rules, num_classes = len(self.rules), logits.shape[1]
        width = num_classes + 1  # the last column counts rows whose logits are not finite
        if not len(self._votes):  # m is known once the network has spoken
            shape = (num_rules, self._num_slots * (_PADDING + 1) * width)
            self._votes = torch.zeros(shape, dtype=torch.int64, device=self.device)
            self._ones = torch.ones((num_rules, self.batch_size), dtype=torch.int64, device=self.device)
        finite = torch.isfinite(logits).all(dim=1, keepdim=True)  # B 1
        classes = torch.where(finite, self._decide(logits), num_classes)  # B rules
        first = torch.from_numpy(targets).to(self.device, non_blocking=True) * width
        self._votes.scatter_add_(1, first + classes.T, self._ones)

    def _add_noise(self, flight: _Flight, piece: _Piece, out: torch.Tensor) -> None:
        image_id, phase = flight.request.image_id, self._phases[piece.kind]
        if self._rows == CHUNK:
            fill_noise(out, self.seed, image_id, phase, piece.chunk)
            noise = out
        else:
            key = (image_id, piece.kind, piece.chunk)
            if key != self._drawn:
                fill_noise(self._noise, self.seed, image_id, phase, piece.chunk)
                self._drawn = key
            noise = self._noise[piece.offset : piece.offset + self._rows]
        torch.add(self._pixels[flight.slot], noise, alpha=self.sigma, out=out)

    def _votes_of(self, slot: int) -> torch.Tensor:
        return self._votes.unflatten(1, (self._num_slots, -1))[:, slot]

    def _look(self, flight: _Flight) -> None:
        """Sends an image's votes to the host, without waiting for them."""
        votes = self._votes_of(flight.slot)
        if self.device.type != "cuda":
            flight.looked = votes
            return
        flight.looked = torch.empty(votes.shape, dtype=votes.dtype, pin_memory=True)
        flight.looked.copy_(votes, non_blocking=True)
        flight.arrived = torch.cuda.Event()
        flight.arrived.record()

    def _settle(self, flight: _Flight) -> Counted | None:
        """The image's votes where it is done; else it goes on to its next check."""
        if flight.arrived is not None:
            flight.arrived.synchronize()
        assert flight.looked is not None
        votes = flight.looked.numpy().reshape(len(self.rules), _PADDING + 1, -1).copy()
        counts0, counts, broken = votes[:, _SELECTION, :-1], votes[:, _ESTIMATION, :-1], votes[:, :_PADDING, -1]
        if flight.request.counts0 is not None:
            counts0 += flight.request.counts0
        if flight.request.counts is not None:
            counts += flight.request.counts
        if broken.any():
            return Counted(flight.position, 0 * counts0, 0 * counts, flight.drawn, NOT_FINITE)
        if flight.n < self.n and not (self._enough and self._enough(counts0, counts, flight.request.label)):
            n = next(check for check in self._checks if check > flight.n)
            flight.pieces.extend(_pieces(_ESTIMATION, flight.n, n, self._rows))
            flight.n = n
            return None
        return Counted(flight.position, counts0, counts, flight.drawn, None)

    def _halve(self) -> None:
        self.out_of_memory += 1
        self.set_batch_size(self.batch_size // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _pieces(kind: int, start: int, stop: int, rows: int) -> Iterator[_Piece]:
    """The pieces that hold the samples from `start`, the first of a chunk, to `stop` of one kind of votes."""
    for chunk in range(start // CHUNK, -(-stop // CHUNK)):
        valid = min(CHUNK, stop - chunk * CHUNK)
        for offset in range(0, valid, rows):
            yield _Piece(kind, chunk, offset, min(rows, valid - offset))


def count_votes(
    base_classifier: torch.nn.Module,
    images: torch.Tensor,
    *,
    sigma: float,
    n0: int,
    n: int,
    seed: int,
    image_ids: Sequence[str],
    rules: Sequence[Rule | str] = ("argmax",),
    batch_size: int = 64,
) -> Votes:
    """Counts the votes of a base classifier on noisy copies of images (Cohen et al. 2019, SampleUnderNoise).

    Args:
        base_classifier: pixels in [0, 1] -> logits; used as it is, on the device of its parameters.
        images: float (N, C, H, W) in [0, 1].
        sigma: standard deviation of the noise, in [0, 1] pixel units.
        n0: selection samples an image.
        n: estimation samples an image.
        seed: of the noise.
        image_ids: N distinct names; an image's noise depends on (seed, image_id) and on nothing else.
        rules: decision rules, or how a person writes them: `argmax`, `offset:1.5*pair:3/5`, ...
        batch_size: rows of a forward pass, a power of two.

    Returns:
        The votes; an image with a non-finite logit has zero votes and an error.

    Raises:
        UserError: where an argument cannot be sampled with, or an image's logits depend on the rest of its batch.
    """
    ids = tuple(image_ids)
    if len(ids) != len(images) or len(set(ids)) != len(ids):
        raise UserError(f"image_ids must name each of the {len(images)} images once, got {len(ids)} ids")
    parameter = next(base_classifier.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    base_classifier.eval()
    if len(images):
        refuse_batch_dependence(base_classifier, images.shape[1:], device)
    sampler = Sampler(
        base_classifier,
        sigma=sigma,
        n0=n0,
        n=n,
        seed=seed,
        batch_size=batch_size,
        rules=rules,
        device=device,
    )
    requests = (Request(image, image_id) for image, image_id in zip(images, ids, strict=True))
    counted = sorted(sampler.sample(requests), key=lambda one: one.position)
    none = np.zeros((0, len(sampler.rules), 1), np.int64)
    return Votes(
        counts0=np.stack([one.counts0 for one in counted]) if counted else none,
        counts=np.stack([one.counts for one in counted]) if counted else none,
        image_ids=ids,
        rules=tuple(rule.id for rule in sampler.rules),
        errors=tuple(one.error for one in counted),
    )


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
