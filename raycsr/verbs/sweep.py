"""Sweeping: Ray Tune over noise levels, cost matrices, backbones and objectives, judged by certificates."""

from dataclasses import dataclass, replace

import pandas as pd
import pyarrow as pa

from raycsr.costs import CostSpec
from raycsr.data.options import DataOptions
from raycsr.distributed.options import ObjectiveOptions, PoolOptions, SearchOptions, Space, TrackingOptions
from raycsr.models.spec import ModelOptions
from raycsr.reports.leaderboard import leaderboard
from raycsr.reports.markdown import as_markdown
from raycsr.reports.text import as_text
from raycsr.results import Ownership
from raycsr.results.outcome import Outcome
from raycsr.smoothing.options import SamplingOptions
from raycsr.store import Store
from raycsr.training.options import AugmentationOptions, TrainingOptions, ValidationOptions
from raycsr.verbs.evaluate import evaluate
from raycsr.verbs.report import report


@dataclass(frozen=True)
class SweepOutcome:
    """The result of a sweep.

    Attributes:
        location: Folder of the sweep.
        trials: Table with one row for each trial, as in trials.parquet.
        best: (sigma, costs) -> location of the best checkpoint.
        failures: Trial id -> why it failed.
        outcomes: Runs of the best classifiers on the test split, where it was asked for.
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
    costs: CostSpec = "uniform",
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
    """Trains a classifier for each point of a search space, and keeps the best for each sigma and cost matrix.

    The same command continues a sweep that was interrupted. Its folder, `<experiment>/sweeps/<name>`, holds a folder
    for each trial (trial.json, checkpoint.pt, TensorBoard's files), trials.parquet, leaderboard.md and
    best/<sigma>-<costs>.pt. While it runs, a second sweep of its name is refused.

    Args:
        data: The images to train on; some are held out for validation.
        model: The architecture, or a checkpoint to fine-tune.
        space: Search space: dotted option -> {grid: [...]}, {choice: [...]}, {uniform: [low, high]} or
            {log_uniform: [low, high]}. A group of options may be a value: `objective: {grid: [{name: gaussian}]}`.
        results: Folder for the results, local or s3://bucket/prefix.
        experiment: Name of the experiment, which is a folder within the results.
        name: Name of the sweep.
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix.
        objective: The training objective.
        training: The optimiser and its schedule.
        augmentation: The random augmentation of an image before the noise.
        validation: The held-out images by whose certificates trials are judged.
        seed: Seed of the order of the images, the augmentation, the noise and the networks' own randomness.
        stream: Whether to read the images anew each epoch, through Ray Data; by default where they do not fit in
            memory.
        allow_test_images: Whether to take images of which a folder, split or shard is named test, val or validation.
        search: How the space is searched, and with what resources.
        tracking: The experiment trackers to which trials are reported.
        test: Images to evaluate the best classifiers on, with the `sampling` and `pool` below; by default none.
        sampling: The noise and the number of samples of that evaluation; sigma is that of each classifier's training.
        pool: The actors that sample in that evaluation.
        radii: L2 radii of the table of that evaluation, in [0, 1] pixel units.

    Returns:
        The trials, the best classifiers and the failures.

    Raises:
        UserError: Something is wrong that can be known before a trial is paid for.
    """
    from raycsr.distributed.cluster import check_location, connect, user_errors_of_workers
    from raycsr.distributed.search.job import (
        ALPHA,
        check_evaluation,
        check_sweep,
        claim,
        concurrent_trials,
        keep_best,
        metrics_of,
        pixels_of_each_backbone,
        plan_of,
    )
    from raycsr.distributed.search.tracking import trackers
    from raycsr.distributed.search.trials import num_trials, run_trials
    from raycsr.distributed.training.plan import TrainConfig

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
        concurrent = concurrent_trials(search, num_trials(space, search))
        pixels = pixels_of_each_backbone(corners, listing)
        prefix = claim(folder, config, space, search)
        print(plan_of(config, listing, space, search, folder, metrics, concurrent))
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
        best = keep_best(trials, folder, search)
        board = leaderboard(trials, list(space), best, search.budget)
        folder.write("leaderboard.md", as_markdown(board).encode())
    print(as_text(board))
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
                alpha=ALPHA,
            )
        if len(outcomes) > 1:
            report(run=[o.run.location for o in outcomes], radii=radii, out=f"{folder.location}/report")
    return SweepOutcome(folder.location, trials, best, failures, outcomes)
