"""What sequential sampling decides about an image, and when it is decided.

Stopping is always sound: certificates from the votes at any stop hold, since their bounds hold at every n at once
(`bounds.sequence_lower`). What this module decides is only whether further votes could still change a statement.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from raycsr.certification.bounds import BOUNDS, FloatArray, IntArray
from raycsr.certification.methods import NEWEST
from raycsr.costs import CostMatrix
from raycsr.errors import UserError

# Level of the optimistic vote shares by which sampling is stopped for futility. It costs statements, never soundness:
# about this share of the images near a radius that more samples would have certified.
FUTILITY_LEVEL = 0.001

# What certifies the votes when sampling has stopped. A statement that a certificate of this method makes is decided, so
# a method may take its place only if its certificates are never shorter, or if sampling is stopped by it too.
METHOD = NEWEST["sequential"]

_GROWTH = 1.1  # of n between looks: an eleventh of an image's samples come after they would have been enough, at most
_OF_FIXED_N = "clopper-pearson"  # by which optimistic shares are told; they prove nothing, and may look at every n
_TABLES = 1024  # kept: a few levels at the looks of a design


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
            costs: the cost matrices, of one number of classes.
            radii: L2, in [0, 1] pixel units.
            sigma: noise level, in the same units.
            alpha: failure probability of one image's certificate.
            n: samples that an image may have.
            futility_level: level of the optimistic vote shares by which sampling is stopped for futility.

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
            counts0: selection votes, int (rules, m).
            counts: estimation votes, int (rules, m), of one number of samples.
            label: the image's class.
        """
        return bool(self.are_decided(self.tally(counts0, counts, np.full(len(np.asarray(counts)), label))).all())

    def tally(self, counts0: ArrayLike, counts: ArrayLike, labels: ArrayLike) -> "Tallies":
        """The few numbers of each row's votes that statements depend on.

        Args:
            counts0: selection votes, int (N, m).
            counts: estimation votes, int (N, m).
            labels: classes of the images, int (N,).
        """
        selection, estimation, y = np.asarray(counts0), np.asarray(counts), np.asarray(labels)
        rows, top = np.arange(len(y)), selection.argmax(axis=1)
        of_target = np.full((len(self.costs), len(y)), -1, np.int64)
        for i, matrix in enumerate(self.costs):
            costly = matrix.values[y] > 0  # (N, m)
            stated = costly.any(axis=1) & ~costly[rows, top]
            of_target[i] = np.where(stated, np.where(costly, estimation, 0).max(axis=1), -1)
        return Tallies(estimation.sum(axis=1), top == y, estimation[rows, top], of_target)

    def are_decided(self, tallies: "Tallies") -> NDArray[np.bool_]:
        """Whether all statements about each row are decided, bool (N,)."""
        n, right, of_top, of_targets = tallies
        is_open = np.zeros(len(n), bool)
        rows = np.flatnonzero(right)
        is_open[rows] = self._are_open(self._standard_radii, n[rows], of_top[rows], of_top[rows])
        for of_target in of_targets:
            rows = np.flatnonzero((of_target >= 0) & ~is_open)
            is_open[rows] = self._are_open(self._cost_sensitive_radii, n[rows], of_top[rows], of_target[rows])
        return ~is_open

    def _are_open(
        self, radii: Callable[..., FloatArray], n: IntArray, of_top: IntArray, of_target: IntArray
    ) -> NDArray[np.bool_]:
        """Rows with a radius that their votes do not certify, but that those which are left may."""
        if not len(n):
            return np.zeros(0, bool)
        above = np.searchsorted(self.radii, radii(n, of_top, of_target), side="right")  # the least not reached
        is_open = above < len(self.radii)
        rows = np.flatnonzero(is_open)
        if not len(rows):
            return is_open
        n, of_top, of_target = n[rows], of_top[rows], of_target[rows]
        left = np.maximum(self.n - n, 0)
        level = self._futility_level
        most = of_top + np.ceil(left * _bounds(_OF_FIXED_N, "upper", of_top, n, level)).astype(np.int64)
        least = of_target + np.floor(left * _bounds(_OF_FIXED_N, "lower", of_target, n, level)).astype(np.int64)
        is_open[rows] = radii(n + left, most, least) >= np.take(self.radii, above[rows])
        return is_open

    def _standard_radii(self, n: IntArray, of_top: IntArray, of_target: IntArray) -> FloatArray:
        return self.sigma * ndtri(_bounds(METHOD.bound, "lower", of_top, n, self.alpha))

    def _cost_sensitive_radii(self, n: IntArray, of_top: IntArray, of_target: IntArray) -> FloatArray:
        """By the pair route, of the target with the most votes: of no other is the radius shorter."""
        of_p_a, of_a_target = METHOD.levels(self.alpha)
        low = ndtri(_bounds(METHOD.bound, "lower", of_top, n, of_p_a))
        high = ndtri(_bounds(METHOD.bound, "upper", of_target, n, of_a_target))
        return self.sigma / 2 * (low - np.minimum(high, -low))


class Tallies(NamedTuple):
    """What statements depend on, of N rows of votes under K cost matrices.

    Attributes:
        n: estimation samples, int64 (N,).
        right: whether the answer is the image's class, bool (N,).
        of_top: estimation votes of the answer, int64 (N,).
        of_target: the most estimation votes that a target class has, int64 (K, N); -1 where there is no cost-sensitive
            statement: the image's class has no target class, or the answer is one.
    """

    n: IntArray
    right: NDArray[np.bool_]
    of_top: IntArray
    of_target: IntArray

    def columns(self) -> dict[str, IntArray]:
        """All but n as integer columns, so that they can stand in a table that has n; `of_columns` reads them back."""
        of_target = {f"of_target {i}": votes for i, votes in enumerate(self.of_target)}
        return {"right": self.right.astype(np.int64), "of_top": self.of_top, **of_target}

    @classmethod
    def of_columns(cls, n: IntArray, columns: Mapping[str, IntArray]) -> "Tallies":
        """Tallies from n and what `columns` gave."""
        of_target = [columns[f"of_target {i}"] for i in range(len(columns) - 2)]
        return cls(
            n,
            columns["right"].astype(bool),
            columns["of_top"],
            np.array(of_target, np.int64).reshape(len(of_target), len(n)),
        )


def looks(n: int, chunk: int) -> list[int]:
    """The numbers of samples after which votes are looked at: whole chunks, each a tenth above the last, then n.

    Args:
        n: samples at most, in whole chunks.
        chunk: samples that are drawn together.

    Example:
        >>> looks(1024, chunk=64)
        [64, 128, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960, 1024]
    """
    found = [chunk]
    while found[-1] < n:
        found.append(max(found[-1] + chunk, int(_GROWTH * found[-1] / chunk) * chunk))
    return [*found[:-1], n]


def _bounds(name: str, side: str, votes: IntArray, n: IntArray, level: ArrayLike) -> FloatArray:
    """Bounds on shares: looked up where all rows have one n and one level, as an image's have; else worked out."""
    levels = np.atleast_1d(level)
    if len(n) == 1 or ((n == n[0]).all() and (levels == levels[0]).all()):
        return _table(name, side, int(n[0]), float(levels[0]))[votes]
    return getattr(BOUNDS[name], side)(votes, n, level)


@lru_cache(_TABLES)
def _table(name: str, side: str, n: int, level: float) -> FloatArray:
    """The bound for every number of votes of n: images meet at the same looks, again and again."""
    return getattr(BOUNDS[name], side)(np.arange(n + 1), n, level)
