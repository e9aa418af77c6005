"""The leaderboard of a sweep: trials ranked by a certified metric, for each sigma and cost matrix."""

import json
from collections.abc import Iterable
from typing import Any

import pandas as pd

from raycsr.certification import METRICS
from raycsr.reports import markdown_table
from raycsr.reports import rank_trials as ranked
from raycsr.reports.tables import FLATTERED, MARK, collapse_line, in_markdown, shown_in


def leaderboard(trials: pd.DataFrame, keys: list[str], best: dict[tuple[float, str], str], budget: float) -> str:
    """Markdown: a table for each sigma and costs, best first, then what failed.

    Args:
        trials: One row a trial, as in trials.parquet; `metric` is what it competes in.
        keys: The space's options.
        best: (sigma, costs) -> where the best checkpoint was copied to; without those of which none can be read.
        budget: How much accuracy the best may lose.
    """
    parts = [f"# Leaderboard by {', '.join(dict.fromkeys(trials['metric']))}"]
    own = [key for key in keys if key not in ("sigma", "costs")]
    for _, group in ranked(trials, budget=budget).groupby(["sigma", "costs"]):
        sigma, costs, metric = float(group["sigma"].iloc[0]), str(group["costs"].iloc[0]), str(group["metric"].iloc[0])
        shown = [metric, *(name for name in shown_in("leaderboard") if name != metric)]
        rows = [["", *own, *shown, "epochs", "state", "trial"]]
        for place, trial in enumerate(group.to_dict("records"), 1):
            point = json.loads(trial["point"])
            state = trial["state"] if trial["within_budget"] else f"{trial['state']}, accuracy beyond budget"
            rows.append(
                [
                    str(place),
                    *(cell(point.get(key)) for key in own),
                    *(_number(trial, name) for name in shown),
                    f"{trial['epoch']:.0f}",
                    state,
                    trial["trial"],
                ]
            )
        by = f"{metric}{'' if METRICS[metric].more_is_better else ' (less is better)'}"
        parts += [f"## sigma {sigma:g}, costs {in_markdown(costs)}, by {by}", markdown_table(rows)]
        line = collapse_line(group, ["trial"])
        kept = best.get((sigma, costs), "none of these checkpoints can be read")
        parts += [*([in_markdown(line)] if line else []), f"Best: {in_markdown(kept)}"]
    parts.append(
        "Certified on held-out training images: figures to choose by, not to publish. The best is sought among trials "
        f"at most {budget:g} of accuracy below the most accurate of the same sigma and costs."
    )
    rest = trials[trials["state"].isin(["failed", "not started"])]
    if len(rest):
        parts.append("## Without a result")
        for row in rest.to_dict("records"):
            said = f"{row['trial']} {cell(json.loads(row['point']))}: {row['error'] or row['state']}"
            parts.append(f"- {in_markdown(said)}")
    return "\n\n".join(parts) + "\n"


def _number(trial: dict, name: str) -> str:
    if pd.isna(trial[name]):
        return "-"
    return f"{trial[name]:.3f}" + (f" {MARK}" if name in FLATTERED and trial["collapsed"] else "")


def cell(value: Any) -> str:
    """A value of the space as people read it."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return " ".join(cell(v) if key in ("name", "args") else f"{key}={cell(v)}" for key, v in value.items())
    return "-" if value is None else str(value)


def cells(values: Iterable[Any]) -> str:
    """Values of the space in brackets, as people read them."""
    return "(" + ", ".join(map(cell, values)) + ")"
