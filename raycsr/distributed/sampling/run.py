"""Sampling runs: what is missing of them is drawn, certified and counted."""

import contextlib
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from raycsr.distributed.certify_run import certify_run
from raycsr.distributed.cluster import connect, user_errors_of_workers
from raycsr.distributed.pool import Probe, check_pool, device_kind, probe
from raycsr.distributed.sampling.arguments import SampleArguments
from raycsr.distributed.sampling.job import Job, check, image_sets_of, open_run, plan_of
from raycsr.distributed.sampling.remaining import Remaining
from raycsr.distributed.sampling.rereading import replaced, with_sampled_pixels
from raycsr.distributed.sampling.stream import Work, stream
from raycsr.errors import UserError
from raycsr.results import Ownership, Run, note_known_sets
from raycsr.results.outcome import Outcome
from raycsr.results.owners import reason_to_stop
from raycsr.results.prefix import in_random_order, note_budget, prefix_of

_WINDOW = 256  # images of the random order of which a budget's blocks are made


def sample_all(*asked: SampleArguments) -> list[Outcome]:
    """Samples all runs that are asked for, once everything is checked.

    Args:
        asked: Options of one or more commands, which have their pool in common.

    Raises:
        UserError: Something is wrong that can be known before samples are paid for.
    """
    jobs = [job for one in asked for job in check(one)]
    for pool in {one.pool for one in asked}:
        if pool.actors:
            connect()
        check_pool(pool)
    return sample_runs(jobs)


def sample_runs(jobs: Sequence[Job]) -> list[Outcome]:
    """Samples what is missing of the jobs' runs, on one pool of actors, and certifies it under the jobs' costs.

    All runs are opened and their plans are told before the first sample. Each is finished, and given free, as soon as
    its last image is done.

    Args:
        jobs: Jobs of one command, which have their pool in common.

    Returns:
        The outcome of each job.
    """
    probes: dict[int, Probe] = {}
    outcomes: dict[int, Outcome] = {}
    begun: dict[str, tuple[int, _Begun]] = {}  # location of a run -> position of its job
    with contextlib.ExitStack() as held:
        for position, job in enumerate(jobs):
            asked, model = job.asked, job.base_classifier
            if id(model) not in probes:
                probes[id(model)] = probe(model, asked.sampling, asked.pool)
            run = open_run(job, probes[id(model)])
            if run.location not in begun:
                hold = held.enter_context(contextlib.ExitStack())
                begun[run.location] = position, _begin(job, run, probes[id(model)], hold)
        works = []
        for position, one in begun.values():
            if len(one.work.missing):
                works.append(one.work)
            else:
                outcomes[position] = _end(one, 0.0)
        if works:
            pool, start = works[0].job.asked.pool, time.monotonic()
            with (
                user_errors_of_workers(pool.needs, seconds=pool.patience),
                contextlib.closing(stream(works)) as done,
            ):
                for work in done:
                    position, one = begun[work.run.location]
                    now = time.monotonic()
                    outcomes[position] = _end(one, now - start)
                    start = now
    for position, job in enumerate(jobs):
        if position not in outcomes:  # its run is another job's run as well
            (outcomes[position],) = sample_runs([job])
    return [outcomes[position] for position in range(len(jobs))]


@dataclass(frozen=True)
class _Begun:
    """A run between its opening and its end.

    Attributes:
        work: What is to be sampled of it.
        images: All images of the run.
        wanted: Those of the job.
        remaining: What the run lacks.
        before: Names of the votes parts that it had.
        hold: What gives the run free.
    """

    work: Work
    images: pd.DataFrame
    wanted: pd.DataFrame
    remaining: Remaining
    before: list[str]
    hold: contextlib.ExitStack


