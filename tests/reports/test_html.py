"""The page as a parser of HTML reads it."""

import base64
from html.parser import HTMLParser

from raycsr.reports.document import (
    Captioned,
    Column,
    Details,
    Document,
    Facts,
    Gallery,
    Notes,
    Paragraph,
    Picture,
    Section,
    Table,
)
from raycsr.reports.html import as_html

EVIL = "<script>alert('x')</script>\"&"
WITHOUT_END = {"meta", "img", "br", "source"}


class Page(HTMLParser):
    """Elements, their attributes and the texts within them; refuses tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in WITHOUT_END:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1], data))

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def texts_of(self, tag):
        return [text for name, text in self.texts if name == tag]


def test_headings_are_linked_from_the_contents():
    costs = Section("Costs: a", [Section("Curves", []), Section("Front", [])])
    text = as_html(Document("Report", [Section("Notes", [Paragraph("one")]), costs]))
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert (page.texts_of("h1"), page.texts_of("h2")) == (["Report"], ["Notes", "Costs: a"])
    assert page.texts_of("h3") == ["Curves", "Front"] and page.texts_of("p") == ["one"]
    assert page.texts_of("a") == ["Notes", "Costs: a", "Curves", "Front"]
    assert [link["href"] for link in page.of("a")] == [f"#{section['id']}" for section in page.of("section")]


def test_details_are_made_once_and_stand_where_they_are_among_the_contents():
    made = []

    def make():
        made.append(1)
        return [Section("Ranking", [Paragraph("who is first")]), Details("curves", lambda: [Section("Curves", [])])]

    page = Page(as_html(Document("Report", [Section("Costs: a", [Details("a ranking", make), Section("Front", [])])])))
    assert made == [1] and page.texts_of("h3") == ["Ranking", "Curves", "Front"]
    assert [link["href"] for link in page.of("a")] == [f"#{section['id']}" for section in page.of("section")]


def test_every_text_is_escaped():
    blocks = [
        Paragraph(EVIL),
        Notes([EVIL]),
        Table([Column(EVIL), Column("n", numeric=True)], [[EVIL, "1"]], EVIL),
        Facts({EVIL: {EVIL: EVIL}}),
        Picture(b"svg", b"svg", EVIL),
        Gallery([Captioned(b"png", [EVIL, EVIL]), Captioned(EVIL, [EVIL])]),
        Section(EVIL, []),
    ]
    page = Page(as_html(Document(EVIL, [Section(EVIL, blocks)])))
    assert page.of("script") == []
    for tag in ("title", "h1", "h2", "h3", "a", "p", "li", "th", "td", "b"):
        assert EVIL in page.texts_of(tag), tag
    assert [image["alt"] for image in page.of("img")] == [EVIL, EVIL]
    assert {name for attributes in page.of("img") for name in attributes} == {"alt", "src"}


def test_the_page_needs_nothing_but_itself():
    text = as_html(Document("Report", [Section("Picture", [Picture(b"wide", b"narrow", "a curve")])]))
    page = Page(text)
    (image,) = page.of("img")
    (telephone,) = page.of("source")
    assert image["src"] == f"data:image/svg+xml;base64,{base64.b64encode(b'wide').decode()}"
    assert telephone["srcset"] == f"data:image/svg+xml;base64,{base64.b64encode(b'narrow').decode()}"
    assert "http" not in text.replace("http-equiv", "") and "//" not in text and "@import" not in text
    assert {"link", "script", "iframe"}.isdisjoint(tag for tag, _ in page.elements)
    policy = next(meta["content"] for meta in page.of("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_columns_of_numbers_stand_to_the_right():
    columns = [Column("run"), Column("rob_cs", numeric=True)]
    page = Page(as_html(Document("Report", [Table(columns, [["1.pt", "0.500 [0.326, 0.674]"], ["2", "-"]])])))
    assert [cell.get("class") for cell in page.of("th")] == [None, "number"]
    assert [cell.get("class") for cell in page.of("td")] == [None, "number"] * 2
    assert Page(as_html(Document("Report", [Table(columns, [])]))).texts_of("th") == ["run", "rob_cs"]


def test_a_table_that_is_too_wide_is_cut_into_several_that_say_what_a_row_is_about():
    numbers = [Column(f"number {i}", numeric=True) for i in range(20)]
    columns = [Column("run", key=True), *numbers]
    page = Page(as_html(Document("Report", [Table(columns, [["m.pt", *["0.500 [0.326, 0.674]"] * 20]], "† a mark")])))
    titles = page.texts_of("th")
    assert titles.count("run") == page.texts_of("td").count("m.pt") == len(page.of("table")) == 4
    assert [title for title in titles if title != "run"] == [column.title for column in numbers]
    assert page.texts_of("p") == ["† a mark"] and page.texts_of("td").count("0.500 [0.326, 0.674]") == 20


def test_a_folded_section_is_led_to_by_what_is_inside():
    page = Page(as_html(Document("Report", [Section("Costs", [Section("Curves", [Paragraph("one")], folded=True)])])))
    order = [tag for tag, _ in page.elements if tag in ("details", "summary", "h3", "section")]
    assert order == ["section", "details", "summary", "h3", "section"]
    assert [link["href"] for link in page.of("a")] == [f"#{section['id']}" for section in page.of("section")]


def test_a_run_is_linked():
    page = Page(as_html(Document("Report", [Facts({"a & b": {"n": "1"}}, {"a & b": "file:///r/a%20&%20b"})])))
    assert page.of("a")[0]["href"] == "file:///r/a%20&%20b" and page.texts_of("a") == ["a & b"]


def test_facts_are_a_row_each_and_what_is_not_recorded_is_said():
    page = Page(as_html(Document("Report", [Facts({"a.pt": {"n": "1,000"}, "b.tsv": {"n": ""}})])))
    assert (page.texts_of("th"), page.texts_of("td")) == (["a.pt", "b.tsv"], ["n", "1,000", "not recorded"])


def test_wide_parts_scroll_by_themselves_and_the_page_is_light_or_dark():
    text = as_html(Document("Report", [Table([Column("a")], [["b"]]), Picture(b"w", b"n", "c")]))
    page = Page(text)
    assert [box["class"] for box in page.of("div")] == ["wide of50", "picture"]
    for letters, kind in ((40, "of350"), (90, "of775"), (140, "over")):
        of_width = as_html(Document("Report", [Table([Column("a" * letters)], [["b"]])]))
        assert [box["class"] for box in Page(of_width).of("div")] == [f"wide {kind}"]
    assert '@media (max-width: 398px) { .of350::before { content: "\\21c4  scroll' in text
    assert ".wide { overflow: auto;" in text and "prefers-color-scheme: dark" in text
    assert {"width=device-width, initial-scale=1", "light dark"} <= {meta.get("content") for meta in page.of("meta")}
