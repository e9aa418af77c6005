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
        costs: Cost matrix.
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