def _begin(job: Job, run: Run, found: Probe, hold: contextlib.ExitStack) -> _Begun:
    """Takes a run, certifies what is there, and tells the plan."""
    asked, pool = job.asked, job.asked.pool
    if asked.sampling.batch_size is None:
        found = replace(found, batch_size=run.manifest()["batch_size"])  # votes are bit-equal at equal batches only
    owner = hold.enter_context(Ownership(run.store, heeds_stop=True))
    same = functools.partial(replaced, job.source, job.base_classifier.preprocessing)
    remaining = Remaining(run, job.statements, asked.sampling.max_samples)
    images = run.add_images(job.listing.images, same, remaining.sampled_pixels)
    wanted = images[images["image_id"].isin(job.listing.images["image_id"])]
    run.add_rules(rule.to_dict() for rule in job.rules)
    note_known_sets(run, image_sets_of(job.base_classifier, job.rules))
    ids = [rule.id for rule in job.rules]
    missing = with_sampled_pixels(remaining, remaining.to_sample(wanted, ids, retry_errors=asked.retry_errors), ids)
    _refuse_elsewhere(missing, found, asked.sampling.batch_size)
    if asked.budget is not None:
        missing = in_random_order(missing, run.manifest()["seed"])
        # images go on from a part together, and so do not come quite in this order: in windows of it they nearly do
        missing["window"] = np.arange(len(missing)) // _WINDOW
        note_budget(run, asked.budget, ids, remaining.to_sample(images, ids, retry_errors=False))
    before = remaining.parts
    _certify(job, run, before)  # what is there; actors add theirs as they commit
    samples = len(missing) * (asked.sampling.n0 + asked.sampling.max_samples)
    print(f"run       {run.location}")
    print(
        plan_of(
            job,
            precision=found.precision,
            device=found.device,
            to_sample=missing["image_id"],
            seconds=samples / found.samples_per_second / max(pool.actors, 1),
            actors=pool.actors,
        )
    )
    return _Begun(Work(job, run, found, owner, missing), images, wanted, remaining, before, hold)


def _end(begun: _Begun, seconds: float) -> Outcome:
    """Certifies what is new, notes where the run is finished, and gives it free."""
    job, run, missing, remaining = begun.work.job, begun.work.run, begun.work.missing, begun.remaining
    if len(missing):
        remaining.read()
    new = sorted(set(remaining.parts) - set(begun.before))
    _certify(job, run, new)  # parts whose actor died before it certified them
    ids, rules = [rule.id for rule in job.rules], list(run.rules())
    errors = remaining.errors(begun.wanted, ids)
    left = remaining.to_sample(begun.images, ids, retry_errors=False)
    sampled = missing["image_id"][~missing["image_id"].isin(left["image_id"])].nunique()
    outcome = Outcome(run, len(begun.wanted), sampled, errors)
    note_budget(run, job.asked.budget, ids, left)
    _say_why_it_ends(begun, left)
    if not run.is_noted() and not len(remaining.to_sample(begun.images, rules, retry_errors=False)):
        errors = remaining.errors(begun.images, rules)
        run.finish(num_images=len(begun.images), num_errors=len(errors), seconds=seconds)
    begun.hold.close()
    return outcome


def _say_why_it_ends(begun: _Begun, left: pd.DataFrame) -> None:
    """Says who ended a run that lacks something, and what of it counts."""
    run = begun.work.run
    why = reason_to_stop(run.store, begun.work.owner.number)
    if why is not None and len(left):
        lacking = f"{left['image_id'].nunique():,} of {len(begun.images):,} images are left to the same command"
        print(f"run {run.run_id} was ended by {why}; {lacking}")
    counted = prefix_of(run, begun.images, begun.remaining.rows)
    if counted is not None:
        print(f"run {run.run_id}: {counted}")


def _certify(job: Job, run: Run, parts: Sequence[str]) -> None:
    for spec, matrix in job.costs.items():
        for answer in job.answers:
            certify_run(run, spec, matrix, job.asked.alpha, parts, answer)


def _refuse_elsewhere(to_sample: pd.DataFrame, found: Probe, batch_size: int | None) -> None:
    """Refuses to go on with images where logits may round in another way than where they were begun.

    To begin them again there would be no better: of two certificates of an image one is then the luckier.

    Args:
        to_sample: Rows that `Remaining.to_sample` returned.
        found: Kind of a worker of the pool, as the probe found it.
        batch_size: Number of rows of a forward pass, where the user named it.

    Raises:
        UserError: naming both devices, or both batch sizes.
    """
    going_on = to_sample[to_sample["continues"] != ""]
    here, anew = device_kind(found.device), "give --begin_anew true for a run of its own"
    elsewhere = going_on["device"][going_on["device"].map(device_kind) != here]
    if len(elsewhere):
        raise UserError(
            f"{len(elsewhere)} images were begun on {device_kind(elsewhere.iloc[0])!r} and go on on such a device "
            f"alone, and this one is {here!r}; sample there, or {anew}"
        )
    others = going_on["batch_size"][going_on["batch_size"] != (batch_size or going_on["batch_size"])]
    if len(others):
        raise UserError(
            f"{len(others)} images were begun in batches of {others.iloc[0]} and go on in such alone, not in batches "
            f"of {batch_size}; leave sampling.batch_size out, or {anew}"
        )
