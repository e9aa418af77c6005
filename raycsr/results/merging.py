"""Which row stands where parts hold several for one image and rule.

Parts never change, so whatever happened to their writers, a reader decides by these rules alone, in this order:

1. Of several rows that begin an image under a rule, the first by part name that has no error counts, else the first.
   Others count beside it where they were counted alike, on such a device and in such batches; else not.
2. A row that continues another counts where that one counts: where its part is gone, so is what continued it. Where a
   merge of runs put a part behind another of its name, what continued one of them continues both.
3. Of the rows that count, the longest stands; of equal length the first by part name.
4. What it does not continue must be able to be among its votes, as it is where both were drawn from the same noise;
   where it is not, one of the parts is wrong, and reading is refused.

Why the choice favours no lucky votes. The noise of an image is one sequence of samples, and rows that were counted
alike are beginnings of it: whichever stands, its votes are those of the others, and more. How long a row is depends on
votes, as they end sequential sampling, but the bounds of sequential runs hold at every length at once, so that any
choice among lengths is sound; rows of a fixed n have one length. Rows that were counted in another way are another
sequence, and to choose the longer of two sequences could favour one: there names alone decide. What the samples voted
for is never looked at.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from raycsr.errors import UserError
from raycsr.results.schema import VOTES

_BEHIND = r"_[0-9a-f]{8}\.parquet"  # at the end of the name of a part that stands behind another of its name


def behind(part: str, data: bytes) -> str:
    """The name of a part where another one has its own: behind it."""
    return f"{part.removesuffix('.parquet')}_{sha256(data).hexdigest()[:8]}.parquet"


def begun_here(rows: pa.Table) -> pa.Table:
    """The rows that continue no other: one that does is worth nothing where the part that it continues is gone."""
    return rows.filter(rows["continues"].is_null())


def missing_images(images: pd.DataFrame, committed: pa.Table, rules: Iterable[str]) -> pd.DataFrame:
    """The listing less the images that have a committed row for every rule.

    Args:
        images: The listing, each image once.
        committed: image_id and rule of each committed row; doubles and images that are not listed do no harm.
        rules: Ids of the wanted rules.

    Returns:
        Rows of the listing, with `rules`: the ids of those that the image lacks, with a space between.

    Example:
        >>> images = pd.DataFrame({"image_id": ["a.png", "b.png"], "label": [0, 1]})
        >>> committed = pa.table({"image_id": ["a.png"], "rule": ["argmax"]})
        >>> missing_images(images, committed, ["argmax"])
          image_id  label   rules
        0    b.png      1  argmax
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
    """Rows of flags, bool (N, rules) -> the ids of the flagged rules of each row, with a space between, (N,).

    Example:
        >>> texts_of_rules(np.array([[True, False], [True, True]]), ["argmax", "offset-1"]).tolist()
        ['argmax', 'argmax offset-1']
    """
    patterns, which = np.unique(chosen, axis=0, return_inverse=True)  # few: rules are added one by one
    texts = [" ".join(rule for rule, flag in zip(rules, pattern, strict=True) if flag) for pattern in patterns]
    return np.array(texts, object)[which.reshape(-1)]


def rows_of(image_ids: pa.Array | pa.ChunkedArray, images: pd.DataFrame) -> np.ndarray:
    """The row of the listing that each image has, -1 where it is not listed.

    Example:
        >>> rows_of(pa.array(["b.png", "c.png"]), pd.DataFrame({"image_id": ["a.png", "b.png"]}))
        array([ 1, -1], dtype=int32)
    """
    rows = pc.index_in(image_ids, value_set=pa.array(images["image_id"], pa.string()))
    return pc.fill_null(rows, -1).to_numpy(zero_copy_only=False)


def deduplicated(table: pa.Table) -> pa.Table:
    """Keeps one row a key, by the rules at the top of this module, in the order of the table.

    Args:
        table: Rows in the order of their parts' names, with rule, image_id, error, n, continues, device, batch_size and
            part.

    Raises:
        UserError: where two rows that were counted alike do not agree, naming their parts.
    """
    return table.filter(pa.array(_standing(table)[0]))


def whole(table: pa.Table) -> pa.Table:
    """As `deduplicated`, less rows that had more votes before, in a row that continues a part that is gone."""
    standing, orphans = _standing(table)
    if not orphans.any():
        return table.filter(pa.array(standing))
    keys, n = _keys(table), table["n"].to_numpy()
    lost = pd.Series(n[orphans], index=keys[orphans]).groupby(level=0).max()
    had = lost.reindex(keys).fillna(-1).to_numpy()
    return table.filter(pa.array(standing & (n >= had)))


