"""One worker among those of a training: its shard of the work, and values that are combined over all workers.

Without an initialised torch.distributed there is one worker, and its shard is everything.
"""

from typing import TypeVar

import torch
from torch import distributed, nn

_T = TypeVar("_T")


def num_workers() -> int:
    """Returns how many workers train together."""
    return distributed.get_world_size() if _several() else 1


def rank() -> int:
    """Returns this worker's number, 0 for the first."""
    return distributed.get_rank() if _several() else 0


def shard() -> slice:
    """Returns the positions of a sequence that make up this worker's shard; no other worker has one of them."""
    return slice(rank(), None, num_workers())


def gathered(value: _T) -> list[_T]:
    """Returns the values of all workers, by rank. All workers must call it."""
    if not _several():
        return [value]
    values: list = [None] * num_workers()
    distributed.all_gather_object(values, value)
    return values


def averaged(value: torch.Tensor) -> torch.Tensor:
    """Returns the mean of the workers' values, without a graph. All workers must call it."""
    if not _several():
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / num_workers()


def take_buffers_of_first(module: nn.Module) -> None:
    """Overwrites a module's buffers, which are batch statistics, with those of worker 0. All workers must call it."""
    if _several():
        for buffer in module.buffers():
            distributed.broadcast(buffer, 0)


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
