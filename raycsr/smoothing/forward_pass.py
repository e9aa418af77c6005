"""One forward pass on one device, from the keys of its noise to the votes: what the engine does all day.

Its buffers stay where they are. On a GPU the whole pass is therefore captured once, as a CUDA graph, and is launched as
one thing from then on; and nothing that the host sends or fetches makes it wait for passes that are under way.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch

from raycsr.models.decisions import Decisions
from raycsr.models.prepare import arithmetic
from raycsr.smoothing.noise import Copies, NoiseScheme

_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
)

KINDS = 3
"""Kinds of votes of a slot: selection, estimation, and those of rows that nobody asked for."""


@dataclass(frozen=True)
class PassShape:
    """The fixed shape of forward passes.

    Attributes:
        batch_size: Number of rows.
        rows: Number of rows of each `Copies`.
        slots: Number of images whose pixels and votes are on the device at once.
    """

    batch_size: int
    rows: int
    slots: int

    @property
    def copies(self) -> int:
        """Number of `Copies` in a pass."""
        return self.batch_size // self.rows


@dataclass(frozen=True)
class Fetched:
    """Votes on their way to the host.

    Attributes:
        votes: int64 (images, rules, KINDS, m + 1); the last column counts rows whose logits are not finite.
        arrived: Event that says they are there; None where they always were.
    """

    votes: torch.Tensor
    arrived: torch.cuda.Event | None

    def wait(self) -> np.ndarray:
        """The votes, once they are there."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.votes.numpy()


