import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from raycsr import CostMatrix
from raycsr.reports import class_plots as pictures
from raycsr.reports.class_plots import captions, plot_images, plot_pairwise, plot_recalls
from raycsr.reports.looks import COLOURS, Looks

PNG = b"\x89PNG"


@pytest.fixture
def figures(monkeypatch):
    """The figures that the test draws."""
    made = []

    class Recorded(pictures.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(pictures, "Figure", Recorded)
    return made


def robustness(rows, columns):
    shares = np.random.default_rng(0).random((rows, columns))
    if rows == columns:
        np.fill_diagonal(shares, np.nan)
    return pd.DataFrame(shares, [f"s{i}" for i in range(rows)], [f"t{i}" for i in range(columns)])


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_a_small_heat_map_has_its_numbers_in_the_cells(figures):
    shares = robustness(10, 10)
    assert plot_pairwise(shares, radius=0.25, title="gaussian").startswith(PNG)
    axis = figures[0].axes[0]
    assert texts(axis) == [f"{share:.2f}" for share in shares.to_numpy().ravel() if share == share]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(shares.index)
    assert "gaussian" in figures[0].get_suptitle() and "within 0.25" in figures[0].get_suptitle()


def test_rows_and_columns_without_a_number_are_left_out(figures):
    shares = pd.DataFrame(np.nan, list("abc"), list("abc"))
    shares.loc["a", "b"], shares.loc["c", "b"] = 0.5, 1.0
    plot_pairwise(shares, radius=0.25)
    axis = figures[0].axes[0]
    assert texts(axis) == ["0.50", "1.00"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["b"]
    assert plot_pairwise(shares * np.nan, radius=0.25).startswith(PNG)  # all of them are shown, where all lack one
    assert [label.get_text() for label in figures[1].axes[0].get_xticklabels()] == ["a", "b", "c"]


def test_axes_say_in_plain_words_what_the_classes_are(figures):
    shares = robustness(2, 2).rename_axis(index="seed", columns="target")
    plot_pairwise(shares, radius=0.25)
    plot_pairwise(shares.rename_axis(index="site", columns=None), radius=0.25)
    assert [(one.axes[0].get_ylabel(), one.axes[0].get_xlabel()) for one in figures] == [
        ("true class", "mistaken for"),
        ("site", ""),
    ]


@pytest.mark.parametrize(("rows", "columns", "ticks"), [(30, 30, 30), (1000, 1000, 12), (2, 1000, 12)])
def test_a_large_heat_map_has_no_numbers_and_few_ticks(figures, rows, columns, ticks):
    assert plot_pairwise(robustness(rows, columns), radius=0.25).startswith(PNG)
    axis = figures[0].axes[0]
    assert texts(axis) == [] and len(axis.get_xticks()) == ticks
    assert max(figures[0].get_size_inches()) < 12


def recalls(shares, num_images=50):
    share = pd.Series(shares, dtype=float)
    columns = {"num_images": num_images, "recall": share, "recall_low": share - 0.1, "recall_high": share + 0.1}
    return pd.DataFrame(columns)


def test_recalls_are_bars_side_by_side_of_the_classes_that_have_images(figures):
    both = {"argmax": recalls([0.9, 0.5, np.nan], [50, 50, 0]), "offset": recalls([0.7, 0.8, np.nan], [50, 50, 0])}
    assert plot_recalls(both, ["a", "b", "c"]).startswith(PNG)
    axis = figures[0].axes[0]
    assert [round(bar.get_height(), 3) for bar in axis.patches] == [0.9, 0.5, 0.7, 0.8]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b"]
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["argmax", "offset"]


def test_recalls_of_two_rules_of_one_run_are_told_apart_by_hatches(figures):
    """One colour, for it is one run; and a hatch lies on no ground, which an SVG would draw over it."""
    looks = Looks([("run", "costs", "argmax"), ("run", "costs", "offset"), ("other", "costs", "argmax")])
    of = {rule: looks.of_key(("run", "costs", rule)) for rule in ("argmax", "offset")}
    plot_recalls({"argmax": recalls([0.9]), "offset": recalls([0.7])}, looks=of)
    plain, hatched = figures[0].axes[0].patches
    assert plain.get_edgecolor() == hatched.get_edgecolor() == to_rgba(COLOURS[0])
    assert (plain.get_hatch(), plain.get_facecolor()[3]) == ("", 0.4)
    assert (hatched.get_hatch(), hatched.get_facecolor()[3]) == ("////", 0)


def test_recalls_of_many_classes_are_ordered_by_the_first(figures):
    first = np.random.default_rng(0).random(1000)
    plot_recalls({"argmax": recalls(first), "offset": recalls(1 - first)})
    line, points = figures[0].axes[0].lines
    assert line.get_ydata().tolist() == sorted(first)
    assert np.allclose(points.get_ydata(), 1 - np.sort(first)) and points.get_linestyle() == "None"


def test_images_stand_in_a_grid_with_captions_and_reasons(figures):
    images = [np.zeros((8, 8, 3), np.uint8)] * 7 + ["FileNotFoundError: the file vanished"]
    assert plot_images(images, [f"test#{i}\na → b" for i in range(8)]).startswith(PNG)
    axes = figures[0].axes
    assert len(axes) == 12 and [len(axis.images) for axis in axes] == [1] * 7 + [0] * 5
    assert texts(axes[0]) == ["test#0\na → b"]
    assert texts(axes[7]) == ["FileNotFoundError: the\nfile vanished", "test#7\na → b"]


def test_names_are_no_formulas(figures):
    costs = CostMatrix.pairwise(2, {0: [1]}, cost=3, class_names=["$a^{$", "_b"])
    rows = pd.DataFrame({"image_id": ["i"], "label": [0], "reachable": [1], "worst_case_cost": [3.0]})
    rows = rows.assign(cost_sensitive_radius=0.25, prediction=0, abstain=False)
    line = ["i", "$a^{$ → _b", "cost 3", "certified within 0.25"]
    assert captions(rows, costs) == [[*line, "answered $a^{$"]]
    assert captions(rows.assign(abstain=True, prediction=pd.NA), costs) == [[*line, "no answer is proven"]]
    assert captions(rows, CostMatrix(costs.values))[0][1] == "0 → 1"
    assert plot_pairwise(pd.DataFrame([[0.5]], ["$a^{$"], ["$_$$"]), radius=1, title="$x_{$").startswith(PNG)
    assert plot_images(["$x_{$"], ["$x_{$"]).startswith(PNG)
