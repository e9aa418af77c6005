"""Tables of Excel workbooks, as text: what a person sees in the cells, but for the format of numbers."""

import io
import re
from typing import TYPE_CHECKING

from raycsr.errors import UserError, first_of, shown

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

_COMMA = re.compile(r"[-+]?[0-9]*,[0-9]+")  # a number as many write it, that no spreadsheet program took for one
GROUPED = re.compile(r"[-+]?[1-9][0-9]{0,2}([.,][0-9]{3})+")  # a thousand to one reader, a fraction to another


def rows_of_workbook(content: bytes, *, of_numbers: bool = False) -> list[list[str]]:
    """Reads the one sheet of a workbook that is not empty.

    Args:
        content: Bytes of an .xlsx file.
        of_numbers: Whether its cells are numbers, but for names around them: a text that may be two is then refused.

    Returns:
        The cells, row by row, as text; numbers with a decimal point, "" where a cell is empty.

    Raises:
        UserError: where openpyxl is not installed, the file is no workbook, several of its sheets hold something, what
            they hold is hidden or in merged cells, a number is kept as a text that may be two, or a formula has no
            value because no program has worked it out yet.
    """
    try:
        import openpyxl  # an extra: who writes CSV needs it not
    except ImportError:
        raise UserError(
            "it is an Excel workbook, and openpyxl is not installed; pip install openpyxl, or save it as CSV"
        ) from None
    try:
        sheets = openpyxl.load_workbook(io.BytesIO(content), data_only=True).worksheets
        formulas = openpyxl.load_workbook(io.BytesIO(content)).worksheets
    except Exception as error:  # whatever openpyxl, zipfile and expat meet in a broken file
        raise UserError(
            f"it is no Excel workbook that can be read ({type(error).__name__}); save it as .xlsx or CSV"
        ) from None
    filled = [
        (sheet, of_formulas)
        for sheet, of_formulas in zip(sheets, formulas, strict=True)
        if any(cell is not None for row in of_formulas.iter_rows(values_only=True) for cell in row)
    ]
    if len(filled) > 1:
        names = first_of([sheet.title for sheet, _ in filled], 5)
        raise UserError(f"sheets {names} hold something; give a workbook with one sheet, or save that sheet as CSV")
    if not filled:
        return []
    ((sheet, of_formulas),) = filled
    _refuse_unseen(of_formulas)
    numbers = [cell for row in sheet.iter_rows(values_only=True) for cell in row if isinstance(cell, float)]
    fractions = any(not number.is_integer() for number in numbers)
    for row in of_formulas.iter_rows():
        for cell in row:
            if cell.data_type == "f" and sheet[cell.coordinate].value is None:
                raise UserError(
                    f"cell {cell.coordinate} is a formula that nothing has worked out; open the file in a spreadsheet "
                    "program and save it there, or write the number"
                )
            if of_numbers and isinstance(cell.value, str) and GROUPED.fullmatch(cell.value.strip()):
                text = shown(cell.value.strip())
                raise UserError(f"cell {cell.coordinate} is the text {text}, a fraction or thousands; write a number")
            if of_numbers and fractions and isinstance(cell.value, str) and _COMMA.fullmatch(cell.value.strip()):
                text = shown(cell.value.strip())
                raise UserError(f"cell {cell.coordinate} is the text {text} where others are numbers; write a number")
    return [["" if cell is None else _text(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]


def _refuse_unseen(sheet: "Worksheet") -> None:
    """Refuses what a person does not see where it stands: what is hidden, and cells that show another's value."""
    if sheet.sheet_state != "visible":
        raise UserError(f"sheet {shown(sheet.title)} is hidden, and no other holds anything; show it")
    merged = [
        area.coord for area in sheet.merged_cells.ranges if sheet.cell(area.min_row, area.min_col).value is not None
    ]
    if merged:
        raise UserError(f"cells {first_of(merged, 5)} are merged; part them, and write what each holds")
    hidden_rows = {number for number, row in sheet.row_dimensions.items() if row.hidden}
    hidden_columns = {
        number
        for column in sheet.column_dimensions.values()
        if column.hidden
        for number in range(column.min, column.max + 1)
    }
    for cell in (cell for row in sheet.iter_rows() for cell in row if cell.value is not None):
        for where, is_hidden in (
            (f"row {cell.row}", cell.row in hidden_rows),
            (f"column {cell.column_letter}", cell.column in hidden_columns),
        ):
            if is_hidden:
                raise UserError(f"{where} is hidden and holds something; show it, or delete it")


def _text(cell: object) -> str:
    """A cell as text; a number that is whole without a fraction, as spreadsheets show it."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
