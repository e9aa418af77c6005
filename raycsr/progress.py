"""Progress of long work: a bar where somebody watches; a line soon, and then one a minute, where nobody does."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

LINE_SECONDS = 60.0
FIRST_SECONDS = 10.0  # until the first line of a log
_BAR_SECONDS = 5.0  # between two looks at a bar at least
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit} [{elapsed}{postfix}]"  # what is left says `Speed`
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

    A terminal gets tqdm's bar, which goes away when the work is done, and is drawn anew every few seconds, whether work
    comes in or not. A log gets a line after ten seconds, and then one a minute:
    `sample: 1,200 of 50,000 images (2 %), 41,300 samples/s, 8 actors alive, 2.3 h left`.
    What time is left is said once there is a speed to go by (`Speed`).
    """

    def __init__(
        self,
        total: int,
        what: str,
        units: str,
        note: Callable[[], str] | None = None,
        *,
        shown: bool = True,
        begun: int = 0,
    ) -> None:
        """Shows nothing yet.

        Args:
            total: Units of work.
            what: The work, in a word.
            units: Name of what is counted, in the plural.
            note: Words that belong into the line, asked for when it is written.
            shown: False keeps silent.
            begun: Units that were done before, of which no speed is known.
        """
        self.speed = Speed()
        self._total, self._what, self._units, self._begun = total, what, units, begun
        self._note = note or (lambda: "")
        self._shown, self._watched, self._paused = shown, False, False
        self._bar: tqdm | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True, name="progress")

    def __enter__(self) -> "Progress":
        """Starts the bar, or the minute."""
        if self._shown:
            self._watched = sys.stderr.isatty()
            self._bar = self._new_bar() if self._watched else None
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the bar away."""
        self._stop.set()
        self.pause()

    def update(self, units: int = 1) -> None:
        """Notes that units are done."""
        first = not self.speed.done
        self.speed.add(units)
        if not self._watched:
            return
        if first or self._bar is None:  # in the place of one whose clock has counted the start-up
            self.pause()
            self._paused, self._bar = False, self._new_bar()
        else:
            self._bar.update(units)
        self._bar.set_postfix_str(self._words(), refresh=first)

    def pause(self) -> None:
        """Takes the bar away, or keeps from writing lines, until `go_on`: others print meanwhile."""
        self._paused = True
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def go_on(self, what: str) -> None:
        """Goes on with a part of the work, of which the name is said from now on."""
        self._what, self._paused = what, False

    def line(self) -> str:
        """What there is to say now."""
        words = self._words()
        self.speed.mark()
        done = self._begun + self.speed.done
        share = f"{done:,} of {self._total:,} {self._units} ({100 * done / max(self._total, 1):.0f} %)"
        return f"{self._what}: {', '.join(part for part in (share, words) if part)}"

    def _words(self) -> str:
        """The note, and what time is left of all that there is to do."""
        speed, left = self.speed.per_second(), self._total - self._begun - self.speed.done
        return ", ".join(filter(None, [self._note(), "" if speed is None else f"{duration(left / speed)} left"]))

    def _new_bar(self) -> tqdm:
        done = self._begun + self.speed.done
        unit = f" {self._units}"
        return tqdm(total=self._total, initial=done, desc=self._what, unit=unit, leave=False, bar_format=_BAR)

    def _tell(self) -> None:
        """Draws the bar every few seconds, or writes a line soon and then one a minute."""
        seconds, since = _BAR_SECONDS if self._watched else FIRST_SECONDS, 0.0
        while not self._stop.wait(seconds):
            since += seconds
            if self._watched:
                if since >= LINE_SECONDS:
                    since = 0.0
                    self.speed.mark()
                if (bar := self._bar) is not None:
                    bar.refresh()
            else:
                seconds = LINE_SECONDS
                if not self._paused:
                    print(self.line(), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def size(num_bytes: float) -> str:
    """Bytes as a person says them."""
    return f"{num_bytes / 2**30:,.3g} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.3g} MiB"
