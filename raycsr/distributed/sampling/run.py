"""Sampling one run: what is missing of it is drawn, certified and counted."""

import functools
import time
from dataclasses import replace

import pandas as pd

from raycsr.distributed.certify_run import certify_run
from raycsr.distributed.cluster import user_errors_of_workers
from raycsr.distributed.pool import Probe, device_kind, probe
from raycsr.distributed.sampling.job import Job, image_sets_of, open_run, plan_of
from raycsr.distributed.sampling.remaining import Remaining
from raycsr.distributed.sampling.rereading import replaced, with_sampled_pixels
from raycsr.distributed.sampling.stream import Work, stream
from raycsr.errors import UserError
from raycsr.results import Ownership, note_known_sets
from raycsr.results.outcome import Outcome


def sample_run(job: Job) -> Outcome:
    """Samples what is missing of a job's run, and certifies it under the job's costs."""
    asked, pool = job.asked, job.asked.pool
    found = probe(job.base_classifier, asked.sampling, pool)
    run = open_run(job, found)
    if asked.sampling.batch_size is None:
        found = replace(found, batch_size=run.manifest()["batch_size"])  # votes are bit-equal at equal batches only
    with Ownership(run.store) as owner:
        same = functools.partial(replaced, job.source, job.base_classifier.preprocessing)
        images = run.add_images(job.listing.images, same)
        wanted = images[images["image_id"].isin(job.listing.images["image_id"])]
        run.add_rules(rule.to_dict() for rule in job.rules)
        note_known_sets(run, image_sets_of(job.base_classifier, job.rules))
        ids = [rule.id for rule in job.rules]
        remaining = Remaining(run, job.statements, asked.sampling.max_samples)
        missing = with_sampled_pixels(run, remaining.to_sample(wanted, ids, retry_errors=asked.retry_errors), ids)
        _refuse_elsewhere(missing, found, asked.sampling.batch_size)
        before = run.vote_parts()
        for spec, matrix in job.costs.items():
            certify_run(run, spec, matrix, asked.alpha, before)  # what is there; actors add theirs as they commit
        samples = len(missing) * (asked.sampling.n0 + asked.sampling.max_samples)
        seconds = samples / found.samples_per_second / max(pool.actors, 1)
        print(f"run       {run.location}")
        to_sample = missing["image_id"]
        print(
            plan_of(
                job,
                precision=found.precision,
                device=found.device,
                to_sample=to_sample,
                seconds=seconds,
                actors=pool.actors,
            )
        )
        start = time.monotonic()
        if len(missing):
            with user_errors_of_workers(pool.needs, seconds=pool.patience):
                stream(Work(job, run, found, owner, missing))
            remaining.read()
        new = sorted(set(run.vote_parts()) - set(before))
        for spec, matrix in job.costs.items():
            certify_run(run, spec, matrix, asked.alpha, new)  # parts whose actor died before it certified them
        outcome = Outcome(run, len(wanted), missing["image_id"].nunique(), remaining.errors(wanted, ids))
        rules = list(run.rules())
        unfinished = len(missing) > 0 or not run.finished()
        if unfinished and not len(remaining.to_sample(images, rules, retry_errors=False)):
            errors = remaining.errors(images, rules)
            run.finish(num_images=len(images), num_errors=len(errors), seconds=time.monotonic() - start)
    return outcome


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