def _standing(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Which rows stand, and which continue a part that is gone: bool (N,) both."""
    begins, errored = (
        table["continues"].is_null().to_numpy(),
        table["error"].is_valid().to_numpy(),
    )
    keys = _keys(table)
    order = np.lexsort((np.arange(len(keys)), errored, ~begins, keys))  # of a key: begun without an error, then with
    first = order[~pd.Series(keys[order]).duplicated().to_numpy()]
    first = first[begins[first]]
    standing = np.zeros(len(keys), bool)
    standing[first] = True
    orphans = ~begins & ~errored
    if len(first) == len(keys):  # nearly always: no image twice
        return standing, orphans
    places = pa.chunked_array([*table["part"].chunks, *table["continues"].chunks], pa.string())
    places = pc.replace_substring_regex(places, f"{_BEHIND}$", ".parquet")
    numbers = _numbers(places).reshape(2, -1)
    # where a row lies, and where the one that it continues does: a number for each key and part
    here, there = (keys * (numbers.max(initial=0) + 1) + part for part in numbers)
    like = pd.Series(_numbers(table["device"]) * (1 << 32) + table["batch_size"].fill_null(0).to_numpy())
    wanted = pd.Series(like.to_numpy()[first], index=keys[first]).reindex(keys).to_numpy()
    counts = begins & ~errored & (like.to_numpy() == wanted)
    rooted = begins
    while True:
        follows, roots = (~begins & ~errored & ~of & np.isin(there, here[of]) for of in (counts, rooted))
        if not follows.any() and not roots.any():
            break
        counts, rooted = counts | follows, rooted | roots
    orphans &= ~rooted
    n = table["n"].to_numpy()
    rows = np.flatnonzero(counts)
    rows = rows[np.lexsort((rows, -n[rows], keys[rows]))]
    longest = rows[~pd.Series(keys[rows]).duplicated().to_numpy()]
    standing[first[np.isin(keys[first], keys[longest])]] = False
    standing[longest] = True
    if "estimation" in table.column_names:
        _refuse_disagreement(table, keys, here, there, counts, longest)
    return standing, orphans


def _keys(table: pa.Table) -> np.ndarray:
    """A number for each image and rule, int64 (N,)."""
    rules = _numbers(table["rule"])
    return _numbers(table["image_id"]) * (rules.max(initial=0) + 1) + rules


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A number for each distinct text, int64, from 0; null has one of its own."""
    return pc.index_in(column, value_set=column.unique()).to_numpy().astype(np.int64)


# What two drivers cannot see differently; one may have asked for fewer votes than the other, or gone on with its own.
_SAME = set(VOTES.names) - {"estimation", "n", "decided", "seconds", "continues", "device", "batch_size"}


def _refuse_disagreement(
    table: pa.Table, keys: np.ndarray, here: np.ndarray, there: np.ndarray, counts: np.ndarray, longest: np.ndarray
) -> None:
    """Refuses rows that count, are not continued by the one that stands, and cannot be among its votes."""
    rivals, at = counts.copy(), longest
    place = pd.Series(np.arange(len(here)), index=here)
    place = place[~place.index.duplicated()]
    while len(at):
        rivals[at] = False
        before = place.reindex(there[at[table["continues"].is_valid().to_numpy()[at]]]).dropna()
        at = before.to_numpy().astype(np.int64)
    others = np.flatnonzero(rivals)
    row_of = pd.Series(longest, index=keys[longest])
    kept, double = (table.take(rows).to_pylist() for rows in (row_of[keys[others]].to_numpy(), others))
    for a, b in zip(kept, double, strict=True):
        if any(a[name] != b[name] for name in _SAME) or not _is_part_of(b, a):
            first, second = sorted((a["part"], b["part"]))
            raise UserError(
                f"image {a['image_id']!r} has different votes in {first!r} and {second!r}, counted alike; "
                "one of the parts is wrong: move it away and run the same command again"
            )


def _is_part_of(fewer: Mapping[str, Any], more: Mapping[str, Any]) -> bool:
    """Whether the estimation votes of a row can be among those of another, drawn from the same noise."""
    counts = {voted["class"]: voted["count"] for voted in more["estimation"]}
    return all(voted["count"] <= counts.get(voted["class"], 0) for voted in fewer["estimation"])
