"""What a report says: in a terminal, as Markdown, and on the page, up to what a browser shows."""

import base64
import io
import re
import subprocess
from html import escape, unescape

import browser
import numpy as np
import pytest
from handmade import NEVER_B, NO_B, PLAIN, write_photographs, write_run
from matplotlib.figure import Figure
from PIL import Image

from raycsr import CostMatrix
from raycsr.reports import load_certified, pairwise_tables
from raycsr.reports.composition import _counted
from raycsr.reports.drawing import Form, rendered
from raycsr.verbs.report import report

EVIL = '<img src="http://evil.example/x.png">'
FIRST = ["What this stands on", "How to read this", "All numbers"]
OF_RUNS = [
    "In short",
    *FIRST,
    "How sure the answers are",
    "What a radius of 0.5 looks like",
]  # published tables have neither
SECTIONS = [
    "Ranking at radius 0.5",
    "Certified curves",
    "Front at radius 0.5",
    "Pairs of classes at radius 0.5",
    "Recall of each class",
    "The costliest images at radius 0.5",
]


@pytest.fixture
def page(tmp_path):
    """`page(runs)` is the text of their report.html."""

    def make(*runs, radii=(0.0, 0.5), pictures=True):
        report(run=[str(run) for run in runs], radii=list(radii), out=str(tmp_path / "out"), pictures=pictures)
        return (tmp_path / "out" / "report.html").read_text()

    return make


def headings(text, level):
    return [unescape(found) for found in re.findall(rf"<h{level}>(.*?)</h{level}>", text)]


def section(text, title):
    """What stands below a heading of the third level."""
    return text.split(f"<h3>{title}</h3>")[1].split("</section>")[0]


def first_row(part):
    return re.findall(r"<td[^>]*>(.*?)</td>", part.split("<tbody>")[1].split("</tr>")[0])


def pictures(part):
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', part)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def drawn(part):
    """Widths of what is drawn side by side, in pt; what a telephone has instead is 4.2 inches wide."""
    found = re.findall(r'(?:src|srcset)="data:image/svg\+xml;base64,([^"]*)"', part)
    widths = [float(re.search(rb'<svg[^>]* width="([\d.]+)pt"', base64.b64decode(one)).group(1)) for one in found]
    assert widths[::2] == [pytest.approx(4.2 * 72)] * (len(widths) // 2)
    return widths[1::2]


def test_each_cost_matrix_has_its_section_with_everything(page, tmp_path):
    photographs = write_photographs(tmp_path / "photographs")
    answers = {"argmax": PLAIN, "offset:1*pair:a/b": NEVER_B}
    certify = ("pair:a/b", "uniform")
    run = write_run(tmp_path, "m.pt", answers, certify_under=certify, photographs=photographs)
    text = page(run.location)
    assert headings(text, 1) == ["Certified robustness"]
    assert headings(text, 2) == [*OF_RUNS, "Costs: pair:a/b", "Costs: uniform"]
    assert headings(text, 3) == ["Twelve words", *SECTIONS * 2]
    assert "Costly mistakes: images of a taken for b." in text
    assert "Costly mistakes: images of any class taken for any other class." in text
    pair, uniform = text.split("<h2>")[7:]
    # NEVER_B has the larger rob_cs and loses 1/6 of accuracy, beyond the budget
    assert first_row(section(pair, SECTIONS[0]))[:5] == ["1", "m.pt σ=0.5", "argmax", "2", "0.500 [0.095, 0.905]"]
    assert "accuracy beyond budget" in section(pair, SECTIONS[0])
    for title in (SECTIONS[1], SECTIONS[2], SECTIONS[3], SECTIONS[4]):
        assert drawn(section(uniform, title)) and min(drawn(section(uniform, title))) >= 360
    costliest, noisy = pictures(section(pair, SECTIONS[5]))
    assert noisy.shape == (8, 8, 3) and noisy.std() > 40  # sigma .5
    assert costliest.shape == (8, 8, 3) and costliest.max() == 40  # a/1.png, which is taken for a b
    assert "<b>a/1.png</b><br>a → b<br>cost 1<br>not certified<br>answered b" in section(pair, SECTIONS[5])


def test_all_numbers_are_folded_where_they_are_many(page, tmp_path):
    few = page(write_run(tmp_path, "m.pt", {"argmax": PLAIN}).location)
    many = page(write_run(tmp_path, "n.pt", {"argmax": PLAIN}).location, radii=[i / 20 for i in range(20)])
    assert ["<summary><h2>All numbers</h2>" in text for text in (few, many)] == [False, True]


def test_a_ranking_says_what_is_told_apart_from_the_first(page, tmp_path):
    """20 images of a: argmax takes ten for b, both rules none, and one of them is less accurate."""
    answers = {"argmax": PLAIN, "offset:1*pair:a/b": NO_B, "offset:2*pair:a/b": NEVER_B}
    ranking = section(page(write_run(tmp_path, "m.pt", answers, times=10).location), SECTIONS[0])
    rows = [[], [], []]  # a wide table is cut into parts
    for part in ranking.split("<tbody>")[1:]:
        for row, cells in zip(rows, part.split("</tr>")[:3], strict=True):
            row += re.findall(r"<td[^>]*>(.*?)</td>", cells)
    said = {row[2]: next((cell for cell in row if "(p " in cell), "") for row in rows}
    # 2 / 2^10 for ten images of one kind, and three pairs
    assert said["argmax"] == "differs (p 0.0059)" and said["offset:2*pair:a/b"] == "not told apart (p 1)"
    assert said["offset:1*pair:a/b"] == "" and rows[0][2] == "offset:1*pair:a/b"


def test_a_radius_is_shown_on_the_images_of_the_run(page, tmp_path):
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN}, photographs=write_photographs(tmp_path / "photographs"))
    text = page(run.location)
    part = text.split(f"<h2>{OF_RUNS[-1]}</h2>")[1].split("</section>")[0]
    assert len(pictures(part)) == 2 * 5 and "PSNR" in part and "σ = 0.5" in part
    assert len(drawn(text.split(f"<h2>{OF_RUNS[-2]}</h2>")[1].split("</section>")[0])) == 1
    away = page(write_run(tmp_path, "n.pt", {"argmax": PLAIN}).location)
    assert "cannot be shown: there is no &#x27;" in away.split(f"<h2>{OF_RUNS[-1]}</h2>")[1].split("</section>")[0]


