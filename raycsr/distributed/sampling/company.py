"""Who may work in a process at the same time."""

import threading
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class Company:
    """Lets in what keeps company: work of one key at a time, as much of it as comes, or one piece of work alone.

    First come, first in: what keeps no company with those inside waits for them to leave, and those behind wait for it.
    """

    def __init__(self) -> None:
        """Nobody is inside."""
        self._changed = threading.Condition()  # guards what follows
        self._coming: deque[object] = deque()
        self._inside: list[Hashable] = []  # the key of each

    @contextmanager
    def of(self, key: Hashable) -> Iterator[None]:
        """Waits until work of a key may begin, and lets it; None keeps no company."""
        me = object()
        with self._changed:
            self._coming.append(me)
            try:
                self._changed.wait_for(lambda: self._coming[0] is me and self._may_enter(key))
                self._inside.append(key)
            finally:
                self._coming.remove(me)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._inside.remove(key)
                self._changed.notify_all()

    def _may_enter(self, key: Hashable) -> bool:
        return not self._inside or (key is not None and self._inside[0] == key)
