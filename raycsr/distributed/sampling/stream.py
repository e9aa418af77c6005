"""The stream of blocks: decoded ahead of the actors, sampled on them, followed as they come out."""

import functools
import math
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import ray

from raycsr.data.decode import Decode
from raycsr.distributed.pool import Probe, alive_actors
from raycsr.distributed.sampling.blocks import in_this_process, on_actors
from raycsr.distributed.sampling.budget import Budget, Spending
from raycsr.distributed.sampling.driver_metrics import DriverMetrics, Sampled
from raycsr.distributed.sampling.job import Job
from raycsr.distributed.sampling.stopping import HeedingDecode, HeedingVoters
from raycsr.distributed.sampling.voter import Voter, VoterSpec
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.progress import Progress, Speed
from raycsr.results import Ownership, Run
from raycsr.results.owners import ask_to_stop
from raycsr.smoothing.engine import NOT_FINITE
from raycsr.smoothing.options import CHUNK

BLOCK_SECONDS = 60.0  # work of an actor that a crash may cost, in all of its blocks
_BLOCK_IMAGES = 512
_BLOCK_BYTES = 2**26  # of pixels; Ray Data cuts a block of 2**27 bytes in two
_HANDS_PER_ACTOR = 4  # at least, so that actors finish together; a hand is what an actor has at once
# Blocks of a hand. As long as an image is looked at, its passes have room for others, and a large batch holds more
# images than are new in one block; beside a fixed n, it is enough if the next block begins while one is committed.
_AT_ONCE = {"fixed": 2, "sequential": 4}
# Samples that an image of a sequential run takes on average, over the root of n: 1.7 to 4.4 where one radius was to be
# decided, up to 12 where three were, for n from 10,000 to 100,000 (jobs/README.md).
_EXPECTED_ROOTS = 4


@dataclass(frozen=True)
class Work:
    """A run that is open, and what of it is to be sampled now.

    Attributes:
        job: Job that was asked for.
        run: Run of the job.
        found: Speed and kind of a worker of the pool, as the probe found them.
        owner: Ownership of the run.
        missing: Images to sample: image_id, label, rules, continues and batch_size, as `Voter` takes them; and where it
            is known from which pixels their other votes were drawn, sampled, as `Decode` does.
    """

    job: Job
    run: Run
    found: Probe
    owner: Ownership
    missing: pd.DataFrame


def stream(works: Sequence[Work], voter: type[Voter] = Voter) -> Generator[Work, None, None]:
    """Decodes ahead of the actors on CPU tasks, samples on the actors, and follows what comes out.

    One pool of actors samples all runs, one after the other: an actor that is done with a run goes on with the next. A
    pool of no actors is this process: it decodes and samples a block after the other.

    Args:
        works: Works to do, of one pool.
        voter: Class of what samples the blocks of a run; a benchmark of the pipeline alone has one that does not
            sample.

    Yields:
        Each work, once all of its images are done.
    """
    pool = works[0].job.asked.pool
    blocks = [_numbered(block, i) for i, work in enumerate(works) for block in blocks_of(work)]
    decodes = [_decode_of(work) for work in works]
    models = list({id(work.job.base_classifier): work.job.base_classifier for work in works}.values())
    at_once = max(_hand_of(work)[0] for work in works)
    if not pool.actors:
        given = [functools.partial(_as_it_is, model) for model in models]
        voters = functools.partial(HeedingVoters, _specs(works, models, given), voter=voter)
        yield from _follow(in_this_process(blocks, decodes, voters), works)
        return
    given = [functools.partial(ray.get, ray.put(model)) for model in models]
    specs = _specs(works, models, given)
    votes = on_actors(blocks, decodes, pool, HeedingVoters, at_once, specs=specs, voter=voter)
    yield from _follow(votes, works, lambda: f"{alive_actors()} actors alive")


def _numbered(block: pa.Table, run: int) -> pa.Table:
    block = block.append_column("run", pa.array(np.full(len(block), run, np.int64)))
    return block.append_column("stopped", pa.array(np.zeros(len(block), bool)))


def _decode_of(work: Work) -> Decode:
    preprocessing = work.job.base_classifier.preprocessing
    return HeedingDecode(work.job.source, preprocessing, work.run.location, work.owner.number)


def _as_it_is(model: BaseClassifier) -> BaseClassifier:
    return model


def blocks_of(work: Work) -> list[pa.Table]:
    """What an actor samples and commits at once: images that lack the same rules, and go on from one part as drawn."""
    alike = [*work.missing.columns.intersection(["window"]), "rules", "continues", "batch_size"]
    missing, actors, (_, size) = work.missing, work.job.asked.pool.actors, _hand_of(work)
    blocks: list[pa.Table] = []
    known = missing.columns.intersection(["sampled"])
    for _, rows in missing[["image_id", "label", *known, *alike]].groupby(alike, sort=False):
        single = min(max(actors - len(blocks), 0), len(rows))  # each actor's first holds one image, to see it soon
        edges = [*range(single), *range(single, len(rows), size), len(rows)]
        blocks += [pa.Table.from_pandas(rows[start:stop], preserve_index=False) for start, stop in pairwise(edges)]
    return blocks


