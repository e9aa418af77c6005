"""How the listing of a run's images grows, and which of them are not as they were listed before."""

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from raycsr.errors import UserError
from raycsr.results.merging import rows_of

_OF_FILE = ["size", "version"]


class Relisted:
    """A listing of a source, or of a part of it, beside the one that a run has.

    Attributes:
        touched: Ids of the images that were listed before with another size or version: copied, touched or replaced.
    """

    def __init__(self, before: pd.DataFrame, images: pd.DataFrame, run_id: str) -> None:
        """Compares the two.

        Args:
            before: The listing of the run.
            images: The listing now.
            run_id: Id of the run.

        Raises:
            UserError: where an image has another label than before.
        """
        self._before, self._images, self._run_id = before, images, run_id
        self._rows = rows_of(pa.array(images["image_id"], pa.string()), before)
        known = self._rows >= 0
        self._then = self._rows[known]  # rows of the listing that are listed now
        self._now = images if known.all() else images[known]
        refuse_changed(self._now["image_id"][self._differ("label")], run_id)
        self._touched = np.logical_or.reduce([self._differ(name) for name in _OF_FILE])
        self.touched = self._now["image_id"][self._touched]

    def _differ(self, name: str) -> np.ndarray:
        return self._now[name].to_numpy() != self._before[name].to_numpy()[self._then]

    def whole(self) -> pd.DataFrame:
        """The run's listing with further images, and with the size, version and group that listed ones have now.

        Returns:
            The listing from before itself where nothing is new.

        Raises:
            UserError: where some of the listed images come in other groups than before, and it is not said in which the
                others do.
        """
        listed = _regrouped(self._before, self._images, self._rows, self._run_id)
        if self._touched.any():
            for name in _OF_FILE:
                values = listed[name].to_numpy(copy=True)
                values[self._then] = self._now[name].to_numpy()
                listed = listed.assign(**{name: values})
        new = self._images[self._rows < 0]
        return pd.concat([listed, new], ignore_index=True) if len(new) else listed


def pixels_in(rows: pa.Table, image_ids: pd.Series) -> pd.DataFrame:
    """Rows of image_id and image_sha, each once: the pixels that votes of some images were drawn from.

    Args:
        rows: Rows of votes: image_id, image_sha and error.
        image_ids: Ids of the images; theirs is the order.
    """
    wanted = pc.is_in(rows["image_id"], value_set=pa.array(image_ids, pa.string()))
    voted = rows.filter(pc.and_(wanted, rows["error"].is_null())).select(["image_id", "image_sha"])
    pixels = voted.cast(pa.schema([(name, pa.string()) for name in voted.column_names]))
    return image_ids.to_frame("image_id").merge(pixels.to_pandas().drop_duplicates())


def refuse_changed(image_ids: pd.Series, run_id: str) -> None:
    """Refuses images that are no longer those that a run has votes of.

    Raises:
        UserError: where there are any, naming the first.
    """
    if len(image_ids):
        raise UserError(
            f"{len(image_ids)} images changed in the source since run {run_id} listed them, the first "
            f"{image_ids.iloc[0]!r}; put back what they were, or certify changed data into another --results"
        )


def _regrouped(before: pd.DataFrame, images: pd.DataFrame, rows: np.ndarray, run_id: str) -> pd.DataFrame:
    """The listing with the groups that its images, at `rows`, have now: votes do not depend on them."""
    if "group" not in images:
        if "group" in before and before["group"].notna().any():
            warnings.warn(
                f"run {run_id} keeps the groups that its images were listed in, although none are named now; "
                "images that are new to it are each a group of its own",
                stacklevel=4,
            )
        return before
    known = before["group"] if "group" in before else pd.Series(None, before.index, object)
    groups = known.copy()
    groups.iloc[rows[rows >= 0]] = images["group"][rows >= 0].to_numpy()
    changed = known.notna() & (known != groups)
    unseen = np.setdiff1d(np.flatnonzero(known.notna()), rows)
    if changed.any() and len(unseen):
        raise UserError(
            f"{changed.sum()} images of run {run_id} are in other groups than when they were listed, the "
            f"first {before['image_id'][changed].iloc[0]!r}, and {len(unseen)} others are not listed now: list "
            "them all (no skip, limit or classes), or give the data.group_column of before"
        )
    return before if groups.equals(known) and "group" in before else before.assign(group=groups)
