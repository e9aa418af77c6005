"""A run to sample: what is checked before it, what it is called, what its plan says."""

import hashlib
import json
import math
import platform
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import pandas as pd

from raycsr.certification import Statements, check_alpha, largest_radius
from raycsr.certification.answers import ARGMAX, Answer, parse_answers
from raycsr.costs import CostMatrix
from raycsr.data.sources import Listing, Source, open_source
from raycsr.distributed.cluster import check_location
from raycsr.distributed.plans import SamplingPlan
from raycsr.distributed.pool import Probe, check_pool_options, device_kind, refuse_gpus
from raycsr.distributed.sampling.arguments import SampleArguments
from raycsr.distributed.sampling.budget import Budget
from raycsr.distributed.sampling.classes import check_classes, check_same_names, classes_by_position
from raycsr.errors import Mistakes, UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.loading import load_base_classifier, warn_of_other_sigma, warn_of_random_weights
from raycsr.models.memory import memory_of
from raycsr.models.prepare import check_precision
from raycsr.models.rules import Rule, parse_rules
from raycsr.models.spec import ModelOptions
from raycsr.options import listed
from raycsr.results import (
    SCHEMA_VERSION,
    Run,
    known_sets,
    seen_images,
)
from raycsr.smoothing.lattice import lattice_table
from raycsr.smoothing.options import CHUNK, NOISE_SCHEME, Draws, SamplingOptions
from raycsr.store import Store


@dataclass(frozen=True)
class Job:
    """One run to sample, with everything checked that can be checked without the cluster.

    Attributes:
        asked: Options of the user, for this run and those beside it.
        base_classifier: The base classifier.
        name: Name of the model, as `ModelOptions.label` writes it.
        sigma: Noise level, in [0, 1] pixel units.
        source: Source of the images.
        listing: Listing of the images.
        rules: Decision rules, argmax first.
        costs: Spec -> cost matrix to certify under.
        statements: Statements that a sequential run decides about each image; None where n alone ends its sampling.
        answers: What the smoothed classifier says, given shares; each is certified.
        model: How the user named the model, which the run notes; None where nobody named one.
    """

    asked: SampleArguments
    base_classifier: BaseClassifier
    name: str
    sigma: float
    source: Source
    listing: Listing
    rules: tuple[Rule, ...]
    costs: dict[str, CostMatrix]
    statements: Statements | None
    answers: tuple[Answer, ...] = (ARGMAX,)
    model: ModelOptions | None = None


def check(asked: SampleArguments) -> list[Job]:
    """Checks all that can be checked without the cluster, and returns a job for each model and sigma.

    Raises:
        UserError: naming all that is wrong.
    """
    mistakes = Mistakes()
    with mistakes.noted():
        check_pool_options(asked.pool)
    with mistakes.noted():
        check_votes(asked.sampling, asked.sigmas, asked.alpha)
    with mistakes.noted():
        check_location(asked.results)
    if asked.budget is not None:
        with mistakes.noted():
            Budget.parse(asked.budget, asked.pool.actors)
    listing = None
    with mistakes.noted():
        source = open_source(asked.data)
        listing = source.list()
    loaded = []
    for model in asked.models:
        base_classifier = None
        with mistakes.noted():
            base_classifier = load_base_classifier(model)
        if base_classifier is not None:
            with mistakes.noted():
                sampling = asked.sampling
                check_precision(sampling.precision, base_classifier, compile=bool(sampling.compile))
            with mistakes.noted():
                refuse_gpus(asked.pool, base_classifier)
        if listing is not None:
            with mistakes.noted():
                loaded.append((model, base_classifier, _check_specs(asked, model, base_classifier, listing)))
    mistakes.refuse()
    return [
        job
        for model, base_classifier, specs in loaded
        if base_classifier is not None and listing is not None
        for job in _jobs(asked, model, base_classifier, source, listing, specs)
    ]


@dataclass(frozen=True)
class _Specs:
    """What the specs of a command mean under a model and for its data."""

    costs: dict[str, CostMatrix]
    answers: tuple[Answer, ...]
    rules: tuple[Rule, ...]


