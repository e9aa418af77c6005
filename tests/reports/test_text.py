"""Documents as text for a terminal."""

from raycsr.reports.document import (
    Captioned,
    Column,
    Details,
    Document,
    Facts,
    Gallery,
    Notes,
    Paragraph,
    Section,
    Table,
)
from raycsr.reports.text import as_text


def test_a_document_is_underlined_headings_tables_that_line_up_and_a_line_of_facts_each():
    def make():
        raise AssertionError("nobody looks at them")

    table = Table([Column("run"), Column("long", numeric=True)], [["a|b_c", "1.25"]], "† c")
    section = Section("Costs: a", [Paragraph("one"), Section("Front", [table]), Details("what nobody looks at", make)])
    facts = Facts({"a.pt": {"n": "10", "begun": "", "alpha": "0.1"}})
    gallery = Gallery([Captioned(b"", ["a.png", "cost 1"])])
    assert as_text(Document("Report", [Notes(["first", "second"]), facts, section, gallery])) == (
        "Report\n======\n\n- first\n- second\n\n- a.pt: n 10 · alpha 0.1\n\n"
        "Costs: a\n--------\n\none\n\nFront\n\n"
        "| run   | long |\n|-------|-----:|\n| a|b_c | 1.25 |\n\n† c\n\n"
        "- a.png, cost 1"
    )


def test_a_table_alone_lines_up_and_may_be_empty():
    columns = [Column("a"), Column("long name", numeric=True)]
    lines = ["| a    | long name |", "|------|----------:|", "| 1.25 |         x |"]
    assert as_text(Table(columns, [["1.25", "x"]])).splitlines() == lines
    assert as_text(Table(columns, [])).splitlines() == ["| a | long name |", "|---|----------:|"]


def test_no_text_moves_the_cursor():
    evil = "\x1b[31mred\x1b[0m\n\u202etxt.exe"
    blocks = [Paragraph(evil), Notes([evil]), Table([Column(evil)], [[evil]], evil), Facts({evil: {evil: evil}})]
    text = as_text(Document(evil, [Section(evil, [*blocks, Gallery([Captioned(b"", [evil])])])]))
    assert all(one.isprintable() for line in text.split("\n") for one in line)
    assert text.count("\\x1b[31mred") == 11  # each text once
