"""A sweep before and after its trials: what is checked, claimed and told, and which of them is kept."""

import hashlib
import json
import math
import re
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import asdict

import pandas as pd
import ray

from raycsr.certification import METRICS, metric_of
from raycsr.costs import CostMatrix
from raycsr.data.memory import Pixels, read_pixels
from raycsr.data.sources import Listing, open_source
from raycsr.distributed.cluster import check_location
from raycsr.distributed.options import SearchOptions, Space
from raycsr.distributed.plans import SweepPlan
from raycsr.distributed.pool import check_pool_options
from raycsr.distributed.sampling.classes import check_named_classes
from raycsr.distributed.sampling.job import check_votes
from raycsr.distributed.search.arguments import SweepArguments
from raycsr.distributed.search.space import at_point, corner_points, first_difference, with_later_options
from raycsr.distributed.search.trials import Sweep
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.distributed.training.inputs import inputs_of, refuse_other_inputs
from raycsr.distributed.training.plan import check, check_options, part_of, prepare, reading_of
from raycsr.distributed.training.ray_train import check_workers
from raycsr.errors import Mistakes, UserError, nearest
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import Preprocessing
from raycsr.reports.comparison import rank_trials
from raycsr.results import SCHEMA_VERSION, own_checkpoint, refuse_other_schema
from raycsr.store import Store
from raycsr.training.objectives import definition_of

ALPHA = 0.001  # of the certificates of the winners


def check_asked(asked: SweepArguments) -> Sweep:
    """Checks all that can be checked before a trial is paid for, the evaluation of the winners among it.

    Raises:
        UserError: naming all that is wrong.
    """
    mistakes = Mistakes()
    with mistakes.noted():
        check_location(asked.results)
    with mistakes.noted():
        sweep = check_sweep(asked.config, asked.space, asked.search)
    mistakes.refuse()
    check_evaluation(asked, sweep)
    return sweep


def check_sweep(config: TrainConfig, space: Space, search: SearchOptions) -> Sweep:
    """Checks all that can be checked without the cluster and without a model.

    Raises:
        UserError: naming what is wrong.
    """
    mistakes, listing = Mistakes(), None
    with mistakes.noted():
        _check_search(search)
    with mistakes.noted():
        listing = open_source(config.data).list()
    corners = [at_point(config, point) for point in corner_points(space)]
    for corner in corners:
        with mistakes.noted():
            if listing is None:
                check_options(corner)
            else:
                check(corner, listing)
        with mistakes.noted():
            check_workers(search.workers, corner.training)
    mistakes.refuse()
    assert listing is not None
    return Sweep(config, space, search, corners, listing, _metrics_of(corners, listing, search))


def check_evaluation(asked: SweepArguments, sweep: Sweep) -> None:
    """Checks the evaluation of the winners, where one is asked for, before their trials are paid for.

    Raises:
        UserError: naming what is wrong.
    """
    if asked.test is None:
        return
    mistakes = Mistakes()
    with mistakes.noted():
        check_pool_options(asked.pool)
    with mistakes.noted():
        check_votes(asked.sampling, list({corner.sigma for corner in sweep.corners}), ALPHA)
    with mistakes.noted():
        names = sweep.listing.class_names
        check_named_classes(open_source(asked.test).list(), len(names), names, "each model of the sweep")
    mistakes.refuse()


def _check_search(search: SearchOptions) -> None:
    if search.metric is not None and search.metric not in METRICS:
        raise UserError(f"unknown metric {search.metric!r}: {nearest(search.metric, METRICS)}")
    if (search.samples == -1 and search.max_hours is None) or search.samples == 0 or search.samples < -1:
        raise UserError(f"search.samples is {search.samples}: give 1 or more, or -1 with search.max_hours")


def _metrics_of(corners: list[TrainConfig], listing: Listing, search: SearchOptions) -> dict[str, str]:
    """Cost spec -> the metric that its trials compete in: the one that the user named, else that of the costs."""
    return {spec: search.metric or metric_of(costs) for spec, costs in _costs_of(corners, listing).items()}


