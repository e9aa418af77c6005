"""Sweeping: Ray Tune over noise levels, cost matrices, backbones and objectives, judged by certificates."""

from dataclasses import dataclass, replace

import pandas as pd
import pyarrow as pa

from raycsr.distributed.search.arguments import SweepArguments
from raycsr.models.spec import ModelOptions
from raycsr.options import takes
from raycsr.reports.leaderboard import leaderboard
from raycsr.reports.markdown import as_markdown
from raycsr.reports.text import as_text
from raycsr.results import Ownership
from raycsr.results.outcome import Outcome
from raycsr.store import Store
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
        report: The table of the report on these runs, where there are any.
    """

    location: str
    trials: pd.DataFrame
    best: dict[tuple[float, str], str]
    failures: dict[str, str]
    outcomes: list[Outcome]
    report: pd.DataFrame | None = None


@takes(SweepArguments)
def sweep(asked: SweepArguments) -> SweepOutcome:
    """Trains a classifier for each point of a search space, and keeps the best for each sigma and cost matrix.

    The same command continues a sweep that was interrupted. Its folder, `<experiment>/sweeps/<name>`, holds a folder
    for each trial (trial.json, checkpoint.pt, TensorBoard's files), trials.parquet, leaderboard.md and
    best/<sigma>-<costs>.pt, and a report of these on the images of `test`. While it runs, a second sweep of its name is
    refused.

    Args:
        asked: Options of the verb; a caller gives its fields as keyword arguments.

    Returns:
        The trials, the best classifiers and the failures.

    Raises:
        UserError: Something is wrong that can be known before a trial is paid for.
    """
    from raycsr.distributed.cluster import connect, user_errors_of_workers
    from raycsr.distributed.sampling.arguments import SampleArguments
    from raycsr.distributed.sampling.run import sample_all
    from raycsr.distributed.search.job import (
        ALPHA,
        check_asked,
        claim,
        concurrent_trials,
        inputs_of_backbones,
        keep_best,
        pixels_of_each_backbone,
        plan_of,
    )
    from raycsr.distributed.search.tracking import trackers
    from raycsr.distributed.search.trials import run_trials

    folder, search = Store(asked.results).at(f"{asked.experiment}/sweeps/{asked.name}"), asked.search
    checked = check_asked(asked)
    inputs = inputs_of_backbones(checked)
    followers = trackers(asked.tracking, f"{asked.experiment}/{asked.name}")
    with Ownership(folder, f"sweep {folder.location}") as owner:
        connect()
        concurrent = concurrent_trials(search, checked.num_trials)
        pixels = pixels_of_each_backbone(checked, inputs)
        prefix = claim(folder, checked)
        print(plan_of(checked, folder, concurrent))
        with user_errors_of_workers(search.workers.needs):
            trials = run_trials(
                checked, folder, prefix, concurrent=concurrent, trackers=followers, pixels=pixels, owner=owner
            )
        owner.check()
        folder.write_table("trials.parquet", pa.Table.from_pandas(trials, preserve_index=False))
        best = keep_best(trials, folder, search)
        board = leaderboard(trials, list(asked.space), best, search.budget)
        folder.write("leaderboard.md", as_markdown(board).encode())
    print(as_text(board))
    failed = trials[trials["state"] == "failed"]
    failures = {str(trial): str(error) for trial, error in zip(failed["trial"], failed["error"], strict=True)}
    outcomes, table = [], None
    if asked.test is not None and best:
        outcomes = sample_all(
            *(
                SampleArguments(
                    data=asked.test,
                    model=ModelOptions(checkpoint),
                    sampling=replace(asked.sampling, sigma=level),
                    pool=asked.pool,
                    costs=[spec],
                    results=asked.results,
                    experiment=asked.experiment,
                    alpha=ALPHA,
                )
                for (level, spec), checkpoint in best.items()
            )
        )
        runs = dict.fromkeys(outcome.run.location for outcome in outcomes)  # two of the same weights are one
        table = report(run=[*runs], radii=asked.radii, out=f"{folder.location}/report", allow_missing=True)
    return SweepOutcome(folder.location, trials, best, failures, outcomes, table)
