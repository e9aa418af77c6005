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
        self.number = costs.num_targets[labels]
        self.offsets = np.concatenate([[0], np.cumsum(self.number)])

    def __len__(self) -> int:
        """The number of targets of all images together."""
        return int(self.offsets[-1])

    def entries(self, votes: SparseVotes) -> tuple[IntArray, IntArray]:
        """The entries of these images' votes that are for targets, and where those stand in a flat array."""
        of, classes = votes.images, votes.classes
        entries = np.flatnonzero(self.costs.of(self.labels[of], classes) > 0)
        return entries, self.places(of[entries], classes[entries])

    def places(self, images: IntArray, classes: NDArray[np.integer]) -> IntArray:
        """Where targets of images stand in a flat array."""
        labels, kept = self.labels[images], self.costs.distinct
        row = kept.of_class[labels]
        # what a distinct row says of its own class is no target, and so none that stands before another
        own = (labels < classes) & kept.is_positive[row, labels]
        return self.offsets[images] + kept.place[row, classes] - own

    def of_classes(self, values: FloatArray) -> FloatArray:
        """A value for each class, (m,) -> one for each target of each image, flat."""
        if not len(self) or (values == values[0]).all():
            return np.broadcast_to(values[0], (len(self),))
        of_class = {y: values[self.costs.targets(y)] for y in np.unique(self.labels).tolist()}
        return np.concatenate([of_class[y] for y in self.labels.tolist()])

    def of_images(self, values: NDArray) -> NDArray:
        """A value for each image, (N,) -> one for each of its targets, flat."""
        return np.repeat(values, self.number)

    def count(self, which: NDArray[np.bool_]) -> IntArray:
        """How many of each image's targets are among those that a flat array says, (N,)."""
        if which.all():
            return self.number
        return np.diff(np.concatenate([[0], np.cumsum(which)])[self.offsets])
