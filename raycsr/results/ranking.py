"""Rankings: by the metric of the costs, or one that is named, among those that pay little accuracy for it."""

import numpy as np
import pandas as pd

from raycsr.certification import METRICS

BUDGET = 0.05  # of accuracy below the most accurate one


def rank_trials(trials: pd.DataFrame, metric: str | None = None, budget: float = BUDGET) -> pd.DataFrame:
    """Trials with metrics, best first within each sigma and costs; those that lose too much accuracy come after.

    Args:
        trials: rows of `trials.parquet`, or of `raycsr.collect_trials`.
        metric: what they compete in; by default what their sweep judged them by (`metric`).
        budget: how far their accuracy may be below that of the most accurate one.

    Returns:
        Those rows, with within_budget (bool).
    """
    return _rank(trials[trials["state"].isin(["finished", "stopped"])], ["sigma", "costs"], metric, budget)


def rank_points(points: pd.DataFrame, metric: str | None = None, budget: float = BUDGET) -> pd.DataFrame:
    """Runs and decision rules at one radius, best first within each costs; those that lose too much accuracy after.

    rob_cs alone is won by a model that answers with seed classes only.

    Args:
        points: rows of `summaries` at one radius.
        metric: what they compete in; by default the metric of their costs (`metric`).
        budget: how far their accuracy may be below that of the most accurate one.

    Returns:
        Those rows that have the metric, with within_budget (bool) and place (from 1 within each costs).
    """
    ranked = _rank(points, ["costs"], metric, budget)
    return ranked.assign(place=ranked.groupby("costs").cumcount() + 1)


def metric_in_words(metric: str) -> str:
    """The metric of some costs (`raycsr.certification.metric_of`), and why it is that one."""
    return "rob_cost (less is better; the costs differ in size)" if metric == "rob_cost" else metric


def merits(rows: pd.DataFrame, metric: str | None = None) -> pd.Series:
    """How good each row is at its metric, so that more is better: of costs, which are the better the less, -1 times.

    Args:
        rows: with `metric`, the name of the metric that each competes in, and a column of each metric.
        metric: one that all compete in instead.
    """
    names = np.array(rows["metric"] if metric is None else [metric] * len(rows), str)
    found = np.full(len(rows), np.nan)
    for name in set(names.tolist()):
        values = rows[name].to_numpy(float, na_value=np.nan)
        found = np.where(names == name, values if METRICS[name] else -values, found)
    return pd.Series(found, rows.index)


def _rank(rows: pd.DataFrame, by: list[str], metric: str | None, budget: float) -> pd.DataFrame:
    kept = rows.assign(merit=merits(rows, metric)).dropna(subset="merit")
    top = kept.groupby(by)["accuracy"].transform("max")
    kept["within_budget"] = kept["accuracy"] >= top - budget - 1e-9
    ascending = [*(True for _ in by), False, False, False]
    return kept.sort_values([*by, "within_budget", "merit", "accuracy"], ascending=ascending).drop(columns="merit")
