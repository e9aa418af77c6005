import numpy as np
import pandas as pd
import pytest

from raycsr import CostMatrix, certify_counts, summarize
from raycsr.reports import curves as plots
from raycsr.reports.curves import plot_curves, plot_front
from raycsr.reports.looks import COLOURS, Looks

COSTS = CostMatrix.pairwise(3, {0: [1]})
COUNTS = np.array([[900, 90, 10], [0, 1000, 0], [300, 300, 400]])


@pytest.fixture
def figures(monkeypatch):
    """The figures that the test draws."""
    made = []

    class Recorded(plots.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(plots, "Figure", Recorded)
    return made


def summary(radii, run="a", costs="pair:0/1", rule_id="argmax", **numbers):
    certificates = certify_counts(COUNTS, COUNTS, [0, 1, 2], costs=COSTS, sigma=0.5, sampling="fixed", alpha=0.01)
    named = {"run": run, "costs": costs, "rule": rule_id, "rule_id": rule_id, "metric": "rob_cs", "collapsed": ""}
    named |= numbers
    return summarize(certificates, costs=COSTS, radii=radii).assign(**named)


def curves(*keys):
    return {key: summary(np.linspace(0, 1, 5)) for key in keys}


def legends(figure):
    """The texts of a figure's own legends and of its panels'."""
    made = [*figure.legends, *(axis.get_legend() for axis in figure.axes)]
    made += [legend for row in figure.subfigs for legend in row.legends]
    return [[text.get_text() for text in legend.get_texts()] for legend in made if legend is not None]


def test_with_one_rule_three_panels_hold_all_runs_and_cost_matrices(figures):
    png = plot_curves(curves(("a", "pair:0/1", "argmax"), ("a", "seed:0", "argmax"), ("b", "seed:0", "argmax")))
    assert png.startswith(b"\x89PNG")
    assert len(figures[0].axes) == 3
    assert [len(axis.lines) for axis in figures[0].axes] == [2, 3, 3]  # certified accuracy knows no costs
    assert legends(figures[0]) == [["a", "b"], ["a · pair:0/1", "a · seed:0", "b · seed:0"]]


def test_a_matrix_that_is_alone_stands_above_and_not_in_each_name(figures):
    drawn = curves(("a", "seed:0", "argmax"), ("b", "seed:0", "argmax"))
    drawn["b", "seed:0", "argmax"] = summary(np.linspace(0, 2, 5))
    plot_curves(drawn)
    assert [row.get_suptitle() for row in figures[0].subfigs] == ["seed:0"]
    labels = [[line.get_label() for line in axis.lines if line.get_label()[0] != "_"] for axis in figures[0].axes]
    assert labels == [["a", "b"]] * 3
    plot_curves(curves(("a", "seed:0", "argmax"), ("b", "seed:0", "argmax")))  # which lie over each other
    assert legends(figures[1]) == [["a", "b"]]


def test_with_several_rules_each_cost_matrix_has_its_own_row(figures):
    png = plot_curves(
        curves(*(("a", costs, rule) for costs in ("pair:0/1", "seed:0") for rule in ("argmax", "r", "s")))
    )
    assert png.startswith(b"\x89PNG")
    assert len(figures[0].axes) == 6
    assert all(len(axis.lines) == 3 for axis in figures[0].axes)
    assert legends(figures[0]) == [["argmax", "r", "s"]] * 2


def test_curves_of_several_runs_and_rules_share_a_colour_a_run_and_a_line_a_rule(figures):
    plot_curves(curves(*((run, "seed:0", rule) for run in "ab" for rule in ("argmax", "r"))))
    lines = figures[0].axes[1].lines
    assert [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines] == [
        (COLOURS[0], "o", "-"),
        (COLOURS[0], "o", "--"),
        (COLOURS[1], "s", "-"),
        (COLOURS[1], "s", "--"),
    ]
    assert legends(figures[0]) == [["a · argmax", "a · r", "b · argmax", "b · r"]]


def test_a_front_is_two_panels_a_cost_matrix_and_joins_what_is_not_dominated(figures):
    points = pd.concat(
        [
            summary([0.25], rule_id="argmax", accuracy=0.7, rob_cs=0.3),
            summary([0.25], rule_id="good", accuracy=0.6, rob_cs=0.5, seed_recall=0.8, target_recall=0.2),
            summary([0.25], rule_id="dominated", accuracy=0.5, rob_cs=0.4),
            summary([0.25], run="b", accuracy=0.65, rob_cs=0.35),
            summary([0.25], costs="seed:0", accuracy=0.7, rob_cs=0.2),
            summary([0.25], run="published", costs="(standard)", rob_cs=np.nan),
        ],
        ignore_index=True,
    )
    assert plot_front(points).startswith(b"\x89PNG")
    front, recall, *others = figures[0].axes
    assert len(others) == 2
    every, joined, argmax = front.lines[:3]  # of run a
    assert sorted(every.get_xdata()) == [0.5, 0.6, 0.7]
    assert list(zip(joined.get_xdata(), joined.get_ydata(), strict=True)) == [(0.6, 0.5), (0.7, 0.3)]
    assert joined.get_drawstyle() == "steps-pre"  # up to an accuracy of .7 there is nothing better than .3
    assert (argmax.get_xdata(), argmax.get_ydata()) == ([0.7], [0.3])
    assert argmax.get_markersize() > every.get_markersize() and argmax.get_markeredgecolor() == "black"
    seed, target = recall.lines[1], recall.lines[4]
    assert (seed.get_ydata()[0], target.get_ydata()[0]) == (0.8, 0.2)
    assert (seed.get_linestyle(), target.get_linestyle()) == ("-", "--")
    assert {line.get_color() for line in front.lines[3:6]} == {COLOURS[1]}
    assert front.get_ylabel() == "rob_cs at radius 0.25"
    assert {name.get_text() for name in front.texts} == {"a", "b"} and others[0].texts[0].get_text() == "a"
    assert legends(figures[0]) == [["argmax", "recall of seed classes", "recall of target classes"]]


def test_on_the_front_of_one_run_the_rules_that_other_charts_draw_have_their_looks(figures):
    points = pd.concat(
        [
            summary([0.25], rule_id=rule, accuracy=a, rob_cs=1 - a)
            for rule, a in (("argmax", 0.7), ("r", 0.6), ("s", 0.5))
        ]
    )
    looks = Looks([("a", "pair:0/1", "argmax"), ("a", "pair:0/1", "s")])
    plot_front(points, looks=looks)
    front = figures[0].axes[0]
    named = {line.get_label(): line for line in front.lines if not line.get_label().startswith("_")}
    assert {name: line.get_color() for name, line in named.items()} == {"argmax": COLOURS[0], "s": COLOURS[1]}
    assert {name.get_text() for name in front.texts} == {"argmax", "s"}
    assert front.lines[1].get_color() == front.lines[0].get_color() not in COLOURS  # all of the run


def test_a_front_of_costs_that_differ_in_size_has_less_of_them_above_and_marks_a_collapse(figures):
    rules = [("argmax", 0.7, 3.0, ""), ("good", 0.6, 1.0, "1 0 of 40"), ("dominated", 0.5, 2.0, "")]
    points = [
        summary([0.25], rule_id=rule, accuracy=accuracy, rob_cost=cost, collapsed=why, metric="rob_cost")
        for rule, accuracy, cost, why in rules
    ]
    plot_front(pd.concat(points, ignore_index=True))
    front = figures[0].axes[0]
    assert front.get_ylabel() == "rob_cost at radius 0.25" and front.yaxis_inverted()
    joined = front.lines[1]
    assert list(zip(joined.get_xdata(), joined.get_ydata(), strict=True)) == [(0.6, 1.0), (0.7, 3.0)]
    assert [(mark.get_text(), mark.xy) for mark in front.texts if mark.get_text() != "a"] == [("†", (0.6, 1.0))]
    assert legends(figures[0])[0][-1] == "† a class collapsed"


def test_a_curve_of_a_collapsed_rule_is_marked(figures):
    drawn = curves(("a", "seed:0", "argmax"), ("a", "seed:0", "r"))
    drawn["a", "seed:0", "r"]["collapsed"] = "1 0 of 40"
    plot_curves(drawn)
    assert legends(figures[0]) == [["argmax", "r †"]]


def test_a_name_that_begins_with_an_underscore_is_shown(figures):
    plot_curves(curves(("_m.pt", "seed:0", "argmax"), ("n.pt", "seed:0", "argmax")))
    assert legends(figures[0]) == [[" _m.pt", "n.pt"]]
    plot_front(summary([0.25], run="_m.pt"))
    assert [name.get_text().strip() for name in figures[1].axes[0].texts] == ["_m.pt"]
