"""Which row stands where parts hold several for one image and rule.

Parts never change, so whatever happened to their writers, a reader decides by these rules alone, in this order:

1. Of several rows that begin an image under a rule, the first by part name that has no error stands, else the first.
2. Then the row that continues it, as often as there is one; of several the first by part name.
3. Rows that were counted alike must agree, as far as both were drawn; where they do not, reading is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from raycsr.errors import UserError
from raycsr.results.schema import VOTES


def begun_here(rows: pa.Table) -> pa.Table:
    """The rows that continue no other: one that does is worth nothing where the part that it continues is gone."""
    return rows.filter(rows["continues"].is_null())


def missing_images(images: pd.DataFrame, committed: pa.Table, rules: Iterable[str]) -> pd.DataFrame:
    """The listing less the images that have a committed row for every rule.

    Args:
        images: the listing, each image once.
        committed: image_id and rule of each committed row; doubles and images that are not listed do no harm.
        rules: ids of the wanted rules.

    Returns:
        Rows of the listing, with `rules`: the ids of those that the image lacks, with a space between.
    """
    wanted = list(rules)
    rows = rows_of(committed["image_id"], images)
    lacking = np.ones((len(images), len(wanted)), bool)
    for column, rule in enumerate(wanted):
        of_rule = rows[pc.equal(committed["rule"], rule).to_numpy()]
        lacking[of_rule[of_rule >= 0], column] = False
    missing = lacking.any(axis=1)
    return images[missing].assign(rules=texts_of_rules(lacking[missing], wanted)).reset_index(drop=True)


def texts_of_rules(chosen: np.ndarray, rules: Sequence[str]) -> np.ndarray:
    """Rows of flags, bool (N, rules) -> the ids of the flagged rules of each row, with a space between, (N,)."""
    patterns, which = np.unique(chosen, axis=0, return_inverse=True)  # few: rules are added one by one
    texts = [" ".join(rule for rule, flag in zip(rules, pattern, strict=True) if flag) for pattern in patterns]
    return np.array(texts, object)[which.reshape(-1)]


def rows_of(image_ids: pa.Array | pa.ChunkedArray, images: pd.DataFrame) -> np.ndarray:
    """The row of the listing that each image has, -1 where it is not listed."""
    rows = pc.index_in(image_ids, value_set=pa.array(images["image_id"], pa.string()))
    return pc.fill_null(rows, -1).to_numpy(zero_copy_only=False)


def once(table: pa.Table) -> pa.Table:
    """Keeps one row a key: the first by part name that has no error, else the first; then the one that continues it.

    The choice never looks at votes, so it cannot favour lucky ones. Two rows for one key are the same work
    done twice, by two drivers that may have asked for more and for fewer votes. Where device and batch shape were the
    same, the fewer are the first of the more; else something is wrong with one of the parts.

    Args:
        table: rows in the order of their parts' names.

    Raises:
        UserError: where they do not agree.
    """
    more = table.filter(pc.and_(table["continues"].is_valid(), table["error"].is_null()))
    table = begun_here(table)
    rules = _numbers(table["rule"])
    keys = _numbers(table["image_id"]).astype(np.int64) * (rules.max(initial=0) + 1) + rules
    errored = table["error"].is_valid().to_numpy()
    order = np.argsort(errored, kind="stable")
    double = np.empty(len(table), bool)
    double[order] = pd.Series(keys[order]).duplicated()
    if double.any():
        if "estimation" in table.column_names:
            _refuse_disagreement(table, keys, double & ~errored, ~double)
        table = table.filter(pa.array(~double))
    return _continued(table, more)


def _continued(table: pa.Table, more: pa.Table) -> pa.Table:
    """Replaces each row by the one that continues it, as often as there is one: of several the first by part name.

    Args:
        table: one row a key.
        more: rows that continue others, in the order of their parts' names.
    """
    while len(more):
        here = table.select(["image_id", "rule", "part"]).to_pandas().reset_index(names="row")
        there = more.select(["image_id", "rule", "continues"]).to_pandas().reset_index(names="by")
        found = here.merge(there, left_on=["image_id", "rule", "part"], right_on=["image_id", "rule", "continues"])
        chosen = found.sort_values("by").drop_duplicates("row")
        if not len(chosen):
            break
        kept = np.ones(len(table), bool)
        kept[chosen["row"]] = False
        left = np.ones(len(more), bool)
        left[found["by"]] = False
        table = pa.concat_tables([table.filter(pa.array(kept)), more.take(pa.array(chosen["by"]))])
        more = more.filter(pa.array(left))
    return table


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A number for each distinct text, from 0."""
    return pc.index_in(column, value_set=column.unique()).to_numpy()


# What two drivers cannot see differently; one may have asked for fewer votes than the other.
_SAME = set(VOTES.names) - {"estimation", "n", "decided", "seconds"}


def _refuse_disagreement(table: pa.Table, keys: np.ndarray, double: np.ndarray, first: np.ndarray) -> None:
    row_of = pd.Series(np.flatnonzero(first), index=keys[first])
    kept = table.take(row_of[keys[double]].to_numpy()).to_pylist()
    for a, b in zip(kept, table.filter(pa.array(double)).to_pylist(), strict=True):
        fewer, more = sorted((a, b), key=lambda row: row["n"])
        differ = any(a[name] != b[name] for name in _SAME) or not _is_part_of(fewer, more)
        if differ and (a["device"], a["batch_size"]) == (b["device"], b["batch_size"]):
            raise UserError(
                f"image {a['image_id']!r} has different votes in {a['part']!r} and {b['part']!r}, counted alike; "
                "one of the parts is wrong: move it away and run the same command again"
            )


def _is_part_of(fewer: Mapping[str, Any], more: Mapping[str, Any]) -> bool:
    """Whether the estimation votes of a row can be among those of another, drawn from the same noise."""
    counts = {voted["class"]: voted["count"] for voted in more["estimation"]}
    return all(voted["count"] <= counts.get(voted["class"], 0) for voted in fewer["estimation"])
