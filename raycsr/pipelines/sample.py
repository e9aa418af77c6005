"""Sampling: images -> votes, on Ray Data; the same command again samples only what is missing."""

import functools
import hashlib
import json
import math
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray

from raycsr.certification import Statements, check_alpha, largest_radius
from raycsr.costs import CostMatrix
from raycsr.data import DataOptions, Decode, Listing, Source, open_source
from raycsr.errors import UserError, first_of, printable
from raycsr.models import BaseClassifier, ModelOptions, Rule, has_weights, load_base_classifier, parse_rules
from raycsr.options import Spec, listed
from raycsr.pipelines.certify import certify_run
from raycsr.pipelines.classes import check_classes, check_same_names, classes_by_position
from raycsr.pipelines.cluster import check_location, connect, user_errors_of_workers
from raycsr.pipelines.deaths import SharedDeaths
from raycsr.pipelines.decoding import SurvivingDecode
from raycsr.pipelines.pool import (
    PoolOptions,
    Probe,
    alive_actors,
    check_pool,
    device_kind,
    probe,
)
from raycsr.pipelines.remaining import Remaining
from raycsr.pipelines.rereading import replaced, with_sampled_pixels
from raycsr.pipelines.voter import Voter
from raycsr.progress import Progress, Speed, duration
from raycsr.results import (
    SCHEMA_VERSION,
    Ownership,
    Run,
    known_sets,
    note_known_sets,
    seen_images,
)
from raycsr.smoothing import CHUNK, NOISE_SCHEME, NOT_FINITE, SamplingOptions, check_sampling
from raycsr.store import Store

BLOCK_SECONDS = 60.0  # work of an actor that a crash may cost
_BLOCK_IMAGES = 256  # pixels of a block stay well under Ray Data's limit on a block's bytes
_BLOCKS_PER_ACTOR = 4  # at least, so that actors finish together
_EXPECTED_SHARE = 1 / 16  # of n that an image of a sequential run takes on average, at most
_SHOWN = 6  # rules named in the plan


@dataclass(frozen=True)
class Job:
    """One run to sample, with everything checked that can be checked without the cluster."""

    base_classifier: BaseClassifier
    name: str  # of the model, as `ModelOptions.label` writes it
    sigma: float
    sampling: SamplingOptions
    source: Source
    listing: Listing
    rules: tuple[Rule, ...]
    costs: dict[str, CostMatrix]
    statements: Statements | None  # what a sequential run decides about each image
    alpha: float
    experiment: str
    results: str


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    run: Run
    num_images: int
    sampled: int  # images, by this call
    errors: dict[str, str]  # image_id -> why it certifies nothing


def sample(
    *,
    data: DataOptions,
    model: ModelOptions,
    sampling: SamplingOptions,
    pool: PoolOptions,
    results: str,
    experiment: str = "default",
    rules: list[Spec] | None = None,
    costs: list[Spec] | None = None,
    alpha: float = 0.001,
    further_models: list[str] | None = None,
    retry_errors: bool = False,
    begin_anew: bool = False,
) -> list[Outcome]:
    """Draws the votes of a base classifier on noisy copies of images, on a pool of Ray actors.

    A run that was interrupted, or whose data was a smaller subset, or that lacks a rule, is continued: each image
    counts once under each rule.

    Args:
        data: The images.
        model: The base classifier.
        sampling: The noise and the number of samples; several sigmas give a run each.
        pool: The actors.
        results: Folder of results, local or s3://bucket/prefix.
        experiment: Folder of this experiment within the results.
        rules: Decision rules beside argmax, which is always among them: offset:1.5*pair:cat/dog,
            offset:cat=1.5,dog=-0.5, expected_cost:2*seed:cat, offset:0.5,1,1.5*costs.csv (one each), or tuned for
            those that `raycsr tune-rule` stored in the model's checkpoint. All share the forward passes.
        costs: Cost matrices to certify under while sampling goes on: uniform, seed:cat,dog, pair:cat/dog,3/8
            or a path to a .csv, .tsv or .npy. More can be added later with `raycsr certify`. With sampling.radii they
            are what is decided, and the same command with other costs, radii or a larger n goes on where each image
            stopped.
        alpha: Failure probability of one image's certificate.
        further_models: Names of further models, with the other options of `model`: a run each.
        retry_errors: Sample errored images again.
        begin_anew: Sample into a run of its own for this kind of device and batch size, where the run that there is
            was begun on others and its images cannot go on here. Votes of the two are never mixed; to quote the better
            of two certificates of an image doubles the chance that it is false.

    Returns:
        One outcome a run.

    Raises:
        UserError: where anything is wrong that can be known before paying for samples; or a network's logits
            are not finite from the start.
    """
    models = [replace(model, name=name) for name in (model.name, *listed(further_models or []))]
    jobs = check(data, models, sampling, listed(costs or []), alpha, experiment, results, listed(rules or []))
    connect()
    check_pool(pool)
    return [_sample_run(job, pool, retry_errors, begin_anew) for job in jobs]


