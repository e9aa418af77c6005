"""One engine for several blocks of images at a time, so that the images of the next fill the tail of the last.

Each block has a thread of its own, and the engine has none: one of the threads that wait for votes drives it, for all
blocks, until its own is done, and then another does. What a thread does with its votes, such as to commit them, it does
while others drive. A block that is alone is counted in its own thread, as if there were no feeder.
"""

import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from raycsr.smoothing.engine import Counted, Request, Sampler


class _Block:
    """A block that is being counted.

    Attributes:
        requests: Its images, of which some are still to be given to the engine.
        number: Number of all of them.
        given: Number of those that the engine has been given.
        done: Its images that are counted, each with the seconds that it took, in the order in which they were.
        error: What broke the engine while the block was under way.
    """

    def __init__(self, requests: Iterable[Request], number: int) -> None:
        self.requests, self.number, self.given = iter(requests), number, 0
        self.done: deque[tuple[Counted, float]] = deque()
        self.error: BaseException | None = None


class Feeder:
    """Feeds one engine from blocks of several threads.

    Votes of an image do not depend on its company, so they are those that the block would have had alone.
    """

    def __init__(self, sampler: Sampler) -> None:
        """Takes the engine, which nobody else may use from now on."""
        self._sampler = sampler
        self._changed = threading.Condition()  # guards all that follows
        self._blocks: list[_Block] = []  # as they came
        self._engine: Iterator[Counted] = iter(())
        self._given: dict[int, tuple[_Block, int]] = {}  # position in the engine -> whose image it is, and which
        self._number = 0  # of images that the engine has been given
        self._is_driven = False

    @contextmanager
    def counting(
        self, requests: Iterable[Request], number: int, batch_size: int
    ) -> Iterator[Iterator[tuple[Counted, float]]]:
        """Counts the votes of a block's images, beside those of other blocks.

        Args:
            requests: Images; they are taken as the engine has room for them, in the thread that drives it then.
            number: Number of the images.
            batch_size: Number of rows of a forward pass, where no other block is under way; all in one company must ask
                for the same, and have what they have come to.

        Yields:
            The votes of each image as it is done, with its position in the block, and the seconds since the one before
            it, of whatever block. What breaks the engine is raised for every block that is under way; the next one
            begins with an engine as it was.
        """
        block = _Block(requests, number)
        with self._changed:
            if not self._blocks:
                if batch_size != self._sampler.batch_size:  # it gives up the buffers of the other shape
                    self._sampler.set_batch_size(batch_size)
                self._engine, self._given, self._number = self._sampler.sample(self._coming()), {}, 0
            self._blocks.append(block)
        counted = self._counted(block)
        try:
            yield counted
        finally:
            counted.close()
            with self._changed:
                self._blocks = [one for one in self._blocks if one is not block]
                if not self._blocks:
                    self._engine = iter(())  # what it had left is nobody's; and it holds this feeder, and the network

    def _counted(self, block: _Block) -> Generator[tuple[Counted, float], None, None]:
        """A block's votes, by this thread's driving or by another's."""
        drives = False
        try:
            for _ in range(block.number):
                with self._changed:
                    if not drives:
                        self._changed.wait_for(lambda: block.done or block.error or not self._is_driven)
                    if not block.done:
                        if block.error is not None:
                            raise block.error
                        drives = self._is_driven = True
                while not block.done:
                    self._drive()
                yield block.done.popleft()
        finally:
            if drives:
                with self._changed:
                    self._is_driven = False
                    self._changed.notify_all()

    def _drive(self) -> None:
        """Has the engine count one image, of whatever block."""
        start = time.perf_counter()
        try:
            counted = next(self._engine)
        except BaseException as error:
            with self._changed:
                for block in self._blocks:
                    block.error = error
                self._blocks.clear()  # the next one finds an engine that begins anew
                self._changed.notify_all()
            raise
        seconds = time.perf_counter() - start
        with self._changed:
            block, position = self._given.pop(counted.position)
            block.done.append((replace(counted, position=position), seconds))
            self._changed.notify_all()

    def _coming(self) -> Iterator[Request | None]:
        """Images of the blocks, of the first that has any; None while none has."""
        while True:
            with self._changed:
                block = next((one for one in self._blocks if one.given < one.number), None)
                if block is not None:
                    self._given[self._number] = block, block.given
                    self._number += 1
                    block.given += 1
            yield None if block is None else next(block.requests)
