"""Pictures of certified curves, and of the front of accuracy against cost-sensitive robustness."""

import io
import textwrap
from collections.abc import Sequence
from enum import Enum
from typing import Any

import matplotlib
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D

from raycsr.certification import METRICS
from raycsr.reports.comparison import merits, non_dominated
from raycsr.reports.tables import MARK

# told apart with any colour vision (Okabe and Ito, 2008), and beyond their eight a grey and a brown
_COLOURS = [
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#000000",
    "#F0E442",
    "#999999",
    "#8B5A2B",
]
STYLE = {
    "axes.prop_cycle": cycler(color=_COLOURS),
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "raycsr",
    "text.parse_math": False,  # names of classes and models may hold a $
}
_TITLES = {
    "certified accuracy": "right, and no perturbation within r changes it",
    "rob_cs": "no perturbation within r makes a costly mistake",
    "rob_cost": "mean cost that is not ruled out within r",
}
_DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 3)), (0, (8, 4)))
_LABELS_WIDTH = 120  # characters of a legend side by side
_NARROW_WIDTH = 44  # characters of a line of a narrow picture
NARROW = 4.2  # inches, of a picture whose panels stand one below the other
_MARKERS = "osD^vPX*"
_OUTLINED: dict[str, Any] = {"markersize": 9, "markeredgecolor": "black", "markeredgewidth": 1.4, "zorder": 3}

Curves = dict[tuple[str, str, str], pd.DataFrame]


class Form(Enum):
    """What becomes of a figure."""

    PNG = "for a file: a PNG, panels side by side"
    WIDE = "for a page: an SVG, panels side by side"
    NARROW = "for a page on a telephone: an SVG, panels one below the other"


def rendered(figure: Figure, form: Form) -> bytes:
    """A figure as a PNG or an SVG; letters in an SVG are shapes, as wide everywhere as they were measured."""
    buffer = io.BytesIO()
    if form is Form.PNG:
        figure.savefig(buffer, format="png")
    else:  # the same figure is the same bytes
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def fitted(text: str, form: Form) -> str:
    """A text as it is, or in lines that a narrow picture has room for."""
    if form is not Form.NARROW:
        return text
    return "\n".join(textwrap.fill(line, _NARROW_WIDTH, break_long_words=True) for line in text.splitlines())


def plot_curves(curves: Curves, form: Form = Form.PNG) -> bytes:
    """Draws certified curves of several runs, cost matrices and decision rules over the radius.

    Args:
        curves: (run, costs, rule) -> a summary over many radii (`summarize`); shares come with their 95 % bands.
        form: What becomes of it.

    Returns:
        Bytes: one panel each for certified accuracy (multiclass; standard, and said so, of certificates that have no
        other), rob_cs and rob_cost; a row of them for all cost matrices, or
        one for each where there are several rules.
    """
    several = len({rule for _, _, rule in curves}) > 1
    matrices = list(dict.fromkeys(costs for _, costs, _ in curves)) if several else [""]
    with matplotlib.rc_context(STYLE):
        narrow, beside = form is Form.NARROW, several and form is Form.PNG  # a page is not wide enough for its legend
        size = (NARROW, 9 * len(matrices)) if narrow else (15 if beside else 12, 4 * len(matrices))
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        for costs, row in zip(matrices, figure.subfigures(len(matrices), 1, squeeze=False)[:, 0], strict=True):
            axes = row.subplots(3, 1) if narrow else row.subplots(1, 3)
            if several:
                row.suptitle(fitted(costs, form), fontsize=11)
                _draw_rules(axes, {key: curve for key, curve in curves.items() if key[1] == costs})
                handles, labels = axes[0].get_legend_handles_labels()
                if beside:
                    row.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
                else:
                    legend_below(row, handles, labels, form)
            else:
                _draw_matrices(axes, curves)
                axes[0].legend(frameon=False, loc="lower left")
                handles, labels = axes[1].get_legend_handles_labels()
                legend_below(row, handles, labels, form)
            for axis, (title, meaning) in zip(axes, _TITLES.items(), strict=True):
                axis.set(xlabel="L2 radius, [0, 1] pixel units", xlim=(0, None), ylim=(0, None))
                axis.set_title(f"{title}\n{meaning}")
                axis.grid(alpha=0.25)
            for axis in axes[:2]:
                axis.set_ylim(0, 1.02)
        return rendered(figure, form)


