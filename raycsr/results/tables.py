"""Tables for people: the summary, the front, equal accuracy; and the published per-image tables of others."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import zip_longest

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from raycsr.errors import UserError

LOSSES = (0.0, 0.01, 0.025, 0.05)  # of accuracy, for which `at_equal_accuracy` compares runs

_SHOWN = {
    "run": "run",
    "costs": "costs",
    "rule": "rule",
    "radius": "radius",
    "accuracy": "accuracy",
    "certified_accuracy": "certified acc.",
    "acr": "ACR",
    "rob_cs": "rob_cs",
    "rob_cost": "rob_cost",
    "worst_case_cost": "worst cost",
    "seed_recall": "seed recall",
    "target_recall": "target recall",
}
_TITLES = {**_SHOWN, "best": "best of all runs"}
_IN_FRONT = ("costs", "run", "rule", "accuracy", "rob_cs", "seed_recall", "target_recall")
_RANKED = ("run", "rule", "rob_cs", "accuracy", "certified_accuracy", "rob_cost", "seed_recall", "target_recall")


def summary_rows(summary: pd.DataFrame) -> list[list[str]]:
    """A summary (`summarize`, with `run`, `costs`, `rule`, `rule_id` in front) -> rows of text, the first the header.

    Shares of certified images have their 95 % intervals. The decision rule is shown only where there is another than
    argmax.
    """
    others = (summary["rule_id"] != "argmax").any()
    return _rows(summary, [name for name in _SHOWN if name != "rule" or others])


def format_summary(summary: pd.DataFrame) -> str:
    """`summary_rows` as a Markdown table."""
    return markdown_table(summary_rows(summary))


def non_dominated(accuracy: ArrayLike, rob_cs: ArrayLike) -> NDArray[np.bool_]:
    """Which of N points no other beats: none is as good in both numbers and better in one. NaN is never on it.

    Args:
        accuracy: (N,).
        rob_cs: (N,).
    """
    a, r = np.asarray(accuracy, float), np.asarray(rob_cs, float)
    as_good = (a[:, None] >= a) & (r[:, None] >= r)  # (N, N): row against column
    better = (a[:, None] > a) | (r[:, None] > r)
    return ~(as_good & better).any(axis=0) & ~np.isnan(a) & ~np.isnan(r)


def front(points: pd.DataFrame) -> pd.DataFrame:
    """The points that no other of the same run and costs beats, the most accurate first.

    Args:
        points: rows of a summary at one radius, with `run`, `costs` and `rule` in front.

    Returns:
        Those rows, by costs and run, with `best` beside: whether no point of any run beats it.
    """
    groups = [
        group[non_dominated(group["accuracy"], group["rob_cs"])].sort_values("accuracy", ascending=False, kind="stable")
        for costs in points["costs"].unique()
        for _, group in points[points["costs"] == costs].groupby("run", sort=False)
    ]
    on_front = pd.concat(groups, ignore_index=True).assign(best=False)
    for _, group in on_front.groupby("costs", sort=False):
        on_front.loc[group.index, "best"] = non_dominated(group["accuracy"], group["rob_cs"])
    return on_front


def front_rows(on_front: pd.DataFrame) -> list[list[str]]:
    """What `front` returns -> rows of text, the first the header; `best` is shown where there are several runs."""
    several = on_front["run"].nunique() > 1
    marked = on_front.assign(best=on_front["best"].map({True: "yes", False: ""}))
    return _rows(marked, [*_IN_FRONT, "best"] if several else _IN_FRONT)


def format_front(on_front: pd.DataFrame) -> str:
    """`front_rows` as a Markdown table."""
    return markdown_table(front_rows(on_front))


def ranking_rows(ranked: pd.DataFrame) -> list[list[str]]:
    """What `rank_points` returns, of one costs -> rows of text; those whose accuracy is beyond the budget say so."""
    header, *rows = _rows(ranked, _RANKED)
    notes = ["note", *("" if within else "accuracy beyond budget" for within in ranked["within_budget"])]
    places = ["", *(f"{place}" for place in ranked["place"])]
    last = [[note] if any(notes[1:]) else [] for note in notes]
    return [[place, *row, *note] for place, row, note in zip(places, [header, *rows], last, strict=True)]


def format_ranking(ranked: pd.DataFrame) -> str:
    """`ranking_rows` as a Markdown table."""
    return markdown_table(ranking_rows(ranked))


def at_equal_accuracy(points: pd.DataFrame, losses: Sequence[float] = LOSSES) -> pd.DataFrame:
    """The largest rob_cs of each run among its rules that keep a stated accuracy.

    The accuracy to keep is, for each costs, that of the reference less the loss; the reference is the run
    whose plain argmax is the most accurate.

    Args:
        points: rows of a summary at one radius, with `run`, `costs`, `rule` and `rule_id` in front.
        losses: of accuracy, as shares of images.

    Returns:
        One row a costs and run: costs, run, reference (bool), and a column a loss; NaN where no rule keeps it.
        No rows for costs under which no run has argmax.
    """
    rows: list[dict] = []
    for costs, group in points[points["rob_cs"].notna()].groupby("costs", sort=False):
        plain = group[group["rule_id"] == "argmax"]
        if plain.empty:
            continue
        reference = plain.sort_values("accuracy", ascending=False, kind="stable").iloc[0]
        for run, rules in group.groupby("run", sort=False):
            kept = [rules[rules["accuracy"] >= reference["accuracy"] - loss - 1e-9] for loss in losses]
            best = {loss: those["rob_cs"].max() for loss, those in zip(losses, kept, strict=True)}
            rows.append({"costs": costs, "run": run, "reference": run == reference["run"], **best})
    return pd.DataFrame(rows, columns=["costs", "run", "reference", *losses])


def equal_accuracy_rows(table: pd.DataFrame) -> list[list[str]]:
    """What `at_equal_accuracy` returns -> rows of text, the first the header."""
    losses = list(table.columns[3:])
    header = ["costs", "run", *(f"accuracy -{loss:g}" if loss else "same accuracy" for loss in losses)]
    rows = [
        [
            row["costs"],
            row["run"] + (" (reference)" if row["reference"] else ""),
            *(_cell(row, loss) for loss in losses),
        ]
        for row in table.to_dict("records")
    ]
    return [header, *rows]


def format_equal_accuracy(table: pd.DataFrame) -> str:
    """`equal_accuracy_rows` as a Markdown table."""
    return markdown_table(equal_accuracy_rows(table))


def distinct_labels(runs: Sequence[tuple[str, str, str]]) -> list[str]:
    """A short label for each run, and no two alike.

    Args:
        runs: for each the path or name of its model, what to write after it, and its id. The label is the file's
            name; where that is not enough, with the nearest folders that differ, then with the id's beginning.
    """
    labels = [path.rsplit("/", 1)[-1] + after for path, after, _ in runs]
    for same in _alike(labels):
        for i, name in zip(same, _tell_apart([runs[i][0] for i in same]), strict=True):
            labels[i] = name + runs[i][1]
    for same in _alike(labels):
        for i in same:
            labels[i] += f" {runs[i][2][:6]}"
    return labels


def _alike(labels: list[str]) -> list[list[int]]:
    positions = pd.Series(range(len(labels))).groupby(labels).agg(list)
    return [same for same in positions if len(same) > 1]


def _tell_apart(paths: list[str]) -> list[str]:
    """File names of paths with the folders that tell them apart, the nearest first; `…` for folders between."""
    names, *levels = zip_longest(*(path.split("/")[::-1] for path in paths), fillvalue="")
    parts = [[name] for name in names]
    for folders in levels:
        if len({tuple(one) for one in parts}) == len(set(paths)):
            break
        differ = len(set(folders)) > 1
        for one, folder in zip(parts, folders, strict=True):
            if differ or one[-1] != "…":
                one.append(folder if differ else "…")
    return ["/".join(part for part in reversed(one) if part) for one in parts]


def markdown_table(rows: list[list[str]]) -> str:
    """Rows of text, the first the header -> a Markdown table whose columns line up in a terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _rows(rows: pd.DataFrame, names: Sequence[str]) -> list[list[str]]:
    cells = [[_cell(row, name) for name in names] for row in rows.to_dict("records")]
    return [[_TITLES[name] for name in names], *cells]


