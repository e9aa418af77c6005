"""Charts of many runs with long names: their legends grow the picture, and take no room of its panels."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from raycsr import CostMatrix, certify_counts, summarize
from raycsr.reports import curves
from raycsr.reports.curves import plot_curves, plot_front
from raycsr.reports.drawing import Form, legend_below, rendered

COSTS = CostMatrix.pairwise(3, {0: [1]})
RUNS = [f"model-{i}.pt (behind denoiser.pt at 0.25+0.5) σ=0.5" for i in range(12)]
RULES = ["argmax", "expected_cost:3*pair:cat/dog,horse/truck and others"]


def summary(radii, run, rule):
    counts = np.array([[900, 90, 10], [0, 1000, 0], [300, 300, 400]])
    certificates = certify_counts(counts, counts, [0, 1, 2], costs=COSTS, sigma=0.5, sampling="fixed", alpha=0.01)
    named = {"run": run, "costs": "pair:0/1", "rule": rule, "rule_id": rule, "metric": "rob_cs", "collapsed": ""}
    return summarize(certificates, costs=COSTS, radii=radii).assign(**named)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are rendered, as they are then."""
    figures = []

    def kept(figure, form):
        figures.append(figure)
        return rendered(figure, form)

    monkeypatch.setattr(curves, "rendered", kept)
    return figures


def sizes(figure):
    """Width and height of each panel in inches, and of what it needs with its letters."""
    boxes = [panel.get_window_extent() for panel in figure.axes]
    tight = [panel.get_tightbbox() for panel in figure.axes]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(tight, 2))
    return [(box.width / figure.dpi, box.height / figure.dpi) for box in boxes]


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize(("runs", "rules"), [(12, 1), (12, 2)])
def test_panels_keep_their_room(form, runs, rules, drawn):
    keys = list(itertools.product(RUNS[:runs], RULES[:rules]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_curves({(run, "pair:0/1", rule): summary(np.linspace(0, 1, 5), run, rule) for run, rule in keys}, form)
        plot_front(pd.concat([summary([0.25], run, rule) for run, rule in keys], ignore_index=True), form)
    for figure in drawn:
        legends = [*figure.legends, *(legend for row in figure.subfigs for legend in row.legends)]
        assert all(
            figure.bbox.padded(1).contains(*corner) for one in legends for corner in one.get_window_extent().corners()
        )
        assert min(width for width, _ in sizes(figure)) > 1.9
        assert min(height for _, height in sizes(figure)) > 1.4


@pytest.mark.parametrize("form", [Form.WIDE, Form.NARROW])
def test_a_chart_of_one_panel_grows_by_its_legend(form):
    figure = Figure(figsize=(4.2, 4.4), layout="constrained")
    panel = figure.subplots()
    for run in RUNS:
        panel.plot([0, 1], [1, 0], label=f"{run} · {RULES[1]}")
    legend_below(figure, *panel.get_legend_handles_labels(), form)
    rendered(figure, form)
    ((_, height),) = sizes(figure)
    assert height > 2