class ForwardPass:
    """Forward passes of one shape over images of one size.

    Attributes:
        shape: Shape of the passes.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        decide: Decisions,
        noise: NoiseScheme,
        shape: PassShape,
        device: torch.device,
    ) -> None:
        """Allocates nothing yet: the first image says of what size.

        Args:
            network: float32 pixels (B, C, H, W), channels last -> logits (B, m).
            decide: The decision rules.
            noise: The noise scheme, for `shape.rows` rows of each `Copies`.
            shape: Shape of the passes.
            device: Device of all of them.
        """
        self.shape = shape
        self._network, self._decide, self._noise, self._device = network, decide, noise, device
        self._pixels = torch.empty(0)  # slots H W C
        self._new: dict[int, torch.Tensor] = {}  # slot -> pixels that the next pass finds there, H W C
        self._votes: torch.Tensor | None = None  # rules, slots * KINDS * (m + 1)
        self._ones = self._cells = torch.empty(0)
        self._warm: int | None = None  # thread of the last pass that was run as it is, since the buffers were made
        self._graph: torch.cuda.CUDAGraph | None = None
        self._is_capturable = device.type == "cuda" and noise.kernel is not None
        self._arithmetic = partial(arithmetic, getattr(network, "precision", "fp32"), device)

    def put(self, slot: int, image: torch.Tensor) -> None:
        """Takes an image, (C, H, W) of any device, for a slot, whose votes begin anew with the next pass."""
        pixels = self._noise.pixels(image)  # H W C
        if self._pixels.shape[1:] != pixels.shape:
            self._allocate(pixels.shape)
        self._new[slot] = pixels

    def run(self, copies: Sequence[Copies], cells: np.ndarray) -> None:
        """Runs one pass and adds its votes, without waiting for it.

        Args:
            copies: Noisy copies to vote, `shape.copies` at most.
            cells: Where the vote of each row goes, KINDS * slot + kind; int64 (batch_size,).
        """
        with self._current():
            self._put_new()
            self._cells.copy_(self._pinned(torch.from_numpy(cells)), non_blocking=True)
            self._pass(copies)

    def _current(self) -> AbstractContextManager[object]:
        """Makes the device the current one, on whose streams graphs are captured and events are recorded."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _pass(self, copies: Sequence[Copies]) -> None:
        if not self._is_capturable:
            self._noise.add(self._pixels, copies, self._noisy)
            self._vote()
            return
        rest = [Copies(0, 0, 0)] * (self.shape.copies - len(copies))
        assert self._noise.kernel is not None
        self._numbers.copy_(self._pinned(self._noise.kernel.numbers([*copies, *rest])), non_blocking=True)
        # The first pass has compiled and tuned what there is to, and has had the libraries' handles made, of which each
        # thread has its own: none can be made in a capture. Any thread may launch what is captured.
        if self._graph is None and self._warm == threading.get_ident():
            self._graph = self._captured()
        if self._graph is None:
            self._whole()
            self._warm = threading.get_ident()
        else:
            self._graph.replay()

    def fetch(self, slots: Sequence[int]) -> Fetched:
        """Begins to copy the votes of slots to the host, without waiting for them."""
        assert self._votes is not None
        with self._current():
            votes = self._by_slot(self._votes).index_select(0, self._sent(torch.tensor(slots)))  # a copy
            if self._device.type != "cuda":
                return Fetched(votes, None)
            here = torch.empty(votes.shape, dtype=votes.dtype, pin_memory=True)
            here.copy_(votes, non_blocking=True)
            arrived = torch.cuda.Event(blocking=True)  # who waits sleeps: a core that spins decodes no images
            arrived.record()
            return Fetched(here, arrived)

    def _put_new(self) -> None:
        """Puts the images that were taken since the last pass where it reads them, in one go."""
        if not self._new:
            return
        slots = self._sent(torch.tensor(list(self._new)))
        pixels = [*self._new.values()]
        here = [one.to("cpu") for one in pixels] if len({one.device for one in pixels}) > 1 else pixels
        self._pixels.index_copy_(0, slots, self._sent(torch.stack(here)).float())  # bytes travel, not floats
        if self._votes is not None:
            self._by_slot(self._votes).index_fill_(0, slots, 0)
        self._new.clear()

    def _allocate(self, shape: Sequence[int]) -> None:
        zeros = partial(torch.zeros, device=self._device)
        self._pixels = zeros((self.shape.slots, *shape))
        self._noisy = zeros((self.shape.batch_size, *shape))  # B H W C
        self._cells = zeros(self.shape.batch_size, dtype=torch.int64)
        self._numbers = zeros((self.shape.copies, 4), dtype=torch.int64)
        self._votes, self._warm, self._graph = None, None, None
        self._new.clear()

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor on the device, without waiting for it."""
        return self._pinned(tensor).to(self._device, non_blocking=True)

    def _pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the host where a GPU reads it by itself: from elsewhere, a copy waits for the passes before."""
        return tensor.pin_memory() if self._device.type == "cuda" and tensor.device.type == "cpu" else tensor

    def _whole(self) -> None:
        """The pass as a GPU does it: all of it reads and writes buffers."""
        assert self._noise.kernel is not None
        self._noise.kernel(self._pixels, self._numbers, self.shape.rows, self._noisy)
        self._vote()

    def _vote(self) -> None:
        """Adds the votes of the noisy copies."""
        with self._arithmetic():
            logits = self._network(self._noisy.permute(0, 3, 1, 2))  # B C H W in, B m out
        num_classes = logits.shape[1]
        if self._votes is None:  # m is known once the network has spoken
            num_rules = self._decide.num_rules
            size = self.shape.slots * KINDS * (num_classes + 1)
            self._votes = torch.zeros((num_rules, size), dtype=torch.int64, device=self._device)
            self._ones = torch.ones((num_rules, len(logits)), dtype=torch.int64, device=self._device)
        finite = torch.isfinite(logits).all(dim=1, keepdim=True)  # B 1
        with arithmetic("fp32", self._device):  # whatever the network's: a decision is the same beside any other rule
            classes = torch.where(finite, self._decide(logits), num_classes)  # B rules
        self._votes.scatter_add_(1, self._cells * (num_classes + 1) + classes.T, self._ones)

    def _captured(self) -> torch.cuda.CUDAGraph | None:
        """The pass as a CUDA graph; None where the network does what none can hold, such as waiting for the host.

        Raises:
            RuntimeError: the graph's own memory is too much.
        """
        graph = torch.cuda.CUDAGraph()
        torch.cuda.empty_cache()  # what the first pass took: the graph has memory of its own
        try:
            # It leaves the thread on its own stream where the capture fails at its end: beside those of other threads.
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                torch.cuda.graph(
                    graph, stream=_capturing(torch.cuda.current_device()), capture_error_mode="thread_local"
                ),
            ):
                self._whole()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._is_capturable = False
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            with suppress(RuntimeError):  # up to torch 2.11 it is still in the capture, and nobody could draw from it
                generator.graphsafe_set_state(generator.clone_state())
            return None
        return graph

    def _by_slot(self, votes: torch.Tensor) -> torch.Tensor:
        """A view of the votes: (slots, rules, KINDS, m + 1)."""
        return votes.unflatten(1, (self.shape.slots, KINDS, -1)).transpose(0, 1)


@cache
def _capturing(index: int) -> torch.cuda.Stream:
    """The stream that a device captures on; PyTorch's own is that of the device that captured first."""
    return torch.cuda.Stream(index)


def is_out_of_memory(error: Exception) -> bool:
    """PyTorch's allocator on a GPU has a type for it; that on a CPU, CUDA, its libraries and Triton say it in words."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)
