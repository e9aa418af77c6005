"""Pictures of certified curves, and of the front of accuracy against cost-sensitive robustness."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from raycsr.certification import METRICS
from raycsr.reports.comparison import merits, non_dominated
from raycsr.reports.direct import label_lines
from raycsr.reports.drawing import NARROW, Form, fitted, legend_below, legend_beside, rendered, styled
from raycsr.reports.looks import Key, Look, Looks, as_label
from raycsr.reports.tables import MARK

_TITLES = {
    "certified accuracy": "right, and no perturbation within r changes it",
    "rob_cs": "no perturbation within r makes a costly mistake",
    "rob_cost": "mean cost that is not ruled out within r",
}
_OUTLINED: dict[str, Any] = {"markersize": 9, "markeredgecolor": "black", "markeredgewidth": 1.4, "zorder": 3}

Curves = dict[Key, pd.DataFrame]


def plot_curves(curves: Curves, form: Form = Form.PNG, looks: Looks | None = None) -> bytes:
    """Draws certified curves of several runs, cost matrices and decision rules over the radius.

    Args:
        curves: (run, costs, rule) -> a summary over many radii (`summarize`); shares come with their 95 % bands.
        form: What becomes of it.
        looks: Looks of the page that it is for; by default of these curves alone.

    Returns:
        Bytes: one panel each for certified accuracy (multiclass; standard, and said so, of certificates that have no
        other), rob_cs and rob_cost; a row of them for all cost matrices, or
        one for each where there are several rules. Lines have their names beside them where they are few.
    """
    looks = looks or Looks(curves)
    several, distinct = len({rule for _, _, rule in curves}) > 1, list(dict.fromkeys(costs for _, costs, _ in curves))
    apart = several or len(distinct) == 1  # a row is of one matrix, and its panels have the same lines
    matrices = distinct if apart else [""]
    with styled(*curves):
        narrow, beside = form is Form.NARROW, several and form is Form.PNG  # a page is not wide enough for its legend
        size = (NARROW, 9 * len(matrices)) if narrow else (15 if beside else 12, 4 * len(matrices))
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        rows = figure.subfigures(len(matrices), 1, squeeze=False)[:, 0]
        panels = [row.subplots(3, 1) if narrow else row.subplots(1, 3) for row in rows]
        for costs, row, axes in zip(matrices, rows, panels, strict=True):
            if apart:
                row.suptitle(fitted(costs, form), fontsize=11)
            if several:
                _draw_rules(axes, {key: curve for key, curve in curves.items() if key[1] == costs}, looks)
            else:
                _draw_matrices(axes, curves, looks)
            for axis, (title, meaning) in zip(axes, _TITLES.items(), strict=True):
                axis.set(xlabel="L2 radius, [0, 1] pixel units", xlim=(0, None), ylim=(0, None))
                axis.set_title(f"{title}\n{meaning}")
                axis.grid(alpha=0.25)
            for axis in axes[:2]:
                axis.set_ylim(0, 1.02)
        alike = [list(axes) for axes in panels] if apart else [[panels[0][0]], list(panels[0][1:])]
        if not label_lines(figure, alike):
            for row, axes in zip(rows, panels, strict=True):
                if beside:
                    legend_beside(row, *axes[0].get_legend_handles_labels())
                    continue
                if not apart:
                    axes[0].legend(frameon=False, loc="lower left")
                handles, labels = axes[0 if apart else 1].get_legend_handles_labels()
                legend_below(row, handles, labels, form)
        return rendered(figure, form)


def _draw_matrices(axes: Sequence[Axes], curves: Curves, looks: Looks) -> None:
    """One rule: certified accuracy knows no costs, and is one curve a run; the others are one a run and matrix."""
    runs = {run: curve for (run, _, _), curve in curves.items()}
    one_matrix = len({costs for _, costs, _ in curves}) == 1
    for run, curve in runs.items():
        _draw_accuracy(axes[0], curve, run, looks.of(run=run))
    for (run, costs, rule), curve in curves.items():
        label = run if one_matrix else f"{run} · {costs}" if len(runs) > 1 else costs
        for axis, name in zip(axes[1:], ("rob_cs", "rob_cost"), strict=True):
            _draw(axis, curve, name, label, looks.of_key((run, costs, rule)))


def _draw_rules(axes: Sequence[Axes], curves: Curves, looks: Looks) -> None:
    """Several rules under one cost matrix."""
    several = len({run for run, _, _ in curves}) > 1
    for key, curve in curves.items():
        label = f"{key[0]} · {key[2]}" if several else key[2]
        _draw_accuracy(axes[0], curve, label, looks.of_key(key))
        for axis, name in zip(axes[1:], ("rob_cs", "rob_cost"), strict=True):
            _draw(axis, curve, name, label, looks.of_key(key))


def plot_front(points: pd.DataFrame, form: Form = Form.PNG, looks: Looks | None = None) -> bytes:
    """Draws accuracy against the metric over the decision rules of several runs, with the recalls beside.

    Args:
        points: Rows of `summaries` at one radius.
        form: What becomes of it.
        looks: Looks of the page that it is for; by default a colour a run.

    Returns:
        Bytes: a row a cost matrix. Left a point a rule, a colour a run (or a rule, on a page of one run), its argmax
        larger and outlined, its non-dominated points joined by steps, for between two of them there is nothing to
        choose; these and argmax with
        thin bars for 95 % intervals. Up is better: an axis of costs points down. A rule under which a class collapsed
        is marked. Right the recalls.
    """
    points = points[points["rob_cs"].notna()]
    matrices = points["costs"].unique()
    looks = looks or Looks((run, "", "") for run in points["run"].unique())
    with styled(*points["run"], *points["rule"], *matrices):
        narrow = form is Form.NARROW
        size = (NARROW, 1.2 + 7 * len(matrices)) if narrow else (11, 0.6 + 3.8 * len(matrices))
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        shape = (2 * len(matrices), 1) if narrow else (len(matrices), 2)
        panels = figure.subplots(*shape, squeeze=False, sharex="none" if narrow else "row").reshape(-1, 2)
        for costs, (left, right) in zip(matrices, panels, strict=True):
            for run, rules in points[points["costs"] == costs].groupby("run", sort=False):
                look = _of_run(str(run), looks)
                _draw_front(left, rules, look, looks)
                _draw_recalls(right, rules, look)
            metric = _metric(points[points["costs"] == costs])
            left.set(xlabel="accuracy", ylabel=f"{metric} at radius {points['radius'].iloc[0]:.3g}")
            left.set_title(fitted(f"{costs}\n{_TITLES[metric]}", form))
            if not METRICS[metric].more_is_better:
                left.invert_yaxis()
            right.set(xlabel="accuracy", ylabel="recall")
            of_classes = "share of the images of these classes that are answered rightly"
            right.set_title(fitted(f"{costs}\n{of_classes}", form))
            for axis in (left, right):
                axis.grid(alpha=0.25)
        keys = {
            "argmax": Line2D([], [], color="0.7", marker="o", linestyle="", **_OUTLINED),
            "recall of seed classes": Line2D([], [], color="0.4", marker="o"),
            "recall of target classes": Line2D([], [], color="0.4", marker="o", linestyle="--", fillstyle="none"),
        }
        if (points["collapsed"] != "").any():
            keys[f"{MARK} a class collapsed"] = Line2D([], [], linestyle="")
        named: dict[str, Any] = {}
        for left in panels[:, 0]:
            handles, labels = left.get_legend_handles_labels()
            named |= dict(zip(labels, handles, strict=True))
        legend_below(figure, list(keys.values()), list(keys), form)
        if not label_lines(figure, [[left] for left in panels[:, 0]]):
            figure.legends.clear()
            keys = named | keys
            legend_below(figure, list(keys.values()), list(keys), form)
        return rendered(figure, form)


def _of_run(run: str, looks: Looks) -> Look:
    """The look of a run's points; where only rules have colours, that of nobody, whose points are round."""
    look = looks.of(run=run)
    return look if look.marker else look._replace(marker="o")


