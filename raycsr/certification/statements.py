"""What sequential sampling decides about an image, and when it is decided.

Stopping is always sound: certificates from the votes at any stop hold, since their bounds hold at every n at once
(`bounds.sequence_lower`). What this module decides is only whether further votes could still change a statement.
"""

import functools
import json
import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from raycsr.certification.bounds import BOUNDS, FloatArray
from raycsr.certification.certificates import SHARE_OF_P_A, level_of_target
from raycsr.costs import CostMatrix
from raycsr.errors import UserError

# Level of the optimistic shares by which an image is given up. It costs statements, never soundness: about this share
# of the images near a radius that more samples would have certified.
HOPELESS_LEVEL = 0.001

_GROWTH = 1.1  # of n between looks: an eleventh of an image's samples come after they would have been enough, at most
_TABLES = 1024  # kept: a few levels at the looks of a design


class Statements:
    """The statements about each image: is its radius at least r, for each radius r.

    Of an image whose answer is right it is the standard radius, and under each cost matrix of which its class is a seed
    class the cost-sensitive one. A statement is decided once the image's certificate makes it, or once none will: its
    answer is wrong (standard) or costly (cost-sensitive), or the radius that all samples would certify is below r, were
    those that are left to fall by optimistic shares.
    """

    def __init__(
        self,
        costs: Iterable[CostMatrix],
        radii: Iterable[float],
        *,
        sigma: float,
        alpha: float,
        n: int,
        hopeless_level: float = HOPELESS_LEVEL,
    ) -> None:
        """Takes the statements.

        Args:
            costs: the cost matrices, of one number of classes.
            radii: L2, in [0, 1] pixel units.
            sigma: noise level, in the same units.
            alpha: failure probability of one image's certificate.
            n: samples that an image may have.
            hopeless_level: of the optimistic shares by which an image is given up.

        Raises:
            UserError: no radius, or one that is not positive.
        """
        self.costs, self.radii = tuple(costs), tuple(sorted(set(radii)))
        self.sigma, self.alpha, self.n, self._hopeless = sigma, alpha, n, hopeless_level
        if not self.radii or not all(np.isfinite(r) and r > 0 for r in self.radii):
            raise UserError(f"radii to decide are {list(radii)}; give positive numbers of [0, 1] pixel units")

    @property
    def digest(self) -> str:
        """Names the statements."""
        facts = [[matrix.digest for matrix in self.costs], self.radii, self.sigma, self.alpha, self.n]
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
        selection, estimation = np.asarray(counts0), np.asarray(counts)
        n = int(estimation[0].sum())
        tops = selection.argmax(axis=1)
        return all(
            self._standard(int(votes[top]), n, right=top == label) and self._cost_sensitive(votes, n, top, label)
            for votes, top in zip(estimation, tops, strict=True)
        )

    def _standard(self, votes: int, n: int, *, right: bool) -> bool:
        if not right:
            return True
        reached = self._standard_radius(votes, n)
        return self._is_clear(reached, lambda: self._standard_radius(*self._at_best("upper", votes, n)))

    def _cost_sensitive(self, votes: np.ndarray, n: int, top: int, label: int) -> bool:
        for matrix in self.costs:
            targets = matrix.targets(label)
            if not len(targets) or top in targets:
                continue
            level = float(level_of_target(self.alpha, np.array(len(targets))))
            of_top, of_target = int(votes[top]), int(votes[targets].max())
            reached = self._cost_sensitive_radius(of_top, of_target, n, level)
            if not self._is_clear(reached, functools.partial(self._best_radius, of_top, of_target, n, level)):
                return False
        return True

    def _best_radius(self, of_top: int, of_target: int, n: int, level: float) -> float:
        (most, every), (least, _) = self._at_best("upper", of_top, n), self._at_best("lower", of_target, n)
        return self._cost_sensitive_radius(most, least, every, level)

    def _is_clear(self, reached: float, at_best: Callable[[], float]) -> bool:
        left = [r for r in self.radii if r > reached]
        return not left or at_best() < left[0]

    def _standard_radius(self, votes: int, n: int) -> float:
        return self.sigma * _quantile("lower", votes, n, self.alpha)

    def _cost_sensitive_radius(self, of_top: int, of_target: int, n: int, level: float) -> float:
        low = _quantile("lower", of_top, n, SHARE_OF_P_A * self.alpha)
        return self.sigma / 2 * (low - min(_quantile("upper", of_target, n, level), -low))

    def _at_best(self, side: str, votes: int, n: int) -> tuple[int, int]:
        """The votes of all samples, were those that are left to fall by a bound on the share; and all samples."""
        left = max(self.n - n, 0)
        at_best = left * float(_shares(side, n, self._hopeless)[votes])
        return votes + (math.ceil(at_best) if side == "upper" else math.floor(at_best)), n + left


def looks(n: int, chunk: int) -> list[int]:
    """The numbers of samples after which votes are looked at: whole chunks, each a tenth above the last, then n.

    Args:
        n: samples at most, in whole chunks.
        chunk: samples that are drawn together.
    """
    found = [chunk]
    while found[-1] < n:
        found.append(max(found[-1] + chunk, int(_GROWTH * found[-1] / chunk) * chunk))
    return [*found[:-1], n]


def _quantile(side: str, votes: int, n: int, level: float) -> float:
    return float(_quantiles(side, n, level)[votes])


@lru_cache(_TABLES)
def _quantiles(side: str, n: int, level: float) -> FloatArray:
    """Phi^-1 of a bound for every number of votes of n: images meet at the same looks, again and again."""
    return ndtri(getattr(BOUNDS["sequential"], side)(np.arange(n + 1), n, level))


@lru_cache(_TABLES)
def _shares(side: str, n: int, level: float) -> FloatArray:
    return getattr(BOUNDS["fixed"], side)(np.arange(n + 1), n, level)
