"""What a cost matrix must be, and what is said of one that is not."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raycsr.costs.distinct_rows import DistinctRows
from raycsr.errors import UserError

LEAST, MOST = 1e-15, 1e15  # of a cost above 0: sums of many, and their ratios, are numbers in float32, too
_UNIT = f"costs that are not 0 are {LEAST:g} to {MOST:g}, tell them in another unit"


def checked_values(values: ArrayLike, class_names: Sequence[str] | None) -> NDArray[np.float64]:
    """A copy of all costs, (m, m), without -0.0; the names are for messages alone."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"a cost matrix holds numbers in rows of equal length: {error}") from None
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise UserError(f"a cost matrix is square, one row and one column a class; this one is {array.shape}")
    if len(array) < 2:
        raise UserError(f"a cost matrix needs at least 2 classes; this one has {len(array)}")
    for wrong, rule in (
        (~np.isfinite(array), "costs must be finite"),
        (array < 0, "costs must not be negative"),
        (_beyond(array), _UNIT),
        (np.diag(np.diag(array) != 0), "a right answer costs nothing, set the diagonal to 0"),
    ):
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            named = class_names is not None and len(class_names) == len(array)  # a file may have them in another order
            words = f" ({class_names[row]} answered as {class_names[column]})" if named and class_names else ""
            raise UserError(f"cost at [{row}, {column}] is {array[row, column]}{words}; {rule}")
    array += 0.0  # -0.0 and 0.0 are one value, and so must have one digest
    return array


def checked_rows(distinct: DistinctRows) -> DistinctRows:
    """A copy of costs that are given by their distinct rows."""
    rows = distinct.rows + 0.0
    if len(distinct) < 2:
        raise UserError(f"a cost matrix needs at least 2 classes; this one has {len(distinct)}")
    for wrong, rule in (
        (~np.isfinite(rows), "costs must be finite"),
        (rows < 0, "costs must not be negative"),
        (_beyond(rows), _UNIT),
    ):
        if wrong.any():
            r, column = (int(i) for i in np.argwhere(wrong)[0])
            row = int(np.argmax(distinct.of_class == r))
            raise UserError(f"cost at [{row}, {column}] is {rows[r, column]}; {rule}")
    return DistinctRows(rows, distinct.of_class)


def _beyond(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (costs > MOST) | ((costs > 0) & (costs < LEAST))


def checked_names(class_names: Sequence[str] | None, num_classes: int) -> tuple[str, ...] | None:
    """The names of the classes, each of which has one of its own."""
    if class_names is None:
        return None
    names = tuple(class_names)
    if len(names) != num_classes:
        raise UserError(f"{len(names)} class names for {num_classes} classes; give one name a class")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise UserError(f"class name {twice!r} is given twice; names must differ")
    return names


def checked_class(k: int, num_classes: int) -> int:
    """The number of a class that there is."""
    if not 0 <= k < num_classes:
        raise UserError(f"class {k} is not one of the {num_classes} classes; use 0 to {num_classes - 1}")
    return int(k)
