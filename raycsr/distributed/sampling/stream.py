"""The stream of blocks: decoded ahead of the actors, sampled on them, followed as they come out."""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import torch

from raycsr.data.decode import Decode
from raycsr.distributed.options import PoolOptions
from raycsr.distributed.pool import Probe, alive_actors
from raycsr.distributed.sampling.deaths import SharedDeaths
from raycsr.distributed.sampling.decoding import SurvivingDecode
from raycsr.distributed.sampling.job import Job
from raycsr.distributed.sampling.voter import Voter
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.progress import Progress, Speed
from raycsr.results import (
    Ownership,
    Run,
)
from raycsr.smoothing.engine import NOT_FINITE
from raycsr.smoothing.options import CHUNK

BLOCK_SECONDS = 60.0  # work of an actor that a crash may cost
_BLOCK_IMAGES = 256  # pixels of a block stay well under Ray Data's limit on a block's bytes
_BLOCKS_PER_ACTOR = 4  # at least, so that actors finish together
_EXPECTED_SHARE = 1 / 16  # of n that an image of a sequential run takes on average, at most


def stream(
    job: Job,
    run: Run,
    found: Probe,
    pool: PoolOptions,
    owner: Ownership,
    missing: pd.DataFrame,
    voter: type[Voter] = Voter,
) -> None:
    """Decodes ahead of the actors on CPU tasks, samples on the actors, and follows what comes out.

    A pool of no actors is this process: it decodes and samples a block after the other.

    Args:
        job: what to sample.
        run: its run.
        found: what a worker of the pool can do.
        pool: the actors.
        owner: of the run.
        missing: the images to sample: image_id, label, rules, continues and batch_size, as `Voter` takes them; and
            where it is known from which pixels their other votes were drawn, sampled, as `Decode` does.
        voter: the actors' class; a benchmark of the pipeline alone has one that does not sample.
    """
    blocks, decode = blocks_of(job, found, pool, missing), Decode(job.source, job.base_classifier.preprocessing)
    if not pool.actors:
        arguments = voter_arguments(job, run, found, pool, owner, lambda: job.base_classifier)
        _follow(_sampled_here(blocks, decode, voter, arguments), owner, len(missing), found.batch_size)
        return
    deaths, model = SharedDeaths(), functools.partial(ray.get, ray.put(job.base_classifier))
    votes = (
        ray.data.from_arrow(blocks)
        .map_batches(
            SurvivingDecode(decode, deaths),
            batch_size=None,
            num_cpus=0.9 if pool.resources == {"num_cpus": 1} else 1,  # equal resources: Ray would fuse the two
        )
        .map_batches_internal(  # map_batches refuses whole blocks on GPUs; a batch size would merge blocks
            voter,
            fn_constructor_kwargs={**voter_arguments(job, run, found, pool, owner, model), "deaths": deaths},
            batch_size=None,
            # All actors at once: those that find no place yet are what an autoscaler brings nodes for, and the others
            # begin. One block in flight: a queue at one actor while another has none makes the tail twice as long.
            compute=ray.data.ActorPoolStrategy(size=min(pool.actors, len(blocks)), max_tasks_in_flight_per_actor=1),
            **pool.resources,
        )
    )
    sampled = votes.iter_batches(batch_size=None, batch_format="pandas")
    _follow(sampled, owner, len(missing), found.batch_size, lambda: f"{alive_actors()} actors alive")


def _sampled_here(
    blocks: Sequence[pa.Table], decode: Decode, voter: type[Voter], arguments: Mapping[str, Any]
) -> Iterator[pd.DataFrame]:
    threads = torch.get_num_threads()
    try:
        sampler = voter(**arguments)
        for block in blocks:
            decoded = decode({name: block[name].to_numpy() for name in block.column_names})
            yield pd.DataFrame(sampler(decoded))
    finally:
        torch.set_num_threads(threads)


def blocks_of(job: Job, found: Probe, pool: PoolOptions, missing: pd.DataFrame) -> list[pa.Table]:
    """What an actor samples and commits at once: images that lack the same rules, and go on from one part as drawn."""
    alike = ["rules", "continues", "batch_size"]
    size = _block_size(job, found, pool, len(missing))
    blocks: list[pa.Table] = []
    known = missing.columns.intersection(["sampled"])
    for _, rows in missing[["image_id", "label", *known, *alike]].groupby(alike, sort=False):
        single = min(max(pool.actors - len(blocks), 0), len(rows))  # each actor's first holds one image, to see it soon
        edges = [*range(single), *range(single, len(rows), size), len(rows)]
        blocks += [pa.Table.from_pandas(rows[start:stop], preserve_index=False) for start, stop in pairwise(edges)]
    return blocks


def voter_arguments(
    job: Job, run: Run, found: Probe, pool: PoolOptions, owner: Ownership, model: Callable[[], BaseClassifier]
) -> dict[str, Any]:
    """What the pool's actors are made with; `model` gives the base classifier."""
    return {
        "model": model,
        "sigma": job.sigma,
        "sampling": job.sampling,
        "precision": found.precision,
        "batch_size": found.batch_size,
        "rules": job.rules,
        "threads": pool.threads,
        "run": run.location,
        "owner": owner.number,
        "costs": job.costs,
        "statements": job.statements,
        "alpha": job.alpha,
    }


def _follow(
    votes: Iterable[pd.DataFrame],
    owner: Ownership,
    images: int,
    batch_size: int,
    workers: Callable[[], str] = lambda: "",
) -> None:
    """Shows images done, samples a second, workers and what time is left, and warns of what is wrong on the way."""
    samples, seen = Speed(), False

    def note() -> str:
        speed = samples.per_second()
        return ", ".join(filter(None, ["" if speed is None else f"{speed:,.0f} samples/s", workers()]))

    with Progress(images, "sample", "images", note) as progress:
        for block in votes:
            owner.check()
            _stop_if_broken(block, seen)
            seen = True
            samples.add(int(block["samples"].sum()))
            if block["halved"].any() and (least := int(block["batch_size"].min())) < batch_size:
                warnings.warn(f"out of memory: the batch was halved from {batch_size} to {least}", stacklevel=2)
                batch_size = least
            progress.update(len(block))


def _block_size(job: Job, found: Probe, pool: PoolOptions, images: int) -> int:
    """Images of a block at most, of so many images in all."""
    chunks = -(-job.sampling.n0 // CHUNK) + -(-job.sampling.n // CHUNK)
    seconds = chunks * CHUNK / found.samples_per_second * (1 if job.statements is None else _EXPECTED_SHARE)
    fair = -(-images // (_BLOCKS_PER_ACTOR * max(pool.actors, 1)))
    return int(np.clip(min(BLOCK_SECONDS / seconds, fair), 1, _BLOCK_IMAGES))


def _stop_if_broken(block: pd.DataFrame, seen: bool) -> None:
    if not seen and (block["error"] == NOT_FINITE).all():
        raise UserError(
            f"the first block's {len(block)} images all gave logits that are not finite; check the model's weights, "
            "or use sampling.precision=fp32"
        )
