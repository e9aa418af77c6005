"""Pictures of a page at both widths: no text leaves them, and none lies over another. matplotlib measures."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
from handmade import NO_B, PLAIN, write_run
from matplotlib.text import Text

from raycsr import CostMatrix, certify_counts, summarize
from raycsr.reports import class_plots, compared, curves
from raycsr.reports.class_plots import plot_pairwise, plot_recalls
from raycsr.reports.compared import both_sides, compare_sets, plot_differences
from raycsr.reports.curves import Form, plot_curves, plot_front

RUNS = ["resnet50-gaussian.pt σ=0.25", "resnet50-margin_cs.pt σ=0.25"]
RULES = ["argmax", "offset:2.5*pair:malignant melanoma/benign naevus", "threshold:0.9*costs.xlsx"]
NAMES = ["malignant melanoma of the skin", "benign naevus", "seborrhoeic keratosis, irritated", "vascular"]


@pytest.fixture
def faults(monkeypatch):
    """`faults(plot)`: texts that are cut, and pairs that lie over each other, of what a plot draws for a page."""
    drawn = []
    monkeypatch.setattr(curves, "rendered", lambda figure, form: drawn.append(figure) or b"")
    monkeypatch.setattr(class_plots, "rendered", lambda figure, form: drawn.append(figure) or b"")
    monkeypatch.setattr(compared, "rendered", lambda figure, form: drawn.append(figure) or b"")

    def of(plot, form):
        plot(form=form)
        figure = drawn[-1]
        figure.draw_without_rendering()
        texts = [one for one in figure.findobj(Text) if one.get_visible() and one.get_text().strip()]
        ticks = {label for axis in figure.axes for side in (axis.xaxis, axis.yaxis) for label in _away(side)}
        boxes = {one: one.get_window_extent() for one in texts if one not in ticks}
        page = figure.bbox.padded(1)
        cut = [t.get_text() for t, b in boxes.items() if not (page.containsx(b.x0) and page.containsx(b.x1))]
        cut += [t.get_text() for t, b in boxes.items() if not (page.containsy(b.y0) and page.containsy(b.y1))]
        straight = [(t, b.padded(-1)) for t, b in boxes.items() if t.get_rotation() in (0, 90)]
        pairs = itertools.combinations(straight, 2)
        return cut, [(t.get_text(), u.get_text()) for (t, b), (u, c) in pairs if b.overlaps(c)]

    return of


def _away(side):
    """Labels of ticks beyond the ends of an axis, which are not drawn."""
    low, high = sorted(side.get_view_interval())
    ticks = [*side.get_major_ticks(), *side.get_minor_ticks()]
    away = [tick for tick in ticks if not low - 1e-9 <= tick.get_loc() <= high + 1e-9]
    return {label for tick in away for label in (tick.label1, tick.label2)}


def summary(radii, run, rule):
    counts = np.array([[900, 90, 10], [0, 1000, 0], [300, 300, 400]])
    certificates = certify_counts(counts, counts, [0, 1, 2], costs="pair:0/1", sigma=0.5, sampling="fixed", alpha=0.01)
    named = {"run": run, "costs": "pair:0/1", "rule": rule, "rule_id": rule, "metric": "rob_cs", "collapsed": ""}
    return summarize(certificates, costs=CostMatrix.pairwise(3, {0: [1]}), radii=radii).assign(**named)


@pytest.mark.parametrize("form", [Form.WIDE, Form.NARROW])
@pytest.mark.parametrize("rules", [RULES[:1], RULES])
def test_curves_and_fronts(faults, form, rules):
    of = {(run, "pair:0/1", rule): summary(np.linspace(0, 1, 5), run, rule) for run in RUNS for rule in rules}
    assert faults(lambda form: plot_curves(of, form), form) == ([], [])
    points = pd.concat([summary([0.25], run, rule) for run in RUNS for rule in rules], ignore_index=True)
    assert faults(lambda form: plot_front(points, form), form) == ([], [])


@pytest.mark.parametrize("form", [Form.WIDE, Form.NARROW])
@pytest.mark.parametrize("count", [2, 4, 10, 30, 1000])
def test_heat_maps_and_recalls(faults, form, count):
    names = (NAMES + [f"class number {i}" for i in range(count)])[:count]
    shares = pd.DataFrame(np.linspace(0, 1, count**2).reshape(count, count), names, names)
    assert faults(lambda form: plot_pairwise(shares, radius=0.25, title=RUNS[0], form=form), form) == ([], [])
    share = pd.Series(np.linspace(0, 1, count))
    recalls = pd.DataFrame({"num_images": 9, "recall": share, "recall_low": share, "recall_high": share})
    both = dict.fromkeys([RUNS[0], f"{RUNS[1]} · {RULES[1]}"], recalls)
    assert faults(lambda form: plot_recalls(both, names, form), form) == ([], [])


@pytest.mark.parametrize("form", [Form.WIDE, Form.NARROW])
def test_differences(faults, form, tmp_path):
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B}).location
    of = compare_sets(*both_sides([run], None, ["argmax", "offset:1*pair:a/b"]))
    many_digits = of.table.assign(difference=-0.112, difference_low=-0.1345, difference_high=-0.0906)
    of = dataclasses.replace(of, table=many_digits)
    assert faults(lambda form: plot_differences(of, form), form) == ([], [])
