"""Sequential runs: which images are to go on, for statements that their votes do not decide yet."""

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from raycsr.certification import Statements
from raycsr.results import Run, sparse_votes


def undecided(run: Run, wanted: pd.DataFrame, rules: list[str], statements: Statements, n: int) -> pd.DataFrame:
    """The images that have votes, but fewer than n and too few for the statements.

    Args:
        run: a sequential run.
        wanted: image_id and label of the images that statements are about.
        rules: ids of the decision rules that they are about.
        statements: what is to be decided.
        n: estimation samples that an image may have.

    Returns:
        One row an image, part and set of rules: image_id, label, rules (with a space between), continues, the part
        that has the votes so far, and the device and batch_size that drew them.
    """
    rows = run.latest().to_pandas()
    open_ = (
        rows["error"].isna()
        & (rows["decided"] != statements.digest)
        & (rows["n"] < n)
        & rows["rule"].isin(rules)
        & rows["image_id"].isin(wanted["image_id"])
    )
    rows = rows[open_].merge(wanted[["image_id", "label"]], on="image_id")
    left = [of_part[~_decided(run, part, of_part, statements)] for part, of_part in rows.groupby("part", sort=True)]
    if not left:
        return pd.DataFrame(columns=["image_id", "label", "rules", "continues", "device", "batch_size"])
    keys = ["part", "image_id", "label", "device", "batch_size"]
    going_on = pd.concat(left).groupby(keys, sort=False)["rule"].agg(" ".join).reset_index()
    return going_on.rename(columns={"rule": "rules", "part": "continues"})


def _decided(run: Run, part: str, rows: pd.DataFrame, statements: Statements) -> np.ndarray:
    """Which of a part's rows have votes that decide the statements: they were drawn for others."""
    table = run.store.read_table(f"votes/{part}", ["image_id", "rule", "selection", "estimation"])
    table = table.filter(pc.is_in(table["image_id"], value_set=pc.unique(rows["image_id"].to_numpy())))
    num_classes = run.manifest()["num_classes"]
    selection, estimation = (sparse_votes(table[name]).dense(num_classes) for name in ("selection", "estimation"))
    place = {key: i for i, key in enumerate(zip(table["image_id"].to_pylist(), table["rule"].to_pylist(), strict=True))}
    at = [place[key] for key in zip(rows["image_id"], rows["rule"], strict=True)]
    labels = rows["label"].tolist()
    one = [(selection[i : i + 1], estimation[i : i + 1], label) for i, label in zip(at, labels, strict=True)]
    return np.array([statements.decided(*votes) for votes in one])
