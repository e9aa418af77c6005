"""Documents as one self-contained web page: no script, no network, every text escaped, pictures as data: URIs."""

import base64
from collections.abc import Sequence
from html import escape as escape_markup

from raycsr.errors import printable
from raycsr.reports.document import (
    Block,
    Captioned,
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


def as_html(document: Document) -> str:
    """A whole HTML document with a table of contents.

    Args:
        document: Document of two levels of sections at most.

    Returns:
        The text of a file. It asks no server for anything, which its content security policy forbids, too; it is
        light or dark as the reader's system is; tables and pictures that are wider than the screen scroll by
        themselves.
    """
    blocks = _made(document.blocks)
    body = "".join(_block(block, f"s{i}", level=2) for i, block in enumerate(blocks, 1))
    title = escape(document.title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n"
        f'<nav aria-label="Contents">{_contents(blocks, "s")}</nav>\n{body}</main>\n</body>\n</html>\n'
    )


def escape(text: str) -> str:
    """A text of unknown origin as HTML that shows it as it is."""
    return escape_markup(printable(text))


def _made(blocks: Sequence[Block]) -> list[Block]:
    """The blocks with the details among them, in the place of each."""
    made: list[Block] = []
    for block in blocks:
        match block:
            case Details(make):
                made += _made(make())
            case Section(title, within):
                made.append(Section(title, _made(within)))
            case _:
                made.append(block)
    return made


def _contents(blocks: Sequence[Block], place: str) -> str:
    """Links to the sections; a section's place is its number among the blocks, below that of what it stands in."""
    entries = [
        f'<li><a href="#{place}{i}">{escape(block.title)}</a>{_contents(block.blocks, f"{place}{i}-")}</li>'
        for i, block in enumerate(blocks, 1)
        if isinstance(block, Section)
    ]
    return f"<ul>{''.join(entries)}</ul>" if entries else ""


def _block(block: Block, place: str, level: int) -> str:
    match block:
        case Section(title, blocks):
            below = "".join(_block(one, f"{place}-{i}", level + 1) for i, one in enumerate(blocks, 1))
            return f'<section id="{place}">\n<h{level}>{escape(title)}</h{level}>\n{below}</section>\n'
        case Paragraph(text):
            return f"<p>{escape(text)}</p>\n"
        case Notes(lines):
            return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>\n"
        case Table():
            return _table(block)
        case Facts():
            return _table(block.table())
        case Picture(png, description):
            return f'<div class="wide picture" tabindex="0">{_image(png, description)}</div>\n'
        case Gallery(pictures):
            return f'<div class="gallery">{"".join(map(_captioned, pictures))}</div>\n'
        case Details():
            raise AssertionError("details are made before they are shown")


def _table(table: Table) -> str:
    """Columns of numbers stand to the right, their headers too."""
    style = [' class="number"' if column.numeric else "" for column in table.columns]
    titles = [column.title for column in table.columns]
    header = "".join(f'<th scope="col"{way}>{escape(title)}</th>' for title, way in zip(titles, style, strict=True))
    body = "".join(f"<tr>{_cells(row, style)}</tr>\n" for row in table.rows)
    marks = f"<p>{escape(table.marks)}</p>\n" if table.marks else ""
    shown = f"<table>\n<thead><tr>{header}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0">{shown}</div>\n{marks}'


def _cells(row: Sequence[str], style: Sequence[str]) -> str:
    return "".join(f"<td{way}>{escape(cell)}</td>" for cell, way in zip(row, style, strict=True))


def _captioned(one: Captioned) -> str:
    first, *rest = (escape(line) for line in one.lines)
    shown = f'<p class="absent">{escape(one.png)}</p>' if isinstance(one.png, str) else _image(one.png, one.lines[0])
    return f"<figure>{shown}<figcaption><b>{first}</b>{''.join(f'<br>{line}' for line in rest)}</figcaption></figure>"


def _image(png: bytes, description: str) -> str:
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


_STYLE = """
:root { --text: #1c1e21; --quiet: #5c6370; --back: #fff; --line: #d9dce1; --shade: #f5f6f8; --link: #0b57d0; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e6ea; --quiet: #a0a6b1; --back: #16181c; --line: #3a3f47; --shade: #1f2227; --link: #8ab4f8; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.3rem; margin-top: 3rem; padding-top: .5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin-top: 2rem; }
h1, h2, h3, p, li, figcaption { overflow-wrap: anywhere; }
p, ul { max-width: 46rem; }
a { color: var(--link); }
nav { background: var(--shade); padding: .5rem 1rem; border-radius: .5rem; }
nav ul { padding-left: 1.2rem; margin: .3rem 0; max-width: none; }
nav > ul { columns: 16rem; }
nav > ul > li { break-inside: avoid; }
.wide { overflow: auto; max-width: 100%; max-height: 75vh; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { background: var(--shade); position: sticky; top: 0; }
.number { text-align: right; }
tbody tr:hover { background: var(--shade); }
.picture { background: #fff; border-radius: .4rem; max-height: none; }
.picture img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
@media (max-width: 50rem) { .picture img { max-width: none; height: auto; max-height: 24rem; } }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: 1rem; }
figure { margin: 0; }
figure img { width: 100%; image-rendering: pixelated; border-radius: .3rem; }
figcaption { font-size: .8rem; color: var(--quiet); }
figcaption b { color: var(--text); }
.absent { margin: 0; padding: .6rem; min-height: 8rem; background: var(--shade); font-size: .8rem; }
"""
