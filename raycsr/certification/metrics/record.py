"""What a metric is, and what it looks at: certified images, all or those of a population."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raycsr.certification.bounds import FloatArray, IntArray
from raycsr.certification.intervals import Limits, share_intervals
from raycsr.costs import CostMatrix

# A value an image, at each radius or at any; (N, R) or (N, 1)
Values = NDArray[np.bool_] | FloatArray


@dataclass(frozen=True)
class Judged:
    """N certified images, at R radii.

    Attributes:
        certificates: Rows of `certify_counts`, of all images, of which these are some.
        rows: Which of the rows these images are.
        costs: The cost matrix that they were made with.
        radii: The radii at which something is certified or not; (R,)
    """

    certificates: pd.DataFrame
    rows: IntArray
    costs: CostMatrix
    radii: FloatArray

    def only(self, those: NDArray[np.bool_]) -> "Judged":
        """Some of these images, where `those`, (N,), is true."""
        return self if those.all() else Judged(self.certificates, self.rows[those], self.costs, self.radii)

    def numbers(self, column: str) -> FloatArray:
        """A column of the certificates, NaN where it has no value, or where there is none of that name; (N,)"""
        if column not in self.certificates:
            return np.full(len(self.rows), np.nan)
        return self.certificates[column].to_numpy(np.float64, na_value=np.nan)[self.rows]

    def certified(self, column: str) -> NDArray[np.bool_]:
        """Whether the radius in a column is above 0 and no smaller than each of the radii; (N, R)"""
        return certified(self.numbers(column), self.radii)

    @cached_property
    def argmax_correct(self) -> NDArray[np.bool_]:
        """Whether the most likely answer is right, be it proven or not; (N,)"""
        return self.numbers("prediction") == self.labels

    @cached_property
    def answered(self) -> NDArray[np.bool_]:
        """Whether it is proven that the most likely class is answered at the image itself, be it right or not; (N,)"""
        abstains = self.certificates["abstain"].to_numpy(bool)[self.rows]
        return ~abstains & ~np.isnan(self.numbers("prediction"))

    @cached_property
    def labels(self) -> IntArray:
        """The true classes; (N,)"""
        return self.certificates["label"].to_numpy(np.int64)[self.rows]

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the answer is right, without abstaining; (N,)"""
        return self.argmax_correct & self.answered

    @cached_property
    def costs_left(self) -> tuple[FloatArray, FloatArray]:
        """Of sensitive images: sum and maximum of C[y, j] over the targets j not certified; (N, R) each.

        The sum is about all targets jointly, the maximum about one of them. As r grows a target is lost once and for
        good: it is entered where that happens, and the entries are then accumulated over r. The work is two look-ups a
        target, however many radii there are. The images of a class, which have the same targets, are taken together.
        """
        columns = "pairwise_radius", alone_column(self.certificates)
        radii_of = [self.certificates[column].to_numpy()[self.rows] for column in columns]
        order = np.argsort(self.radii)
        steps = len(self.radii) + 1  # at the last one, beyond all radii, enter the targets never lost
        sums, maxima = np.empty((len(self.rows), len(order))), np.empty((len(self.rows), len(order)))
        for y in np.unique(self.labels):
            images = np.flatnonzero(self.labels == y)
            cost = self.costs.rows([y])[0, self.costs.targets(y)]
            first = np.arange(len(images))[:, None] * steps
            jointly, alone = ((first + self._lost_at(radius_of[images], len(cost))).ravel() for radius_of in radii_of)
            entered = np.tile(cost, len(images))
            entered_sum = np.bincount(jointly, entered, minlength=len(images) * steps).reshape(-1, steps)
            entered_max = np.zeros(len(images) * steps)
            np.maximum.at(entered_max, alone, entered)
            sums[images[:, None], order] = np.cumsum(entered_sum, axis=1)[:, :-1]
            maxima[images[:, None], order] = np.maximum.accumulate(entered_max.reshape(-1, steps), axis=1)[:, :-1]
        return sums, maxima

    def _lost_at(self, radius_of: NDArray[np.object_], num_targets: int) -> IntArray:
        """The first of the radii, ascending, that each target's own is below; (images, targets)"""
        radius = np.concatenate(radius_of).reshape(len(radius_of), num_targets)
        return np.where(radius > 0, np.searchsorted(np.sort(self.radii), radius, side="right"), 0)


def alone_column(certificates: pd.DataFrame) -> str:
    """The column of what is certified of each target by itself; those of others may have it of all jointly alone."""
    return "target_radius" if "target_radius" in certificates else "pairwise_radius"


def certified(radii: FloatArray, thresholds: FloatArray) -> NDArray[np.bool_]:
    """Whether each radius is certified at each of R thresholds, in a last axis more: (..., R)."""
    return (radii > 0)[..., None] & (radii[..., None] >= thresholds)


@dataclass(frozen=True)
class Population:
    """Images that a metric is about: its denominator.

    Attributes:
        of: All images -> which belong to it; (N,)
        count: The summary's column that says how many they are, such as `num_target`; None where it has none.
        title: What tables call that column.
        of_seed_classes: Whether none but images of seed classes belong to it.
    """

    of: Callable[[Judged], NDArray[np.bool_]]
    count: str | None = None
    title: str = ""
    of_seed_classes: bool = False


@dataclass(frozen=True)
class Metric:
    """A number that sums certificates up at a radius: the mean of a value an image, over a population.

    Attributes:
        title: What tables call it.
        about: What it is, in a line of `raycsr ls metrics`.
        population: The images that it is about.
        more_is_better: Whether more of it is better.
        values: The images of its population -> their values; (N, R) or (N, 1)
        intervals: The number of each image's group, (N,), and arrays of such values -> the 95 % interval of the mean
            of each: `share_intervals` where values are true or false, else `mean_intervals`.
        guaranteed: Whether it is a share of certified images, of which some may be false: the summary then says also
            which share is true with near certainty (`NAME_guaranteed`).
        flattered: Whether a class that collapsed makes it look better than it is; tables mark it there.
        shows_interval: Whether tables show its interval.
        tables: The tables that show it, beside the summary, which shows all: `front`, `ranking`, `leaderboard`,
            `comparison`.
    """

    title: str
    about: str
    population: Population
    more_is_better: bool
    values: Callable[[Judged], Values]
    intervals: Callable[..., list[Limits]]
    guaranteed: bool = False
    flattered: bool = True
    shows_interval: bool = False
    tables: tuple[str, ...] = ("front", "ranking", "leaderboard", "comparison")

    @property
    def is_share(self) -> bool:
        """Whether it is a share of images, each of which has it or not."""
        return self.intervals is share_intervals


ANSWERED = Population(lambda images: images.answered, "num_answered", "answered images")
IMAGES = Population(lambda all_of_them: np.ones(len(all_of_them.rows), bool), "num_images", "images")
SENSITIVE = Population(
    lambda images: ~np.isnan(images.numbers("cost_sensitive_radius")),
    "num_sensitive",
    "sensitive images",
    of_seed_classes=True,
)
SEEDS = Population(lambda images: images.costs.sensitive[images.labels], of_seed_classes=True)
TARGETS = Population(lambda images: images.costs.target_classes[images.labels], "num_target", "target images")
