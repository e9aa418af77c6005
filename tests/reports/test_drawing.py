"""Charts in the dark, and on white."""

import re

import matplotlib
import pytest
from matplotlib.figure import Figure

from raycsr.reports import html
from raycsr.reports.drawing import _DARK_BACK, _DARK_TEXT, ON_DARK, ON_LIGHT, STYLE, Form, rendered
from raycsr.reports.looks import COLOURS


def luminance(colour):
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def drawn(form=Form.WIDE):
    with matplotlib.rc_context(STYLE):
        figure = Figure()
        axis = figure.subplots()
        for colour in COLOURS:
            axis.plot([0, 1], [0, 1], color=colour)
        axis.grid(alpha=0.25)
        for number, colour in (("0.1", ON_LIGHT), ("0.9", ON_DARK)):
            axis.text(0.5, 0.5, number, color=colour)
        return rendered(figure, form)


def in_the_dark(svg):
    """What each colour becomes, by the stylesheet of an SVG."""
    style = re.search(r"prefers-color-scheme: dark\) { (.*) }</style>", svg).group(1)
    return dict(re.findall(r'style\*="(?:fill|stroke): (#\w+)"\] { (?:fill|stroke): (#\w+) !important', style))


def test_in_the_dark_white_is_the_ground_of_the_page_and_black_its_letters():
    ground, letters = ("#" + "".join(f"{value:02x}" for value in of) for of in (_DARK_BACK, _DARK_TEXT))
    svg = drawn().decode()
    assert in_the_dark(svg)["#ffffff"] == ground and in_the_dark(svg)["#000000"] == letters
    assert f"svg {{ fill: {letters}; }}" in svg  # letters, whose black is not written
    assert f"--back: {ground};" in html._STYLE and f"--text: {letters};" in html._STYLE


def test_hues_of_data_and_numbers_on_cells_stay():
    svg = drawn().decode()
    hues = [colour.lower() for colour in COLOURS if not colour[1:3] == colour[3:5] == colour[5:7]]
    assert len(hues) == 7 and all(hue in svg and hue not in in_the_dark(svg) for hue in hues)
    assert {ON_LIGHT, ON_DARK}.isdisjoint(in_the_dark(svg)) and ON_LIGHT in svg and ON_DARK in svg


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_are_seen_on_white_and_in_the_dark(colour):
    shown = in_the_dark(drawn().decode()).get(colour.lower(), colour)
    ground = "#" + "".join(f"{value:02x}" for value in _DARK_BACK)
    assert contrast(shown, ground) >= 3
    assert contrast(colour, "#ffffff") >= 2.2  # of orange; markers and names beside lines tell the rest


def test_a_png_is_on_white_and_the_same_figure_is_the_same_bytes():
    assert drawn(Form.PNG).startswith(b"\x89PNG")
    assert drawn() == drawn()
