"""Columns by name: which one of a table holds the image, the label, the split and the group; and labels as text."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from raycsr.data.options import DataOptions
from raycsr.errors import UserError, first_of, nearest

_SHOWN = 20  # names in a message
_WHOLE = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")  # spreadsheets and pandas write 3 as 3.0 where a cell is empty
# What ILSVRC's LOC_*_solution.csv has for a label: a class and its box, once a box.
_BOXES = re.compile(r"(\S+)(?: [0-9]+){4}(?: \1(?: [0-9]+){4})*")

# What people call them, in lower case.
IMAGE = (
    *("image", "image_id", "image_name", "image_path", "imageid", "img"),
    *("path", "file", "file_name", "filename", "file_path", "filepath"),
)
LABEL = ("label", "labels", "class", "class_name", "category", "target", "diagnosis", "dx", "predictionstring")
SPLIT = ("split", "subset", "partition")
GROUP = ("group", "group_id", "patient", "patient_id", "lesion", "lesion_id", "subject", "subject_id")


class Columns(NamedTuple):
    """The names of a table's columns; None where it has none of that kind, or the user wants none."""

    image: str
    label: str | None
    split: str | None
    group: str | None


def find_columns(
    options: DataOptions,
    columns: Sequence[str],
    where: str,
    common: Mapping[str, Sequence[str]],
    *,
    labelled: bool = True,
) -> Columns:
    """The columns that the options name, or else the only one of each kind that has a common name.

    Args:
        options: Options that the user gave.
        columns: Names of the table's columns.
        where: The table's name in messages.
        common: Common names of a column, in lower case, which are looked for where the user named none; by `image`,
            `label`, `split`, `group`.
        labelled: Whether a column of labels is looked for.

    Raises:
        UserError: no such column, or none or several that it may be.
    """

    def find(kind: str) -> str | None:
        named = getattr(options, f"{kind}_column")
        optional = kind in ("split", "group")
        if named is not None and columns.count(named) == 1:
            return named
        if named == "none" and optional:
            return None
        if named is not None and named in columns:
            raise UserError(f"{where} has {columns.count(named)} columns {named!r}: give each a name of its own")
        if named is not None:
            near = nearest(named, columns) if len(columns) > _SHOWN else f"choose from {some_of(columns)}"
            raise UserError(f"{where} has no column {named!r} for data.{kind}_column: {near}")
        found = [column for column in columns if column.lower() in common.get(kind, ())]
        if len(found) == 1:
            return found[0]
        if found or not optional:
            several = f"several columns that may be the {kind}" if found else f"no column known to be the {kind}"
            none = ", or none" if optional else ""
            raise UserError(
                f"{where} has {several}: name one by data.{kind}_column{none}, of {some_of(found or columns)}"
            )
        return None

    return Columns(str(find("image")), find("label") if labelled else None, find("split"), find("group"))


def class_labels(cells: Sequence[str], column: str, place: Callable[[int], str]) -> tuple[np.ndarray, list[str] | None]:
    """Labels as text -> the index of each class, and the names of the classes where labels are names.

    Whole numbers are indices, anything else names, whose sorted order is that of the classes. A mixture is refused,
    for one slip would make names of all numbers.

    Args:
        cells: Cell of each image, empty where it has no label.
        column: Name of the column in messages.
        place: Name of a position in the column, in messages.

    Returns:
        int64 (N,), -1 where a cell is empty; and the names, None for indices.

    Raises:
        UserError: a mixture, or a number that is no index.
    """
    boxes = [_BOXES.fullmatch(cell) for cell in cells]
    if all(box or not cell for box, cell in zip(boxes, cells, strict=True)):
        cells = [box[1] if box else "" for box in boxes]
    wholes = [_WHOLE.fullmatch(cell) for cell in cells]
    positions = {bool(whole): i for i, (whole, cell) in enumerate(zip(wholes, cells, strict=True)) if cell}
    if len(positions) == 2:
        number, name = positions[True], positions[False]
        raise UserError(
            f"{column} has whole numbers ({cells[number]!r} in {place(number)}) and names ({cells[name]!r} in "
            f"{place(name)}): write all labels as indices, or all as names"
        )
    if True in positions:
        return np.array([_index(whole[1], column, place(i)) if whole else -1 for i, whole in enumerate(wholes)]), None
    names = sorted({cell for cell in cells if cell})
    numbers = {"": -1, **{name: number for number, name in enumerate(names)}}
    return np.array([numbers[cell] for cell in cells], np.int64), names


def _index(text: str, column: str, place: str) -> int:
    digits = text.lstrip("+-").lstrip("0") or "0"
    if len(digits) > 10 or int(digits) >= 2**31:  # Python itself refuses to read thousands of digits
        raise UserError(f"{column} has {text[:12]!r} in {place}, which is no class index: number the classes from 0")
    return int(text)


def some_of(names: Sequence[str]) -> str:
    """Names in a message, the first of many."""
    return first_of([repr(name) for name in names], _SHOWN)
