import re
import sys
import threading

from raycsr import progress
from raycsr.progress import Progress, duration


def test_a_line_says_how_much_is_done_how_fast_and_how_long_it_will_take(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(200, "sample", "images", lambda: "1,000 samples/s, 2 actors alive") as work:
        assert work.line() == "sample: 0 of 200 images (0 %), 1,000 samples/s, 2 actors alive"
        now[0] += 60
        work.update(50)
        line = work.line()
    assert line == "sample: 50 of 200 images (25 %), 1,000 samples/s, 2 actors alive, 3 min left"


def test_the_time_left_is_by_the_speed_of_the_last_minutes(monkeypatch):
    """A pool that waited for its nodes does not stay slow."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(100, "sample", "images") as work:
        for _ in range(30):
            now[0] += 60
            work.line()
        now[0] += 60
        work.update(50)
        assert work.line().endswith("10 min left")  # 50 images in the ten minutes that are remembered


def test_a_log_gets_lines_also_while_nothing_is_done(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.001)
    asked = threading.Event()
    with Progress(5, "decode", "images", lambda: asked.set() or "so far"):
        assert asked.wait(30)
    assert "decode: 0 of 5 images (0 %), so far\n" in capsys.readouterr().err


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(2, "sample", "images") as work:
        work.update(2)
    assert re.search(r"sample:\s+0%.* images/s", capsys.readouterr().err)


def test_work_that_is_not_shown_is_silent(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with Progress(1, "epoch", "batches", shown=False) as work:
        work.update()
    assert capsys.readouterr().err == ""


def test_durations_are_said_as_people_say_them():
    assert [duration(seconds) for seconds in (5, 90, 7200)] == ["5 s", "2 min", "2.0 h"]
