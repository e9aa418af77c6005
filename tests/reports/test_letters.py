"""Names in any script: fonts that are found for them, widths, and names that stay apart when they are cut."""

import warnings

import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from raycsr.reports import letters
from raycsr.reports.class_plots import plot_pairwise, plot_recalls
from raycsr.reports.drawing import Form
from raycsr.reports.letters import cells, filled, fonts, shortened

RARE = "\U00010a80"  # a letter of Old North Arabian
NAMES = ["a$b_c$", "_<b> & é", f"{RARE}{RARE}", "מלנומה", "😀"]


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    """Nothing was told, and no font sought before; fonts that a test adds are taken away."""
    monkeypatch.setattr(letters, "_told", set())
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    letters._families.cache_clear()
    yield
    letters._families.cache_clear()


@pytest.fixture
def font_of(tmp_path):
    """`font_of(letter)` installs a font that has that letter alone, a box."""

    def install(letter):
        pen = TTGlyphPen(None)
        pen.moveTo((100, 0))
        for point in ((100, 700), (900, 700), (900, 0)):
            pen.lineTo(point)
        pen.closePath()
        font = FontBuilder(1000, isTTF=True)
        font.setupGlyphOrder([".notdef", "one"])
        font.setupCharacterMap({ord(letter): "one"})
        font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "one": pen.glyph()})
        font.setupHorizontalMetrics({".notdef": (1000, 0), "one": (1000, 100)})
        font.setupHorizontalHeader(ascent=800, descent=-200)
        font.setupNameTable({"familyName": "One Letter", "styleName": "Regular"})
        font.setupOS2()
        font.setupPost()
        font.save(tmp_path / "one.ttf")
        font_manager.fontManager.addfont(tmp_path / "one.ttf")

    return install


def drawn(form=Form.WIDE):
    """A heat map and recalls of classes of these names."""
    shares = pd.DataFrame(np.linspace(0, 1, len(NAMES) ** 2).reshape(len(NAMES), -1), NAMES, NAMES)
    share = pd.Series(np.linspace(0, 1, len(NAMES)))
    recalls = pd.DataFrame({"num_images": 9, "recall": share, "recall_low": share, "recall_high": share})
    return plot_pairwise(shares, radius=0.25, form=form), plot_recalls({"m.pt": recalls}, NAMES, form)


def test_fonts_are_sought_for_the_letters_that_the_usual_one_lacks(font_of):
    assert fonts(["cat", "é", "Ω", "מ"]) == (["DejaVu Sans"], True)
    font_of(RARE)
    assert fonts(["cat", RARE]) == (["DejaVu Sans", "One Letter"], True)


def test_letters_that_no_font_has_are_told_once_for_all_charts():
    with pytest.warns(UserWarning, match=f"boxes for {RARE}: no font") as told:
        pages, files = drawn(), drawn(Form.PNG)
    assert len(told) == 1
    for svg in pages:  # the names are texts, which a browser has other fonts for
        assert f">{RARE}{RARE}</text>" in svg.decode() and "sans-serif" in svg.decode()
    assert all(file.startswith(b"\x89PNG") for file in files)


def test_names_that_all_fonts_have_are_shapes_and_no_warning(font_of):
    font_of(RARE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pages = [*drawn(), *drawn(Form.NARROW), *drawn(Form.PNG)]
    assert not any(b"<text" in svg for svg in pages)


def test_widths_are_those_that_are_seen():
    assert [cells(name) for name in ("cat", "黑色素瘤", "e\u0301", "흑색")] == [3, 8, 1, 4]
    assert filled("黑色素瘤黑色素瘤", 8) == "黑色素瘤\n黑色素瘤"
    assert filled("a cat and a dog", 8) == "a cat\nand a\ndog"


def test_names_that_differ_do_so_when_they_are_cut():
    assert shortened(["cat", "benign keratosis-like lesion A", "benign keratosis-like lesion B"], 24) == [
        "cat",
        "benign kerat…ke lesion A",
        "benign kerat…ke lesion B",
    ]
    long = ["a" * 100 + middle + "a" * 100 for middle in "bc"]
    assert shortened(long, 9) == ["aaaa…aaaa (0)", "aaaa…aaaa (1)"]
    assert shortened([long[0], long[0]], 9) == ["aaaa…aaaa"] * 2  # one name is one name
    assert shortened(["malignant melanoma of the skin (N=1,234)"], 24)[0].endswith("(N=1,234)")
    assert shortened(["a\u202eb"], 24) == ["a\\u202eb"]  # as in tables
    assert max(map(cells, shortened(["黑色素瘤" * 9], 24))) <= 24
