"""Cost matrices as spreadsheets, pandas and numpy write them: a file -> class names and numbers."""

import codecs
import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raycsr.class_names import are_numbers, squeezed
from raycsr.costs.workbooks import GROUPED, rows_of_workbook
from raycsr.errors import UserError, shown

_SUFFIXES = {".csv", ".tsv", ".npy", ".xlsx", ".xls", ".ods"}  # the last two to be told what to do instead
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"  # how workbooks of today and of the last century begin
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_NUMBER = re.compile(r"[-+]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][-+]?[0-9]+)?")
_LIKE_A_NUMBER = re.compile(r"(?=.*[0-9])[-+0-9.,eE%_\s]+|[-+]?(nan|inf)|", re.IGNORECASE)

Rows = list[list[str]]


def is_cost_file(spec: str) -> bool:
    """Whether costs are given as the path of a file, by its suffix."""
    return Path(spec).suffix.lower() in _SUFFIXES


def read_costs(path: str | Path) -> tuple[list[str] | None, NDArray[np.float64]]:
    """Reads a file of m rows of m numbers, row = true class.

    A table is an Excel workbook of one sheet, or text, separated by commas, semicolons or tabs, with a decimal point or
    a decimal comma. It may have an empty diagonal, and a header row of class names, a first column of them, or both;
    where these two have another order, columns are put in that of the rows. A .npy holds an array (m, m).

    Returns:
        The class names of both rows and columns, or None; and the numbers (m, m).

    Raises:
        UserError: the file cannot be read, a cell is no number or may be two, or names do not fit.
    """
    try:
        if Path(path).suffix.lower() == ".npy":
            return None, _array(path)
        rows, delimiter = table_of(Path(path).read_bytes(), of_numbers=True)
        names, body = _split_names(rows)
        return names, _numbers(body, names, points_are_decimal=delimiter == ",")
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        fix = "give a local .csv, .tsv, .xlsx or .npy file"
        raise UserError(f"cost matrix {path} cannot be read: {reason}; {fix}") from None
    except UserError as error:
        raise UserError(f"cost matrix {path}: {error}") from None


