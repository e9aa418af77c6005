"""Names of lines beside the lines, where a chart has few: nobody has to look from a legend to it and back."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cbook import STEP_LOOKUP_MAP
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray

from raycsr.reports.letters import filled

MOST = 4  # lines of a panel that are named so
_WIDTH = 28  # characters of a line of a name
_SIZE = 8  # pt of its letters
_INK = "0.15"
_STEP = 2.0  # pt between the points that a line is looked at
_ANCHORS = 32  # places of a line that are tried
_GAPS = (4.0, 14.0, 28.0, 48.0, 80.0)  # pt from a line to its name: beyond the first a thin line leads there
_WAYS = [(1, 1), (-1, -1), (1, 0), (1, -1), (-1, 1), (0, 1), (0, -1)]  # where from the line
_APART = 3.0  # pt between a name and everything that is not its line
_CROSSED = 25.0  # what it costs a place to be led to across another line
_TRIED = 200  # places of a name, the best ones

Points = NDArray[np.float64]


class _Place(NamedTuple):
    """Where a name may stand, in pt of the figure."""

    anchor: Points  # (2,)
    box: Points  # left, bottom, right, top (4,)
    lead: Points  # from the anchor to the box (P, 2)
    led: bool  # whether that line is drawn


class _Drawn(NamedTuple):
    """What a line takes of a panel, in pt (P, 2): the way of its dash, and what its points cover."""

    way: Points
    covered: Points
    radius: float  # of its points, which are all that is seen of it; 0 where it has a dash


class _Named(NamedTuple):
    text: str
    line: Line2D
    drawn: _Drawn


def label_lines(figure: Figure, groups: Sequence[Sequence[Axes]]) -> bool:
    """Writes the labels of lines beside them, at their ends or where there is most room, and freezes the layout.

    A name covers no line and no other name, stays within the frame, and is nearer to its own line than to any other,
    unless a thin line of that colour leads from a dot on it to its name; which crosses another only where it must.

    Args:
        figure: A figure that is otherwise complete.
        groups: Panels that have the same lines: each group needs one in which all have room.

    Returns:
        Whether that is so; else nothing is changed, and a legend must say it.
    """
    if any(len(_labelled(panel)) > MOST for group in groups for panel in group):
        return False
    scale = figure.dpi / 72
    figure.draw_without_rendering()
    found = [{panel: _arranged(panel, scale) for panel in group} for group in groups]
    for group in found:
        said = {line.get_label() for panel, places in group.items() if places for line in _labelled(panel)}
        if said < {line.get_label() for panel in group for line in _labelled(panel)}:
            return False
    for panel, places in itertools.chain(*(group.items() for group in found)):
        for named, place in places or ():
            _write(panel, named, place, scale)
    figure.set_layout_engine("none")
    return True


def _labelled(panel: Axes) -> list[Line2D]:
    return [line for line in panel.lines if not str(line.get_label()).startswith("_")]


def _arranged(panel: Axes, scale: float) -> list[tuple[_Named, _Place]] | None:
    """A place for each name of a panel; None where there is none for all of them. A pt has so many px."""
    frame = panel.get_window_extent().padded(-2 * scale)
    inside = np.array([frame.x0, frame.y0, frame.x1, frame.y1]) / scale
    drawn = {line: _drawn(line, scale, inside) for line in panel.lines}
    written = [_written(text, scale) for text in panel.texts]
    named = [_Named(_broken(str(line.get_label())), line, drawn[line]) for line in _labelled(panel)]
    if any(not len(one.drawn.way) for one in named):
        return None
    candidates = []
    for one in named:
        others = [of for line, of in drawn.items() if line is not one.line]
        candidates.append(_places(one, _size(panel, one.text, scale), others + written, inside))
    fewest = sorted(range(len(named)), key=lambda i: len(candidates[i]))
    for order in itertools.permutations(fewest):
        taken: list[tuple[int, _Place]] = []
        for i in order:
            free = (place for place in candidates[i] if all(_clear(place, other) for _, other in taken))
            if (place := next(free, None)) is None:
                break
            taken.append((i, place))
        else:
            return [(named[i], place) for i, place in taken]
    return None


def _drawn(line: Line2D, scale: float, inside: Points) -> _Drawn:
    """What a line takes of the frame of a panel."""
    x, y = (np.asarray(values, np.float64) for values in line.get_data(orig=False))
    if line.get_drawstyle() != "default":
        x, y = STEP_LOOKUP_MAP[line.get_drawstyle()](x, y)
    points = line.get_transform().transform(np.column_stack([x, y])) / scale
    points = points[np.isfinite(points).all(axis=1)]
    dashed = len(points) > 1 and line.get_linestyle() != "None"
    radius = 0.0 if dashed or line.get_marker() in ("None", "", None) else line.get_markersize() / 2
    if dashed:
        along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
        at = np.linspace(0, along[-1], max(2, int(along[-1] / _STEP)))
        points = np.column_stack([np.interp(at, along, points[:, i]) for i in range(2)])
    points = points[((points >= inside[:2] - 4) & (points <= inside[2:] + 4)).all(axis=1)]
    around = [points + radius * np.array([np.cos(angle), np.sin(angle)]) for angle in np.arange(8) * np.pi / 4]
    return _Drawn(points, np.concatenate(around) if radius else points, radius)


def _written(text: Text, scale: float) -> _Drawn:
    """What a text takes that is there already, such as a mark."""
    extent = text.get_window_extent()
    across, up = (np.linspace(low, high, 5) / scale for low, high in (extent.intervalx, extent.intervaly))
    return _Drawn(np.empty((0, 2)), np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2), 0.0)


def _broken(label: str) -> str:
    """A name in short lines, a run above its rule."""
    return "\n".join(filled(part, _WIDTH) for part in label.split(" · "))


def _size(panel: Axes, text: str, scale: float) -> tuple[float, float]:
    """Width and height of a text in pt."""
    written = panel.text(0, 0, text, fontsize=_SIZE)
    extent = written.get_window_extent()
    written.remove()
    return extent.width / scale, extent.height / scale


def _places(one: _Named, size: tuple[float, float], others: Sequence[_Drawn], inside: Points) -> list[_Place]:
    """Where a name may stand by its own and all other lines, the best first."""
    nowhere = np.full((1, 2), 1e9)
    covered = np.concatenate([nowhere, *(other.covered for other in others)])
    # a point that lies on another line is told from it by its colour
    ways = np.concatenate([nowhere, *(other.way for other in others if not (other.radius or one.drawn.radius))])
    way = one.drawn.way
    anchors = way[np.unique(np.linspace(0, len(way) - 1, _ANCHORS).astype(int))]
    found: list[tuple[float, _Place]] = []
    for i, anchor in enumerate(anchors):
        alone = np.hypot(*(ways - anchor).T).min()
        if alone < _APART:
            continue  # where lines meet
        for gap, direction in itertools.product(_GAPS, _WAYS):
            box = _box(anchor, np.array(direction) * (gap + one.drawn.radius), size)
            if (box[:2] < inside[:2]).any() or (box[2:] > inside[2:]).any():
                continue
            near, led = _distance(box, covered).min(), gap > _GAPS[0]
            if near < (_APART if led else 2.5 * gap) or _distance(box, one.drawn.covered).min() < _APART:
                continue
            lead = np.linspace(anchor, np.clip(anchor, box[:2], box[2:]), max(2, int(gap / _STEP)))
            crossed = led and np.hypot(*(ways[:, None] - lead).transpose(2, 0, 1)).min() < _STEP
            score = min(near, 30.0) + min(alone, 15.0) - gap - _CROSSED * crossed
            found.append((20 * (1 - i / max(1, len(anchors) - 1)) - score, _Place(anchor, box, lead, led)))
    return [place for _, place in sorted(found, key=lambda scored: scored[0])[:_TRIED]]


def _box(anchor: Points, offset: Points, size: tuple[float, float]) -> Points:
    """A box of that size whose nearest corner, or middle of a side, is so far from the anchor."""
    low = [
        at + by if by > 0 else at + by - length if by < 0 else at - length / 2
        for at, by, length in zip(anchor, offset, size, strict=True)
    ]
    return np.array([*low, low[0] + size[0], low[1] + size[1]])


def _distance(box: Points, points: Points) -> Points:
    """How far points are from a box; 0 within (P,)."""
    return np.hypot(*np.maximum(np.maximum(box[:2] - points, points - box[2:]), 0).T)


def _clear(place: _Place, other: _Place) -> bool:
    """Whether neither name covers the other, nor what leads to it, and their ways are apart."""
    gaps = np.maximum(place.box[:2] - other.box[2:], other.box[:2] - place.box[2:])
    return bool(
        gaps.max() >= _APART
        and np.hypot(*(place.lead[:, None] - other.lead).transpose(2, 0, 1)).min() >= _STEP
        and _distance(place.box, other.lead).min() >= _APART
        and _distance(other.box, place.lead).min() >= _APART
    )


def _write(panel: Axes, named: _Named, place: _Place, scale: float) -> None:
    """The name at its place, which the layout shall not ask for."""
    text = panel.annotate(
        named.text,
        tuple(panel.transData.inverted().transform(place.anchor * scale)),
        tuple(place.box[:2] - place.anchor),
        textcoords="offset points",
        fontsize=_SIZE,
        color=_INK,
        ha="left",
        va="bottom",
        zorder=5,
    )
    text.set_in_layout(False)
    if place.led:
        ends = panel.transData.inverted().transform(place.lead[[0, -1]] * scale)
        look: dict[str, Any] = {
            "color": named.line.get_color(),
            "linewidth": 0.8,
            "marker": "o",
            "markersize": 3,
            "markevery": [0],
        }
        panel.plot(*ends.T, scalex=False, scaley=False, **look)
