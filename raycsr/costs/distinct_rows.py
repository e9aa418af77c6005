"""A square array by its distinct rows: few, where costs follow a rule, however many classes there are."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raycsr.errors import UserError

_BLOCK_BYTES = 16 << 20  # of rows that are written out at once
_MOST_CLASSES = 50_000


@dataclass(frozen=True, eq=False)
class DistinctRows:
    """The rows of an (m, m) array, each once, and the one that every class has. On the diagonal is 0 whatever they say.

    So all classes of `uniform` have one row: of 21,841 classes that is 175 kB, where the array would have 3.8 GB.

    Attributes:
        rows: The distinct rows, float64 (R, m).
        of_class: Which of them each class has, int32 (m,).
    """

    rows: NDArray[np.float64]
    of_class: NDArray[np.int32]

    @classmethod
    def of_dense(cls, array: NDArray[np.float64]) -> "DistinctRows":
        """Finds the distinct rows of an array (m, m) with a zero diagonal.

        Rows count as the same as they stand, or with the largest cost of a row on its diagonal, whichever finds fewer:
        so the classes of a group are the same that cost nothing among each other, and all classes of `uniform`.
        """

        def filled(y: int) -> NDArray[np.float64]:
            row = array[y].copy()
            row[y] = row.max()
            return row

        def numbers(rows: Iterable[NDArray[np.float64]]) -> dict[bytes, list[int]]:
            found: dict[bytes, list[int]] = {}
            for y, row in enumerate(rows):
                found.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), []).append(y)
            return found

        classes = range(len(array))
        as_they_are, with_largest = numbers(array), numbers(map(filled, classes))
        fewer = as_they_are if len(as_they_are) <= len(with_largest) else with_largest
        of_class = np.empty(len(array), np.int32)
        for r, alike in enumerate(fewer.values()):
            of_class[alike] = r
        first = [alike[0] for alike in fewer.values()]
        return cls(array[first] if fewer is as_they_are else np.stack(list(map(filled, first))), of_class)

    @classmethod
    def of_pairs(cls, m: int, pairs: Mapping[int, Iterable[int]], cost: float = 1.0) -> "DistinctRows":
        """Rows of zeros, but for what costs: {seed: [targets]}.

        Raises:
            UserError: a class that is its own target.
        """
        rows, of_class = np.zeros((1 + len(pairs), m)), np.zeros(m, np.int32)
        for r, (seed, targets) in enumerate(pairs.items(), start=1):
            of_class[seed] = r
            for target in targets:
                if target == seed:
                    fix = "a right answer costs nothing, set the diagonal to 0"
                    raise UserError(f"cost at [{seed}, {seed}] is {float(cost)}; {fix}")
                rows[r, target] = cost
        return cls(rows, of_class)

    def __len__(self) -> int:
        """The number m of classes."""
        return len(self.of_class)

    def take(self, classes: NDArray[np.integer]) -> NDArray[np.float64]:
        """The rows of some classes, (S,), with 0 on the diagonal: (S, m)."""
        rows = self.rows[self.of_class[classes]]
        rows[np.arange(len(classes)), classes] = 0.0
        return rows

    def blocks(self) -> Iterator[NDArray[np.float64]]:
        """All m rows in their order, some megabytes of them at once."""
        size = max(1, _BLOCK_BYTES // (8 * len(self)))
        for start in range(0, len(self), size):
            yield self.take(np.arange(start, min(start + size, len(self))))

    @cached_property
    def is_positive(self) -> NDArray[np.bool_]:
        """Whether each number of the distinct rows is above 0, (R, m)."""
        return self.rows > 0

    @cached_property
    def place(self) -> NDArray[np.int32]:
        """How many numbers above 0 stand before each one in its distinct row, (R, m)."""
        return np.cumsum(self.is_positive, axis=1, dtype=np.int32) - self.is_positive.astype(np.int32)

    def to_json(self) -> dict[str, Any]:
        """The rows as JSON values, each as runs [length, number] of equal numbers; `of_json` reads them back."""
        return {"of_class": _runs(self.of_class), "distinct": [_runs(row) for row in self.rows]}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "DistinctRows":
        """What `to_json` wrote.

        Raises:
            UserError: they fit no matrix.
            LookupError, TypeError, ValueError: they are not what `to_json` wrote.
        """
        of_class = _of_runs(values["of_class"], _MOST_CLASSES)
        m, number = len(of_class), len(values["distinct"])
        rows = [_of_runs(runs, m) for runs in values["distinct"]]
        if not 0 < number <= m or any(len(row) != m for row in rows) or not np.isin(of_class, np.arange(number)).all():
            raise UserError(f"{number} distinct rows of costs fit no {m} classes; make the file again")
        return cls(np.array(rows, np.float64), of_class.astype(np.int32))


def _runs(array: NDArray) -> list[list]:
    """An array -> [length, value] of each run of equal values."""
    starts = np.flatnonzero(np.concatenate([[True], array[1:] != array[:-1]]))
    lengths = np.diff(np.append(starts, len(array)))
    return [list(run) for run in zip(lengths.tolist(), array[starts].tolist(), strict=True)]


def _of_runs(runs: list[list], most: int) -> NDArray[np.float64]:
    lengths = [length for length, _ in runs]
    if any(type(length) is not int or length < 1 for length in lengths) or sum(lengths) > most:
        raise UserError(f"runs of {sum(lengths)} numbers are no row of costs of at most {most} classes")
    return np.repeat(np.array([value for _, value in runs], np.float64), lengths)