def _draw_matrices(axes: Sequence[Axes], curves: Curves) -> None:
    """One rule: certified accuracy knows no costs, one dark curve a run; the others a colour a run and matrix."""
    runs = {run: curve for (run, _, _), curve in curves.items()}
    for i, (run, curve) in enumerate(runs.items()):
        _draw_accuracy(axes[0], curve, run, "0.15", _cycle(_DASHES, i))
    for i, ((run, costs, _), curve) in enumerate(curves.items()):
        label = f"{run} · {costs}" if len(runs) > 1 else costs
        _draw(axes[1], curve, "rob_cs", label, f"C{i % 10}")
        _draw(axes[2], curve, "rob_cost", label, f"C{i % 10}")


def _draw_rules(axes: Sequence[Axes], curves: Curves) -> None:
    """Several rules under one cost matrix: a kind of line a rule, and a colour a run, or a rule where one ran."""
    runs = list(dict.fromkeys(run for run, _, _ in curves))
    rules = list(dict.fromkeys(rule for _, _, rule in curves))
    for (run, _, rule), curve in curves.items():
        label = f"{run} · {rule}" if len(runs) > 1 else rule
        i = runs.index(run) if len(runs) > 1 else rules.index(rule)
        colour, dash = f"C{i % 10}", _cycle(_DASHES, rules.index(rule))
        _draw_accuracy(axes[0], curve, label, colour, dash)
        for axis, name in zip(axes[1:], ("rob_cs", "rob_cost"), strict=True):
            _draw(axis, curve, name, label, colour, dash)


def plot_front(points: pd.DataFrame, form: Form = Form.PNG) -> bytes:
    """Draws accuracy against the metric over the decision rules of several runs, with the recalls beside.

    Args:
        points: Rows of `summaries` at one radius.
        form: What becomes of it.

    Returns:
        Bytes: a row a cost matrix. Left a point a rule, a colour a run, its argmax larger and outlined, its
        non-dominated points joined by steps, for between two of them there is nothing to choose; these and argmax with
        thin bars for 95 % intervals. Up is better: an axis of costs points down. A rule under which a class collapsed
        is marked. Right the recalls.
    """
    points = points[points["rob_cs"].notna()]
    runs, matrices = points["run"].unique(), points["costs"].unique()
    styles = {run: {"color": f"C{i % 10}", "marker": _cycle(_MARKERS, i)} for i, run in enumerate(runs)}
    with matplotlib.rc_context(STYLE):
        narrow = form is Form.NARROW
        size = (NARROW, 1.2 + 7 * len(matrices)) if narrow else (11, 0.6 + 3.8 * len(matrices))
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        shape = (2 * len(matrices), 1) if narrow else (len(matrices), 2)
        panels = figure.subplots(*shape, squeeze=False, sharex="none" if narrow else "row").reshape(-1, 2)
        for costs, (left, right) in zip(matrices, panels, strict=True):
            for run, rules in points[points["costs"] == costs].groupby("run", sort=False):
                _draw_front(left, rules, styles[run])
                _draw_recalls(right, rules, styles[run])
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
            **{run: Line2D([], [], **style) for run, style in styles.items()},
            "argmax": Line2D([], [], color="0.7", marker="o", linestyle="", **_OUTLINED),
            "recall of seed classes": Line2D([], [], color="0.4", marker="o"),
            "recall of target classes": Line2D([], [], color="0.4", marker="o", linestyle="--", fillstyle="none"),
        }
        if (points["collapsed"] != "").any():
            keys[f"{MARK} a class collapsed"] = Line2D([], [], linestyle="")
        legend_below(figure, list(keys.values()), list(keys), form)
        return rendered(figure, form)


