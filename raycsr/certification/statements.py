"""What sequential sampling decides about an image, and when it is decided.

Stopping is always sound: certificates from the votes at any stop hold, since their evidence holds at every n at once
(`eprocess`). What this module decides is only whether further votes could still change a statement.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from raycsr.certification.bounds import FloatArray, IntArray, binomial_lower, binomial_upper, evidence_of_share
from raycsr.certification.eprocess import Stakes, reaches
from raycsr.certification.methods import NEWEST
from raycsr.costs import CostMatrix
from raycsr.errors import UserError

# Level of the optimistic vote shares by which sampling is stopped for futility. It costs statements, never soundness:
# about this share of the images near a radius that more samples would have certified.
FUTILITY_LEVEL = 0.01

# What certifies the votes when sampling has stopped, and by the very same evidence stops it.
METHOD = NEWEST["sequential"]

_GROWTH = 1.1  # of n between looks: an eleventh of an image's samples come after they would have been enough, at most
_MARGIN = 1 + 1e-9  # of a standard radius, so that its certificate, found by bisection, reaches what is decided
_TABLES = 1024  # kept: a few levels at the looks of a design
_OPTIMISTIC = {"lower": binomial_lower, "upper": binomial_upper}


class Statements:
    """The statements about each image: is its radius at least r, for each radius r.

    Of an image whose answer is right it is the standard radius, and under each cost matrix of which its class is a seed
    class the cost-sensitive one. A statement is decided once the image's certificate makes it, or once none will: its
    answer is wrong (standard) or costly (cost-sensitive), or the radius that all samples would certify is below r, were
    those that are left to fall by optimistic vote shares (futility).

    Example:
        >>> statements = Statements([CostMatrix.seedwise(3, [0])], [0.25], sigma=0.5, alpha=0.001, n=10_048)
        >>> statements.decided([[64, 0, 0]], [[64, 0, 0]], label=0)  # clear after 64 samples
        True
        >>> statements.decided([[40, 24, 0]], [[45, 19, 0]], label=0)  # close: more samples may decide it
        False
    """

    def __init__(
        self,
        costs: Iterable[CostMatrix],
        radii: Iterable[float],
        *,
        sigma: float,
        alpha: float,
        n: int,
        futility_level: float = FUTILITY_LEVEL,
    ) -> None:
        """Takes the statements.

        Args:
            costs: The cost matrices, of one number of classes.
            radii: L2, in [0, 1] pixel units.
            sigma: Noise level, in the same units.
            alpha: Failure probability of one image's certificate.
            n: Number of samples that an image may have.
            futility_level: Level of the optimistic vote shares by which sampling is stopped for futility.

        Raises:
            UserError: no radius, or one that is not positive.
        """
        self.costs, self.radii = tuple(costs), tuple(sorted(set(radii)))
        self.sigma, self.alpha, self.n, self._futility_level = sigma, alpha, n, futility_level
        if not self.radii or not all(np.isfinite(r) and r > 0 for r in self.radii):
            raise UserError(f"radii to decide are {list(radii)}; give positive numbers of [0, 1] pixel units")

    @property
    def digest(self) -> str:
        """Names the statements, and the method by which they are made."""
        facts = [METHOD.name, [matrix.digest for matrix in self.costs], self.radii, self.sigma, self.alpha, self.n]
        return sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        """The statements in words."""
        radii = ", ".join(f"{radius:g}" for radius in self.radii)
        number = len(self.costs)
        costs = f", and under {number} cost {'matrix' if number == 1 else 'matrices'}" if number else ""
        return f"whether radius {radii} is reached: the standard one{costs}"

    def decided(self, counts0: ArrayLike, counts: ArrayLike, label: int) -> bool:
        """Whether all statements about an image are decided, for every decision rule.

        Args:
            counts0: Selection votes, int (rules, m).
            counts: Estimation votes, int (rules, m), of one number of samples.
            label: The image's class.
        """
        return bool(self.are_decided(self.tally(counts0, counts, np.full(len(np.asarray(counts)), label))).all())

    def tally(self, counts0: ArrayLike, counts: ArrayLike, labels: ArrayLike) -> "Tallies":
        """The few numbers of each row's votes that statements depend on.

        Args:
            counts0: Selection votes, int (N, m).
            counts: Estimation votes, int (N, m).
            labels: Classes of the images, int (N,).
        """
        selection, estimation, y = np.asarray(counts0), np.asarray(counts), np.asarray(labels)
        rows, top = np.arange(len(y)), selection.argmax(axis=1)
        of_target = np.full((len(self.costs), len(y)), -1, np.int64)
        for i, matrix in enumerate(self.costs):
            costly = matrix.values[y] > 0  # (N, m)
            stated = costly.any(axis=1) & ~costly[rows, top]
            of_target[i] = np.where(stated, np.where(costly, estimation, 0).max(axis=1), -1)
        of_top, of_top0 = estimation[rows, top], selection[rows, top]
        return Tallies(estimation.sum(axis=1), of_top, selection.sum(axis=1), of_top0, top == y, of_target)

    def are_decided(self, tallies: "Tallies") -> NDArray[np.bool_]:
        """Whether all statements about each row are decided, bool (N,)."""
        is_open = np.zeros(len(tallies.n), bool)
        rows = np.flatnonzero(tallies.right)
        no_target = np.zeros_like(tallies.n)
        is_open[rows] = self._are_open(self._reach_standard, tallies.stakes(no_target).rows(rows))
        matrices, rows = np.nonzero((tallies.of_target >= 0) & ~is_open)
        stakes = tallies.stakes(no_target).rows(rows)._replace(of_target=tallies.of_target[matrices, rows])
        np.logical_or.at(is_open, rows, self._are_open(self._reach_cost_sensitive, stakes))
        return ~is_open

    def _are_open(self, reach: Callable[[Stakes, FloatArray], NDArray[np.bool_]], stakes: Stakes) -> NDArray[np.bool_]:
        """Rows with a radius that their votes do not certify, but that those which are left may.

        All radii of all rows are asked about in one call, since an image has few rows and is asked about often.
        """
        radii, rows = np.array(self.radii), np.arange(len(stakes.n))
        each = np.repeat(rows, len(radii))
        reached = reach(stakes.rows(each), np.tile(radii, len(rows))).reshape(len(rows), len(radii))
        is_open = np.asarray(~reached.all(axis=1))
        others = np.flatnonzero(is_open)
        least = radii[reached[others].argmin(axis=1)]  # what is not reached there says what becomes of larger ones
        is_open[others] = reach(self._at_best(stakes.rows(others)), least)
        return is_open

    def _reach_standard(self, stakes: Stakes, radii: FloatArray) -> NDArray[np.bool_]:
        return evidence_of_share(stakes.of_top, stakes.n, ndtr(_MARGIN * radii / self.sigma)) >= -np.log(self.alpha)

    def _reach_cost_sensitive(self, stakes: Stakes, radii: FloatArray) -> NDArray[np.bool_]:
        """By the target with the most votes: of no other is the radius shorter."""
        return reaches(stakes, radii, self.sigma, self.alpha)

    def _at_best(self, stakes: Stakes) -> Stakes:
        """The votes at the end, were those that are left to fall by optimistic shares: these prove nothing."""
        n, of_top, of_target, level = stakes.n, stakes.of_top, stakes.of_target, self._futility_level
        left = np.maximum(self.n - n, 0)
        most = of_top + np.ceil(left * _optimistic("upper", of_top, n, level)).astype(np.int64)
        least = of_target + np.floor(left * _optimistic("lower", of_target, n, level)).astype(np.int64)
        return stakes._replace(n=n + left, of_top=most, of_target=np.minimum(least, n + left - most))


class Tallies(NamedTuple):
    """What statements depend on, of N rows of votes under K cost matrices.

    Attributes:
        n: Estimation samples, int64 (N,).
        of_top: Estimation votes of the answer, int64 (N,).
        n0: Selection samples, int64 (N,).
        of_top0: Selection votes of the answer, int64 (N,).
        right: Whether the answer is the image's class, bool (N,).
        of_target: The most estimation votes that a target class has, int64 (K, N); -1 where there is no cost-sensitive
            statement: the image's class has no target class, or the answer is one.
    """

    n: IntArray
    of_top: IntArray
    n0: IntArray
    of_top0: IntArray
    right: NDArray[np.bool_]
    of_target: IntArray

    def stakes(self, of_target: IntArray) -> Stakes:
        """The votes that the radius against a target hangs on, given the target's estimation votes, (N,)."""
        return Stakes(self.n, self.of_top, of_target, self.n0, self.of_top0)

    def columns(self) -> dict[str, IntArray]:
        """All but n as integer columns, so that they can stand in a table that has n; `of_columns` reads them back."""
        of_target = {f"of_target {i}": votes for i, votes in enumerate(self.of_target)}
        right = self.right.astype(np.int64)
        return {"of_top": self.of_top, "n0": self.n0, "of_top0": self.of_top0, "right": right, **of_target}

    @classmethod
    def of_columns(cls, n: IntArray, columns: Mapping[str, IntArray]) -> "Tallies":
        """Tallies from n and what `columns` gave."""
        of_target = [votes for name, votes in columns.items() if name.startswith("of_target ")]
        targets = np.array(of_target, np.int64).reshape(len(of_target), len(n))
        right = columns["right"].astype(bool)
        return cls(n, columns["of_top"], columns["n0"], columns["of_top0"], right, targets)


def looks(n: int, chunk: int) -> list[int]:
    """The numbers of estimation samples after which votes are looked at.

    None, since the selection votes alone may decide all statements about an image; then whole chunks, each look a tenth
    above the last; at the end n.

    Args:
        n: Number of samples at most, in whole chunks.
        chunk: Number of samples that are drawn together.

    Example:
        >>> looks(640, chunk=64)
        [0, 64, 128, 192, 256, 320, 384, 448, 512, 576, 640]
    """
    found = [chunk]
    while found[-1] < n:
        found.append(max(found[-1] + chunk, int(_GROWTH * found[-1] / chunk) * chunk))
    return [0, *found[:-1], n]


def _optimistic(side: str, votes: IntArray, n: IntArray, level: float) -> FloatArray:
    """Clopper-Pearson bounds: looked up where all rows have one n, as an image's have; else worked out."""
    if len(n) and (n == n[0]).all():
        return _table(side, int(n[0]), level)[votes]
    return _OPTIMISTIC[side](votes, n, level)


@lru_cache(_TABLES)
def _table(side: str, n: int, level: float) -> FloatArray:
    """The bound for every number of votes of n: images meet at the same looks, again and again."""
    return _OPTIMISTIC[side](np.arange(n + 1), n, level)
