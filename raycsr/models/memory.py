"""What a base classifier takes of a device's memory, worked out without one: a pass on tensors that have no data."""

import copy
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.prepare import DTYPES, set_precision

_ROWS = 2


@dataclass(frozen=True)
class Memory:
    """Memory of a base classifier.

    Attributes:
        weights: Bytes of its weights, in its precision.
        row: Bytes of a noisy copy in a forward pass, where most of them are alive at once; without compilation, and
            without what a library takes to work in.
    """

    weights: int
    row: int

    def __str__(self) -> str:
        """It in words."""
        return (
            f"{self.weights / 2**20:,.3g} MiB of weights, and about {self.row / 2**20:,.3g} MiB a noisy copy in a pass"
        )


def memory_of(base_classifier: BaseClassifier, precision: str) -> Memory | None:
    """Returns the memory that a base classifier takes for inference; None where that cannot be known beforehand.

    That is where its code looks at values, or the precision has no dtype of its own.

    Args:
        base_classifier: The base classifier; it is left as it is.
        precision: Precision of its networks.
    """
    if precision not in DTYPES:
        return None
    bare = _without_data(base_classifier)
    set_precision(bare, precision)
    state = [*bare.parameters(), *bare.buffers()]
    pixels = torch.empty((_ROWS, 3, *bare.preprocessing.input_size), device="meta")
    live = _Live([*state, pixels])
    try:
        with torch.no_grad(), live:
            bare(pixels)
    except Exception:  # the networks' own code, which may look at values
        return None
    weights = sum(tensor.untyped_storage().nbytes() for tensor in state)
    return Memory(weights, (pixels.untyped_storage().nbytes() + live.peak) // _ROWS)


def _without_data(base_classifier: BaseClassifier) -> BaseClassifier:
    """A copy of it whose tensors have shapes and dtypes and no data."""
    copied: dict[int, Any] = {
        id(one): nn.Parameter(torch.empty_like(one, device="meta"), requires_grad=False)
        for one in base_classifier.parameters()
    }
    copied |= {id(one): torch.empty_like(one, device="meta") for one in base_classifier.buffers()}
    return copy.deepcopy(base_classifier, copied)


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, but for those that are known, and the most there were."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return found

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self._now += size
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
