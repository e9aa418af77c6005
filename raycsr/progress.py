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


class Progress:
    """Counts units of work, as a context manager.

    A terminal gets tqdm's bar, which goes away when the work is done. A log gets a line a minute, whether work
    comes in or not: `sample: 1,200 of 50,000 images (2 %), 41,300 samples/s, 8 actors alive, 2.3 h left`.
    """

    def __init__(
        self, total: int, what: str, units: str, note: Callable[[], str] | None = None, *, shown: bool = True
    ) -> None:
        """Shows nothing yet.

        Args:
            total: units of work.
            what: the work, in a word.
            units: what is counted, in the plural.
            note: words that belong into the line; asked when it is written.
            shown: False keeps silent.
        """
        self._total, self._what, self._units = total, what, units
        self._note = note or (lambda: "")
        self._shown = shown
        self._done = 0
        self._seen: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self._bar: tqdm | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_lines, daemon=True, name="progress")

    def __enter__(self) -> "Progress":
        """Starts the bar, or the minute."""
        self._seen.append((time.monotonic(), 0))
        if not self._shown:
            return self
        if sys.stderr.isatty():
            self._bar = tqdm(total=self._total, desc=self._what, unit=f" {self._units}", leave=False)
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
        self._done += units
        if self._bar is not None:
            self._bar.set_postfix_str(self._note(), refresh=False)
            self._bar.update(units)

    def line(self) -> str:
        """What there is to say now."""
        now, (then, before) = time.monotonic(), self._seen[0]
        self._seen.append((now, self._done))
        done = f"{self._done:,} of {self._total:,} {self._units} ({100 * self._done / max(self._total, 1):.0f} %)"
        gained = self._done - before
        left = f"{duration((self._total - self._done) * (now - then) / gained)} left" if gained else ""
        return f"{self._what}: {', '.join(part for part in (done, self._note(), left) if part)}"

    def _write_lines(self) -> None:
        while not self._stop.wait(LINE_SECONDS):
            print(self.line(), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
