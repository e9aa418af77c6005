"""The engine: an image in, the votes of the base classifier on its noisy copies out, all on the device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raycsr.errors import UserError
from raycsr.models import Decisions, Rule, parse_rules
from raycsr.smoothing.noise import CHUNK, Phase, fill_noise
from raycsr.smoothing.options import check_sampling

NOT_FINITE = "the logits are not finite"

_PHASES: tuple[Phase, Phase] = ("selection", "estimation")
_PADDING = len(_PHASES)  # the slot that collects the votes of rows nobody asked for


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
class _Batch:
    """One forward pass of the plan that every image follows."""

    chunks: tuple[tuple[Phase, int], ...]  # drawn into consecutive blocks of CHUNK rows
    offset: int  # first row used, when a batch is smaller than a chunk
    slots: torch.Tensor  # int64 (batch_size,): the phase that each row votes in, or _PADDING


class Sampler:
    """Counts the votes of noisy copies of one image after another.

    Noise is drawn and added in float32 and never clipped (methods: "Precision"); whatever the network does
    then is the base classifier. Forward passes have one fixed shape, padded where samples run out, so that
    votes do not depend on how many images came before. No more than one batch of noisy copies exists at a
    time, and nothing is copied to the host before an image is done.

    Attributes:
        rules: the decision rules, each once.
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

        Raises:
            UserError: where sigma, n0, n or batch_size cannot be sampled with, or a rule is unknown.
        """
        check_sampling(sigma, n0, n, batch_size)
        self.network = network
        self.sigma, self.n0, self.n, self.seed = float(sigma), n0, n, seed
        self.rules = _resolved(rules, network)
        self.device = torch.device(device)
        self.out_of_memory = 0
        self._decide = Decisions(self.rules, self.device)
        self._set_batch_size(batch_size)

    def _set_batch_size(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._plan = _plan(self.n0, self.n, batch_size, self.device)
        self._noise = torch.empty(0)

    @torch.inference_mode()
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
        pixels = image.to(self.device)
        pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
        while True:
            try:
                return self._count(pixels, image_id)
            except RuntimeError as error:
                if not _is_out_of_memory(error) or self.batch_size == 1:
                    raise
            self.out_of_memory += 1
            self._set_batch_size(self.batch_size // 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _count(self, pixels: torch.Tensor, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        pixels = pixels.permute(1, 2, 0)  # H W C
        if self._noise.shape[1:] != pixels.shape:
            rows = max(self.batch_size, CHUNK)
            self._noise = torch.empty((rows, *pixels.shape), device=self.device)  # rows H W C
            self._noisy = torch.empty((self.batch_size, *pixels.shape), device=self.device)
        drawn: tuple[tuple[Phase, int], ...] = ()
        votes = torch.empty(0)
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        for batch in self._plan:
            if batch.chunks != drawn:
                for i, (phase, chunk) in enumerate(batch.chunks):
                    fill_noise(self._noise[i * CHUNK : (i + 1) * CHUNK], self.seed, image_id, phase, chunk)
                drawn = batch.chunks
            noise = self._noise[batch.offset : batch.offset + self.batch_size]
            torch.add(pixels, noise, alpha=self.sigma, out=self._noisy)
            logits = self.network(self._noisy.permute(0, 3, 1, 2))  # B C H W in, B m out
            num_rules, num_classes = len(self.rules), logits.shape[1]
            if not len(votes):  # m is known once the network has spoken
                shape = (num_rules, (_PADDING + 1) * num_classes)
                votes = torch.zeros(shape, dtype=torch.int64, device=self.device)
                ones = torch.ones((num_rules, self.batch_size), dtype=torch.int64, device=self.device)
            finite &= torch.isfinite(logits).all()
            votes.scatter_add_(1, batch.slots * num_classes + self._decide(logits).T, ones)
        if not finite:
            raise FloatingPointError(NOT_FINITE)
        counted = votes.cpu().numpy().reshape(num_rules, -1, num_classes)  # rules, phases, m
        return counted[:, 0], counted[:, 1]


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
        UserError: where an argument cannot be sampled with.
    """
    ids = tuple(image_ids)
    if len(ids) != len(images) or len(set(ids)) != len(ids):
        raise UserError(f"image_ids must name each of the {len(images)} images once, got {len(ids)} ids")
    parameter = next(base_classifier.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    base_classifier.eval()
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
    counted: list[tuple[np.ndarray, np.ndarray] | None] = []
    errors: list[str | None] = []
    for image, image_id in zip(images, ids, strict=True):
        try:
            counted.append(sampler.count(image, image_id))
            errors.append(None)
        except FloatingPointError as error:
            counted.append(None)
            errors.append(str(error))
    shape = next((pair[0].shape for pair in counted if pair is not None), (len(sampler.rules), 1))
    zeros = (np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    pairs = [pair if pair is not None else zeros for pair in counted]
    return Votes(
        counts0=np.stack([pair[0] for pair in pairs]),
        counts=np.stack([pair[1] for pair in pairs]),
        image_ids=ids,
        rules=tuple(rule.id for rule in sampler.rules),
        errors=tuple(errors),
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


def _plan(n0: int, n: int, batch_size: int, device: torch.device) -> list[_Batch]:
    """Lays the chunks of both phases out over forward passes of one shape."""
    chunks = [
        (phase, chunk, min(CHUNK, total - chunk * CHUNK))
        for phase, total in zip(_PHASES, (n0, n), strict=True)
        for chunk in range(-(-total // CHUNK))
    ]
    batches = []
    per_batch = max(batch_size // CHUNK, 1)
    for start in range(0, len(chunks), per_batch):
        group = chunks[start : start + per_batch]
        slots = torch.full((per_batch * CHUNK,), _PADDING)
        for i, (phase, _, valid) in enumerate(group):
            slots[i * CHUNK : i * CHUNK + valid] = _PHASES.index(phase)
        for offset in range(0, per_batch * CHUNK, batch_size):
            rows = slots[offset : offset + batch_size]
            if (rows != _PADDING).any():
                names = tuple((phase, chunk) for phase, chunk, _ in group)
                batches.append(_Batch(names, offset, rows.to(device)))
    return batches


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA has a type for it; the CPU allocator says it in words."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
