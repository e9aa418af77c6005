"""Tables of numbers: the summary, the ranking, the front, equal accuracy."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from raycsr.certification import METRICS
from raycsr.certification.comparison import SIGNIFICANCE
from raycsr.certification.metrics.record import SENSITIVE
from raycsr.reports.document import Column, Table

MARK = "†"  # beside numbers that a collapsed class flatters


def _of_metrics(names: Iterable[str], *, guaranteed: bool = False) -> list[str]:
    """Columns of some metrics: how many images a population has stands before the first that is about it."""
    columns: list[str] = []
    for name in names:
        count = METRICS[name].population.count
        columns += [one for one in (count, name) if one is not None and one not in columns]
        columns += [f"{name}_guaranteed"] if guaranteed and METRICS[name].guaranteed else []
    return columns


def shown_in(table: str) -> list[str]:
    """The metrics that a table shows, such as the leaderboard, in the order of the summary."""
    return [name for name, metric in METRICS.items() if table in metric.tables]


_TEXTS = ("run", "costs", "rule")
_KEYS = (*_TEXTS, "radius")  # what a row is about
_SHOWN = (*_TEXTS, "radius", *_of_metrics(METRICS, guaranteed=True))
_TITLES = {
    **{one.count: one.title for one in (metric.population for metric in METRICS.values()) if one.count},
    **{name: metric.title for name, metric in METRICS.items()},
    **{f"{name}_guaranteed": f"{metric.title} guaranteed" for name, metric in METRICS.items()},
}
_IN_FRONT = ("costs", "run", "rule", *_of_metrics(shown_in("front")))
_RANKED = _of_metrics(sorted(shown_in("ranking"), key=lambda name: METRICS[name].population is not SENSITIVE))
FLATTERED = {name + end for name, metric in METRICS.items() if metric.flattered for end in ("", "_guaranteed")}
_EXPLAINED = 8  # models and rules in the line below a table


def summary_table(summary: pd.DataFrame) -> Table:
    """Rows of `summaries`.

    Shares of certified images have their 95 % intervals. The decision rule is shown only where there is another than
    argmax.
    """
    others = (summary["rule_id"] != "argmax").any()
    return _table(summary, [name for name in _SHOWN if name != "rule" or others])


def front_table(on_front: pd.DataFrame) -> Table:
    """What `front` returns; whether a point is the best of all runs is shown where there are several runs."""
    table = _table(on_front, _IN_FRONT)
    if on_front["run"].nunique() == 1:
        return table
    best = ["yes" if best else "" for best in on_front["best"]]
    return _beside(table, Column("best of all runs"), best)


def ranking_table(ranked: pd.DataFrame, against: Sequence[float] | None = None) -> Table:
    """What `rank_points` returns, of one costs: the metric comes first, and those beyond the budget say so.

    Args:
        ranked: Rows of one costs.
        against: The p of each row against the first, but of the first; NaN where it has none.
    """
    (metric,) = ranked["metric"].unique()
    beside = [name for name in _RANKED if name not in (metric, "num_sensitive")]
    table = _table(ranked, ["run", "rule", "num_sensitive", metric, *beside])
    rows = [[f"{place}", *row] for place, row in zip(ranked["place"], table.rows, strict=True)]
    table = Table([Column("", numeric=True, key=True), *table.columns], rows, table.marks)
    if against is not None:
        table = _beside(table, Column("against the first"), ["", *map(told_apart, against)])
    if ranked["within_budget"].all():
        return table
    return _beside(table, Column("note"), ["" if within else BEYOND_BUDGET for within in ranked["within_budget"]])


def told_apart(p: float) -> str:
    """What a p means, and the p: whether two are told apart at `SIGNIFICANCE`."""
    if pd.isna(p):
        return "-"
    return f"{'differs' if p < SIGNIFICANCE else 'not told apart'} (p {p_in_words(p)})"


def p_in_words(p: float) -> str:
    """A probability with two digits, or that it is small."""
    return "< .0001" if p < 0.0001 else f"{p:.2g}"


BEYOND_BUDGET = "accuracy beyond budget"


def equal_accuracy_table(equal: pd.DataFrame) -> Table:
    """What `at_equal_accuracy` returns: a row a costs and run, a column a loss of accuracy."""
    losses = [f"accuracy -{loss:g}" if loss else "same accuracy" for loss in equal["loss"].unique()]
    columns = [
        Column("costs", key=True),
        Column("run", key=True),
        *(Column(title, numeric=True) for title in ("sensitive images", *losses)),
    ]
    rows = []
    for key, of_run in equal.groupby(["costs", "run"], sort=False):
        costs, run = map(str, key)
        bests = of_run.to_dict("records")
        images = "/".join(dict.fromkeys(cell(best, "num_sensitive") for best in bests if best["num_sensitive"] > 0))
        name = f"{run} (reference)" if bests[0]["reference"] else run
        rows.append([costs, name, images or "-", *(cell(best, best["metric"]) for best in bests)])
    return Table(columns, rows, marks_line(equal))


def without(table: Table, title: str) -> Table:
    """A table less the column of a title, such as one that the heading says."""
    kept = [i for i, column in enumerate(table.columns) if column.title != title]
    return Table([table.columns[i] for i in kept], [[row[i] for i in kept] for row in table.rows], table.marks)


def column(name: str) -> Column:
    """The column of a number, or of what a row is about, by its name in a summary."""
    return Column(_TITLES.get(name, name.replace("_", " ")), numeric=name not in _TEXTS, key=name in _KEYS)


def cell(row: Mapping[Hashable, Any], name: str) -> str:
    """What a row says under a name as people read it: with its interval and its mark, where it has those."""
    value = row[name]
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "-"
    if name.startswith("num_"):
        return f"{value:.0f}"
    text = f"{value:.3g}" if name == "radius" else f"{value:.3f}"
    if f"{name}_low" in row and name in METRICS and METRICS[name].shows_interval:
        text += f" [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
    return f"{text} {MARK}" if name in FLATTERED and row["collapsed"] else text


def marks_line(rows: pd.DataFrame, label: Sequence[str] = ("run", "rule")) -> str:
    """What the marks of a table mean, in one line; nothing where nothing is marked.

    Args:
        rows: Rows of the table, with `collapsed`: the classes that collapsed, in words.
        label: Columns that name a row; argmax goes without saying.
    """
    marked = rows[rows["collapsed"] != ""]
    parts = [[row[key] for key in label if row[key] != "argmax"] for row in marked.to_dict("records")]
    names = [" · ".join(of_row) or "argmax" for of_row in parts]
    said = list(dict.fromkeys(f"{name}: {why}" for name, why in zip(names, marked["collapsed"], strict=True)))
    more = f"; and {len(said) - _EXPLAINED} more" if len(said) > _EXPLAINED else ""
    meaning = "some class is hardly ever answered rightly, which flatters the numbers about others"
    return f"{MARK} {meaning}: {'; '.join(said[:_EXPLAINED])}{more}." if said else ""


def _table(rows: pd.DataFrame, names: Sequence[str]) -> Table:
    cells = [[cell(row, name) for name in names] for row in rows.to_dict("records")]
    return Table([column(name) for name in names], cells, marks_line(rows))


def _beside(table: Table, last: Column, cells: Sequence[str]) -> Table:
    """A table with one column more."""
    rows = [[*row, one] for row, one in zip(table.rows, cells, strict=True)]
    return Table([*table.columns, last], rows, table.marks)
