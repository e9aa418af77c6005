"""Sweeping: Ray Tune over noise levels, cost matrices, backbones and objectives, judged by certificates."""

import json
import math
import re
import uuid
import warnings
from dataclasses import asdict, dataclass, replace

import pandas as pd
import pyarrow as pa
import ray

from raycsr.certification import METRICS, metric_of
from raycsr.costs import CostMatrix
from raycsr.data import DataOptions, Listing, Pixels, Source, open_source, read_pixels
from raycsr.errors import UserError, nearest, printable
from raycsr.models import BaseClassifier, ModelOptions, Preprocessing, load_base_classifier, save_checkpoint
from raycsr.options import Spec
from raycsr.pipelines.cluster import check_location, connect, user_errors_of_workers
from raycsr.pipelines.evaluate import evaluate
from raycsr.pipelines.leaderboard import leaderboard, ranked
from raycsr.pipelines.plan import ObjectiveOptions, TrainConfig, check, prepare
from raycsr.pipelines.pool import PoolOptions, check_pool_options
from raycsr.pipelines.report import report
from raycsr.pipelines.sample import Outcome, check_votes
from raycsr.pipelines.space import Space, at_point, corner_points, first_difference
from raycsr.pipelines.tracking import TrackingOptions, trackers
from raycsr.pipelines.trials import SearchOptions, num_trials, run_trials, short
from raycsr.pipelines.workers import check_workers
from raycsr.results import SCHEMA_VERSION, Ownership, own_checkpoint, refuse_other_schema
from raycsr.smoothing import SamplingOptions
from raycsr.store import Store
from raycsr.training import AugmentationOptions, TrainingOptions, ValidationOptions

_CHECKPOINT = "checkpoint.pt"
_WAITING = 0.001  # CPUs of a trial whose workers train: Tune refuses none

