"""Short labels of runs, no two alike."""

from collections.abc import Sequence
from itertools import zip_longest

import pandas as pd

_ID = 6  # characters of a run's id in a label


def distinct_labels(runs: Sequence[tuple[str, str, str]]) -> list[str]:
    """A short label for each run, and no two alike.

    Args:
        runs: For each the path or name of its model, what to write after it, and its location, which ends with its id.
            The label is the file's name; where that is not enough, with the nearest folders that differ, then with
            the id's beginning, and of copies of one run with the location.
    """
    labels = [path.rsplit("/", 1)[-1] + after for path, after, _ in runs]
    for same in _alike(labels):
        for i, name in zip(same, _tell_apart([runs[i][0] for i in same]), strict=True):
            labels[i] = name + runs[i][1]
    for same in _alike(labels):
        ids = {i: runs[i][2].rsplit("/", 1)[-1][:_ID] for i in same}
        places = dict(zip(same, _tell_apart([runs[i][2] for i in same]), strict=True))
        for i in same:
            labels[i] += f" {ids[i] if list(ids.values()).count(ids[i]) == 1 else places[i]}"
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