def _check_specs(
    asked: SampleArguments, model: ModelOptions, base_classifier: BaseClassifier | None, listing: Listing
) -> _Specs:
    """Reads the specs; of a model that cannot be loaded, as its data alone lets them be read."""
    names, num_classes = listing.class_names, len(listing.class_names)
    stored: Sequence[Rule] = ()
    rules = ["argmax", *listed(asked.rules or [])]
    if base_classifier is not None:
        check_classes(listing, base_classifier, model.name)
        num_classes, stored = base_classifier.num_classes, base_classifier.rules
    else:
        rules = [spec for spec in rules if spec != "tuned"]
    mistakes, costs, answers, parsed = Mistakes(), {}, [], []
    for spec in listed(asked.costs or []):
        with mistakes.noted():
            costs[spec] = CostMatrix.from_spec(spec, num_classes, names)
    with mistakes.noted():
        answers = parse_answers(listed(asked.answers or ["argmax"]), num_classes, names)
    with mistakes.noted():
        parsed = parse_rules(rules, num_classes=num_classes, class_names=names, stored=stored)
    mistakes.refuse()
    return _Specs(costs, tuple(answers), tuple(parsed))


def _jobs(
    asked: SampleArguments,
    model: ModelOptions,
    base_classifier: BaseClassifier,
    source: Source,
    listing: Listing,
    specs: _Specs,
) -> Iterator[Job]:
    warn_of_random_weights(model)
    for line in seen_images(image_sets_of(base_classifier, specs.rules), lambda: listing.images, listing.identity):
        warnings.warn(f"model {model.name!r}: {line}", stacklevel=2)
    for sigma in asked.sigmas:
        statements = None
        if asked.sampling.radii is not None:
            statements = Statements(
                specs.costs.values(),
                asked.sampling.radii,
                sigma=sigma,
                alpha=asked.alpha,
                n=asked.sampling.max_samples,
                answers=specs.answers,
            )
        warn_of_other_sigma(base_classifier, model.name, sigma)
        yield Job(
            asked=asked,
            base_classifier=base_classifier,
            name=model.label,
            sigma=sigma,
            source=source,
            listing=listing,
            rules=specs.rules,
            costs=specs.costs,
            statements=statements,
            answers=specs.answers,
            model=model,
        )


def image_sets_of(base_classifier: BaseClassifier, rules: Iterable[Rule]) -> list[dict]:
    """The sets of images that a base classifier and its rules were made with."""
    return known_sets(base_classifier.training_info, [(rule.id, rule.spec) for rule in rules])


def check_votes(sampling: SamplingOptions, sigmas: Sequence[float], alpha: float) -> None:
    """Checks that such votes can certify anything.

    Raises:
        UserError: naming all that is wrong.
    """
    mistakes = Mistakes()
    with mistakes.noted():
        check_alpha(alpha)
    if not sigmas:
        mistakes.note("sampling.sigma is an empty list; give at least one noise level")
    for sigma in sigmas:
        with mistakes.noted():
            Draws(sigma, sampling.n0, sampling.n, batch_size=sampling.batch_size or 1)
    mistakes.refuse()
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
        reach = largest_radius(sampling.max_samples, alpha, sigma, "sequential")
        beyond = [radius for radius in radii if radius > reach]
        if beyond:
            raise UserError(
                f"n={sampling.n} samples certify {reach:.4g} at most at sigma {sigma:g} and alpha {alpha:g}, so never "
                f"radius {', '.join(f'{r:g}' for r in beyond)}; leave it out of sampling.radii, or raise sampling.n"
            )


def identity(job: Job, found: Probe) -> dict:
    """What determines the votes of an image; its digest is the run's id."""
    anew = {"device": device_kind(found.device), "batch_size": job.asked.sampling.batch_size, "schema": SCHEMA_VERSION}
    return {
        **({"begun_anew": anew} if job.asked.begin_anew else {}),
        "preprocessing": job.base_classifier.preprocessing.to_dict(),
        "components": job.base_classifier.components,
        "sigma": job.sigma,
        "seed": job.asked.sampling.seed,
        "precision": found.precision,
        "compile": found.compile,
        "noise_scheme": NOISE_SCHEME,
        "n0": job.asked.sampling.n0,
        "n": job.asked.sampling.n if job.statements is None else None,  # votes say when to stop, and may go on
        "sampling": job.asked.sampling.design,
        "data": job.listing.identity,
    }


