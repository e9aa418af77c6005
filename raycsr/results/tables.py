"""Tables for people, and the published per-image tables of others read into ours."""

import numpy as np
import pandas as pd

from raycsr.errors import UserError

_SHOWN = {
    "run": "run",
    "costs": "costs",
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


def format_summary(summary: pd.DataFrame) -> str:
    """A summary (`summarize`, with `run` and `costs` in front) -> a Markdown table with 95 % intervals."""
    cells = [[_cell(row, name) for name in _SHOWN] for row in summary.to_dict("records")]
    return markdown_table([list(_SHOWN.values()), *cells])


def markdown_table(rows: list[list[str]]) -> str:
    """Rows of text, the first the header -> a Markdown table whose columns line up in a terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(row: dict, name: str) -> str:
    value = row[name]
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "-"
    text = f"{value:.3g}" if name == "radius" else f"{value:.3f}"
    if f"{name}_low" in row and name in ("certified_accuracy", "rob_cs"):
        text += f" [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
    return text


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