def check(
    data: DataOptions,
    models: list[ModelOptions],
    sampling: SamplingOptions,
    costs: Sequence[str],
    alpha: float,
    experiment: str,
    results: str,
    rules: Sequence[str] = (),
) -> list[Job]:
    """Checks all that can be checked without the cluster, and returns a job for each model and sigma.

    Raises:
        UserError: naming what is wrong.
    """
    sigmas = sampling.sigma if isinstance(sampling.sigma, list) else [sampling.sigma]
    check_votes(sampling, sigmas, alpha)
    check_location(results)
    source = open_source(data)
    listing = source.list()
    jobs = []
    for model in models:
        base_classifier = load_base_classifier(model)
        check_classes(listing, base_classifier, model.name)
        _warn_of_random_weights(model)
        matrices = {
            spec: CostMatrix.from_spec(spec, base_classifier.num_classes, listing.class_names) for spec in costs
        }
        parsed = parse_rules(
            ["argmax", *rules],
            num_classes=base_classifier.num_classes,
            class_names=listing.class_names,
            stored=base_classifier.rules,
        )
        for line in seen_images(_known_sets(base_classifier, parsed), lambda: listing.images, listing.identity):
            warnings.warn(f"model {model.name!r}: {line}", stacklevel=2)
        for sigma in sigmas:
            statements = None
            if sampling.radii is not None:
                statements = Statements(
                    matrices.values(), sampling.radii, sigma=float(sigma), alpha=alpha, n=sampling.most
                )
            _warn_of_training_sigma(base_classifier, model.name, sigma)
            jobs.append(
                Job(
                    base_classifier,
                    model.label,
                    float(sigma),
                    sampling,
                    source,
                    listing,
                    tuple(parsed),
                    matrices,
                    statements,
                    alpha,
                    experiment,
                    results,
                )
            )
    return jobs


def _known_sets(base_classifier: BaseClassifier, rules: Iterable[Rule]) -> list[dict]:
    return known_sets(base_classifier.training_info, [(rule.id, rule.spec) for rule in rules])


def check_votes(sampling: SamplingOptions, sigmas: Sequence[float], alpha: float) -> None:
    """Checks that such votes can certify anything.

    Raises:
        UserError: naming what is wrong.
    """
    check_alpha(alpha)
    if not sigmas:
        raise UserError("sampling.sigma is an empty list; give at least one noise level")
    for sigma in sigmas:
        check_sampling(sigma, sampling.n0, sampling.n, sampling.batch_size or 1)
    if sampling.radii is not None:
        _check_sequential(sampling, sampling.radii, sigmas, alpha)
    elif largest_radius(sampling.n, alpha, 1.0) <= 0:
        least = math.floor(math.log(alpha) / math.log(0.5)) + 1
        raise UserError(
            f"n={sampling.n} samples cannot certify any radius at alpha={alpha:g}, even if all agree; use n >= {least}"
        )


def _check_sequential(sampling: SamplingOptions, radii: list[float], sigmas: Sequence[float], alpha: float) -> None:
    if sampling.n < CHUNK:
        raise UserError(f"n={sampling.n} is below the first look at {CHUNK} samples; use n >= {CHUNK}")
    for sigma in sigmas:
        reach = largest_radius(sampling.most, alpha, sigma, "sequential")
        beyond = [radius for radius in radii if radius > reach]
        if beyond:
            raise UserError(
                f"n={sampling.n} samples certify {reach:.4g} at most at sigma {sigma:g} and alpha {alpha:g}, so never "
                f"radius {', '.join(f'{r:g}' for r in beyond)}; leave it out of sampling.radii, or raise sampling.n"
            )