def _costs_of(corners: list[TrainConfig], listing: Listing) -> dict[str, CostMatrix]:
    """Cost spec -> the matrix."""
    m, names = len(listing.class_names), listing.class_names
    return {spec: CostMatrix.from_spec(spec, m, names) for spec in dict.fromkeys(one.costs for one in corners)}


def inputs_of_backbones(sweep: Sweep) -> dict[str, Preprocessing]:
    """Creates each backbone once for each part of it that is trained, which checks it.

    Returns:
        Backbone -> what its images have to be.

    Raises:
        UserError: naming all that cannot be trained.
    """
    mistakes = Mistakes()
    inputs: dict[str, Preprocessing] = {}
    tried = set()
    for one in sweep.corners:
        if (backbone := (str(one.model), part_of(one))) not in tried:
            tried.add(backbone)
            with mistakes.noted():
                inputs[backbone[0]] = prepare(one, sweep.listing).model.preprocessing
    mistakes.refuse()
    return inputs


def pixels_of_each_backbone(sweep: Sweep, inputs: Mapping[str, Preprocessing]) -> dict[Preprocessing, Pixels]:
    """Decodes the images once for each kind of input.

    Args:
        sweep: The sweep.
        inputs: What `inputs_of_backbones` says.

    Returns:
        Preprocessing -> all images; without those that are streamed.
    """
    images = sweep.listing.images
    pixels: dict[Preprocessing, Pixels] = {}
    said: set[str] = set()
    for one in sweep.corners:
        stream, reading = reading_of(one, len(images), preprocessing := inputs[str(one.model)])
        if (line := f"read      {one.model.label}: {reading}") not in said:
            print(line)
            said.add(line)
        if not stream and preprocessing not in pixels:
            pixels[preprocessing] = read_pixels(open_source(one.data), images, preprocessing)
    sizes = sorted({one.input_size for one in inputs.values()})
    if len(sizes) > 1:
        words = " and ".join(f"{height} x {width}" for height, width in sizes)
        warnings.warn(
            f"trials take images of {words} px, and sigma and radii are distances at each size: do not compare them by "
            "a leaderboard",
            stacklevel=2,
        )
    return pixels


def claim(folder: Store, sweep: Sweep) -> str:
    """Writes down what the sweep is; refuses to go on with one that was another.

    Returns:
        The prefix of its trials' ids.
    """
    samples, seed = sweep.search.samples, sweep.search.seed
    facts = {"config": asdict(sweep.config), "space": sweep.space, "samples": samples, "seed": seed}
    prefix, objectives = uuid.uuid4().hex[:5], sorted({corner.objective.name for corner in sweep.corners})
    inputs = inputs_of(sweep.listing, _costs_of(sweep.corners, sweep.listing))
    ours = {"trials": prefix, "definitions": {name: definition_of(name) for name in objectives}, "inputs": inputs}
    if folder.create("sweep.json", json.dumps({"schema_version": SCHEMA_VERSION, **facts, **ours}, indent=1).encode()):
        return prefix
    try:
        begun = dict(json.loads(folder.read("sweep.json")))
        refuse_other_schema(begun, f"{folder.location}/sweep.json")
        stored = {key: begun[key] for key in facts} | {
            "config": with_later_options(dict(begun["config"]), sweep.config)
        }
        dict(begun.get("definitions", {}))
        changed = first_difference(stored, json.loads(json.dumps(facts)))
        if changed is None:
            refuse_other_inputs(f"the sweep in {folder.location}", begun.get("inputs"), inputs)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{folder.location}/sweep.json is damaged; give another --name") from error
    if changed is not None:
        raise UserError(
            f"the sweep in {folder.location} was started with {changed}; put it back to go on, or give another --name"
        )
    if not re.fullmatch("[0-9a-f]{5}", str(begun.get("trials"))):
        raise UserError(
            f"the sweep in {folder.location} was begun by an earlier raycsr: the pickles that it would go on from "
            "could run code; give another --name. Its trials.parquet and its checkpoints can be read"
        )
    return str(begun["trials"])


