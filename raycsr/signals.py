"""SIGTERM and Ctrl-C: what is under way unwinds, gives back what it holds, and the process leaves in order."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_SECONDS = 0.1
_terminated = threading.Event()  # Ray raises a SystemExit of its own for one that reaches its core: the code is lost

_report = sys.unraisablehook


def status(number: int) -> int:
    """The exit status of a command that a signal stopped, as shells have it."""
    return 128 + number


def was_terminated() -> bool:
    """Whether a SystemExit is SIGTERM's."""
    return _terminated.is_set()


def handle_stops() -> None:
    """Lets SIGTERM unwind as Ctrl-C does.

    Python drops what is raised where nobody can catch it, in a `__del__` say: the signal is then given again.
    """
    if threading.current_thread() is threading.main_thread():  # where alone Python handles signals
        _terminated.clear()
        signal.signal(signal.SIGTERM, _terminate)
        sys.unraisablehook = _give_again


def take_sigterm_back() -> None:
    """Lets Python handle SIGTERM again where a library's C++ does; a handler that the caller has set is kept."""
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, None):
            handle_stops()
        else:
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _terminate(number: int, frame: FrameType | None) -> None:
    _terminated.set()
    sys.exit(status(number))


def _give_again(dropped: "sys.UnraisableHookArgs") -> None:
    if dropped.exc_type is KeyboardInterrupt:
        _send_soon(signal.SIGINT)
    elif dropped.exc_type is SystemExit and was_terminated():
        _send_soon(signal.SIGTERM)
    else:
        _report(dropped)


def _send_soon(number: int) -> None:
    """To the main thread itself: a signal that another thread gets does not end what the main thread waits for."""
    threading.Timer(_AGAIN_SECONDS, signal.pthread_kill, [threading.main_thread().ident, number]).start()


def ignore_stops() -> None:
    """From here on nothing is left to stop: another signal would only cut the way out short."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def stops_held_back() -> Iterator[list[int]]:
    """Lets a block finish; signals that would have stopped it act at its end.

    Yields:
        The signals that have arrived.
    """
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in STOPS}
    held_back = True

    def hold_back(number: int, frame: FrameType | None) -> None:
        if held_back:
            arrived.append(number)
        else:  # a stop raised while the handlers were put back, and left this one
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    try:
        for number in STOPS:
            signal.signal(number, hold_back)
        yield arrived
    finally:
        held_back = False
        for number, handler in before.items():
            signal.signal(number, handler)
        for stop in arrived:
            signal.raise_signal(stop)