def _draw_front(axis: Axes, rules: pd.DataFrame, style: dict[str, Any]) -> None:
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
        ecolor=style["color"],
        elinewidth=0.7,
        alpha=0.35,
    )
    axis.plot(rules["accuracy"], rules[metric], linestyle="", markersize=4, alpha=0.4, **style)
    axis.plot(on_front["accuracy"], on_front[metric], markersize=5, linewidth=1.4, drawstyle="steps-pre", **style)
    axis.plot(plain["accuracy"], plain[metric], linestyle="", **style, **_OUTLINED)
    for _, row in rules[rules["collapsed"] != ""].iterrows():
        axis.annotate(MARK, (row["accuracy"], row[metric]), (5, 3), textcoords="offset points")


def _draw_recalls(axis: Axes, rules: pd.DataFrame, style: dict[str, Any]) -> None:
    """The recalls of one run's rules, those on its front joined: seed classes filled, target classes hollow."""
    on_front = _on_front(rules)
    plain = rules[rules["rule_id"] == "argmax"]
    for name, dash, fill in (("seed_recall", "-", style["color"]), ("target_recall", "--", "white")):
        look = {**style, "markerfacecolor": fill}
        axis.plot(rules["accuracy"], rules[name], linestyle="", markersize=4, alpha=0.4, **look)
        steps: dict[str, Any] = {"linestyle": dash, "drawstyle": "steps-pre"}
        axis.plot(on_front["accuracy"], on_front[name], markersize=5, linewidth=1.4, **steps, **look)
        axis.plot(plain["accuracy"], plain[name], linestyle="", **look, **_OUTLINED)


def _metric(rules: pd.DataFrame) -> str:
    """What rules of one costs compete in."""
    return str(rules["metric"].iloc[0])


def _on_front(rules: pd.DataFrame) -> pd.DataFrame:
    return rules[non_dominated(rules["accuracy"], merits(rules))].sort_values("accuracy")


def _around(rows: pd.DataFrame, name: str) -> list[pd.Series]:
    """Lengths of the error bars below and above; Wilson's interval touches a share of 0 or 1."""
    return [(rows[name] - rows[f"{name}_low"]).clip(lower=0), (rows[f"{name}_high"] - rows[name]).clip(lower=0)]


def _draw_accuracy(axis: Axes, curve: pd.DataFrame, label: str, colour: str, dash: Any) -> None:
    if curve["multiclass_certified_accuracy"].notna().all():
        _draw(axis, curve, "multiclass_certified_accuracy", label, colour, dash)
    else:
        _draw(axis, curve, "certified_accuracy", f"{label} (standard)", colour, dash)


def _draw(axis: Axes, curve: pd.DataFrame, name: str, label: str, colour: str, dash: Any = "-") -> None:
    if curve[name].isna().all():
        return
    label = f"{label} {MARK}" if (curve["collapsed"] != "").any() else label
    axis.plot(curve["radius"], curve[name], label=label, linewidth=1.6, color=colour, linestyle=dash)
    low, high = curve[f"{name}_low"], curve[f"{name}_high"]
    axis.fill_between(curve["radius"], low, high, color=colour, alpha=0.12, linewidth=0)


def _cycle(values: Sequence[Any], i: int) -> Any:
    return values[i % len(values)]


def legend_below(
    figure: FigureBase,
    handles: Sequence[Any],
    labels: Sequence[str],
    form: Form = Form.PNG,
    width: int = _LABELS_WIDTH,
) -> None:
    """A legend below the panels, in as many columns as its longest label allows in a width of so many characters."""
    if labels:
        width = _NARROW_WIDTH if form is Form.NARROW else width
        columns = max(1, min(4, width // max(map(len, labels))))
        shown = [textwrap.fill(label, width) for label in labels]
        figure.legend(handles, shown, loc="outside lower center", ncols=columns, frameon=False)
