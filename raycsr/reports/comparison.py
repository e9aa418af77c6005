"""Rankings: by the metric of the costs, or one that is named, among those that pay little accuracy for it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from raycsr.certification import METRICS
from raycsr.reports.certified import Certified

BUDGET = 0.05  # of accuracy below the most accurate one


def rank_trials(trials: pd.DataFrame, metric: str | None = None, budget: float = BUDGET) -> pd.DataFrame:
    """Trials with metrics, best first within each sigma and costs; those that lose too much accuracy come after.

    Args:
        trials: Rows of `trials.parquet`, or of `raycsr.collect_trials`.
        metric: Metric that trials compete in; by default the one that their sweep judged them by (`metric`).
        budget: Accuracy that may be lost against the most accurate trial.

    Returns:
        Those rows, with within_budget (bool).
    """
    return _rank(trials[trials["state"].isin(["finished", "stopped"])], ["sigma", "costs"], metric, budget)


def rank_points(points: pd.DataFrame, metric: str | None = None, budget: float = BUDGET) -> pd.DataFrame:
    """Runs and decision rules at one radius, best first within each costs; those that lose too much accuracy after.

    rob_cs alone is won by a model that answers with seed classes only.

    Args:
        points: Rows of `summaries` at one radius.
        metric: Metric that points compete in; by default the metric of their costs (`metric`).
        budget: Accuracy that may be lost against the most accurate point.

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
        rows: With `metric`, the name of the metric that each competes in, and a column of each metric.
        metric: One that all compete in instead.
    """
    names = np.array(rows["metric"] if metric is None else [metric] * len(rows), str)
    found = np.full(len(rows), np.nan)
    for name in set(names.tolist()):
        values = rows[name].to_numpy(float, na_value=np.nan)
        found = np.where(names == name, values if METRICS[name].more_is_better else -values, found)
    return pd.Series(found, rows.index)


def _rank(rows: pd.DataFrame, by: list[str], metric: str | None, budget: float) -> pd.DataFrame:
    kept = rows.assign(merit=merits(rows, metric)).dropna(subset="merit")
    top = kept.groupby(by)["accuracy"].transform("max")
    kept["within_budget"] = kept["accuracy"] >= top - budget - 1e-9
    ascending = [*(True for _ in by), False, False, False]
    return kept.sort_values([*by, "within_budget", "merit", "accuracy"], ascending=ascending).drop(columns="merit")


LOSSES = (0.0, 0.01, 0.025, 0.05)  # of accuracy, for which `at_equal_accuracy` compares runs


def non_dominated(accuracy: ArrayLike, merit: ArrayLike) -> NDArray[np.bool_]:
    """Which of N points no other beats: none is as good in both numbers and better in one. NaN is never on it.

    Args:
        accuracy: (N,).
        merit: Such as rob_cs, of which more is better (`merits`); (N,).
    """
    a, r = np.asarray(accuracy, float), np.asarray(merit, float)
    as_good = (a[:, None] >= a) & (r[:, None] >= r)  # (N, N): row against column
    better = (a[:, None] > a) | (r[:, None] > r)
    return ~(as_good & better).any(axis=0) & ~np.isnan(a) & ~np.isnan(r)


def front(points: pd.DataFrame) -> pd.DataFrame:
    """The points that no other of the same run and costs beats in accuracy and the metric, the most accurate first.

    Args:
        points: Rows of `summaries` at one radius.

    Returns:
        Those rows, by costs and run, with `best` beside: whether no point of any run beats it.
    """
    groups = [
        group[non_dominated(group["accuracy"], merits(group))].sort_values("accuracy", ascending=False, kind="stable")
        for costs in points["costs"].unique()
        for _, group in points[points["costs"] == costs].groupby("run", sort=False)
    ]
    on_front = pd.concat(groups, ignore_index=True).assign(best=False)
    for _, group in on_front.groupby("costs", sort=False):
        on_front.loc[group.index, "best"] = non_dominated(group["accuracy"], merits(group))
    return on_front


def at_equal_accuracy(points: pd.DataFrame, losses: Sequence[float] = LOSSES) -> pd.DataFrame:
    """Of each run the rule that is best at the metric among those that keep a stated accuracy.

    The accuracy to keep is, for each costs, that of the reference less the loss; the reference is the run
    whose plain argmax is the most accurate.

    Args:
        points: Rows of `summaries` at one radius.
        losses: Losses of accuracy, as shares of images.

    Returns:
        For each costs, run and loss the row of that rule, with reference (bool) and loss; where no rule keeps the
        accuracy, the row has no numbers. No rows for costs under which no run has argmax.
    """
    rows: list[dict] = []
    for costs, group in points[points["rob_cs"].notna()].groupby("costs", sort=False):
        plain = group[group["rule_id"] == "argmax"]
        if plain.empty:
            continue
        reference = plain.sort_values("accuracy", ascending=False, kind="stable").iloc[0]
        for run, rules in group.groupby("run", sort=False):
            for loss in losses:
                kept = rules[rules["accuracy"] >= reference["accuracy"] - loss - 1e-9]
                nothing = {"costs": costs, "run": run, "metric": reference["metric"], "collapsed": ""}
                best = nothing if kept.empty else kept.loc[merits(kept).idxmax()].to_dict()
                rows.append({**best, "reference": run == reference["run"], "loss": loss})
    return pd.DataFrame(rows, columns=[*points.columns, "reference", "loss"])


MOST_DRAWN = 4  # rules beside argmax whose curves are still legible
DRAWN_LOSS = 0.025  # of accuracy against argmax: beyond it, a curve shows a rule that few would use


def legible(sets: Sequence[Certified], points: pd.DataFrame) -> list[Certified]:
    """The sets whose curves are drawn: all rules of a run and costs, or where those are many, argmax and the best.

    The best is, of each kind of rule, the one on the front that is best at the metric of the costs and loses little
    accuracy against argmax; where all lose more, the most accurate on the front.

    Args:
        sets: Sets of any runs, costs and rules.
        points: Summaries of the sets at one radius.
    """
    kept = set()
    for (run, costs), rules in points.groupby(["run", "costs"], sort=False):
        ids = rules["rule_id"].tolist()
        if len(set(ids) - {"argmax"}) > MOST_DRAWN:
            plain = rules.loc[rules["rule_id"] == "argmax", "accuracy"]
            on_front = front(rules)
            close = on_front["accuracy"] >= (plain.iloc[0] if len(plain) else rules["accuracy"].max()) - DRAWN_LOSS
            by_merit = merits(on_front[close]).sort_values(ascending=False).index
            ranked = pd.concat([on_front.loc[by_merit], on_front[~close]])
            best = set(
                ranked.groupby(ranked["rule_id"].str.replace("-[0-9a-f]{10}", "", regex=True))["rule_id"].first()
            )
            ids = [rule_id for rule_id in ids if rule_id in best | {"argmax"}] or ids[:1]
        kept |= {(run, costs, rule_id) for rule_id in ids}
    return [one for one in sets if (one.run, one.costs, one.rule_id) in kept]


def reference_and_best(
    sets: Sequence[Certified], points: pd.DataFrame, budget: float = BUDGET
) -> dict[str, list[Certified]]:
    """Of each costs what to look at closely: the most accurate argmax, and the first in the ranking if that is another.

    Args:
        sets: Sets of any runs, costs and rules.
        points: Summaries of the sets at one radius.
        budget: Accuracy that the best may lose against the most accurate one.
    """
    by_key = {(one.costs, one.run, one.rule_id): one for one in sets}
    chosen = {}
    for costs, rows in points.groupby("costs", sort=False):
        plain = rows[rows["rule_id"] == "argmax"]
        reference = (plain if len(plain) else rows).sort_values("accuracy", ascending=False, kind="stable")
        both = pd.concat([reference.head(1), rank_points(rows, budget=budget).head(1)])
        keys = dict.fromkeys(zip(both["run"], both["rule_id"], strict=True))
        chosen[str(costs)] = [by_key[(str(costs), *key)] for key in keys]
    return chosen