def _array(path: str | Path) -> NDArray[np.float64]:
    with open(path, "rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise UserError("it is no array that numpy.save wrote")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: its header may promise more than there is
    except Exception as error:  # whatever numpy meets in a broken header
        raise UserError(f"it is no array of numbers that numpy.save wrote: {type(error).__name__}") from None
    if array.dtype.kind not in "biuf":
        raise UserError(f"it is an array of {array.dtype}; save one of numbers")
    return array.astype(np.float64)


def table_of(content: bytes, *, of_numbers: bool = False) -> tuple[Rows, str]:
    """The table in a file, without empty rows and columns, which spreadsheets leave around it, and its delimiter.

    Raises:
        UserError: where the content is neither text nor an Excel workbook.
    """
    if content.startswith(_ZIP):
        return _trimmed(rows_of_workbook(content, of_numbers=of_numbers)), ","  # between which a point is decimal
    return _cells_of(_text_of(content))


def _text_of(content: bytes) -> str:
    """The text of a file: UTF-8, UTF-16 by its mark, or else Windows-1252, which spreadsheets still write."""
    if content.startswith(_OLE):
        raise UserError("it is an old spreadsheet; save it as .xlsx or CSV")
    if content.startswith(_UTF_16):
        return content.decode("utf-16")
    if b"\0" in content:
        raise UserError("it is no text; give a .csv, a .tsv, or an array as .npy")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _cells_of(text: str) -> tuple[Rows, str]:
    lines = text.splitlines()
    named = re.fullmatch(r"sep=(.)", lines[0].strip('"')) if lines else None  # Excel's own first line
    rows, delimiter = Rows(), ","
    for delimiter in [named[1]] if named else ["\t", ";", ","]:
        reader = csv.reader(lines[bool(named) :], delimiter=delimiter, skipinitialspace=True)
        rows = [[cell.strip() for cell in row] for row in reader]
        rows = [row for row in rows if any(row)]
        if all(len(row) > 1 for row in rows):
            break
    return _trimmed(rows), delimiter


def _trimmed(rows: Rows) -> Rows:
    """Rows of one length, without those and the columns that are empty."""
    rows = [row for row in rows if any(row)]
    width = max((len(row) for row in rows), default=0)
    rows = [row + [""] * (width - len(row)) for row in rows]
    kept = [k for k in range(width) if any(row[k] for row in rows)]
    return [[row[k] for k in kept] for row in rows]


def _split_names(rows: Rows) -> tuple[list[str] | None, Rows]:
    """Parts a table into the class names, if it has any, and the cells of its numbers, all in the order of the rows."""
    if not rows:
        raise UserError("the file is empty; give m rows of m numbers")
    first = [cell for cell in rows[0] if cell]
    if len(first) == 1 and len(rows) > 1 and not _NUMBER.fullmatch(first[0]):  # a title, of the table or of its answers
        raise UserError(
            f"the first row holds {shown(first[0])} alone; leave nothing around the classes and their costs"
        )
    corner = rows[0][0] == ""  # an empty corner cell: names above and to the left, which may be digits
    if corner and _has_empty_diagonal(rows):
        if {*rows[0][1:]} == {row[0] for row in rows[1:]}:
            raise UserError("its first row and column may be numbers of classes or costs; write 0 on the diagonal")
        corner = False
    above, left = rows[0][1:], [row[0] for row in rows[1:]]
    if above and above == left and _counts(above) and _are_names(rows[0][:1]):
        corner = True  # it says what the numbers are
    has_header = corner or _are_names(above)
    has_column = corner or _are_names(left)
    body = rows[has_header:]
    column = [squeezed(row[0]) for row in body] if has_column else None
    if has_header and not has_column and len(rows[0]) == len(body) + 1 and _counts([row[0] for row in body]):
        has_column = True  # an index
    header = [squeezed(cell) for cell in rows[0][has_column:]] if has_header else None
    body = [row[has_column:] for row in body]
    if "" in (header or []) or "" in (column or []):
        raise UserError(
            "a class has no name in the first row or column; leave nothing around the classes and their costs"
        )
    if header is None or column is None or header == column or (_counts(column) and not are_numbers(header)):
        return header or column, body  # without names, or of an index, the rows are in the order of the header
    for name in header + column:
        if header.count(name) != 1 or column.count(name) != 1:
            raise UserError(
                f"class {shown(name)} is {header.count(name)} times in the header and {column.count(name)} times in "
                "the first column; give each class once in both"
            )
    return column, [[row[header.index(name)] for name in column] for row in body]


def _are_names(cells: Sequence[str]) -> bool:
    """Whether no cell is a number, and not all are what a person takes for one."""
    numbers = any(_NUMBER.fullmatch(cell) for cell in cells)
    return not numbers and not all(_LIKE_A_NUMBER.fullmatch(cell) for cell in cells)


def _has_empty_diagonal(rows: Rows) -> bool:
    """Whether a table is square and all numbers but for an empty diagonal."""
    return len(rows) == len(rows[0]) and all(
        cell == "" if i == k else bool(_NUMBER.fullmatch(cell))
        for i, row in enumerate(rows)
        for k, cell in enumerate(row)
    )


def _counts(names: Sequence[str]) -> bool:
    """Whether names are a spreadsheet's or a frame's row numbers, from 0 or from 1."""
    return any(list(names) == [str(start + k) for k in range(len(names))] for start in (0, 1))


def _numbers(body: Rows, names: Sequence[str] | None, points_are_decimal: bool) -> NDArray[np.float64]:
    """The numbers of a table; an empty cell of the diagonal is 0."""
    cells = [["0" if i == k and cell == "" else cell for k, cell in enumerate(row)] for i, row in enumerate(body)]
    for i, row in enumerate(cells):
        for k, cell in enumerate(row):
            if not _NUMBER.fullmatch(cell):
                named = names is not None and max(i, k) < len(names)
                place = f" ({names[i]} answered as {names[k]})" if named and names else ""
                raise UserError(_no_number(cell, f"[{i}, {k}]{place}"))
    _check_signs([cell for row in cells for cell in row], points_are_decimal)
    return np.array([[float(cell.replace(",", ".")) for cell in row] for row in cells])


def _no_number(cell: str, place: str) -> str:
    if cell == "":
        return f"cell {place} is empty; only the diagonal may be, write costs as 0, 1, 2.5"
    spaces = re.sub(r"\s", "", cell)
    if ("," in cell and "." in cell) or GROUPED.fullmatch(spaces) or (spaces != cell and _NUMBER.fullmatch(spaces)):
        return f"cell {shown(cell)} seems to have thousands apart, at {place}; write it without, as 1000 or 1000.5"
    return f"cell {shown(cell)} is not a number, at {place}; write costs as 0, 1, 2.5"


def _check_signs(cells: Sequence[str], points_are_decimal: bool) -> None:
    """Refuses cells of which nobody can say whether they have a decimal sign or thousands apart.

    In a file a sign has one meaning: `0,5` and `1,25` say that it is decimal, `1,250` alone does not. Between commas, a
    point is decimal.
    """
    points, commas = [cell for cell in cells if "." in cell], [cell for cell in cells if "," in cell]
    if points and commas:
        raise UserError(f"cells {shown(commas[0])} and {shown(points[0])} have different decimal signs; use one")
    signed = commas if points_are_decimal else points or commas
    if signed and all(GROUPED.fullmatch(cell) for cell in signed):
        cell = signed[0]
        raise UserError(
            f"cell {shown(cell)} may be a fraction or thousands; write {cell}0 or {re.sub('[.,]', '', cell)}"
        )
