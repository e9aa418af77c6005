"""The targets of images in flat arrays: those of the first image, ascending, then those of the next."""

import numpy as np
from numpy.typing import NDArray

from raycsr.certification.bounds import FloatArray, IntArray
from raycsr.certification.votes import SparseVotes
from raycsr.costs import CostMatrix


class Targets:
    """The classes that it is costly to answer for each of N images, and where each stands in a flat array.

    Attributes:
        labels: The true classes, (N,).
        costs: The cost matrix.
        number: How many targets each image has, (N,).
        offsets: Where those of each image begin and end among all, (N + 1,).
    """

    def __init__(self, labels: IntArray, costs: CostMatrix) -> None:
        """Takes the images' true classes, and what is costly."""
        self.labels, self.costs = labels, costs
        self._is_costly = costs.values > 0
        self.number = np.count_nonzero(self._is_costly, axis=1)[labels]
        self.offsets = np.concatenate([[0], np.cumsum(self.number)])
        self._place = np.cumsum(self._is_costly, axis=1, dtype=np.int32) - 1  # of a target among those of a class

    def __len__(self) -> int:
        """The number of targets of all images together."""
        return int(self.offsets[-1])

    def entries(self, votes: SparseVotes) -> tuple[IntArray, IntArray]:
        """The entries of these images' votes that are for targets, and where those stand in a flat array."""
        of, classes = votes.images, votes.classes
        entries = np.flatnonzero(self._is_costly[self.labels[of], classes])
        return entries, self.places(of[entries], classes[entries])

    def places(self, images: IntArray, classes: NDArray[np.integer]) -> IntArray:
        """Where targets of images stand in a flat array."""
        return self.offsets[images] + self._place[self.labels[images], classes]

    def of_classes(self, values: FloatArray) -> FloatArray:
        """A value for each class, (m,) -> one for each target of each image, flat."""
        if not len(self) or (values == values[0]).all():
            return np.broadcast_to(values[0], (len(self),))
        of_class = [values[costly] for costly in self._is_costly]
        return np.concatenate([of_class[y] for y in self.labels])

    def of_images(self, values: NDArray) -> NDArray:
        """A value for each image, (N,) -> one for each of its targets, flat."""
        return np.repeat(values, self.number)

    def count(self, which: NDArray[np.bool_]) -> IntArray:
        """How many of each image's targets are among those that a flat array says, (N,)."""
        if which.all():
            return self.number
        return np.diff(np.concatenate([[0], np.cumsum(which)])[self.offsets])
