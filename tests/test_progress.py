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
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.001)
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
    assert re.search(r"sample:\s+0%.* 0/2 images \[", err) and re.search(r"sample:\s+50%", err)


def test_a_bar_is_drawn_anew_while_nothing_is_done(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "_BAR_SECONDS", 0.001)
    drawn = threading.Event()
    monkeypatch.setattr(progress.tqdm, "refresh", lambda *_, **__: drawn.set())
    with Progress(2, "sample", "images"):
        assert drawn.wait(30)


def test_the_first_line_of_a_log_comes_soon_and_then_one_a_minute(monkeypatch):
    waited = []

    def wait(seconds):
        waited.append(seconds)
        return len(waited) > 3

    work = Progress(5, "decode", "images")
    monkeypatch.setattr(work._stop, "wait", wait)
    work._tell()
    assert waited == [10, 60, 60, 60]


def test_parts_of_a_work_share_what_is_left(clock, monkeypatch, capsys):
    """Two of four epochs are done; what is left counts the pause between the others, and all of their batches."""
    with Progress(40, "train", "batches", begun=20) as work:
        work.go_on("epoch 3 of 4")
        assert work.line() == "epoch 3 of 4: 20 of 40 batches (50 %)"
        work.update()
        for _ in range(9):
            clock[0] += 2
            work.update()
        work.pause()
        clock[0] += 32  # a validation
        work.go_on("epoch 4 of 4")
        work.update()
        assert work.line() == "epoch 4 of 4: 31 of 40 batches (78 %), 45 s left"  # 10 batches in 50 s


def test_a_bar_goes_while_others_print_and_comes_back(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(4, "train", "batches") as work:
        work.update(2)
        work.pause()
        assert capsys.readouterr().err.endswith("\r")
        work.go_on("epoch 2 of 2")
        work.update()
        assert re.search(r"epoch 2 of 2:\s+75%.* 3/4 batches", capsys.readouterr().err)


def test_work_that_is_not_shown_is_silent(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with Progress(1, "epoch", "batches", shown=False) as work:
        work.update()
    assert capsys.readouterr().err == ""


def test_durations_are_said_as_people_say_them():
    assert [duration(seconds) for seconds in (5, 90, 7200)] == ["5 s", "2 min", "2.0 h"]