def _specs(
    works: Sequence[Work], models: Sequence[BaseClassifier], given: Sequence[Callable[[], BaseClassifier]]
) -> list[VoterSpec]:
    """What the actors are told of each run; `given` gives each model."""
    numbers = [next(i for i, model in enumerate(models) if model is work.job.base_classifier) for work in works]
    return [spec_of(work, given[number], number) for work, number in zip(works, numbers, strict=True)]


def spec_of(work: Work, model: Callable[[], BaseClassifier], network: int = 0) -> VoterSpec:
    """What an actor is told of a run; `model` gives the base classifier, and `network` is its number."""
    job, asked, found = work.job, work.job.asked, work.found
    return VoterSpec(
        model=model,
        network=network,
        precision=found.precision,
        compile=found.compile,
        threads=asked.pool.threads,
        run=work.run.location,
        owner=work.owner.number,
        draws=asked.sampling.draws(job.sigma, found.batch_size),
        design=asked.sampling.design,
        rules=job.rules,
        costs=job.costs,
        statements=job.statements,
        alpha=asked.alpha,
        answers=job.answers,
    )


def _follow(
    votes: Iterable[pd.DataFrame], works: Sequence[Work], workers: Callable[[], str] = lambda: ""
) -> Iterator[Work]:
    """Shows images done, samples a second, workers and what time is left, and warns of what is wrong on the way."""
    samples, left = Speed(), [len(work.missing) for work in works]
    shown = [
        Sampled(work.run.run_id, len(work.job.listing.images), len(work.missing), work.found.samples_per_second)
        for work in works
    ]
    budget = works[0].job.asked.budget
    spending = None if budget is None else Spending(Budget.parse(budget, works[0].job.asked.pool.actors), len(works))
    batch_sizes, going_on = [work.found.batch_size for work in works], dict(enumerate(works))

    def note() -> str:
        speed = samples.per_second()
        return ", ".join(filter(None, ["" if speed is None else f"{speed:,.0f} samples/s", workers()]))

    with Progress(sum(left), "sample", "images", note) as progress, DriverMetrics(shown):
        for batch in votes:
            for run in batch["run"].unique().tolist():  # one, unless Ray Data merged blocks
                block, work, most = batch[batch["run"] == run], works[run], batch_sizes[run]
                work.owner.check()
                _stop_if_broken(block, seen=left[run] < len(work.missing))
                samples.add(int(block["samples"].sum()))
                if block["halved"].any() and (least := int(block["batch_size"].min())) < most:
                    warnings.warn(f"out of memory: the batch was halved from {most} to {least}", stacklevel=2)
                    batch_sizes[run] = least
                done = len(block) - int(block["stopped"].sum())
                progress.update(done)
                left[run] -= len(block)
                shown[run].left -= done
                passes = int(block["samples"].sum()) * work.job.base_classifier.num_passes
                if done and spending is not None and spending.is_spent(run, passes) and left[run]:
                    ask_to_stop(work.run.store, work.owner.number, f"its budget of {budget}")
                if not left[run] and len(going_on) > 1:
                    yield going_on.pop(run)
    yield from going_on.values()  # the last one; its actors are gone


def _hand_of(work: Work) -> tuple[int, int]:
    """How many blocks an actor has at once, and how many images a block has at most."""
    sampling, pool = work.job.asked.sampling, work.job.asked.pool
    n = sampling.n if work.job.statements is None else min(sampling.n, _EXPECTED_ROOTS * sampling.n**0.5)
    chunks = math.ceil(sampling.n0 / CHUNK) + math.ceil(n / CHUNK)
    seconds = chunks * CHUNK / work.found.samples_per_second
    fair = math.ceil(len(work.missing) / (_HANDS_PER_ACTOR * max(pool.actors, 1)))
    hand = max(1, int(min(BLOCK_SECONDS / seconds, fair)))
    is_small = work.found.batch_size <= CHUNK  # one image fills a pass
    at_once = 1 if is_small or not pool.actors else min(_AT_ONCE[sampling.design], hand)
    most = _BLOCK_BYTES // (3 * math.prod(work.job.base_classifier.preprocessing.input_size))
    return at_once, max(1, min(hand // at_once, _BLOCK_IMAGES, most))


def _stop_if_broken(block: pd.DataFrame, seen: bool) -> None:
    if not seen and (block["error"] == NOT_FINITE).all():
        raise UserError(
            f"the first block's {len(block)} images all gave logits that are not finite; check the model's weights, "
            "or use sampling.precision=fp32"
        )