_ALPHA = 0.001  # of the certificates of the winners


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep came to.

    Attributes:
        location: Its folder.
        trials: One row a trial, as in trials.parquet.
        best: (sigma, costs) -> checkpoint.
        failures: Trial id -> why it failed.
        outcomes: Runs of the winners on the test split, where asked for.
    """

    location: str
    trials: pd.DataFrame
    best: dict[tuple[float, str], str]
    failures: dict[str, str]
    outcomes: list[Outcome]


def sweep(
    *,
    data: DataOptions,
    model: ModelOptions,
    space: Space,
    results: str,
    experiment: str = "default",
    name: str = "sweep",
    sigma: float = 0.25,
    costs: Spec = "uniform",
    objective: ObjectiveOptions = ObjectiveOptions(),
    training: TrainingOptions = TrainingOptions(),
    augmentation: AugmentationOptions = AugmentationOptions(),
    validation: ValidationOptions = ValidationOptions(),
    seed: int = 0,
    stream: bool | None = None,
    allow_test_images: bool = False,
    search: SearchOptions = SearchOptions(),
    tracking: TrackingOptions = TrackingOptions(),
    test: DataOptions | None = None,
    sampling: SamplingOptions = SamplingOptions(),
    pool: PoolOptions = PoolOptions(),
    radii: list[float] | None = None,
) -> SweepOutcome:
    """Trains a classifier for each point of a space, and keeps the best for each sigma and cost matrix.

    The same command continues a sweep that was interrupted. Its folder, `<experiment>/sweeps/<name>`, holds a folder
    for each trial (trial.json, checkpoint.pt, TensorBoard's files), trials.parquet, leaderboard.md and
    best/<sigma>-<costs>.pt. While it runs, a second one of its name is refused.

    Args:
        data: The images to train on; some are held out for validation.
        model: The architecture, or a checkpoint to fine-tune.
        space: What differs between trials: dotted option -> {grid: [...]}, {choice: [...]}, {uniform: [low, high]} or
            {log_uniform: [low, high]}. A group of options may be a value: `objective: {grid: [{name: gaussian}]}`.
        results: Folder of results, local or s3://bucket/prefix.
        experiment: Folder of this experiment within the results.
        name: Of the sweep.
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix: uniform, seed:cat,dog, pair:cat/dog,3/8 or a path to a .csv, .tsv or .npy.
        objective: The loss.
        training: Optimiser and schedule.
        augmentation: What is done to an image before the noise.
        validation: What trials are judged by.
        seed: Of the order, the augmentation, the noise and the networks' own randomness.
        stream: Read the images anew each epoch, through Ray Data; by default where they do not fit in memory.
        allow_test_images: Take images although a folder, split or shard of them is named test, val or validation.
        search: How the space is searched, and with what resources.
        tracking: Trackers of experiments that follow the trials.
        test: Images to evaluate the winners on at full n, with `sampling` and `pool`; by default none.
        sampling: The samples of that evaluation; its sigma is each winner's own.
        pool: The actors of that evaluation.
        radii: L2 radii of that evaluation's table, in [0, 1] pixel units.

    Returns:
        The trials, the winners and the failures.

    Raises:
        UserError: where anything is wrong that can be known before paying for a trial.
    """
    config = TrainConfig(
        data,
        model,
        sigma,
        costs,
        objective,
        training,
        augmentation,
        validation,
        seed,
        stream,
        allow_test_images,
    )
    check_location(results)
    folder = Store(results).at(f"{experiment}/sweeps/{name}")
    corners, listing = check_sweep(config, space, search)
    check_evaluation(test, sampling, pool, corners)
    metrics = metrics_of(corners, listing, search)
    followers = trackers(tracking, f"{experiment}/{name}")
    with Ownership(folder, f"sweep {folder.location}") as owner:
        connect()
        concurrent = _concurrent(search, num_trials(space, search))
        pixels = _pixels_of_each_backbone(corners, listing)
        prefix = _claim(folder, config, space, search)
        plan = describe(open_source(config.data), space, search, folder, metrics, f"{concurrent} at a time, ")
        print(plan, *listing.notes, sep="\n")
        with user_errors_of_workers(search.workers.needs):
            trials = run_trials(
                folder,
                prefix,
                config,
                space,
                search,
                longest=max(corner.training.epochs for corner in corners),
                concurrent=concurrent,
                trackers=followers,
                metrics=metrics,
                listing=listing,
                pixels=pixels,
                owner=owner,
            )
        owner.check()
        folder.write_table("trials.parquet", pa.Table.from_pandas(trials, preserve_index=False))
        best = _keep_best(trials, folder, search)
        text = leaderboard(trials, list(space), best, search.budget)
        folder.write("leaderboard.md", text.encode())
    print(text)
    failed = trials[trials["state"] == "failed"]
    failures = {str(trial): str(error) for trial, error in zip(failed["trial"], failed["error"], strict=True)}
    outcomes = []
    if test is not None:
        for (level, spec), checkpoint in best.items():
            outcomes += evaluate(
                data=test,
                model=ModelOptions(checkpoint),
                sampling=replace(sampling, sigma=level),
                pool=pool,
                costs=[spec],
                results=results,
                experiment=experiment,
                radii=radii,
                alpha=_ALPHA,
            )
        if len(outcomes) > 1:
            report(run=[o.run.location for o in outcomes], radii=radii, out=f"{folder.location}/report")
    return SweepOutcome(folder.location, trials, best, failures, outcomes)


def check_sweep(config: TrainConfig, space: Space, search: SearchOptions) -> tuple[list[TrainConfig], Listing]:
    """Checks all that can be checked without the cluster and without a model.

    Returns:
        The trainings at the corners of the space, and the listing of their data.

    Raises:
        UserError: naming what is wrong.
    """
    _check_search(search)
    corners = [at_point(config, point) for point in corner_points(space)]
    listing = open_source(config.data).list()
    for corner in corners:
        check(corner, listing)
        check_workers(search.workers, corner.training.batch_size)
    return corners, listing


def check_evaluation(
    test: DataOptions | None, sampling: SamplingOptions, pool: PoolOptions, corners: list[TrainConfig]
) -> None:
    """Checks the evaluation of the winners, where one is asked for, before their trials are paid for.

    Raises:
        UserError: naming what is wrong.
    """
    if test is not None:
        check_pool_options(pool)
        check_votes(sampling, list({corner.sigma for corner in corners}), _ALPHA)
        open_source(test).list()


def _check_search(search: SearchOptions) -> None:
    if search.metric is not None and search.metric not in METRICS:
        raise UserError(f"unknown metric {search.metric!r}: {nearest(search.metric, METRICS)}")
    if (search.samples == -1 and search.max_hours is None) or search.samples == 0 or search.samples < -1:
        raise UserError(f"search.samples is {search.samples}: give 1 or more, or -1 with search.max_hours")


def metrics_of(corners: list[TrainConfig], listing: Listing, search: SearchOptions) -> dict[str, str]:
    """Cost spec -> the metric that its trials compete in: the one that the user named, else that of the costs."""
    m, names = len(listing.class_names), listing.class_names
    specs = dict.fromkeys(corner.costs for corner in corners)
    return {spec: search.metric or metric_of(CostMatrix.from_spec(spec, m, names)) for spec in specs}


def _pixels_of_each_backbone(corners: list[TrainConfig], listing: Listing) -> dict[Preprocessing, Pixels]:
    """Creates each backbone once, which checks it, and decodes the images once for each kind of input.

    Returns:
        Preprocessing -> all images; without those that are streamed.
    """
    pixels: dict[Preprocessing, Pixels] = {}
    seen: list[ModelOptions] = []
    for one in corners:
        if one.model not in seen:
            seen.append(one.model)
            plan = prepare(one, listing)
            preprocessing = plan.model.preprocessing
            if not plan.stream and preprocessing not in pixels:
                pixels[preprocessing] = read_pixels(plan.source, listing.images, preprocessing)
    return pixels


def _claim(folder: Store, config: TrainConfig, space: dict, search: SearchOptions) -> str:
    """Writes down what the sweep is; refuses to go on with one that was another.

    Returns:
        The prefix of its trials' ids.
    """
    facts = {"config": asdict(config), "space": space, "samples": search.samples, "seed": search.seed}
    prefix = uuid.uuid4().hex[:5]
    if folder.create(
        "sweep.json", json.dumps({"schema_version": SCHEMA_VERSION, **facts, "trials": prefix}, indent=1).encode()
    ):
        return prefix
    try:
        begun = dict(json.loads(folder.read("sweep.json")))
        refuse_other_schema(begun, f"{folder.location}/sweep.json")
        changed = first_difference({key: begun[key] for key in facts}, json.loads(json.dumps(facts)))
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


def _concurrent(search: SearchOptions, trials: int | None) -> int:
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


def _keep_best(trials: pd.DataFrame, folder: Store, search: SearchOptions) -> dict[tuple[float, str], str]:
    """Copies the best checkpoint of each sigma and costs, without what it took to train on."""
    best = {}
    for _, group in ranked(trials, budget=search.budget).groupby(["sigma", "costs"]):
        sigma, costs = float(group["sigma"].iloc[0]), str(group["costs"].iloc[0])
        slug = "".join(c if c.isalnum() else "-" for c in costs)[:60]
        path = f"{folder.location}/best/sigma{sigma:g}-{slug}.pt"
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


def _holds(path: str, model: BaseClassifier) -> bool:
    """Whether a checkpoint has these weights already: it may hold rules that were tuned since."""
    try:
        return load_base_classifier(path).components == model.components
    except UserError:
        return False


def describe(
    source: Source,
    space: Space,
    search: SearchOptions,
    folder: Store,
    metrics: dict[str, str],
    concurrent: str = "",
) -> str:
    """The plan, in words; `concurrent` says how many trials run at a time."""
    domains = [f"{key} {kind} {short(v)}" for key, d in space.items() for kind, v in d.items()]
    count = num_trials(space, search)
    by = {name: [costs for costs, metric in metrics.items() if metric == name] for name in metrics.values()}
    judged = ", ".join(f"{name} ({', '.join(costs)})" if len(by) > 1 else name for name, costs in by.items())
    trials = "trials until the time is up" if count is None else f"{count} trials"
    lines = [
        f"sweep     {folder.location}",
        f"data      {source}",
        f"space     {'; '.join(domains)}",
        f"trials    {trials}, {concurrent}{search.cpus_per_trial:g} CPUs and {search.gpus_per_trial:g} "
        f"GPUs each, {search.scheduler}"
        + (f", at most {search.max_hours:g} h" if search.max_hours is not None else ""),
        f"judged by {judged} on held-out images",
    ]
    return "\n".join(map(printable, lines))