def _warn_of_random_weights(model: ModelOptions) -> None:
    if not has_weights(model):
        warnings.warn(
            f"model {model.name!r} has random weights, of init_seed {model.init_seed}: for its own, set "
            "model.pretrained to true or to a file of them",
            stacklevel=2,
        )


def _warn_of_training_sigma(base_classifier: BaseClassifier, name: str, sigma: float) -> None:
    trained = base_classifier.training_sigma
    if trained is not None and not math.isclose(trained, sigma, rel_tol=1e-6):
        warnings.warn(
            f"model {name!r} was trained at sigma {trained:g} and is sampled at {sigma:g}; "
            "certificates hold, but radii will be short",
            stacklevel=2,
        )


def identity(job: Job, found: Probe, begin_anew: bool = False) -> dict:
    """What determines the votes of an image; its digest is the run's id."""
    anew = {"device": device_kind(found.device), "batch_size": job.sampling.batch_size, "schema": SCHEMA_VERSION}
    return {
        **({"begun_anew": anew} if begin_anew else {}),
        "preprocessing": job.base_classifier.preprocessing.to_dict(),
        "components": job.base_classifier.components,
        "sigma": job.sigma,
        "seed": job.sampling.seed,
        "precision": found.precision,
        "compile": job.sampling.compile,
        "noise_scheme": NOISE_SCHEME,
        "n0": job.sampling.n0,
        "n": job.sampling.n if job.statements is None else None,  # votes say when to stop, and may go on
        "sampling": job.sampling.design,
        "data": job.listing.identity,
    }


def open_run(job: Job, found: Probe, begin_anew: bool = False) -> Run:
    """The job's run, whose manifest is written where there is none.

    Raises:
        UserError: the run was begun by an earlier version of raycsr, or with other names of its classes.
    """
    facts = identity(job, found, begin_anew)
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    run = Run(Store(job.results).at(f"{job.experiment}/runs/{digest[:16]}"))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "experiment": job.experiment,
        "model": job.name,
        "num_classes": job.base_classifier.num_classes,
        "class_names": job.listing.class_names,
        **facts,
        "batch_size": found.batch_size,
        "config": {
            "data": {**asdict(job.source.options), "split": job.listing.split},
            "sampling": asdict(job.sampling),
        },
        "versions": {
            **{name: version(name) for name in ("raycsr", "torch", "timm", "numpy", "ray")},
            "python": platform.python_version(),
        },
    }
    if not run.store.create("manifest.json", json.dumps(manifest, indent=1).encode()):
        begun = run.manifest()
        if begun["schema_version"] != SCHEMA_VERSION:
            raise UserError(
                f"run {run.location} was begun under schema_version {begun['schema_version']} and can be read, but "
                "goes on under that alone; give --begin_anew true for a run of its own, or another --results"
            )
        check_same_names(begun["class_names"], job.listing.class_names, run.run_id)
    return run