def test_where_the_images_are_away_the_page_says_so_and_has_the_rest(page, tmp_path):
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN})
    costliest = section(page(run.location), SECTIONS[5])
    assert "Their pictures cannot be shown: there is no &#x27;" in costliest
    assert first_row(costliest) == ["a/1.png", "a → b", "cost 1", "not certified", "answered b"]


def test_images_and_the_names_of_their_files_are_shown_to_who_asks_for_them(page, tmp_path):
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN}, photographs=write_photographs(tmp_path / "photographs"))
    text = page(run.location, pictures=False)
    costliest = section(text, SECTIONS[5])
    assert first_row(costliest) == ["row 2 of the listing", "a → b", "cost 1", "not certified", "answered b"]
    assert text.count("--pictures true") == 2 and ".png" not in text and pictures(costliest) == []


def test_rows_of_heat_maps_say_of_how_many_images(tmp_path):
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN}, certify_under=("pair:a/b", "uniform"), times=3)
    sets, _ = load_certified([run.location])
    rows = [next(iter(_counted(pairwise_tables([one], 0.5), [one]).values())).index.tolist() for one in sets]
    assert rows == [["m.pt σ=0.5 (N=6)"], ["a (N=6)", "b (N=6)", "c (N=6)"]]


def test_names_from_data_stay_names(page, tmp_path):
    run = write_run(tmp_path, EVIL, {"argmax": PLAIN}, certify_under=("uniform",), class_names=[EVIL, "$x_{", "c"])
    text = page(run.location)
    assert EVIL not in text and escape(EVIL) in text
    assert re.findall(r'<img alt="[^"]*" src="([^"]{10})', text) == ["data:image"] * text.count("<img")


def test_one_set_has_no_ranking_and_nothing_costly_no_images(page, tmp_path):
    run = write_run(tmp_path, "m.pt", {"argmax": NO_B}, certify_under=())
    run.certify("nothing.csv", CostMatrix(np.zeros((3, 3))), 0.01)
    run.certify("pair:a/b", run.costs("pair:a/b"), 0.01)
    text = page(run.location)
    assert headings(text, 2)[6:] == ["Costs: nothing.csv", "Costs: pair:a/b"]
    assert headings(text, 3) == ["Twelve words", SECTIONS[1], SECTIONS[4], SECTIONS[1], *SECTIONS[3:]]
    assert "No mistake is costly." in text
    assert "there is no image on which a costly mistake is left" in section(text, SECTIONS[5])


