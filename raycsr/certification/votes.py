"""Votes of many images, kept for the classes that got any."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raycsr.certification.bounds import MOST_SAMPLES, IntArray
from raycsr.errors import UserError


@dataclass(frozen=True)
class SparseVotes:
    """Votes of N images, kept for the classes that got any: image i has entries offsets[i] to offsets[i + 1].

    Attributes:
        offsets: Where each image's entries begin, ascending from 0; int64 (N + 1,).
        classes: Class of each entry, ascending within an image; int32.
        counts: Number of votes of each entry; int64.

    Raises:
        UserError: arrays that do not fit together, classes out of order, negative counts.

    Example:
        >>> votes = SparseVotes.from_dense([[90, 0, 10], [0, 100, 0]])
        >>> votes.classes, votes.counts
        (array([0, 2, 1], dtype=int32), array([ 90,  10, 100]))
        >>> votes.dense(3)[0]
        array([90,  0, 10])
    """

    offsets: IntArray
    classes: NDArray[np.int32]
    counts: IntArray

    def __post_init__(self) -> None:
        """Check what everything below relies on."""
        ends = (int(self.offsets[0]), int(self.offsets[-1]))
        if ends != (0, len(self.classes)) or ends != (0, len(self.counts)):
            raise UserError(
                f"votes with offsets from {ends[0]} to {ends[1]} hold {len(self.classes)} classes and "
                f"{len(self.counts)} counts; offsets must run from 0 to the length of both"
            )
        if len(self.counts) and self.counts.min() < 0:
            raise UserError(f"a class has {self.counts.min()} votes; votes cannot be negative")
        _refuse_too_many(self.counts)  # so that no sum of an image's votes wraps
        descends = self.classes[1:] <= self.classes[:-1]
        starts = self.offsets[(self.offsets > 0) & (self.offsets < len(self.classes))]
        descends[starts - 1] = False  # the first class of the next image may be any
        if descends.any():
            raise UserError(f"votes list class {self.classes[1:][descends][0]} out of order; sort by class")

    @classmethod
    def from_dense(cls, counts: ArrayLike) -> "SparseVotes":
        """Keep the non-zero entries of an integer array (N, m)."""
        array = np.asarray(counts)
        if array.dtype.kind not in "iu" or array.ndim != 2:
            raise UserError(f"votes of type {array.dtype} and shape {array.shape}; give integers (N, m)")
        _refuse_too_many(array)
        voted = array != 0
        offsets = np.concatenate([[0], np.cumsum(np.count_nonzero(voted, axis=1))])
        classes = np.broadcast_to(np.arange(array.shape[1], dtype=np.int32), array.shape)[voted]
        return cls(offsets, classes, array[voted].astype(np.int64, copy=False))

    def __len__(self) -> int:
        """The number of images."""
        return len(self.offsets) - 1

    def __getitem__(self, images: slice) -> "SparseVotes":
        """The votes of a run of images, such as votes[100:200]."""
        start, stop, _ = images.indices(len(self))
        entries = slice(self.offsets[start], self.offsets[stop])
        offsets = self.offsets[start : stop + 1] - self.offsets[start]
        return SparseVotes(offsets, self.classes[entries], self.counts[entries])

    @classmethod
    def joined(cls, parts: Sequence["SparseVotes"]) -> "SparseVotes":
        """The votes of some images, then those of the next, and so on."""
        before = np.cumsum([0, *(len(part.classes) for part in parts)])
        offsets = [part.offsets[1:] + start for part, start in zip(parts, before[:-1], strict=True)]
        return cls(
            np.concatenate([[0], *offsets]).astype(np.int64),
            np.concatenate([np.empty(0, np.int32), *(part.classes for part in parts)]),
            np.concatenate([np.empty(0, np.int64), *(part.counts for part in parts)]),
        )

    def take(self, images: NDArray[np.integer]) -> "SparseVotes":
        """The votes of some images, in their order; an image may be taken more than once.

        Example:
            >>> SparseVotes.from_dense([[90, 0, 10], [0, 100, 0]]).take(np.array([1])).dense(3)
            array([[  0, 100,   0]])
        """
        lengths = np.diff(self.offsets)[images]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        entries = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][images] - offsets[:-1], lengths)
        return SparseVotes(offsets, self.classes[entries], self.counts[entries])

    def dense(self, num_classes: int) -> IntArray:
        """The votes as int64 (N, num_classes)."""
        self.refuse_other_classes(num_classes)
        dense = np.zeros((len(self), num_classes), dtype=np.int64)
        dense[self.images, self.classes] = self.counts
        return dense

    def refuse_other_classes(self, num_classes: int) -> None:
        """Refuses votes for a class that is none."""
        if len(self.classes) and self.classes.max() >= num_classes:
            raise UserError(f"votes for class {self.classes.max()}, but there are {num_classes} classes")
        if len(self.classes) and self.classes.min() < 0:
            raise UserError(f"votes for class {self.classes.min()}; classes are 0 to {num_classes - 1}")

    @property
    def images(self) -> IntArray:
        """The image of each entry, ascending."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def totals(self) -> IntArray:
        """The votes of each image in total, (N,)."""
        return np.diff(np.concatenate([[0], np.cumsum(self.counts)])[self.offsets])

    def top(self) -> IntArray:
        """The class of each image with the most votes, of several the lowest; 0 where there are no votes, (N,)."""
        images, top = self.images, np.zeros(len(self), np.int64)
        hits = np.flatnonzero((self.counts == self.largest()[images]) & (self.counts > 0))
        voted, first = np.unique(images[hits], return_index=True)
        top[voted] = self.classes[hits[first]]
        return top

    def of(self, classes: IntArray) -> IntArray:
        """The votes of one class of each image, (N,)."""
        return self.kept(self.classes == classes[self.images]).totals()

    def largest(self) -> IntArray:
        """The most votes that a class of each image has, (N,)."""
        largest = np.zeros(len(self), np.int64)
        some = self.offsets[:-1] < self.offsets[1:]
        if some.any():
            largest[some] = np.maximum.reduceat(self.counts, self.offsets[:-1][some])
        return largest

    def kept(self, entries: NDArray[np.bool_]) -> "SparseVotes":
        """The same votes, but none where an entry is not to be kept; entries as they are."""
        return replace(self, counts=np.where(entries, self.counts, 0))


def _refuse_too_many(counts: NDArray[np.integer]) -> None:
    if counts.size and counts.max() > MOST_SAMPLES:
        raise UserError(f"a class has {counts.max():,} votes; an image has {MOST_SAMPLES:,} samples at most")
