"""One self-contained web page from parts: no script, no network, every text escaped, pictures as data: URIs."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape as escape_markup
from typing import NamedTuple

from raycsr.errors import printable

_NUMBER = re.compile(r"-|-?\d[\d.,]*( \[.*\])?( †)?")  # with its interval, and marked


class Table(NamedTuple):
    """Rows of text, the first the header."""

    rows: Sequence[Sequence[str]]


class Picture(NamedTuple):
    """A PNG; `description` is for those who cannot see it."""

    png: bytes
    description: str


class Captioned(NamedTuple):
    """A small PNG, or one line that says why there is none, with lines of text below."""

    png: bytes | str
    lines: Sequence[str]


class Gallery(NamedTuple):
    """Small pictures side by side."""

    pictures: Sequence[Captioned]


class Notes(NamedTuple):
    """A list of sentences."""

    lines: Sequence[str]


Part = str | Table | Picture | Gallery | Notes  # a text is a paragraph


@dataclass(frozen=True)
class Section:
    """A heading, what stands below it, and sections of their own below that."""

    title: str
    parts: Sequence[Part] = ()
    sections: Sequence["Section"] = ()


def render_page(title: str, sections: Sequence[Section]) -> str:
    """A whole HTML document with a table of contents.

    Args:
        title: of the document.
        sections: two levels at most.

    Returns:
        The text of a file. It asks no server for anything, which its content security policy forbids, too; it is
        light or dark as the reader's system is; tables and pictures that are wider than the screen scroll by
        themselves.
    """
    numbered = [(f"s{i}", section) for i, section in enumerate(sections, 1)]
    contents = "".join(_entry(place, section) for place, section in numbered)
    body = "".join(_section(place, section, level=2) for place, section in numbered)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>\n{body}</main>\n</body>\n</html>\n'
    )


def escape(text: str) -> str:
    """A text of unknown origin as HTML that shows it as it is."""
    return escape_markup(printable(text))


def _entry(place: str, section: Section) -> str:
    below = "".join(_entry(f"{place}-{i}", one) for i, one in enumerate(section.sections, 1))
    link = f'<a href="#{place}">{escape(section.title)}</a>'
    return f"<li>{link}<ul>{below}</ul></li>" if below else f"<li>{link}</li>"


def _section(place: str, section: Section, level: int) -> str:
    parts = "".join(_part(part) for part in section.parts)
    below = "".join(_section(f"{place}-{i}", one, level + 1) for i, one in enumerate(section.sections, 1))
    return f'<section id="{place}">\n<h{level}>{escape(section.title)}</h{level}>\n{parts}{below}</section>\n'


def _part(part: Part) -> str:
    match part:
        case str():
            return f"<p>{escape(part)}</p>\n"
        case Notes(lines):
            return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>\n"
        case Table(rows):
            return _table(rows)
        case Picture(png, description):
            return f'<div class="wide picture" tabindex="0">{_image(png, description)}</div>\n'
        case Gallery(pictures):
            return f'<div class="gallery">{"".join(map(_captioned, pictures))}</div>\n'


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of numbers stand to the right, their headers too."""
    numeric = [all(_NUMBER.fullmatch(cell) for cell in column) for column in zip(*rows[1:], strict=True)]
    style = [' class="number"' if right else "" for right in numeric or [False] * len(rows[0])]
    header = "".join(f'<th scope="col"{way}>{escape(cell)}</th>' for cell, way in zip(rows[0], style, strict=True))
    body = "".join(f"<tr>{_cells(row, style)}</tr>\n" for row in rows[1:])
    table = f"<table>\n<thead><tr>{header}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>\n'


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