def test_a_published_table_has_curves_recalls_and_numbers(page, tmp_path):
    tsv = tmp_path / "sigma_0.50.tsv"
    tsv.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.5\t1\t0:1\n3\t0\t-1\t0.0\t0\t0:1\n")
    text = page(tsv)
    assert headings(text, 3) == ["Twelve words", SECTIONS[1], SECTIONS[4]]
    assert "it has no votes to certify costs from" in text


@pytest.mark.skipif(browser.MISSING, reason="no chromium")
def test_a_browser_shows_the_page_and_asks_for_nothing(page, tmp_path):
    photographs = write_photographs(tmp_path / "photographs")
    run = write_run(
        tmp_path,
        "m.pt",
        {"argmax": PLAIN},
        photographs=photographs,
        class_names=[EVIL, "b", "c"],
        certify_under=("uniform",),
    )
    page(run.location)
    log = tmp_path / "net.json"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--log-net-log={log}", "--dump-dom", f"file://{tmp_path / 'out' / 'report.html'}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert headings(shown, 2) == [*OF_RUNS, "Costs: uniform"]
    assert "evil.example" not in log.read_text()


@pytest.mark.skipif(browser.MISSING, reason="no chromium")
def test_no_text_is_cut_or_over_another_or_faint(page, tmp_path):
    """Of two runs, three rules and two matrices; class names are long, and everything that is folded is opened."""
    photographs = write_photographs(tmp_path / "photographs")
    names = ["malignant melanoma of the skin", "benign naevus", "seborrhoeic keratosis, irritated"]
    answers = {"argmax": PLAIN, "offset:1*pair:a/b": NEVER_B, "offset:2*pair:a/b": NO_B}
    of = {"photographs": photographs, "class_names": names, "certify_under": (f"pair:{names[0]}/{names[1]}", "uniform")}
    runs = [write_run(tmp_path, f"{name}.pt", answers, **of) for name in ("resnet50-gaussian", "resnet50-margin_cs")]
    page(*(run.location for run in runs))
    for width, dark in ((1200, False), (1200, True), (900, False), (390, False), (390, True)):
        assert browser.faults(tmp_path / "out" / "report.html", width=width, dark=dark) == [], (width, dark)


def chart(texts, **look):
    """A picture of a page with texts at places of a figure (0 to 1)."""
    figure = Figure(figsize=(3, 2))
    for place, text in texts.items():
        figure.text(*place, text, **look)
    return f"<img src='data:image/svg+xml;base64,{base64.b64encode(rendered(figure, Form.WIDE)).decode()}'>"


@pytest.mark.skipif(browser.MISSING, reason="no chromium")
def test_charts_are_dark_where_the_page_is(tmp_path):
    """The very pixels: a browser shows a picture by its own stylesheet."""
    style = "<meta name='color-scheme' content='light dark'><style>body { margin: 0 }</style>"
    page, grounds = f"<!doctype html>{style}{chart({(0.5, 0.5): 'a name'})}", []
    (tmp_path / "page.html").write_text(page)
    for dark in (False, True):
        browser.faults(tmp_path / "page.html", width=390, dark=dark, picture=tmp_path / "shot.png")
        grounds.append(Image.open(tmp_path / "shot.png").convert("RGB").getpixel((5, 5)))
    assert grounds == [(255, 255, 255), (0x16, 0x18, 0x1C)]


@pytest.mark.skipif(browser.MISSING, reason="no chromium")
@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (chart({(0.5, 0.5): "above", (0.52, 0.5): "below"}), "over each other: chart: above | chart: below"),
        (chart({(0.9, 0.5): "too long for it"}), "cut: chart: too long"),
        (chart({(0.1, 0.5): "faint"}, color="0.7"), "contrast 2.1: chart: faint"),
        ("<p style='white-space: nowrap; overflow: hidden'>" + "long " * 99 + "</p>", "cut: long"),
        ("<div class='wide' style='overflow: auto; white-space: nowrap'>" + "long " * 99 + "</div>", "without a hint"),
        ("<p>below</p><p style='margin-top: -2.5rem'>above</p>", "over each other: below | above"),
        ("<p style='color: #aaa; background: #fff'>faint</p>", "contrast 2.3: faint"),
    ],
)
def test_the_browser_sees_what_it_looks_for(tmp_path, body, fault):
    (tmp_path / "page.html").write_text(f"<!doctype html><body style='background: #fff'>{body}")
    assert any(fault in found for found in browser.faults(tmp_path / "page.html", width=390, dark=False))
