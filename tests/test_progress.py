import re
import sys
import threading

import pytest

from raycsr import progress
from raycsr.progress import Progress, Speed, duration


@pytest.fixture
def clock(monkeypatch):
    """`clock[0] += 60` lets a minute pass."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_says_how_much_is_done_how_fast_and_how_long_it_will_take(clock):
    with Progress(200, "sample", "images", lambda: "1,000 samples/s, 2 actors alive") as work:
        assert work.line() == "sample: 0 of 200 images (0 %), 1,000 samples/s, 2 actors alive"
        work.update(25)
        clock[0] += 60
        work.update(25)
        line = work.line()
    assert line == "sample: 50 of 200 images (25 %), 1,000 samples/s, 2 actors alive, 6 min left"


def test_start_up_is_not_counted_and_nothing_is_promised_before_there_is_something_to_go_by(clock):
    """55 s until the actors are there, then 30 images in 15 s each: half a minute is left, not hours."""
    with Progress(61, "sample", "images") as work:
        clock[0] += 55
        work.update(1)  # an actor's first block, to see it soon
        clock[0] += 5
        assert work.line() == "sample: 1 of 61 images (2 %)"
        work.update(1)  # another's, which began a little later: no speed yet
        assert work.line() == "sample: 2 of 61 images (3 %)"
        clock[0] += 10
        work.update(29)
        assert work.line() == "sample: 31 of 61 images (51 %), 15 s left"
        clock[0] += 14  # what is under way says nothing yet
        assert work.line() == "sample: 31 of 61 images (51 %), 15 s left"


def test_the_time_left_is_by_the_speed_of_the_last_minutes(clock):
    """A pool that waited for its nodes does not stay slow, and one that does nothing promises nothing."""
    with Progress(101, "sample", "images") as work:
        work.update(1)
        for _ in range(30):
            clock[0] += 60
            line = work.line()
        assert line == "sample: 1 of 101 images (1 %)"
        clock[0] += 60
        work.update(50)
        assert work.line().endswith("10 min left")  # 50 images in the ten minutes that are remembered


def test_the_speed_is_that_of_the_blocks_after_the_first(clock):
    samples = Speed()
    clock[0] += 30
    samples.add(1_000)
    assert samples.per_second() is None
    clock[0] += 20
    samples.add(40_000)
    assert samples.per_second() == 2_000 and samples.done == 41_000


def test_a_log_gets_lines_also_while_nothing_is_done(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.001)
    asked = threading.Event()
    with Progress(5, "decode", "images", lambda: asked.set() or "so far"):
        assert asked.wait(30)
    assert "decode: 0 of 5 images (0 %), so far\n" in capsys.readouterr().err


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(2, "sample", "images") as work:
        work.update()
        work.update()
    err = capsys.readouterr().err
    assert re.search(r"sample:\s+0%.* images/s", err) and re.search(r"sample:\s+50%", err)


def test_work_that_is_not_shown_is_silent(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with Progress(1, "epoch", "batches", shown=False) as work:
        work.update()
    assert capsys.readouterr().err == ""


def test_durations_are_said_as_people_say_them():
    assert [duration(seconds) for seconds in (5, 90, 7200)] == ["5 s", "2 min", "2.0 h"]
