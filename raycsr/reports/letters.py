"""Letters of names: fonts that have those that a chart needs, how wide they are, and names cut to a width."""

import functools
import textwrap
import unicodedata
import warnings
from collections.abc import Iterable, Sequence

from raycsr.errors import first_of, printable

FONT = "DejaVu Sans"  # comes with matplotlib
_BOXES = "Last Resort"  # a font that has a box for each letter, and comes with matplotlib, too
_NAMED = 10  # letters in a warning
_HEAD = 0.5  # of a name that is cut, what stands before the cut; behind it there is room for (N=1,234)

_told: set[str] = set()  # letters that a line was said about: one does for all charts of a report


def cells(text: str) -> int:
    """How wide a text is, in Latin letters: Chinese, Japanese and Korean ones take two, combining accents nothing."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else not unicodedata.combining(one) for one in text)


def filled(text: str, width: int) -> str:
    """A text in lines that are no wider than so many Latin letters."""
    return textwrap.fill(printable(text), max(1, width * len(text) // max(1, cells(text))), break_long_words=True)


def shortened(names: Sequence[str], most: int) -> list[str]:
    """Names cut to so many Latin letters, so that those that differ still do.

    A long name loses its middle; where what is left is that of another, its place among the names stands behind.
    """
    short = [_without_middle(printable(name), most) for name in names]
    of: dict[str, set[str]] = {}
    for name, cut in zip(names, short, strict=True):
        of.setdefault(cut, set()).add(name)
    return [f"{cut} ({place})" if len(of[cut]) > 1 else cut for place, cut in enumerate(short)]


def _without_middle(name: str, most: int) -> str:
    most = max(3, most * len(name) // max(1, cells(name)))
    head = int(_HEAD * most)
    return name if len(name) <= most else f"{name[:head]}…{name[len(name) - (most - 1 - head) :]}"


def fonts(texts: Iterable[object]) -> tuple[list[str], bool]:
    """Families that have the letters of some texts between them, and whether they have all.

    What none has is told once, in a line: matplotlib warns of each letter in each chart.
    """
    families, missing = _families(frozenset("".join(map(str, texts))))
    new = [one for one in missing if one not in _told]
    if new:
        _told.update(new)
        warnings.warn(
            f"files of pictures have boxes for {first_of(new, _NAMED)}: no font that is installed here has them; "
            "install one that does, such as Noto Sans (Debian's fonts-noto-core and fonts-noto-cjk). On pages they are "
            "shown by the fonts of who reads them",
            stacklevel=3,
        )
    return [FONT, *families, *(["sans-serif"] if missing else [])], not missing


@functools.cache
def _families(letters: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fewest families that have letters which `FONT` lacks, about, and the letters that none has."""
    from matplotlib import font_manager  # what the terminal's tables, which need widths alone, do without

    ours = font_manager.get_font(font_manager.findfont(FONT)).get_charmap()
    lacking = sorted(one for one in letters if one.isprintable() and not one.isspace() and ord(one) not in ours)
    chosen: list[str] = []
    if lacking:
        entries = [one for one in font_manager.fontManager.ttflist if one.style == "normal" and _BOXES not in one.name]
        for entry in sorted(entries, key=lambda one: ("Mono" in one.name, abs(_weight(one.weight) - 400), one.name)):
            found = _drawn_by(entry.fname, lacking)
            if found:
                chosen.append(entry.name)
                lacking = [one for one in lacking if one not in found]
    return tuple(dict.fromkeys(chosen)), tuple(lacking)


def _weight(weight: int | str) -> int:
    return weight if isinstance(weight, int) else 400


def _drawn_by(file: str, letters: Sequence[str]) -> set[str]:
    """Which letters a font draws; one of bitmaps alone, as of coloured emoji, is none that matplotlib can draw by."""
    from matplotlib import ft2font

    try:
        font = ft2font.FT2Font(file)
        font.set_size(9, 72)
        there = font.get_charmap()
        found = {one for one in letters if ord(one) in there}
        for one in found:
            font.load_char(ord(one))
    except (OSError, RuntimeError):
        return set()
    return found
