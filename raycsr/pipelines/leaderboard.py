"""The leaderboard of a sweep: trials ranked by a certified metric, for each sigma and cost matrix."""

import json
from typing import Any

import pandas as pd

from raycsr.results import markdown_table
from raycsr.results import rank_trials as ranked


def leaderboard(
    trials: pd.DataFrame, keys: list[str], best: dict[tuple[float, str], str], metric: str, budget: float
) -> str:
    """Markdown: a table for each sigma and costs, best first, then what failed.

    Args:
        trials: One row a trial, as in trials.parquet.
        keys: The space's options.
        best: (sigma, costs) -> where the best checkpoint was copied to.
        metric: What trials compete in.
        budget: How much accuracy the best may lose.
    """
    parts = [f"# Leaderboard by {metric}"]
    own = [key for key in keys if key not in ("sigma", "costs")]
    shown = ["accuracy", "rob_cs", "rob_cost", "acr", "seed_recall", "target_recall"]
    if metric not in shown:
        shown.insert(0, metric)
    for _, group in ranked(trials, metric, budget).groupby(["sigma", "costs"]):
        sigma, costs = float(group["sigma"].iloc[0]), str(group["costs"].iloc[0])
        rows = [["", *own, *shown, "epochs", "state", "trial"]]
        for place, trial in enumerate(group.to_dict("records"), 1):
            point = json.loads(trial["point"])
            state = trial["state"] if trial["within_budget"] else f"{trial['state']}, accuracy beyond budget"
            rows.append(
                [
                    str(place),
                    *(cell(point.get(key)) for key in own),
                    *("-" if pd.isna(trial[name]) else f"{trial[name]:.3f}" for name in shown),
                    f"{trial['epoch']:.0f}",
                    state,
                    trial["trial"],
                ]
            )
        parts += [f"## sigma {sigma:g}, costs {costs}", markdown_table(rows), f"Best: {best[sigma, costs]}"]
    parts.append(
        "Certified on held-out training images: figures to choose by, not to publish. The best is sought among trials "
        f"at most {budget:g} of accuracy below the most accurate of the same sigma and costs."
    )
    rest = trials[trials["state"].isin(["failed", "not started"])]
    if len(rest):
        parts.append("## Without a result")
        for row in rest.to_dict("records"):
            parts.append(f"- {row['trial']} {cell(json.loads(row['point']))}: {row['error'] or row['state']}")
    return "\n\n".join(parts) + "\n"


def cell(value: Any) -> str:
    """A value of the space as people read it."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return " ".join(cell(v) if key in ("name", "args") else f"{key}={cell(v)}" for key, v in value.items())
    return "-" if value is None else str(value)
