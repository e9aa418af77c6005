"""Documents as Markdown: what a parser reads back is what was to be shown."""

import re

import pytest

from raycsr.errors import printable
from raycsr.reports.document import Column, Details, Document, Facts, Notes, Paragraph, Picture, Section, Table
from raycsr.reports.markdown import as_markdown, in_markdown

EVIL = [
    "a|b",
    "a\nb",
    "\x1b[31mred\x1b[0m",
    "<img src=x onerror=alert(1)>",
    "[click](http://evil.example)",
    "![x](http://evil.example/x.png)",
    "[a][b] and [a]: http://evil.example",
    "`code` and **bold** and *thin* and ~~gone~~",
    "_begin and end_ but cifar_resnet8",
    "C:\\dir\\*x* \\| \\",
    "&lt;b&gt; R&D",
    "# no heading",
    "> no quote",
    "- no list",
    "$x_{1}$",
    "\u202etxt.exe",
]
PLAIN = [
    "offset:1.5*pair:cat/dog",
    "cifar_resnet8",
    "0.500 [0.095, 0.905]",
    "0.500 †",
    "-",
    "-1.5",
    "~/runs",
    "a & b",
    "C++",
]


@pytest.mark.parametrize("text", PLAIN)
def test_what_does_not_act_in_markdown_stays_as_it_is(text):
    assert in_markdown(text) == text


def test_a_name_stays_a_name_in_a_table():
    text = as_markdown(Table([Column("run"), Column("costs")], [[one, "uniform"] for one in EVIL]))
    assert len(text.splitlines()) == len(EVIL) + 2
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 for line in text.splitlines())
    assert "\x1b" not in text and "\u202e" not in text


@pytest.mark.parametrize("text", EVIL)
def test_a_parser_of_markdown_reads_the_text_back(text):
    parser = pytest.importorskip("markdown_it", reason="no markdown-it-py").MarkdownIt("commonmark").enable("table")
    for document in (in_markdown(text), as_markdown(Table([Column("h")], [[text]]))):
        tokens = [one for token in parser.parse(document) for one in [token, *(token.children or [])]]
        read = [one.content for one in tokens if one.type in ("text", "text_special")]
        assert "".join(read).removeprefix("h") == printable(text).strip()
        assert {one.type for one in tokens} <= {
            *("text", "text_special", "inline", "paragraph_open", "paragraph_close", "table_open", "table_close"),
            *(f"{kind}_{end}" for kind in ("thead", "tbody", "tr", "th", "td") for end in ("open", "close")),
        }


def test_a_document_is_headings_tables_and_lists_and_leaves_details_out():
    def make():
        raise AssertionError("nobody looks at them")

    table = Table([Column("run"), Column("rob_cs", numeric=True)], [["a|b", "0.5 †"]], "† of c_*d*")
    section = Section("Costs: a", [Paragraph("one"), Section("Front", [table]), Details("what nobody looks at", make)])
    facts = Facts({"a.pt": {"n": "10"}, "b.pt": {"n": ""}})
    assert as_markdown(
        Document("Report", [Notes(["first", "- second"]), facts, section, Picture(b"", b"", "a_b c")])
    ) == (
        "# Report\n\n- first\n- \\- second\n\n"
        "|   | a.pt | b.pt         |\n|---|------|--------------|\n| n | 10   | not recorded |\n\n"
        "## Costs: a\n\none\n\n### Front\n\n"
        "| run  | rob_cs |\n|------|-------:|\n| a\\|b |  0.5 † |\n\n† of c\\_\\*d\\*\n\n"
        "(a_b c)\n"
    )
