"""Names beside lines: which, where, and when there are none."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from raycsr.reports.direct import label_lines

AT = np.linspace(0, 1, 101)


def panel(**lines):
    figure = Figure(figsize=(5, 4), layout="constrained")
    axis = figure.subplots()
    for i, (label, values) in enumerate(lines.items()):
        axis.plot(AT, values, label=label, color=f"C{i}")
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
    return figure, axis


def boxes(figure, axis):
    figure.draw_without_rendering()
    return {text.get_text(): text.get_window_extent() for text in axis.texts}


def covered(axis, box):
    """Whether a line lies within a box."""
    for line in axis.lines:
        points = line.get_transform().transform(line.get_xydata())
        if any(box.count_contains(np.linspace(a, b, 50)) for a, b in itertools.pairwise(points)):
            return True
    return False


@pytest.mark.parametrize(
    "lines",
    [
        {"one": 0.9 - 0.5 * AT},
        {"a": 1 - AT, "b": 1 - AT**2, "c": 1 - AT**4, "d": (1 - AT) ** 3},  # all end in one point
        {"a": 0.5 + 0.02 * AT, "a name that is long, and a rule · offset:2.5*pair:cat/dog": 0.5 - 0.02 * AT},
        {"low": 0.01 * AT, "high": np.ones(101)},
        {"steps": np.repeat([0.9, 0.6, 0.3], [30, 30, 41]), "nan": np.where(AT < 0.5, 0.5, np.nan)},
    ],
)
def test_names_lie_over_nothing_and_within_the_frame(lines):
    figure, axis = panel(**lines)
    assert label_lines(figure, [[axis]])
    written = boxes(figure, axis)
    assert {" ".join(text.split()) for text in written} == {name.replace(" ·", "") for name in lines}
    frame = axis.get_window_extent()
    for box in written.values():
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        assert not covered(axis, box.padded(-1))
    assert not any(one.overlaps(other) for one, other in itertools.combinations(written.values(), 2))


def test_names_leave_room_for_what_is_written_already():
    figure, axis = panel(one=0.5 + 0 * AT)
    marks = [axis.annotate("†", (x, 0.5), (0, 4), textcoords="offset points") for x in np.linspace(0, 1, 15)]
    assert label_lines(figure, [[axis]])
    (name,) = (text for text in axis.texts if text not in marks)
    assert not any(name.get_window_extent().overlaps(mark.get_window_extent()) for mark in marks)


def test_five_lines_and_lines_that_are_one_have_a_legend():
    figure, axis = panel(**{f"{i}": 0.1 + 0.2 * i * (1 - AT) for i in range(5)})
    assert not label_lines(figure, [[axis]]) and not axis.texts
    figure, axis = panel(one=1 - AT, same=1 - AT)
    assert not label_lines(figure, [[axis]]) and not axis.texts


def test_of_panels_with_the_same_lines_one_is_enough():
    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, values in (("a", 1 - AT), ("b", 1 - AT**3)):
        left.plot(AT, 0 * AT, label=label)
        right.plot(AT, values, label=label)
    assert not label_lines(figure, [[left], [right]]) and not right.texts
    assert label_lines(figure, [[left, right]]) and not left.texts and len(right.texts) == 2


def test_a_name_stands_beside_its_own_line_or_is_led_to():
    figure, axis = panel(a=1 - AT, b=1 - AT**2, c=1 - AT**4)
    assert label_lines(figure, [[axis]])
    leads = {tuple(np.round(line.get_xydata()[0], 3)): line for line in axis.lines[3:]}
    for line, text in zip(axis.lines, sorted(axis.texts, key=lambda one: one.get_text()), strict=False):
        points = line.get_transform().transform(line.get_xydata())
        box = text.get_window_extent()
        gap = np.hypot(*np.maximum(np.maximum([box.x0, box.y0] - points, points - [box.x1, box.y1]), 0).T).min()
        led = leads.get(tuple(np.round(text.xy, 3)))
        assert gap < 8 * figure.dpi / 72 or led.get_color() == line.get_color()