def _cell(row: dict, name: str | float) -> str:
    value = row[name]
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "-"
    text = f"{value:.3g}" if name == "radius" else f"{value:.3f}"
    if f"{name}_low" in row and name in ("certified_accuracy", "rob_cs"):
        text += f" [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
    return text


def write_locuslab_tsv(certificates: pd.DataFrame, seconds: ArrayLike | None = None) -> str:
    """Standard certificates -> a table as locuslab/smoothing's certify.py writes it, for the code that reads those.

    Args:
        certificates: of one decision rule; `image_id` is what becomes idx, so let it be the image's number.
        seconds: (N,) that each image took; 0 where absent.

    Returns:
        The table, tab-separated: idx, label, predict, radius, correct, time, and a line an image, in order. predict
        is -1 and the radius 0 where the smoothed classifier abstained and where the image has an error, which such
        tables do not tell apart. Radii have all their digits: three, as certify.py writes, may be rounded up.
    """
    answered = ~certificates["abstain"].astype(bool) & certificates["prediction"].notna()
    predict = certificates["prediction"].where(answered, -1).astype("int64")
    rows = zip(
        certificates["image_id"],
        certificates["label"],
        predict,
        certificates["standard_radius"].where(answered, 0.0).astype(float),
        (predict == certificates["label"]).astype(int),
        np.zeros(len(certificates)) if seconds is None else np.asarray(seconds, float),
        strict=True,
    )
    lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"]
    lines += ["\t".join(map(str, (*row, timedelta(seconds=took)))) for *row, took in rows]
    return "\n".join([*lines, ""])


def read_locuslab_tsv(path: str) -> pd.DataFrame:
    """Reads a table of locuslab/smoothing's certify.py (idx, label, predict, radius, correct, time).

    Args:
        path: the TSV; `predict` is -1 where the smoothed classifier abstained.

    Returns:
        A certificates frame that has only the standard certificate: cost_sensitive_radius is null and the
        target lists are empty, since the table has no votes to certify them from. alpha is the 0.001 of the
        published tables (Cohen et al. 2019, section 4).

    Raises:
        UserError: where the file is not such a table.
    """
    try:
        table = pd.read_csv(path, sep="\t")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    absent = {"idx", "label", "predict", "radius", "correct"} - set(table.columns)
    if absent:
        raise UserError(f"{path} is not a locuslab table: it has no column {', '.join(sorted(absent))}")
    abstain = table["predict"] == -1
    empty = [np.empty(0)] * len(table)
    return pd.DataFrame(
        {
            "image_id": table["idx"].astype(str),
            "rule": "argmax",
            "label": table["label"].astype("int32"),
            "prediction": table["predict"].astype("Int64").mask(abstain),
            "abstain": abstain,
            "standard_radius": table["radius"].astype(float).where(~abstain, 0.0),
            "p_a_lower_standard": np.nan,
            "p_a_lower": np.nan,
            "cost_sensitive_radius": np.nan,
            "p_b_upper": empty,
            "pairwise_radius": empty,
            "alpha": 0.001,
            "error": None,
        }
    )
