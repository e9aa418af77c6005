"""The lattice noise: whole numbers of grey levels, drawn by an inverse CDF from counted bits, equal on every device.

An image is x in {0..255}^d. Its noise is N = rint(255 sigma Z) with Z standard normal, and the base classifier sees
x + N. That is an exact sum of integers, and x + rint(255 sigma Z) = rint(x + 255 sigma Z) since x is one: the network
is smoothed by true Gaussian noise behind a rounding, so every theorem about such a classifier holds for every image of
whole grey levels as it stands (Voracek & Hein, ICLR 2023). Noise that is drawn and added in floating point has no such
theorem: the low bits of a sum tell what was added to what.

Bits are those of Philox4x64-10 (Salmon et al., SC 2011) under a key of 128 bits: stream s, block b has the counter
(b + 1, s, 0, 0) and four words of 64 bits. Element e of a chunk, over (sample, H, W, C), takes its first 16 bits from
stream 0 (block e div 16, the lane e mod 16, lowest bits first), and 64 more from stream 1 (block e div 4, word e mod 4)
where the first do not tell its noise. This module needs numpy alone; `lattice_kernel` draws the same on a GPU.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256

import numpy as np
from mpmath import MPContext
from numpy.typing import NDArray

BUCKETS = 2**16
"""What the first 16 bits of an element choose from."""
RESOLUTION = 80
"""Bits of an element: probabilities of the noise are multiples of 2^-80."""
STRADDLES = np.float32(np.inf)
"""In the table, for buckets in which there is more than one value: further bits tell which."""

_WORD = RESOLUTION - 16  # bits that tell within a bucket
_LANES = 16  # elements that a block of stream 0 has bits for
_PRECISION = 192  # bits of the normal distribution function, before it is rounded to RESOLUTION of them


@dataclass(frozen=True, eq=False)
class LatticeTable:
    """The inverse CDF of rint(255 sigma Z), in units of 2^-80.

    Attributes:
        sigma: Standard deviation of the noise, in [0, 1] pixel units.
        lowest: The lowest value; the noise is `lowest` plus the number of edges that are not above the 80 bits.
        values: The noise of each bucket of the first 16 bits, or STRADDLES; float32 (65536,).
        starts: The number of edges below each bucket; int32 (65537,).
        fractions: The lower 64 bits of each edge, ascending within a bucket; uint64 (edges,).
    """

    sigma: float
    lowest: int
    values: NDArray[np.float32]
    starts: NDArray[np.int32]
    fractions: NDArray[np.uint64]

    @cached_property
    def digest(self) -> str:
        """Names the table; a run's votes are drawn by one table, wherever that is."""
        arrays = (self.values.astype("<f4"), self.starts.astype("<i4"), self.fractions.astype("<u8"))
        return sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]

    @property
    def total_variation(self) -> float:
        """How far the noise of one element is from rint(255 sigma Z) at most, in total variation.

        Each edge is rounded by 2^-81 at most, and what is cut off has that at either end; a third of them is more than
        the error of the distribution function itself. A sample of d elements is d times as far at most.
        """
        return (len(self.fractions) + 3) * 2.0 ** -(RESOLUTION + 1)

    def between(self, buckets: NDArray[np.integer], words: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The noise of elements whose bucket has more than one value.

        Args:
            buckets: The first 16 bits, (N,).
            words: The 64 further bits, (N,).

        Returns:
            The noise, (N,): by a binary search among the edges of the bucket.
        """
        low, high = self.starts[buckets], self.starts[buckets.astype(np.int32) + 1]
        open_ = np.flatnonzero(low < high)
        while len(open_):
            middle = (low[open_] + high[open_]) // 2
            reached = self.fractions[middle] <= words[open_]
            low[open_] = np.where(reached, middle + 1, low[open_])
            high[open_] = np.where(reached, high[open_], middle)
            open_ = open_[low[open_] < high[open_]]
        return self.lowest + low

    def fill(self, out: NDArray[np.float32], key: int, start: int) -> None:
        """Fills `out` with the noise of a run of elements of one chunk.

        Args:
            out: Whole numbers of grey levels; float32 (elements,), contiguous.
            key: Key of the chunk, 128 bits.
            start: The first element.
        """
        skipped = start % _LANES
        lanes = _words(key, 0, start // _LANES, -(-(skipped + len(out)) // 4)).view("<u2")[skipped:][: len(out)]
        np.take(self.values, lanes, out=out, mode="clip")
        straddling = np.flatnonzero(out == STRADDLES)
        if len(straddling):
            skipped = start % 4
            more = _words(key, 1, start // 4, skipped + straddling[-1] + 1)[skipped:]
            out[straddling] = self.between(lanes[straddling], more[straddling])


@lru_cache(16)
def lattice_table(sigma: float) -> LatticeTable:
    """The table of a noise level; it takes about a tenth of a second for each unit of sigma, once.

    Args:
        sigma: Standard deviation of the noise, in [0, 1] pixel units.
    """
    context = MPContext()
    context.prec = _PRECISION
    step = 1 / (255 * context.mpf(sigma) * context.sqrt(2))
    below: list[int] = []  # Phi(-(k - 1/2) / (255 sigma)) for k = 1, 2, ..., in units of 2^-80
    while not below or below[-1]:
        z = (len(below) + context.mpf(0.5)) * step
        below.append(int(context.nint(context.ldexp(context.erfc(z), RESOLUTION - 1))))
    below.pop()  # that of probability 0
    edges = [*reversed(below), *(2**RESOLUTION - edge for edge in below)]
    buckets = np.array([edge >> _WORD for edge in edges], np.int64)
    starts = np.searchsorted(buckets, np.arange(BUCKETS + 1)).astype(np.int32)
    values = np.where(starts[1:] > starts[:-1], STRADDLES, starts[:-1] - len(below)).astype(np.float32)
    fractions = np.array([edge & (2**_WORD - 1) for edge in edges], np.uint64)
    return LatticeTable(sigma, -len(below), values, starts, fractions)


def _words(key: int, stream: int, block: int, count: int) -> NDArray[np.uint64]:
    """The first so many words of a stream from a block on."""
    generator = np.random.Philox(key=key, counter=block + (stream << 64))  # it counts one up before each block
    return generator.random_raw(count).astype("<u8", copy=False)
