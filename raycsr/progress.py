"""Progress of long work: a bar where somebody watches, a line a minute where nobody does."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

LINE_SECONDS = 60.0
_WINDOW = 10  # lines that the rate of the time left looks back
_ENOUGH_SECONDS = 10.0  # of work after the first finished block: before them a rate would be a guess


class Speed:
    """How fast work is done, from its first finished block on: what comes before that is start-up, or part of it.

    Attributes:
        done: Units, those of the first block among them.
    """

    def __init__(self) -> None:
        """Knows nothing yet."""
        self.done = 0
        self._marks: deque[tuple[float, int]] = deque(maxlen=_WINDOW)  # when, and what was done by then
        self._last = 0.0

    def add(self, units: int) -> None:
        """Notes that a block of so many units is done now."""
        self.done += units
        self._last = time.monotonic()
        if not self._marks:
            self._marks.append((self._last, self.done))

    def mark(self) -> None:
        """Looks back from now on to the tenth mark before at most; without marks to the first finished block."""
        if self._marks:
            self._marks.append((time.monotonic(), self.done))

    def per_second(self) -> float | None:
        """Units a second up to the last finished block; None while there is nothing to go by."""
        if not self._marks:
            return None
        then, before = self._marks[0]
        seconds, gained = self._last - then, self.done - before
        return gained / seconds if gained and seconds >= _ENOUGH_SECONDS else None


class Progress:
    """Counts units of work, as a context manager.

    A terminal gets tqdm's bar, which goes away when the work is done. A log gets a line a minute, whether work
    comes in or not: `sample: 1,200 of 50,000 images (2 %), 41,300 samples/s, 8 actors alive, 2.3 h left`.
    What time is left is said once there is a speed to go by (`Speed`).
    """

    def __init__(
        self, total: int, what: str, units: str, note: Callable[[], str] | None = None, *, shown: bool = True
    ) -> None:
        """Shows nothing yet.

        Args:
            total: Units of work.
            what: The work, in a word.
            units: Name of what is counted, in the plural.
            note: Words that belong into the line, asked for when it is written.
            shown: False keeps silent.
        """
        self._total, self._what, self._units = total, what, units
        self._note = note or (lambda: "")
        self._shown = shown
        self._speed = Speed()
        self._bar: tqdm | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_lines, daemon=True, name="progress")

    def __enter__(self) -> "Progress":
        """Starts the bar, or the minute."""
        if not self._shown:
            return self
        if sys.stderr.isatty():
            self._bar = self._new_bar()
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the bar away."""
        self._stop.set()
        if self._bar is not None:
            self._bar.close()

    def update(self, units: int = 1) -> None:
        """Notes that units are done."""
        first = not self._speed.done
        self._speed.add(units)
        if self._bar is None:
            return
        if first:  # in the place of one whose clock has counted the start-up
            self._bar.close()
            self._bar = self._new_bar()
        else:
            self._bar.update(units)
        self._bar.set_postfix_str(self._note(), refresh=first)

    def line(self) -> str:
        """What there is to say now."""
        done, speed = self._speed.done, self._speed.per_second()
        self._speed.mark()
        share = f"{done:,} of {self._total:,} {self._units} ({100 * done / max(self._total, 1):.0f} %)"
        left = "" if speed is None else f"{duration((self._total - done) / speed)} left"
        return f"{self._what}: {', '.join(part for part in (share, self._note(), left) if part)}"

    def _new_bar(self) -> tqdm:
        return tqdm(total=self._total, initial=self._speed.done, desc=self._what, unit=f" {self._units}", leave=False)

    def _write_lines(self) -> None:
        while not self._stop.wait(LINE_SECONDS):
            print(self.line(), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
