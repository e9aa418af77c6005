"""The leaderboard of a sweep: trials ranked by a certified metric, for each sigma and cost matrix."""

import json
from collections.abc import Iterable
from typing import Any

import pandas as pd

from raycsr.certification import METRICS
from raycsr.reports.comparison import rank_trials
from raycsr.reports.document import Block, Column, Document, Notes, Paragraph, Section, Table
from raycsr.reports.tables import BEYOND_BUDGET, cell, column, marks_line, shown_in


def leaderboard(trials: pd.DataFrame, keys: list[str], best: dict[tuple[float, str], str], budget: float) -> Document:
    """A table for each sigma and costs, best first, then what failed.

    Args:
        trials: One row a trial, as in trials.parquet; `metric` is what it competes in.
        keys: The space's options.
        best: (sigma, costs) -> where the best checkpoint was copied to; without those of which none can be read.
        budget: Accuracy that the best trial may lose.
    """
    own = [key for key in keys if key not in ("sigma", "costs")]
    blocks: list[Block] = []
    for _, group in rank_trials(trials, budget=budget).groupby(["sigma", "costs"]):
        sigma, costs, metric = float(group["sigma"].iloc[0]), str(group["costs"].iloc[0]), str(group["metric"].iloc[0])
        kept = best.get((sigma, costs), "none of these checkpoints can be read")
        by = f"{metric}{'' if METRICS[metric].more_is_better else ' (less is better)'}"
        table = _table(group, own, [metric, *(name for name in shown_in("leaderboard") if name != metric)])
        blocks.append(Section(f"sigma {sigma:g}, costs {costs}, by {by}", [table, Paragraph(f"Best: {kept}")]))
    blocks.append(
        Paragraph(
            "Certified on held-out training images: figures to choose by, not to publish. The best is sought among "
            f"trials at most {budget:g} of accuracy below the most accurate of the same sigma and costs."
        )
    )
    rest = trials[trials["state"].isin(["failed", "not started"])].to_dict("records")
    if rest:
        said = [f"{row['trial']} {in_words(json.loads(row['point']))}: {row['error'] or row['state']}" for row in rest]
        blocks.append(Section("Without a result", [Notes(said)]))
    return Document(f"Leaderboard by {', '.join(dict.fromkeys(trials['metric']))}", blocks)


def _table(group: pd.DataFrame, own: list[str], shown: list[str]) -> Table:
    """The trials of one sigma and costs, best first, with their options and metrics."""
    columns = [Column("", numeric=True), *map(Column, own), *map(column, shown), Column("epochs", numeric=True)]
    rows = []
    for place, trial in enumerate(group.to_dict("records"), 1):
        point = json.loads(trial["point"])
        options, numbers = [in_words(point.get(key)) for key in own], [cell(trial, name) for name in shown]
        state = trial["state"] if trial["within_budget"] else f"{trial['state']}, {BEYOND_BUDGET}"
        rows.append([f"{place}", *options, *numbers, f"{trial['epoch']:.0f}", state, trial["trial"]])
    return Table([*columns, Column("state"), Column("trial")], rows, marks_line(group, ["trial"]))


def in_words(value: Any) -> str:
    """A value of the space as people read it."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return " ".join(in_words(v) if key in ("name", "args") else f"{key}={in_words(v)}" for key, v in value.items())
    return "-" if value is None else str(value)


def cells(values: Iterable[Any]) -> str:
    """Values of the space in brackets, as people read them."""
    return "(" + ", ".join(map(in_words, values)) + ")"