def _draw_front(axis: Axes, rules: pd.DataFrame, look: Look, looks: Looks) -> None:
    """One run's rules, argmax outlined; those on its front joined, and these alone with bars, to be legible."""
    metric = _metric(rules)
    on_front = _on_front(rules)
    plain = rules[rules["rule_id"] == "argmax"]
    barred = pd.concat([on_front, plain])
    axis.errorbar(
        barred["accuracy"],
        barred[metric],
        xerr=_around(barred, "accuracy"),
        yerr=_around(barred, metric),
        fmt="none",
        ecolor=look.colour,
        elinewidth=0.7,
        alpha=0.35,
    )
    known = looks.keys if looks.coloured == "rule" else ()
    name = {} if known else {"label": as_label(str(rules["run"].iloc[0]))}
    axis.plot(rules["accuracy"], rules[metric], linestyle="", markersize=4, alpha=0.4, **look.point)
    step: dict[str, Any] = {"markersize": 5, "linewidth": 1.4, "drawstyle": "steps-pre", **name}
    axis.plot(on_front["accuracy"], on_front[metric], **step, **look.point)
    axis.plot(plain["accuracy"], plain[metric], linestyle="", **look.point, **_OUTLINED)
    for _, row in rules.iterrows():
        if row["collapsed"] != "":
            axis.annotate(MARK, (row["accuracy"], row[metric]), (5, 3), textcoords="offset points")
        if (row["run"], row["costs"], row["rule"]) in known:  # other charts draw it, too
            of_rule = looks.of(rule=row["rule"])
            outlined = _OUTLINED if row["rule_id"] == "argmax" else {"markersize": 7, "zorder": 3}
            axis.plot(row["accuracy"], row[metric], linestyle="", label=row["rule"], **of_rule.point, **outlined)


