"""Runs that a budget ended: their images were sampled in a random order, and a beginning of it is what counts.

Easy images are done sooner than hard ones, so that those that are done are no random sample of the images. Those up to
the first that is not done, in an order that was settled before the first vote, are one. The order follows from the
run's seed and the names of the images, so that another budget goes on in it; nothing but the names of what was to go
on is stored.
"""

import json
import warnings
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pandas as pd
import pyarrow as pa

from raycsr.errors import DamagedFile
from raycsr.results.merging import begun_here, missing_images
from raycsr.results.notes import is_texts, read_note
from raycsr.results.runs import Run

_NOTE = "budget.json"


@dataclass(frozen=True)
class Prefix:
    """The images of a run that count.

    Attributes:
        image_ids: The longest beginning of the random order of which each image is done.
        num_images: Number of listed images.
        others: Number of images that are done, too, and stand behind one that is not.
        budget: The budget, as it was written.
    """

    image_ids: list[str]
    num_images: int
    others: int
    budget: str

    def __str__(self) -> str:
        """In words."""
        behind = f"; {self.others:,} behind them are done and left out, for easy images are done first"
        behind = behind if self.others else ""
        return (
            f"it has a budget of {self.budget}: what counts so far are the first {len(self.image_ids):,} of "
            f"{self.num_images:,} images, in an order drawn at random, of which each is done{behind}"
        )


def in_random_order(images: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Rows in the order in which a budget is spent, by the seed and image_id alone.

    Example:
        >>> in_random_order(pd.DataFrame({"image_id": ["a", "b", "c", "d"]}), seed=1)["image_id"].tolist()
        ['d', 'a', 'c', 'b']
    """
    keys = [blake2b(f"{seed}\0{image_id}".encode(), digest_size=16).digest() for image_id in images["image_id"]]
    return images.iloc[np.argsort(np.array(keys, object), kind="stable")].reset_index(drop=True)


def note_budget(run: Run, budget: str | None, rules: list[str], left: pd.DataFrame) -> None:
    """Notes what a run still lacks that a budget pays for, or that it lacks nothing.

    Args:
        run: The run.
        budget: The budget, as it was written; None where there is none now, and a note of before is kept up to date.
        rules: Ids of the rules that are sampled.
        left: What is to be sampled, as `Remaining.to_sample` returns it: image_id and continues.
    """
    before = _note(run)
    if not len(left):
        run.store.remove(_NOTE)
        return
    if budget is None and before is None:
        return
    going_on = sorted(set(left["image_id"][left["continues"] != ""]))
    note = {"budget": budget or (before or {})["budget"], "rules": rules, "going_on": going_on}
    run.store.write(_NOTE, json.dumps(note).encode())


def prefix_of(run: Run, listing: pd.DataFrame | None = None, committed: pa.Table | None = None) -> Prefix | None:
    """The images of a run that count; None where no budget ended it, or all are done since.

    Args:
        run: The run.
        listing: Its images, where they are at hand.
        committed: Its rows, as `Run.committed` returns them, where they are at hand.
    """
    note = _note(run)
    if note is None:
        return None
    images = in_random_order(run.images() if listing is None else listing, run.manifest()["seed"])
    begun = begun_here(run.committed() if committed is None else committed)
    missing = missing_images(images, begun, note["rules"])["image_id"]
    done = ~images["image_id"].isin({*missing, *note["going_on"]}).to_numpy()
    if done.all():
        return None
    first = int(np.argmin(done))
    return Prefix(images["image_id"].iloc[:first].tolist(), len(images), int(done.sum()) - first, note["budget"])


def only_counted(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with image_id of the images that count; it warns where a budget ended the run."""
    counted = prefix_of(run)
    if counted is None:
        return rows
    warnings.warn(f"run {run.run_id}: {counted}", stacklevel=3)
    return rows[rows["image_id"].isin(counted.image_ids)].reset_index(drop=True)


def join_notes(source: Run, target: Run) -> None:
    """Notes in a run that another one was joined to what either lacked."""
    one, other = _note(source), _note(target)
    if one is None and other is None:
        return
    first, second = one or other or {}, other or one or {}
    both = {name: sorted({*first[name], *second[name]}) for name in ("rules", "going_on")}
    target.store.write(_NOTE, json.dumps({"budget": second["budget"], **both}).encode())


def _note(run: Run) -> dict | None:
    if not run.store.exists(_NOTE):
        return None
    fix = "the same `raycsr sample` writes it again; without it, delete the file and all done images count"
    fields = {"budget": lambda value: isinstance(value, str), "rules": is_texts, "going_on": is_texts}
    note = read_note(run.store, _NOTE, fields, fix)
    if not note["rules"]:
        raise DamagedFile(f"{run.location}/{_NOTE}", "its rules are none", fix)
    return note