def _sample_run(job: Job, pool: PoolOptions, retry_errors: bool, begin_anew: bool) -> Outcome:
    found = probe(job.base_classifier, job.sampling, pool)
    run = open_run(job, found, begin_anew)
    if job.sampling.batch_size is None:
        found = replace(found, batch_size=run.manifest()["batch_size"])  # votes are bit-equal at equal batches only
    with Ownership(run.store) as owner:
        same = functools.partial(replaced, job.source, job.base_classifier.preprocessing)
        images = run.add_images(job.listing.images, same)
        wanted = images[images["image_id"].isin(job.listing.images["image_id"])]
        run.add_rules(rule.to_dict() for rule in job.rules)
        note_known_sets(run, _known_sets(job.base_classifier, job.rules))
        ids = [rule.id for rule in job.rules]
        remaining = Remaining(run, job.statements, job.sampling.most)
        missing = with_sampled_pixels(run, remaining.to_sample(wanted, ids, retry_errors=retry_errors), ids)
        _refuse_elsewhere(missing, found, job.sampling.batch_size)
        before = run.vote_parts()
        for spec, matrix in job.costs.items():
            certify_run(run, spec, matrix, job.alpha, before)  # what is there; actors add theirs as they commit
        seconds = len(missing) * (job.sampling.n0 + job.sampling.most) / found.samples_per_second / pool.actors
        estimate = f"about {duration(seconds)} on {pool.actors} actors"
        print(f"run       {run.location}")
        print(
            describe(job, on=f"{found.precision} on {found.device}", to_sample=missing["image_id"], estimate=estimate)
        )
        start = time.monotonic()
        if len(missing):
            with user_errors_of_workers(pool.needs, seconds=pool.patience):
                stream(job, run, found, pool, owner, missing)
            remaining.read()
        new = sorted(set(run.vote_parts()) - set(before))
        for spec, matrix in job.costs.items():
            certify_run(run, spec, matrix, job.alpha, new)  # parts whose actor died before it certified them
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
        to_sample: as `Remaining.to_sample` returns it.
        found: what a worker of the pool is.
        batch_size: rows of a forward pass, where the user named them.

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


def describe(job: Job, *, on: str, to_sample: pd.Series, estimate: str = "") -> str:
    """The plan, in words: what there is to do and what it can give at most.

    Args:
        job: what to sample.
        on: the precision and the device.
        to_sample: ids of the images, one twice that goes on under some rules and begins under others.
        estimate: what that takes.
    """
    sampling, total, most = job.sampling, len(job.listing.images), "" if job.statements is None else "at most "
    height, width = job.base_classifier.preprocessing.input_size
    images, passes = to_sample.nunique(), len(to_sample) * (sampling.n0 + sampling.most)
    radius = largest_radius(sampling.most, job.alpha, job.sigma, sampling.design)
    lines = [
        f"model     {job.name}, {job.base_classifier.num_classes} classes, {height} x {width} px, {on}",
        f"rules     {first_of([rule.spec for rule in job.rules], _SHOWN)}",
        f"images    {total:,}, of which {images:,} to sample" if images else f"images    {total:,}, all sampled",
        f"samples   {sampling.n0:,} + {most}{sampling.most:,} an image at sigma {job.sigma:g}: "
        f"{most}{passes:,} forward passes{estimate and f', {most}{estimate}'}",
        f"radius    {radius:.4g} at most (L2, [0, 1] pixel units, alpha {job.alpha:g})",
        *([f"decided   {job.statements}"] if job.statements is not None else []),
        *job.listing.notes,
        *classes_by_position(job.listing, job.base_classifier),
    ]
    return "\n".join(map(printable, lines))


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
    blocks, deaths = blocks_of(job, found, pool, missing), SharedDeaths()
    model = functools.partial(ray.get, ray.put(job.base_classifier))
    votes = (
        ray.data.from_arrow(blocks)
        .map_batches(
            SurvivingDecode(Decode(job.source, job.base_classifier.preprocessing), deaths),
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
    _follow(votes, owner, len(missing), found.batch_size)


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


def _follow(votes: ray.data.Dataset, owner: Ownership, images: int, batch_size: int) -> None:
    """Shows images done, samples a second, actors and what time is left, and warns of what is wrong on the way."""
    samples, seen = Speed(), False

    def note() -> str:
        speed = samples.per_second()
        return ("" if speed is None else f"{speed:,.0f} samples/s, ") + f"{alive_actors()} actors alive"

    with Progress(images, "sample", "images", note) as progress:
        for block in votes.iter_batches(batch_size=None, batch_format="pandas"):
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
    fair = -(-images // (_BLOCKS_PER_ACTOR * pool.actors))
    return int(np.clip(min(BLOCK_SECONDS / seconds, fair), 1, _BLOCK_IMAGES))


def _stop_if_broken(block: pd.DataFrame, seen: bool) -> None:
    if not seen and (block["error"] == NOT_FINITE).all():
        raise UserError(
            f"the first block's {len(block)} images all gave logits that are not finite; check the model's weights, "
            "or use sampling.precision=fp32"
        )