def _draw_recalls(axis: Axes, rules: pd.DataFrame, look: Look) -> None:
    """The recalls of one run's rules, those on its front joined: seed classes filled, target classes hollow."""
    on_front = _on_front(rules)
    plain = rules[rules["rule_id"] == "argmax"]
    for name, dash, fill in (("seed_recall", "-", look.colour), ("target_recall", "--", "white")):
        drawn = {**look.point, "markerfacecolor": fill}
        axis.plot(rules["accuracy"], rules[name], linestyle="", markersize=4, alpha=0.4, **drawn)
        steps: dict[str, Any] = {"linestyle": dash, "drawstyle": "steps-pre"}
        axis.plot(on_front["accuracy"], on_front[name], markersize=5, linewidth=1.4, **steps, **drawn)
        axis.plot(plain["accuracy"], plain[name], linestyle="", **drawn, **_OUTLINED)


def _metric(rules: pd.DataFrame) -> str:
    """What rules of one costs compete in."""
    return str(rules["metric"].iloc[0])


def _on_front(rules: pd.DataFrame) -> pd.DataFrame:
    return rules[non_dominated(rules["accuracy"], merits(rules))].sort_values("accuracy")


def _around(rows: pd.DataFrame, name: str) -> list[pd.Series]:
    """Lengths of the error bars below and above; Wilson's interval touches a share of 0 or 1."""
    return [(rows[name] - rows[f"{name}_low"]).clip(lower=0), (rows[f"{name}_high"] - rows[name]).clip(lower=0)]


def _draw_accuracy(axis: Axes, curve: pd.DataFrame, label: str, look: Look) -> None:
    if curve["multiclass_certified_accuracy"].notna().all():
        _draw(axis, curve, "multiclass_certified_accuracy", label, look)
    else:
        _draw(axis, curve, "certified_accuracy", f"{label} (standard)", look)


def _draw(axis: Axes, curve: pd.DataFrame, name: str, label: str, look: Look) -> None:
    if curve[name].isna().all():
        return
    label = f"{label} {MARK}" if (curve["collapsed"] != "").any() else label
    axis.plot(curve["radius"], curve[name], label=as_label(label), linewidth=1.6, **look.curve)
    low, high = curve[f"{name}_low"], curve[f"{name}_high"]
    axis.fill_between(curve["radius"], low, high, color=look.colour, alpha=0.12, linewidth=0)
