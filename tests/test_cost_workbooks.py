"""Cost matrices of Excel workbooks: what is read is what a person sees, or it is refused by name."""

import re
import sys

import openpyxl
import pytest

from raycsr.costs import CostMatrix
from raycsr.errors import UserError


def refusal(message):
    """Expect a UserError of one line that contains the message."""
    return pytest.raises(UserError, match=r"\A[^\n]*" + re.escape(message) + r"[^\n]*\Z")


@pytest.fixture
def workbook(tmp_path):
    def write(*sheets):
        book = openpyxl.Workbook()
        book.remove(book.active)
        for name, rows in sheets:
            sheet = book.create_sheet(name)
            for row in rows:
                sheet.append(row)
        book.save(tmp_path / "costs.xlsx")
        return str(tmp_path / "costs.xlsx")

    return write


NAMED = [[None, "bird", "cat", "dog"], ["bird", None, 1, 0.5], ["dog", 2, 1e-7, None], ["cat", 1250, None, 0]]


@pytest.mark.parametrize(
    "rows",
    [
        NAMED,
        [[], [], *([None, *row] for row in NAMED)],
        [["" if cell is None else str(cell) for cell in row] for row in NAMED],
    ],
    ids=["numbers", "further down", "text"],
)
def test_a_workbook_is_what_its_cells_are_wherever_the_table_stands(workbook, rows):
    costs = CostMatrix.from_spec(workbook(("Sheet1", rows), ("Sheet2", [])), 3)
    assert costs.class_names == ("bird", "dog", "cat")
    assert costs.values.tolist() == [[0, 0.5, 1], [2, 0, 1e-7], [1250, 0, 0]]


@pytest.mark.parametrize(
    ("sheets", "message"),
    [
        ([("a", [[0, 1], [1, 0]]), ("notes", [["by Ann"]])], "sheets a, notes hold something"),
        ([("a", [[0, "=1+1"], [1, 0]])], "cell B1 is a formula that nothing has worked out"),
        ([("a", [[0, "=1+1"], [1, 0]]), ("b", [[0, "=1+1"]])], "sheets a, b hold something"),
        ([("a", [[0, "1,250"], [1, 0]])], "cell B1 is the text '1,250', a fraction or thousands"),
        ([("a", [[0, "0,5"], [1.5, 0]])], "cell B1 is the text '0,5' where others are numbers; write a number"),
        ([("a", [[0, "0,5"], ["1.5", 0]])], "different decimal signs"),
        ([("a", [[None, "a", "b"], ["b", "n/a", 0], ["a", 0, 1]])], "not a number, at [0, 1] (b answered as a)"),
        ([("a", [[0, True, 1], [1, 0, 1], [1, 1, 0]])], "cell 'True' is not a number"),
        ([("a", [])], "the file is empty"),
        ([("a", [[0, "1.250"], [1, 0]])], "cell B1 is the text '1.250', a fraction or thousands; write a number"),
        ([("a", [[0, "1.250"], [0.5, 0]])], "cell B1 is the text '1.250'"),
        ([("a", [["Our costs"], [0, 1], [1, 0]])], "the first row holds 'Our costs' alone"),
        ([("a", [[None, "answer"], [None, "a", "b"], ["a", 0, 1], ["b", 1, 0]])], "the first row holds 'answer' alone"),
        ([("a", [[None, "a", "b"], ["true", "a", 0, 1], [None, "b", 1, 0]])], "a class has no name"),
    ],
)
def test_of_a_workbook_nothing_is_guessed(workbook, sheets, message):
    with refusal(message):
        CostMatrix.from_spec(workbook(*sheets), 2)


@pytest.mark.parametrize("name", ["Melanom\nbösartig", "Melanom\u00a0bösartig", " Melanom  bo\u0308sartig"])
def test_names_that_look_alike_are_alike(workbook, name):
    """Broken lines, spaces that do not break and letters in two parts: nobody sees why such names were refused."""
    path = workbook(("a", [[None, "Naevus", name], ["Melanom bösartig", 5, 0], ["Naevus", 0, 1]]))
    costs = CostMatrix.from_spec(path, 2, ["Melanom bösartig", "Naevus"])
    assert costs.values.tolist() == [[0, 5], [1, 0]]
    assert CostMatrix.from_spec(path, 2, ["Melanom  bösartig", "Naevus"]) == costs, "a folder may be so called"
    groups = workbook(("a", [[name, "bad"], ["Naevus", "good"]]))
    assert CostMatrix.from_spec(f"groups:{groups}", 2, ["Melanom bösartig", "Naevus"]) == CostMatrix.uniform(2)


def test_names_of_classes_and_groups_may_look_like_grouped_numbers(workbook):
    path = workbook(("a", [["cat", "123.456"], ["dog", "123.457"], ["fox", "123.456"]]))
    costs = CostMatrix.from_spec(f"groups:{path}", 3, ["cat", "dog", "fox"])
    assert costs == CostMatrix.groups(3, ["a", "b", "a"])


def hide_row(sheet):
    sheet.row_dimensions[3].hidden = True


def hide_columns(sheet):
    sheet.column_dimensions.group("C", "D", hidden=True)


def hide_sheet(sheet):
    sheet.parent.create_sheet("seen")
    sheet.sheet_state = "hidden"


def merge(sheet):
    sheet.merge_cells("B2:C2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (hide_row, "row 3 is hidden and holds something; show it, or delete it"),
        (hide_columns, "column D is hidden and holds something"),
        (hide_sheet, "sheet 'a' is hidden, and no other holds anything"),
        (merge, "cells B2:C2 are merged"),
    ],
)
def test_what_nobody_sees_is_not_read(workbook, change, message):
    path = workbook(("a", [[None, "a", None, "b"], ["a", 0, None, 1], ["b", 1, None, 0]]))
    book = openpyxl.load_workbook(path)
    change(book["a"])
    book.save(path)
    with refusal(message):
        CostMatrix.from_spec(path, 2)


def test_hidden_rows_and_columns_that_are_empty_do_no_harm(workbook):
    path = workbook(("a", [[0, None, 1], [], [1, None, 0]]))
    book = openpyxl.load_workbook(path)
    book["a"].row_dimensions[2].hidden = book["a"].column_dimensions["B"].hidden = True
    book.save(path)
    assert CostMatrix.from_spec(path, 2) == CostMatrix.uniform(2)


def test_a_workbook_without_openpyxl_says_what_to_install(workbook, monkeypatch):
    path = workbook(("a", [[0, 1], [1, 0]]))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with refusal("pip install openpyxl, or save it as CSV"):
        CostMatrix.from_spec(path, 2)