def concurrent_trials(search: SearchOptions, trials: int | None) -> int:
    """How many trials run at a time; one CPU stays free, or what feeds the trials would starve without a word."""
    have = ray.cluster_resources()
    cpus, gpus = have.get("CPU", 0.0), have.get("GPU", 0.0)
    most = math.inf if trials is None else trials
    cpus_of_one = search.cpus_per_trial * search.workers_per_trial
    gpus_of_one = search.gpus_per_trial * search.workers_per_trial
    fit_cpus = int((cpus - 1) / cpus_of_one) if cpus_of_one else most
    fit_gpus = int(gpus / gpus_of_one) if gpus_of_one else most
    if gpus_of_one and search.max_concurrent and search.max_concurrent * gpus_of_one > gpus:
        print(f"the cluster has {gpus:g} GPUs; of {search.max_concurrent} trials at a time some wait for nodes to come")
        return search.max_concurrent
    if fit_gpus < 1:
        raise UserError(
            f"a trial wants {gpus_of_one:g} GPUs and the cluster has {gpus:g}; lower search.gpus_per_trial, "
            "or give search.max_concurrent to wait for nodes"
        )
    fitting = min(fit_cpus, fit_gpus, most)
    default = max(int(fitting), 1) if math.isfinite(fitting) else 1  # endless trials that reserve nothing
    wanted = default if search.max_concurrent is None else search.max_concurrent
    if wanted < 1 or wanted * cpus_of_one > cpus - 1:
        raise UserError(
            f"{wanted} trials of {cpus_of_one:g} CPUs do not fit in the cluster's {cpus:g} CPUs less the one "
            "that must stay free; lower search.max_concurrent or search.cpus_per_trial"
        )
    return wanted


def keep_best(trials: pd.DataFrame, folder: Store, search: SearchOptions) -> dict[tuple[float, str], str]:
    """Copies the best checkpoint of each sigma and costs, without what it took to train on."""
    best = {}
    names = _names_of_best(trials)
    for _, group in rank_trials(trials, budget=search.budget).groupby(["sigma", "costs"]):
        sigma, costs = float(group["sigma"].iloc[0]), str(group["costs"].iloc[0])
        path = f"{folder.location}/best/{names[sigma, costs]}.pt"
        for trial, checkpoint in zip(group["trial"], group["checkpoint"], strict=True):
            try:
                model = load_base_classifier(checkpoint)
            except UserError as error:
                warnings.warn(f"trial {trial} cannot be the best of its kind: {error}", stacklevel=2)
                continue
            with own_checkpoint(path):
                if not _holds(path, model):
                    save_checkpoint(path, model)
            best[sigma, costs] = path
            break
    return best


def _names_of_best(trials: pd.DataFrame) -> dict[tuple[float, str], str]:
    """(sigma, costs) -> a name that people can read, and with a digest where another's would be the same."""
    kinds = list(dict.fromkeys(zip(trials["sigma"].astype(float), trials["costs"].astype(str), strict=True)))
    slugs = ["".join(c if c.isalnum() else "-" for c in costs)[:60] for _, costs in kinds]
    names = [f"sigma{sigma:g}-{slug}" for (sigma, _), slug in zip(kinds, slugs, strict=True)]
    return {
        kind: name if names.count(name) == 1 else f"{name}-{hashlib.sha256(repr(kind).encode()).hexdigest()[:8]}"
        for kind, name in zip(kinds, names, strict=True)
    }


def _holds(path: str, model: BaseClassifier) -> bool:
    """Whether a checkpoint has these weights already: it may hold rules that were tuned since."""
    try:
        return load_base_classifier(path).components == model.components
    except UserError:
        return False


def plan_of(sweep: Sweep, folder: Store, concurrent: int | None = None) -> SweepPlan:
    """The plan of a sweep; `concurrent` is the number of trials at a time, where the cluster is known."""
    search = sweep.search
    return SweepPlan(
        folder=folder.location,
        data=str(open_source(sweep.config.data)),
        space=sweep.space,
        num_trials=sweep.num_trials,
        concurrent=concurrent,
        cpus_per_trial=search.cpus_per_trial,
        gpus_per_trial=search.gpus_per_trial,
        scheduler=search.scheduler,
        max_hours=search.max_hours,
        metrics=sweep.metrics,
        notes=sweep.listing.notes,
    )
