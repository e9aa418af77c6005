"""Pictures by class: robustness of each pair, recalls; and the images themselves with what they may be taken for."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from raycsr.costs import CostMatrix
from raycsr.reports.drawing import NARROW, ON_DARK, ON_LIGHT, Form, fitted, legend_below, rendered, styled
from raycsr.reports.letters import cells, filled, shortened
from raycsr.reports.looks import Look, as_label, looks_of

_SHADES = "Purples"  # of a share: no run or rule has these
_NUMBERED_NARROW = 4  # columns of a narrow one
_NUMBERED, _NUMBERED_ROWS = 16, 24  # columns and rows of a heat map up to which its cells have room for numbers
_NAMED = 40  # classes up to which each has a name and a bar of its own
_TICKS = 12  # where there are more
_NAME, _LONG = 24, 60  # characters of a name beside an axis, and of one that has more room
_CAPTION_WIDTH = 22  # characters of a line below an image
_COLUMNS = 6  # of a grid of images
_AXES = {"seed": "true class", "target": "mistaken for"}  # the field's words, as people read them


def plot_pairwise(robustness: pd.DataFrame, *, radius: float, title: str = "", form: Form = Form.PNG) -> bytes:
    """Draws `raycsr.certification.pairwise_robustness` as a heat map, dark where a pair is safe.

    Args:
        robustness: Seed class x target class, or any other rows: such as one a run where there is one seed class.
        radius: L2, at which the pairs were certified.
        title: Title of the picture, above the meaning of the numbers.
        form: What becomes of it.

    Returns:
        Bytes. Rows and columns without a number are left out, unless all are; a cell without one is hatched. Numbers
        stand in the cells where they have room, and ticks are thinned where they have none.
    """
    shown = robustness.dropna(axis=0, how="all").dropna(axis=1, how="all")
    shown = robustness if shown.empty else shown
    rows, columns = shown.shape
    names = max((cells(str(name)) for name in shown.index), default=0)
    narrow = form is Form.NARROW
    numbered = rows <= _NUMBERED_ROWS and columns <= (_NUMBERED_NARROW if narrow else _NUMBERED)
    width = 1.8 + 0.07 * min(names, 60) + (0.62 * columns if numbered else 6.5)
    height = 1.7 + (0.42 * rows if numbered else max(1.0, 6.5 * min(1.0, rows / columns)))
    with styled(title, *shown.index, *shown.columns):
        size = (NARROW, height + 1.2) if narrow else (max(width, 5.0), height)
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        axis = figure.subplots()
        axis.set_facecolor("0.93")
        axis.patch.set(hatch="////", edgecolor="0.82")
        mesh = axis.imshow(shown.to_numpy(float), vmin=0, vmax=1, cmap=_SHADES, aspect="auto", interpolation="nearest")
        figure.colorbar(mesh, ax=axis, pad=0.02, label="share of images", ticks=[0, 0.5, 1])
        meaning = f"share of the row's images that no perturbation within {radius:.3g} turns into the column's class"
        width = 44 if narrow else max(40, int(figure.get_figwidth() * 13))  # wider than a map of few columns
        figure.suptitle("\n".join(filled(line, width) for line in [*title.splitlines(), meaning]), fontsize=9)
        axis.set_xlabel(_axis(shown.columns))
        axis.set_ylabel(_axis(shown.index))
        _name_ticks(axis, shown, narrow)
        if numbered:
            _number_cells(axis, shown)
        return rendered(figure, form)


def _axis(of: pd.Index) -> str:
    name = str(of.name or "")
    return _AXES.get(name, name)


def _name_ticks(axis: Axes, shown: pd.DataFrame, narrow: bool) -> None:
    """A name each where there is room for them, else some of them."""
    tall = not narrow or len(shown.index) <= _NUMBERED_ROWS  # rows have room for a name, or for its lines
    for names, side, most in ((shown.columns, axis.xaxis, _NAME), (shown.index, axis.yaxis, _LONG if tall else _NAME)):
        step = 1 if len(names) <= _NAMED / (3 if narrow else 1) else -(-len(names) // _TICKS)
        places = range(0, len(names), step)
        short = shortened([str(name) for name in names], most)
        lines = [filled(one, _NAME) for one in short] if narrow and most == _LONG else short
        side.set_ticks(list(places), [lines[place] for place in places])
    if narrow:
        axis.tick_params(labelsize=7)
    longest = max((min(_NAME, cells(str(name))) for name in shown.columns), default=0)
    steep = len(shown.columns) > (6 if narrow else _NUMBERED)
    if longest * len(shown.columns) > (12 if narrow else 24):
        axis.tick_params(axis="x", labelrotation=90 if steep else 40)
        for label in axis.get_xticklabels():
            label.set_horizontalalignment("center" if steep else "right")
            label.set_rotation_mode("default" if steep else "anchor")


def _number_cells(axis: Axes, shown: pd.DataFrame) -> None:
    for (row, column), share in np.ndenumerate(shown.to_numpy(float)):
        if not np.isnan(share):
            red, green, blue, _ = matplotlib.colormaps[_SHADES](float(share))
            # of black and white what stands out more: they are alike at a luminance of .18
            light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18
            colour = ON_LIGHT if light else ON_DARK
            axis.text(column, row, f"{share:.2f}", ha="center", va="center", color=colour, fontsize=8)


def plot_recalls(
    recalls: Mapping[str, pd.DataFrame],
    class_names: Sequence[str] | None = None,
    form: Form = Form.PNG,
    looks: Mapping[str, Look] | None = None,
) -> bytes:
    """Draws `raycsr.certification.class_recalls` of one or several runs or decision rules side by side.

    Args:
        recalls: Label -> recalls by class; all of the same classes.
        class_names: Names of the classes; by default their numbers.
        form: What becomes of it.
        looks: Look of each label on the page that it is for; by default of these labels alone.

    Returns:
        Bytes: a group of bars a class, with 95 % intervals. Where classes are too many for that, a line of the first
        and points of the others, by the recall of the first. Classes without images are left out.
    """
    first = next(iter(recalls.values()))
    classes = first.index[first["num_images"] > 0]
    looks = looks or looks_of(recalls)
    names = [str(class_names[y] if class_names else y) for y in classes]
    with styled(*recalls, *names):
        narrow = form is Form.NARROW
        width = NARROW if narrow else max(5.0, min(12.0, 2 + 0.28 * len(classes) * (1 + len(recalls))))
        figure = Figure(figsize=(width, 4.6 if narrow else 3.6), dpi=120, layout="constrained")
        axis = figure.subplots()
        if len(classes) <= _NAMED / (2 if narrow else 1):
            _draw_bars(axis, {label: of.loc[classes] for label, of in recalls.items()}, looks)
            names = shortened(names, _NAME)
            steep = max(map(cells, names), default=0) * len(names) > (24 if narrow else 70)
            rotation = (90 if narrow else 40) if steep else 0
            axis.set_xticks(range(len(classes)), names, rotation=rotation, ha="right" if rotation == 40 else "center")
        else:
            order = first.loc[classes, "recall"].sort_values().index
            for label, of in recalls.items():
                look: dict[str, Any] = (
                    {"linewidth": 1.2} if of is first else {"linestyle": "", "marker": ".", "markersize": 3}
                )
                look |= {"color": looks[label].colour}
                axis.plot(range(len(order)), of.loc[order, "recall"], label=as_label(label), **look)
            axis.set_xlabel(fitted(f"{len(order)} classes, by the recall of {next(iter(recalls))}", form))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(ylabel="recall", ylim=(0, 1.02))
        axis.set_title(fitted("share of the images of each class that are answered rightly", form))
        axis.grid(alpha=0.25, axis="y")
        axis.set_axisbelow(True)
        legend_below(figure, *axis.get_legend_handles_labels(), form, width=int(10 * width))
        return rendered(figure, form)


def _draw_bars(axis: Axes, recalls: Mapping[str, pd.DataFrame], looks: Mapping[str, Look]) -> None:
    width = 0.8 / len(recalls)
    for i, (label, of) in enumerate(recalls.items()):
        places = np.arange(len(of)) + (i - (len(recalls) - 1) / 2) * width
        around = np.array([of["recall"] - of["recall_low"], of["recall_high"] - of["recall"]]).clip(min=0)
        error = {"elinewidth": 1, "ecolor": "0.15"}
        colour, hatch = looks[label].colour, looks[label].hatch
        # pale or hatched, so that intervals are seen on them and beside, on white and in the dark; an SVG has no both
        face = "none" if hatch else (colour, 0.4)
        bars: dict[str, Any] = {"facecolor": face, "edgecolor": colour, "hatch": hatch, "linewidth": 1}
        axis.bar(places, of["recall"], width * 0.92, yerr=around, label=as_label(label), error_kw=error, **bars)


def plot_images(images: Sequence[NDArray[np.uint8] | str], captions: Sequence[str]) -> bytes:
    """Draws images in a grid, each with its caption below.

    Args:
        images: For each its pixels, uint8 (H, W, 3), or one line that says why there are none.
        captions: Caption of each image; lines are broken where they are long.

    Returns:
        A PNG.
    """
    columns = min(_COLUMNS, max(1, len(images)))
    rows = max(1, -(-len(images) // columns))
    with styled(*captions, *(one for one in images if isinstance(one, str)), size=8):
        texts = [_wrapped(caption) for caption in captions]
        lines = max((text.count("\n") + 1 for text in texts), default=1)
        figure = Figure(figsize=(1.75 * columns, (1.75 + 0.15 * lines) * rows), dpi=120, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, image, text in zip(axes, images, texts, strict=False):
            if isinstance(image, str):
                axis.text(0.5, 0.5, _wrapped(image), ha="center", va="center", color="0.4", fontsize=7)
                axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
            else:
                axis.imshow(image, interpolation="nearest")
            axis.text(0.5, -0.04, text, ha="center", va="top", transform=axis.transAxes, fontsize=7)
        return rendered(figure, Form.PNG)


def captions(costliest: pd.DataFrame, costs: CostMatrix) -> list[list[str]]:
    """Lines about each of the `raycsr.certification.costliest_images`, of which an answer may abstain.

    Returns:
        For each its id, what it may be taken for, the cost, within what radius no costly mistake is made, and what it
        is answered today.
    """
    names = costs.class_names or [str(y) for y in range(costs.num_classes)]
    columns = ["image_id", "label", "reachable", "worst_case_cost", "cost_sensitive_radius", "prediction", "abstain"]
    return [
        [
            i,
            f"{names[y]} → {names[j]}",
            f"cost {cost:g}",
            f"certified within {radius:.3g}" if radius > 0 else "not certified",
            "no answer is proven" if pd.isna(said) or abstains else f"answered {names[int(said)]}",
        ]
        for i, y, j, cost, radius, said, abstains in costliest[columns].itertuples(index=False)
    ]


def _wrapped(text: str) -> str:
    return "\n".join(filled(line, _CAPTION_WIDTH) for line in text.splitlines())
