"""`groups:FILE`: to answer outside the group of the true class costs 1, and within it nothing.

FILE is a table with a row a class: its name or index, and the name of its group, such as `cat,animal`.
"""

import csv
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

from raycsr.class_names import squeezed
from raycsr.costs.distinct_rows import DistinctRows
from raycsr.costs.files import table_of
from raycsr.costs.kinds import CostKind
from raycsr.errors import UserError, nearest

_HEADER = ("class", "group")


def costs_of_groups(group_of_class: Sequence[Hashable], cost: float = 1.0) -> DistinctRows:
    """What it costs to answer outside the group of the true class.

    Args:
        group_of_class: Group of each of the m classes: names or numbers.
        cost: Cost of each such mistake.

    Returns:
        A row a group, which all of its classes have.
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(group_of_class))}
    of_class = np.array([numbers[group] for group in group_of_class], np.int32)
    return DistinctRows(np.where(np.arange(len(numbers))[:, None] != of_class, cost, 0.0), of_class)


def _values(text: str, num_classes: int, class_names: Sequence[str] | None) -> DistinctRows:
    try:
        rows, _ = table_of(Path(text).read_bytes())
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"{text} cannot be read: {reason}; give a local table of classes and their groups") from None
    if rows and tuple(cell.casefold() for cell in rows[0]) == _HEADER:
        rows = rows[1:]
    known = {squeezed(name): k for k, name in enumerate(class_names or [])}
    if not class_names or all(row[0] not in known and row[0].isdecimal() for row in rows):
        known = {str(k): k for k in range(num_classes)}
    groups: list[str | None] = [None] * num_classes
    for row in rows:
        if len(row) != 2 or not all(row):
            raise UserError(f"{text} has a row {','.join(row)!r}; give each class and its group, such as cat,animal")
        name, group = squeezed(row[0]), squeezed(row[1])
        if name not in known:
            raise UserError(f"{text} has a class {name!r}, the data has none; {nearest(name, known)}")
        if groups[known[name]] is not None:
            raise UserError(f"{text} has class {name!r} twice; give each class one group")
        groups[known[name]] = group
    if None in groups:
        missing = groups.index(None)
        raise UserError(f"{text} has no group of class {(class_names or range(num_classes))[missing]!r}; give it one")
    return costs_of_groups(groups)


GROUPS = CostKind("groups:superclasses.csv", _values)
