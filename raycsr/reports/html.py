"""Documents as one self-contained web page: no script, no network, every text escaped, pictures as data: URIs."""

import base64
from collections.abc import Mapping, Sequence
from html import escape as escape_markup
from math import ceil

from raycsr.errors import printable
from raycsr.reports.document import (
    Block,
    Captioned,
    Details,
    Document,
    Facts,
    Failed,
    Gallery,
    Notes,
    Paragraph,
    Picture,
    Section,
    Table,
    made,
)
from raycsr.reports.letters import cells as wide

_PAGE = 1130  # px that a table has on a page, at most
_AROUND = 48  # px of a window beside what is on a page, at least
_STEP = 25  # px: so fine is the width known from which a table needs no hint
_CHARACTER = 8.2  # px of a table's character, and what stands around a cell
_PADDING = 22.0
_FACTS, _FACT = 200, 110  # px of the facts of a run, and of their names


def as_html(document: Document) -> str:
    """A whole HTML document with a table of contents.

    Args:
        document: Document of two levels of sections at most.

    Returns:
        The text of a file. It asks no server for anything, which its content security policy forbids, too; it is
        light or dark as the reader's system is. A table that is too wide is cut into several of fewer columns; in a
        narrower window it scrolls by itself, and says so.
    """
    blocks = made(document).blocks
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
        case Section(title, blocks, folded):
            below = "".join(_block(one, f"{place}-{i}", level + 1) for i, one in enumerate(blocks, 1))
            heading = f"<h{level}>{escape(title)}</h{level}>"
            if folded:  # a browser that is led to what is inside unfolds it
                inside = f'<section id="{place}">\n{below}</section>'
                return f"<details>\n<summary>{heading}</summary>\n{inside}\n</details>\n"
            return f'<section id="{place}">\n{heading}\n{below}</section>\n'
        case Paragraph(text):
            return f"<p>{escape(text)}</p>\n"
        case Failed():
            return f'<p class="failed">{escape(block.line)}</p>\n'
        case Notes(lines):
            return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>\n"
        case Table():
            return _table(block)
        case Facts():
            return _facts(block)
        case Picture(wide, narrow, description):
            instead = f'<source media="(max-width: 50rem)" srcset="{_data(narrow, "svg+xml")}">'
            shown = f"<picture>{instead}{_image(wide, description, 'svg+xml')}</picture>"
            return f'<div class="picture">{shown}</div>\n'
        case Gallery(pictures):
            return f'<div class="gallery">{"".join(map(_captioned, pictures))}</div>\n'
        case Details():
            raise AssertionError("details are made before they are shown")


def _table(table: Table) -> str:
    """Columns of numbers stand to the right, their headers too."""
    widths = [_width(column.title, [row[i] for row in table.rows]) for i, column in enumerate(table.columns)]
    parts = "".join(_part(table, part, sum(widths[i] for i in part)) for part in _parts(table, widths))
    return parts + (f"<p>{escape(table.marks)}</p>\n" if table.marks else "")


def _facts(facts: Facts) -> str:
    """Texts are broken anywhere, so that a few runs stand side by side; their titles lead to them."""
    table = facts.table()
    return _part(table, range(len(table.columns)), _FACT + _FACTS * len(facts.of), " facts", facts.links)


def _width(title: str, cells: Sequence[str]) -> float:
    """How wide a column is in px, about: titles are broken between words, cells are not."""
    return _PADDING + _CHARACTER * max(map(wide, [*title.split(), *cells]), default=0)


def _parts(table: Table, widths: Sequence[float]) -> list[list[int]]:
    """The columns of each of the tables that one is cut into: as many as there is room for, and the keys in all."""
    keys = [i for i, column in enumerate(table.columns) if column.key]
    if not keys or sum(widths) <= _PAGE:
        return [list(range(len(widths)))]
    parts: list[list[int]] = []
    room = 0.0
    for i in (i for i in range(len(widths)) if i not in keys):
        if not parts or widths[i] > room:
            parts.append(list(keys))
            room = _PAGE - sum(widths[key] for key in keys)
        parts[-1].append(i)
        room -= widths[i]
    return parts


def _part(
    table: Table, part: Sequence[int], width: float, kind: str = "", links: Mapping[str, str] | None = None
) -> str:
    """Some columns of a table, of a width in px; it scrolls, and says so, in a window that is not as wide."""
    columns = [table.columns[i] for i in part]
    style = [' class="number"' if column.numeric else "" for column in columns]
    titles = [_linked(column.title, links or {}) for column in columns]
    header = "".join(f'<th scope="col"{way}>{title}</th>' for title, way in zip(titles, style, strict=True))
    body = "".join(f"<tr>{_cells([row[i] for i in part], style)}</tr>\n" for row in table.rows)
    scrolls = " over" if width > _PAGE else f" of{ceil(width / _STEP) * _STEP}"
    shown = f"<table>\n<thead><tr>{header}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f'<div class="wide{kind}{scrolls}" tabindex="0">{shown}</div>\n'


def _linked(title: str, links: Mapping[str, str]) -> str:
    return f'<a href="{escape(links[title])}">{escape(title)}</a>' if title in links else escape(title)


def _cells(row: Sequence[str], style: Sequence[str]) -> str:
    return "".join(f"<td{way}>{escape(cell)}</td>" for cell, way in zip(row, style, strict=True))


def _captioned(one: Captioned) -> str:
    first, *rest = (escape(line) for line in one.lines)
    shown = f'<p class="absent">{escape(one.png)}</p>' if isinstance(one.png, str) else _image(one.png, one.lines[0])
    return f"<figure>{shown}<figcaption><b>{first}</b>{''.join(f'<br>{line}' for line in rest)}</figcaption></figure>"


def _image(picture: bytes, description: str, kind: str = "png") -> str:
    return f'<img alt="{escape(description)}" src="{_data(picture, kind)}">'


def _data(picture: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


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
details > summary { cursor: pointer; margin: 1rem 0; }
details > summary > * { display: inline; border: 0; }
details > section { scroll-margin-top: 4rem; }
@media print { details::details-content { content-visibility: visible; height: auto; } }
.wide { overflow: auto; max-width: 100%; margin: 1rem 0; }
@media (min-width: 74rem) { .wide:not(.over) { overflow: visible; } }
.wide::before { position: sticky; left: 0; color: var(--quiet); font-size: .8rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; background: var(--shade); position: sticky; top: 0; }
.facts td { white-space: normal; overflow-wrap: anywhere; min-width: 6.5rem; }
.facts td + td { min-width: 11rem; }
.number { text-align: right; }
tbody tr:hover { background: var(--shade); }
.picture { margin: 1rem 0; }
.picture img { display: block; max-width: 100%; height: auto; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: 1rem; margin: 1rem 0; }
figure { margin: 0; }
figure img { width: 100%; image-rendering: pixelated; border-radius: .3rem; }
figcaption { font-size: .8rem; color: var(--quiet); }
figcaption b { color: var(--text); }
.failed { border-left: .3rem solid #D55E00; padding-left: .7rem; overflow-wrap: anywhere; }
.absent { margin: 0; padding: .6rem; min-height: 8rem; background: var(--shade); font-size: .8rem; }
"""
_HINT = '{ content: "\\21c4  scroll this table sideways"; }'
_STYLE += f".over::before {_HINT}\n" + "".join(
    f"@media (max-width: {width + _AROUND}px) {{ .of{width}::before {_HINT} }}\n"
    for width in range(_STEP, _PAGE + _STEP, _STEP)
)
