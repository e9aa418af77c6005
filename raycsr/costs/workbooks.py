"""Tables of Excel workbooks, as text: what a person sees in the cells, but for the format of numbers."""

import io

from raycsr.errors import UserError, first_of


def rows_of_workbook(content: bytes) -> list[list[str]]:
    """Reads the one sheet of a workbook that is not empty.

    Args:
        content: Bytes of an .xlsx file.

    Returns:
        The cells, row by row, as text; numbers with a decimal point, "" where a cell is empty.

    Raises:
        UserError: where openpyxl is not installed, the file is no workbook, several of its sheets hold something, or a
            formula has no value because no program has worked it out yet.
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
    for row in of_formulas.iter_rows():
        for cell in row:
            if cell.data_type == "f" and sheet[cell.coordinate].value is None:
                raise UserError(
                    f"cell {cell.coordinate} is a formula that nothing has worked out; open the file in a spreadsheet "
                    "program and save it there, or write the number"
                )
    return [["" if cell is None else _text(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]


def _text(cell: object) -> str:
    """A cell as text; a number that is whole without a fraction, as spreadsheets show it."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
