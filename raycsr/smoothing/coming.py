"""What is still to come of a source that may have nothing now."""

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Coming(Generic[T]):
    """The items of a source, each with its position; None among them says that there is none now.

    Attributes:
        again: Items that are to begin again, with their positions: they come before all others.
        is_over: Whether the source has said that no other will come.
    """

    def __init__(self, source: Iterable[T | None]) -> None:
        """Takes nothing of it yet."""
        self.again: deque[tuple[int, T]] = deque()
        self.is_over = False
        self._source, self._position = iter(source), 0

    def next(self) -> tuple[int, T] | None:
        """The position of the next item and the item; None where there is none now."""
        if self.again:
            return self.again.popleft()
        try:
            item = next(self._source)
        except StopIteration:
            self.is_over = True
            return None
        if item is None:
            return None
        self._position += 1
        return self._position - 1, item
