"""Runs of the slabs through the pipeline's own code, Ray left out: the same blocks, voters, parts and certificates."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import slabs
import torch

from raycsr.certification import Statements
from raycsr.data.decode import Decode
from raycsr.data.options import DataOptions
from raycsr.distributed.options import PoolOptions
from raycsr.distributed.pool import Probe, device_name, worker_device
from raycsr.distributed.sampling.arguments import SampleArguments
from raycsr.distributed.sampling.job import Job
from raycsr.distributed.sampling.run import sample_runs
from raycsr.distributed.sampling.stream import Work, blocks_of, spec_of
from raycsr.distributed.sampling.voter import Voter
from raycsr.models.spec import ModelOptions
from raycsr.results.outcome import Outcome
from raycsr.smoothing.options import SamplingOptions

BATCH_SIZE = 1024
POOL = PoolOptions(actors=1, cpus_per_actor=0.5)


@dataclass(frozen=True)
class Ask:
    """One `raycsr sample`, as a user types it.

    Attributes:
        radii: to decide; None for a fixed n.
        n: estimation samples.
        costs: cost matrices.
        rules: beside argmax.
        images: the first so many, or all.
    """

    radii: tuple[float, ...] | None
    n: int
    costs: tuple[str, ...] = slabs.COSTS
    rules: tuple[str, ...] = slabs.RULES
    images: int | None = None


def job(
    ask: Ask,
    pictures: slabs.Pictures,
    alpha: float,
    results: str,
    network: torch.nn.Module | None = None,
    pool: PoolOptions = POOL,
    retry_errors: bool = False,
) -> Job:
    """What `raycsr sample` would make of it."""
    radii = None if ask.radii is None else list(ask.radii)
    matrices = {spec: slabs.costs(spec) for spec in ask.costs}
    sampling = SamplingOptions(slabs.SIGMA, pictures.n0, ask.n, radii, seed=slabs.SEED, precision="fp32")
    asked = SampleArguments(
        data=DataOptions("digits"),  # which are not read: the job's source is the slabs
        model=ModelOptions("slabs"),
        sampling=sampling,
        pool=pool,
        results=results,
        experiment="audit",
        alpha=alpha,
        retry_errors=retry_errors,
    )
    return Job(
        asked=asked,
        base_classifier=slabs.base_classifier(network),
        name="slabs",
        sigma=slabs.SIGMA,
        source=pictures,
        listing=pictures.list(ask.images),
        rules=tuple(slabs.rules(ask.rules)),
        costs=matrices,
        statements=None
        if radii is None
        else Statements(matrices.values(), radii, sigma=slabs.SIGMA, alpha=alpha, n=sampling.max_samples),
    )


class Died(Exception):
    """An actor, or a driver, is gone."""


class _DiesAfterItsVotes(Voter):
    """An actor that is killed when a block's votes are committed and its certificates are not."""

    def _commit(self, part: str, votes: Any) -> None:
        self._run.write_votes(part, votes)
        raise Died


@dataclass
class Here:
    """Samples in this process, block after block, as one actor does.

    Attributes:
        actor_dies_at: blocks, by their place, whose first actor dies; another does them again, as Ray has it.
        driver_dies_at: a block before which the driver is killed.
        late: what the killed driver's actor had still in hand; `commit_late` is when it gets through.
    """

    actor_dies_at: tuple[int, ...] = ()
    driver_dies_at: int | None = None
    late: list[tuple[Voter, dict]] = field(default_factory=list)

    def stream(self, works: Sequence[Work]) -> Iterator[Work]:
        (work,) = works
        job = work.job
        spec = spec_of(work, lambda: job.base_classifier)
        decode, voter = Decode(job.source, job.base_classifier.preprocessing), Voter(spec)
        for i, block in enumerate(blocks_of(work)):
            decoded = decode({name: block[name].to_numpy() for name in block.column_names})
            if i == self.driver_dies_at:
                self.late.append((voter, decoded))
                raise Died
            if i in self.actor_dies_at:
                with pytest.raises(Died):
                    _DiesAfterItsVotes(spec)(decoded)
                voter = Voter(spec)
            voter(decoded)
            work.owner.check()
        yield work

    def commit_late(self) -> None:
        while self.late:
            voter, block = self.late.pop()
            voter(block)

    @contextmanager
    def instead_of_ray(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patched:
            found = Probe("fp32", device_name(worker_device()), BATCH_SIZE, 1e9)
            patched.setattr("raycsr.distributed.sampling.run.probe", lambda *_: found)
            patched.setattr("raycsr.distributed.sampling.run.stream", self.stream)
            patched.setattr("raycsr.distributed.certify_run.FEW_PARTS", 10**6)  # all in this process
            yield

    def sample(self, job: Job) -> Outcome:
        with self.instead_of_ray():
            (outcome,) = sample_runs([job])
            return outcome
