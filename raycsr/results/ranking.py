"""Rankings: by a certified metric, among those that pay little accuracy for it."""

import pandas as pd

from raycsr.certification import METRICS

BUDGET = 0.05  # of accuracy below the most accurate one


def rank_trials(trials: pd.DataFrame, metric: str = "rob_cs", budget: float = BUDGET) -> pd.DataFrame:
    """Trials with metrics, best first within each sigma and costs; those that lose too much accuracy come after.

    Args:
        trials: rows of `trials.parquet`, or of `raycsr.collect_trials`.
        metric: what they compete in.
        budget: how far their accuracy may be below that of the most accurate one.

    Returns:
        Those rows, with within_budget (bool).
    """
    return _rank(trials[trials["state"].isin(["finished", "stopped"])], ["sigma", "costs"], metric, budget)


def rank_points(points: pd.DataFrame, metric: str = "rob_cs", budget: float = BUDGET) -> pd.DataFrame:
    """Runs and decision rules at one radius, best first within each costs; those that lose too much accuracy after.

    rob_cs alone is won by a model that answers with seed classes only.

    Args:
        points: rows of a summary at one radius, with `run`, `costs` and `rule` in front.
        metric: what they compete in.
        budget: how far their accuracy may be below that of the most accurate one.

    Returns:
        Those rows that have the metric, with within_budget (bool) and place (from 1 within each costs).
    """
    ranked = _rank(points, ["costs"], metric, budget)
    return ranked.assign(place=ranked.groupby("costs").cumcount() + 1)


def _rank(rows: pd.DataFrame, by: list[str], metric: str, budget: float) -> pd.DataFrame:
    kept = rows[rows[metric].notna()].copy()
    top = kept.groupby(by)["accuracy"].transform("max")
    kept["within_budget"] = kept["accuracy"] >= top - budget - 1e-9
    ascending = [*(True for _ in by), False, not METRICS[metric], False]
    return kept.sort_values([*by, "within_budget", metric, "accuracy"], ascending=ascending)
