"""Blocks of images, decoded ahead of the actors that sample or attack them; or one after the other in this process."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import torch

from raycsr.data.decode import Decode
from raycsr.distributed.options import PoolOptions
from raycsr.distributed.sampling.deaths import Block, SharedDeaths
from raycsr.distributed.sampling.decoding import SurvivingDecode


def on_actors(
    blocks: Sequence[pa.Table],
    decodes: Sequence[Decode],
    pool: PoolOptions,
    actor: type,
    at_once: int = 1,
    **arguments: Any,
) -> Iterator[pd.DataFrame]:
    """Decodes blocks in Ray Data's tasks, and works on them on a pool of actors.

    Args:
        blocks: Rows of the images to read, a table for each block.
        decodes: Decoders, as `SurvivingDecode` takes them.
        pool: The actors.
        actor: Class of the actor: a decoded block -> what the driver is told of it.
        at_once: Number of blocks that an actor works on at once, in a thread each.
        arguments: Of the actor, beside the deaths of the stream's processes, which it takes as `deaths`; where it works
            on several blocks at once, it takes `at_once`, too.

    Yields:
        What the actors return, block by block.
    """
    deaths = SharedDeaths()
    if at_once > 1:
        arguments["at_once"] = at_once
    done = (
        ray.data.from_arrow(list(blocks))
        .map_batches(
            SurvivingDecode(decodes, deaths),
            batch_size=None,
            num_cpus=0.9 if pool.resources == {"num_cpus": 1} else 1,  # equal resources: Ray would fuse the two
        )
        .map_batches_internal(  # map_batches refuses whole blocks on GPUs; a batch size would merge blocks
            actor,
            fn_constructor_kwargs={"deaths": deaths, **arguments},
            batch_size=None,
            # All actors at once: those that find no place yet are what an autoscaler brings nodes for, and the others
            # begin. None waits at an actor: a queue at one while another has none makes the tail twice as long.
            compute=ray.data.ActorPoolStrategy(
                size=min(pool.actors, len(blocks)),
                max_tasks_in_flight_per_actor=at_once,
                max_concurrent_calls_per_actor=at_once,
                enable_true_multi_threading=at_once > 1,
            ),
            **pool.resources,
        )
    )
    yield from done.iter_batches(batch_size=None, batch_format="pandas")


def in_this_process(
    blocks: Sequence[pa.Table], decodes: Sequence[Decode], make: Callable[[], Callable[[Block], Block]]
) -> Iterator[pd.DataFrame]:
    """Decodes and works on a block after the other, as `on_actors` does; `make` gives what works on them."""
    threads = torch.get_num_threads()
    decode = SurvivingDecode(decodes)
    try:
        work = make()
        for block in blocks:
            yield pd.DataFrame(work(decode({name: block[name].to_numpy() for name in block.column_names})))
    finally:
        torch.set_num_threads(threads)


def texts(column: np.ndarray) -> list[str | None]:
    """A column of strings; Ray Data gives NaN for null where a whole block of them is."""
    return [text if isinstance(text, str) else None for text in column]
