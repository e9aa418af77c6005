"""What all charts share: fonts and colours, the forms that they are drawn in, their legends, and the dark."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure, FigureBase

from raycsr.reports.letters import cells, filled, fonts
from raycsr.reports.looks import COLOURS

STYLE: dict[str, Any] = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "raycsr",
    "text.parse_math": False,  # names of classes and models may hold a $
}
_NO_GLYPH = "Glyph .* missing from"  # how matplotlib begins to warn of each letter in each chart
NARROW = 4.2  # inches, of a picture whose panels stand one below the other
ON_LIGHT, ON_DARK = "#010101", "#fefefe"  # of numbers on cells, which are no darker in the dark
_DARK_TEXT, _DARK_BACK = (0xE4, 0xE6, 0xEA), (0x16, 0x18, 0x1C)  # of a page, as in `raycsr.reports.html`
_GREY = re.compile(r"(fill|stroke): #(?!010101|fefefe)([0-9a-f]{2})\2\2\b")
_HATCHED = re.compile(r'<rect [^>]*fill="#([0-9a-f]{2})\1\1"')  # what is behind a hatch
_LABELS_WIDTH = 120  # characters of a legend side by side
_NARROW_WIDTH = 44  # characters of a line of a narrow picture
_LINE, _BETWEEN = 0.15, 0.07  # inches of a legend: of a line of a label, and what stands between two labels
_SPARE = 0.12  # inches around a chart of letters that nobody has measured
_ROOM, _ROOM_BESIDE = 0.8, 3.5  # inches of a legend below the panels, and beside them, that a picture has room for


class Form(Enum):
    """What becomes of a figure."""

    PNG = "for a file: a PNG, panels side by side"
    WIDE = "for a page: an SVG, panels side by side"
    NARROW = "for a page on a telephone: an SVG, panels one below the other"


@contextmanager
def styled(*texts: object, size: float = STYLE["font.size"]) -> Iterator[None]:
    """How charts of this project look, with fonts that have the letters of their names.

    Where no font has some, the letters of a page's pictures are left to the fonts of who reads it, and are not shapes.

    Args:
        texts: Names that stand in the chart.
        size: Of letters, in pt.
    """
    families, complete = fonts(texts)
    with matplotlib.rc_context(STYLE | {"font.size": size, "font.family": families}), warnings.catch_warnings():
        if not complete:
            matplotlib.rcParams["svg.fonttype"] = "none"
            for side in ("w_pad", "h_pad"):  # for letters that are wider there than they were measured
                matplotlib.rcParams[f"figure.constrained_layout.{side}"] = _SPARE
            warnings.filterwarnings("ignore", _NO_GLYPH)
        yield


def rendered(figure: Figure, form: Form) -> bytes:
    """A figure as a PNG, on white, or an SVG, on white or in the dark as the reader's system is.

    Letters in an SVG are shapes, as wide everywhere as they were measured.
    """
    buffer = io.BytesIO()
    if form is Form.PNG:
        figure.savefig(buffer, format="png")
        return buffer.getvalue()
    figure.savefig(buffer, format="svg", metadata={"Date": None})  # the same figure is the same bytes
    drawn = buffer.getvalue().decode()
    return drawn.replace("<defs>", f"<style>{_in_the_dark(drawn)}</style>\n <defs>", 1).encode()


def _in_the_dark(svg: str) -> str:
    """A stylesheet by which the greys of an SVG are mirrored in the dark, white to a page's ground; hues stay."""
    greys = {(of, level) for of, level in _GREY.findall(svg)}
    rules = [f'[style*="{of}: #{level * 3}"] {{ {of}: {_mirrored(level)} !important; }}' for of, level in sorted(greys)]
    grounds = [f'[fill="#{level * 3}"] {{ fill: {_mirrored(level)}; }}' for level in sorted(set(_HATCHED.findall(svg)))]
    # what is black has no fill written to it
    return (
        "@media (prefers-color-scheme: dark) { svg { fill: "
        + _mirrored("00")
        + "; } "
        + " ".join(rules + grounds)
        + " }"
    )


def _mirrored(level: str) -> str:
    share = int(level, 16) / 255
    mixed = (round(text + (back - text) * share) for text, back in zip(_DARK_TEXT, _DARK_BACK, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def fitted(text: str, form: Form) -> str:
    """A text as it is, or in lines that a narrow picture has room for."""
    if form is not Form.NARROW:
        return text
    return "\n".join(filled(line, _NARROW_WIDTH) for line in text.splitlines())


def legend_below(
    figure: FigureBase,
    handles: Sequence[Any],
    labels: Sequence[str],
    form: Form = Form.PNG,
    width: int = _LABELS_WIDTH,
) -> None:
    """A legend below the panels, in as many columns as its longest label allows in a width of so many characters.

    The picture grows by what a long legend takes, so that its panels do not shrink.
    """
    if labels:
        width = _NARROW_WIDTH if form is Form.NARROW else width
        columns = max(1, min(4, width // max(1, *map(cells, labels))))
        shown = [filled(label, width) for label in labels]
        figure.legend(handles, shown, loc="outside lower center", ncols=columns, frameon=False)
        lines = [label.count("\n") + 1 for label in shown]
        rows = [max(lines[start : start + columns]) for start in range(0, len(lines), columns)]
        _grow(figure, rows, _ROOM)


def legend_beside(figure: FigureBase, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend on the right of the panels, in lines that leave these their room."""
    shown = [filled(label, _NARROW_WIDTH) for label in labels]
    figure.legend(handles, shown, loc="outside right center", frameon=False, fontsize=8)
    _grow(figure, [label.count("\n") + 1 for label in shown], _ROOM_BESIDE)


def _grow(figure: FigureBase, lines: Sequence[int], room: float) -> None:
    """Makes a picture higher by what a legend, of labels of so many lines, takes beyond the inches that it has."""
    whole: Any = figure.figure  # of a part of it
    beyond = sum(_LINE * of_label + _BETWEEN for of_label in lines) - room
    whole.set_size_inches(whole.get_figwidth(), whole.get_figheight() + max(0.0, beyond))