def open_run(job: Job, found: Probe) -> Run:
    """The job's run, whose manifest is written where there is none.

    Raises:
        UserError: the run was begun by an earlier version of raycsr, or with other names of its classes.
    """
    facts = identity(job, found)
    run = _run_of(job, facts)
    if not job.asked.begin_anew:
        _refuse_beside_float_noise(run, _run_of(job, {**facts, "noise_scheme": "v1"}))
    table = lattice_table(job.sigma)
    height, width = job.base_classifier.preprocessing.input_size
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "experiment": job.asked.experiment,
        "model": job.name,
        "num_classes": job.base_classifier.num_classes,
        "class_names": job.listing.class_names,
        **facts,
        "noise": {
            "table": table.digest,  # voters whose own is another one refuse
            "total_variation": 3 * height * width * table.total_variation,  # of a sample, from rounded Gaussian noise
        },
        "batch_size": found.batch_size,
        "config": {
            "data": {**asdict(job.source.options), "split": job.listing.split},
            "sampling": asdict(job.asked.sampling),
            **({} if job.model is None else {"model": asdict(job.model)}),
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


def _run_of(job: Job, facts: dict) -> Run:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return Run(Store(job.asked.results).at(f"{job.asked.experiment}/runs/{digest[:16]}"))


def _refuse_beside_float_noise(run: Run, older: Run) -> None:
    """Refuses to begin a run where one of the same options has votes under the noise of before.

    Those votes are not gone on with: their certificates hold but for what float32 leaks, and more samples would make
    them no better. Nor is all that was paid for drawn again unasked.

    Raises:
        UserError: naming the older run.
    """
    if not run.store.exists("manifest.json") and older.store.exists("manifest.json"):
        raise UserError(
            f"run {older.location} of the same options was begun under noise scheme v1, added in float32. It is read, "
            "certified and reported, but goes on under the raycsr that began it alone; give another --experiment or "
            f"--results, or --begin_anew true, to sample all images again under {NOISE_SCHEME}, which is exact"
        )


def plan_of(
    job: Job, *, precision: str, device: str, to_sample: pd.Series, seconds: float | None = None, actors: int = 0
) -> SamplingPlan:
    """The plan of a run.

    Args:
        job: The run to sample.
        precision: Precision of the network.
        device: Device that samples.
        to_sample: Ids of the images, one twice that goes on under some rules and begins under others.
        seconds: Expected duration, where the speed is known.
        actors: Number of actors; 0 samples in this process.
    """
    sampling, memory = job.asked.sampling, memory_of(job.base_classifier, precision)
    copies, passes_a_copy = len(to_sample) * (sampling.n0 + sampling.max_samples), job.base_classifier.num_passes
    return SamplingPlan(
        model=job.name,
        num_classes=job.base_classifier.num_classes,
        input_size=job.base_classifier.preprocessing.input_size,
        precision=precision,
        device=device,
        rules=tuple(rule.spec for rule in job.rules),
        costs=tuple(job.costs),
        num_images=len(job.listing.images),
        num_to_sample=to_sample.nunique(),
        sigma=job.sigma,
        n0=sampling.n0,
        n=sampling.max_samples,
        design=sampling.design,
        forward_passes=copies * passes_a_copy,
        alpha=job.asked.alpha,
        largest_radius=largest_radius(sampling.max_samples, job.asked.alpha, job.sigma, sampling.design),
        decides=None if job.statements is None else str(job.statements),
        notes=(*job.listing.notes, *classes_by_position(job.listing, job.base_classifier)),
        denoisers=job.base_classifier.parts,
        memory=None if memory is None else str(memory),
        passes_a_copy=passes_a_copy,
        seconds=seconds,
        actors=actors,
    )
