"""Tables for people: the summary, the ranking, the front, equal accuracy."""

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from raycsr.certification import METRICS
from raycsr.certification.metrics.record import SENSITIVE
from raycsr.errors import printable

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


_SHOWN = ("run", "costs", "rule", "radius", *_of_metrics(METRICS, guaranteed=True))
_TITLES = {
    **{one.count: one.title for one in (metric.population for metric in METRICS.values()) if one.count},
    **{name: metric.title for name, metric in METRICS.items()},
    **{f"{name}_guaranteed": f"{metric.title} guaranteed" for name, metric in METRICS.items()},
    "best": "best of all runs",
}
_IN_FRONT = ("costs", "run", "rule", *_of_metrics(shown_in("front")))
_RANKED = _of_metrics(sorted(shown_in("ranking"), key=lambda name: METRICS[name].population is not SENSITIVE))
FLATTERED = {name + end for name, metric in METRICS.items() if metric.flattered for end in ("", "_guaranteed")}
_ACTING = (  # in Markdown; a backslash first, which all others then get
    r"\\(?=[!-/:-@[-`{-~])",
    r"[|`<$]",
    r"~(?=~)|(?<=~)~",
    r"&(?=#?\w+;)",
    r"\[(?=[^\]]*\][(\[:])",
    r"(?<![^\W_])_|_(?![^\W_])",
    r"^(?:[#>=+]|-(?=[\s-]))",
)
_EXPLAINED = 8  # models and rules in the line below a table


def summary_rows(summary: pd.DataFrame) -> list[list[str]]:
    """Rows of `summaries` -> rows of text, the first the header.

    Shares of certified images have their 95 % intervals. The decision rule is shown only where there is another than
    argmax.
    """
    others = (summary["rule_id"] != "argmax").any()
    return _rows(summary, [name for name in _SHOWN if name != "rule" or others])


def format_summary(summary: pd.DataFrame) -> str:
    """`summary_rows` as a Markdown table, with `collapse_line` below."""
    return _with_line(summary_rows(summary), summary)


def collapse_line(rows: pd.DataFrame, label: Sequence[str] = ("run", "rule")) -> str:
    """What the marks of a table mean, in one line; nothing where nothing is marked.

    Args:
        rows: what is tabled, with `collapsed`: the classes that collapsed, in words.
        label: columns that name a row; argmax goes without saying.
    """
    marked = rows[rows["collapsed"] != ""]
    parts = [[row[key] for key in label if row[key] != "argmax"] for row in marked.to_dict("records")]
    names = [" · ".join(of_row) or "argmax" for of_row in parts]
    said = list(dict.fromkeys(f"{name}: {why}" for name, why in zip(names, marked["collapsed"], strict=True)))
    more = f"; and {len(said) - _EXPLAINED} more" if len(said) > _EXPLAINED else ""
    meaning = "some class is hardly ever answered rightly, which flatters the numbers about others"
    return f"{MARK} {meaning}: {'; '.join(said[:_EXPLAINED])}{more}." if said else ""


def _with_line(rows: list[list[str]], of: pd.DataFrame) -> str:
    line = collapse_line(of)
    return markdown_table(rows) + (f"\n\n{in_markdown(line)}" if line else "")


def front_rows(on_front: pd.DataFrame) -> list[list[str]]:
    """What `front` returns -> rows of text, the first the header; `best` is shown where there are several runs."""
    several = on_front["run"].nunique() > 1
    marked = on_front.assign(best=on_front["best"].map({True: "yes", False: ""}))
    return _rows(marked, [*_IN_FRONT, "best"] if several else _IN_FRONT)


def format_front(on_front: pd.DataFrame) -> str:
    """`front_rows` as a Markdown table, with `collapse_line` below."""
    return _with_line(front_rows(on_front), on_front)


def ranking_rows(ranked: pd.DataFrame) -> list[list[str]]:
    """What `rank_points` returns, of one costs -> rows of text, the metric first; those beyond the budget say so."""
    (metric,) = ranked["metric"].unique()
    beside = [name for name in _RANKED if name not in (metric, "num_sensitive")]
    header, *rows = _rows(ranked, ["run", "rule", "num_sensitive", metric, *beside])
    notes = ["note", *("" if within else "accuracy beyond budget" for within in ranked["within_budget"])]
    places = ["", *(f"{place}" for place in ranked["place"])]
    last = [[note] if any(notes[1:]) else [] for note in notes]
    return [[place, *row, *note] for place, row, note in zip(places, [header, *rows], last, strict=True)]


def format_ranking(ranked: pd.DataFrame) -> str:
    """`ranking_rows` as a Markdown table, with `collapse_line` below."""
    return _with_line(ranking_rows(ranked), ranked)


def equal_accuracy_rows(table: pd.DataFrame) -> list[list[str]]:
    """What `at_equal_accuracy` returns -> rows of text, the first the header: a row a costs and run."""
    losses = table["loss"].unique()
    rows = [["costs", "run", "sensitive images", *(f"accuracy -{x:g}" if x else "same accuracy" for x in losses)]]
    for key, of_run in table.groupby(["costs", "run"], sort=False):
        costs, run = map(str, key)
        bests = of_run.to_dict("records")
        images = "/".join(dict.fromkeys(_cell(best, "num_sensitive") for best in bests if best["num_sensitive"] > 0))
        name = f"{run} (reference)" if bests[0]["reference"] else run
        rows.append([costs, name, images or "-", *(_cell(best, best["metric"]) for best in bests)])
    return rows


def format_equal_accuracy(table: pd.DataFrame) -> str:
    """`equal_accuracy_rows` as a Markdown table, with `collapse_line` below."""
    return _with_line(equal_accuracy_rows(table), table)


def markdown_table(rows: list[list[str]]) -> str:
    """Rows of text, the first the header -> a Markdown table whose columns line up in a terminal.

    Texts are escaped (`in_markdown`): a name is a name, whatever it holds.
    """
    rows = [[in_markdown(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def in_markdown(text: str) -> str:
    """A text of unknown origin as Markdown that shows it as it is: a name, a spec, an error.

    Only what would act is escaped, for tables are read in terminals too: an underscore within a word, an interval in
    brackets or a single asterisk stays.
    """
    text = printable(text)
    for pattern in _ACTING if text.count("*") < 2 else (*_ACTING, r"\*"):
        text = re.sub(pattern, r"\\\g<0>", text)
    return text


def _rows(rows: pd.DataFrame, names: Sequence[str]) -> list[list[str]]:
    cells = [[_cell(row, name) for name in names] for row in rows.to_dict("records")]
    return [[_TITLES.get(name, name) for name in names], *cells]


def _cell(row: dict, name: str) -> str:
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
