"""Radii by betting: tests of a radius itself that hold whatever said when to stop, or whether to go on later.

A box of bounds, one on p_A and one on p_j, is not the best test of "j is not answered within r". If it may be answered
there, two things are so, and each is tested by a non-negative supermartingale that starts at 1, the evidence:

- pair: p_j >= h(p_A) with h(p) = Phi(Phi^-1(p) - 2 r/sigma) (Xin, Chen, Backes & Zhang, ICML 2025). h is convex, so
  that it lies above its tangent at any q: the wager W = h'(q) 1_A - 1_j has a mean of at most c = h'(q) q - h(q), and
  the product of 1 + b (W - c) over the samples, 0 < b < 1 / (1 + c), cannot be expected to grow.
- majority: p_A <= Phi(r/sigma) (Cohen, Rosenfeld & Kolter, ICML 2019); likelihood ratios against it
  (`bounds.evidence_of_share`).

The average of their evidence is evidence of the same kind, as is an average over several q and b that the selection
votes place. By Ville's inequality it ever reaches 1 / level with probability at most `level` (Waudby-Smith & Ramdas,
JRSS B 2024, on betting; Robbins, Ann. Math. Stat. 1970, on mixtures).

Of a group of targets the one with most votes has the least evidence against it, and its test alone, at the whole level,
tests the group (intersection-union): if the group's radius is below r, one fixed target may be answered within r.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from raycsr.certification.bounds import FloatArray, IntArray, evidence_of_share

GRID = 200
"""Radii by betting are multiples of sigma / GRID: each is tested, and those below it."""

_TANGENTS = (-2.0, -1.0, 0.0)  # in standard errors from what the selection votes say of Phi^-1(p_A)
_BETS = (0.95, 0.6, 0.35, 0.2, 0.11, 0.06, 0.03)  # of 1 / (1 + c), with which a single sample could ruin the bettor
_SLACK = 1e-12  # relative, by which c is rounded up
_FEW = 16  # images that are sooner all worked out than compared with each other
_TOGETHER = 1 << 8  # radii of images that are tested at once


class Stakes(NamedTuple):
    """The votes of N images that a radius against one target class hangs on; int (N,) each.

    Attributes:
        n: Number of estimation samples.
        of_top: Number of estimation votes of the answer A.
        of_target: Number of estimation votes of the target, which is not A.
        n0: Number of selection samples.
        of_top0: Number of selection votes of A.
    """

    n: IntArray
    of_top: IntArray
    of_target: IntArray
    n0: IntArray
    of_top0: IntArray

    def rows(self, which: NDArray[np.bool_] | IntArray) -> "Stakes":
        """Those of some of the images."""
        return Stakes(*(column[which] for column in self))


def betting_radius(stakes: Stakes, sigma: float, level: ArrayLike) -> FloatArray:
    """The largest radius of the grid that is certified with all of them below it, (N,); 0 where there is none.

    It is too large with probability at most `level`, over all n at once: of the radii of the grid the least that is
    above the truth would have to be certified.

    Args:
        stakes: Votes of N images.
        sigma: Noise level; the radii are in its units.
        level: Failure probability of each image's radius, one or (N,).
    """
    stakes, levels, which = _distinct(stakes, level)
    return grid_radius(_steps(stakes, sigma, levels), sigma)[which]


def reaches(stakes: Stakes, radii: ArrayLike, sigma: float, level: ArrayLike) -> NDArray[np.bool_]:
    """Whether `betting_radius` is at least a radius, bool (N,): sooner told than how far it goes.

    Args:
        stakes: Votes of N images.
        radii: Radii above 0 in the units of sigma, one or (N,).
        sigma: Noise level.
        level: Failure probability of each image's radius, one or (N,).
    """
    levels = np.broadcast_to(np.asarray(level, np.float64), stakes.n.shape)
    asked = np.broadcast_to(np.asarray(radii, np.float64), stakes.n.shape)
    last = (asked / sigma * GRID).astype(np.int64)
    while (short := grid_radius(last, sigma) < asked).any():
        last = last + short
    reached = is_certified(stakes, grid_radius(last, sigma), sigma, levels)  # it mostly decides
    if reached.any():
        some, of_some, which = _distinct(stakes.rows(reached), levels[reached])
        reached[reached] = _steps(some, sigma, of_some, last.max())[which] >= last[reached]
    return reached


def _steps(stakes: Stakes, sigma: float, levels: FloatArray, last: float = np.inf) -> IntArray:
    """How many radii of the grid from the first on are certified, up to the last that is asked about, (N,)."""
    steps, alive, step = np.zeros(len(levels), np.int64), np.arange(len(levels)), 1
    while len(alive) and step <= last:
        block = np.arange(step, min(last, step - 1 + max(1, _TOGETHER // len(alive))) + 1, dtype=np.int64)
        rows, radii = np.repeat(alive, len(block)), np.tile(grid_radius(block, sigma), len(alive))
        certified = is_certified(stakes.rows(rows), radii, sigma, levels[rows]).reshape(len(alive), len(block))
        all_of_them = certified.all(axis=1)
        steps[alive] += np.where(all_of_them, len(block), certified.argmin(axis=1))
        alive, step = alive[all_of_them], step + len(block)
    return steps


def grid_radius(step: ArrayLike, sigma: float) -> FloatArray:
    """The radius of so many steps: a decimal, as people write them, so that .1 is reached where .1 is asked for."""
    return np.round(np.asarray(step) * (sigma / GRID), 12)


def _distinct(stakes: Stakes, level: ArrayLike) -> tuple[Stakes, FloatArray, IntArray]:
    """The distinct stakes and their levels, and where each image finds its own: votes repeat themselves."""
    if len(stakes.n) < _FEW:
        return stakes, np.broadcast_to(np.asarray(level, np.float64), stakes.n.shape), np.arange(len(stakes.n))
    codes, levels = np.unique(np.broadcast_to(np.asarray(level, np.float64), stakes.n.shape), return_inverse=True)
    keys, which = np.unique(np.stack([*stakes, levels.ravel()]), axis=1, return_inverse=True)
    return Stakes(*keys[:-1]), codes[keys[-1]], which.ravel()


def is_certified(stakes: Stakes, radii: FloatArray, sigma: float, levels: FloatArray) -> NDArray[np.bool_]:
    """Whether the evidence says that each image's target is not answered within a radius, bool (N,).

    Args:
        stakes: Votes of N images.
        radii: (N,), in the units of sigma.
        sigma: Noise level.
        levels: Failure probabilities, (N,).
    """
    scale, enough = radii / sigma, np.log(2) - np.log(levels)  # of the two kinds of evidence together
    evidence = _of_wagers(stakes, scale)
    certified, share = evidence >= enough, ndtr(scale)
    doubtful = np.flatnonzero(~certified)  # an incomplete beta function takes ten times as long as all the rest
    for truncated in (False, True):
        of_share = evidence_of_share(stakes.of_top[doubtful], stakes.n[doubtful], share[doubtful], truncated)
        doubtful = doubtful[np.logaddexp(evidence[doubtful], of_share) >= enough[doubtful]]
    certified[doubtful] = True
    return certified


def _of_wagers(stakes: Stakes, scale: FloatArray) -> FloatArray:
    """The logarithm of the evidence against p_j >= h(p_A), where r is `scale` times sigma, (N,)."""
    n, of_top, of_target, n0, of_top0 = stakes
    if not len(n):
        return np.zeros(0)
    key = of_top0 * (1 + n0.max()) + n0
    _, at, which = np.unique(key + 1j * scale, return_index=True, return_inverse=True)
    wagers = _wagers(scale[at], of_top0[at], n0[at])  # (distinct, 3, bets)
    split = np.stack([of_top, of_target, n - of_top - of_target], axis=1)  # (N, 3)
    fortunes = np.matmul(split[:, None].astype(np.float64), wagers[which])[:, 0]  # (N, bets)
    most = fortunes.max(axis=1)
    return most + np.log(np.exp(fortunes - most[:, None]).mean(axis=1))


def _wagers(scale: FloatArray, of_top0: IntArray, n0: IntArray) -> FloatArray:
    """By what a sample multiplies each bettor's fortune, in logarithms: one for A, for the target, for neither.

    Args:
        scale: Ratios r/sigma, (D,).
        of_top0: Selection votes of A, (D,).
        n0: All selection votes, (D,).

    Returns:
        (D, 3, bets).
    """
    share = (of_top0 + 0.5) / (n0 + 1)
    place = ndtri(share)
    error = np.sqrt(share * (1 - share) / np.maximum(n0, 1)) * np.sqrt(2 * np.pi) * np.exp(place**2 / 2)
    quantile = place + np.array(_TANGENTS)[:, None] * error  # Phi^-1(q), (tangents, D)
    height = ndtr(quantile - 2 * scale)  # h(q)
    slope = np.exp(2 * scale * (quantile - scale))  # h'(q)
    mean = slope * ndtr(quantile) - height
    mean = mean + _SLACK * (mean + 2 * height)  # c
    bet = np.array(_BETS)[:, None, None] / (1 + mean)  # (bets, tangents, D)
    gains = np.stack([slope - mean, -1 - mean, -mean])[:, None] * bet  # (3, bets, tangents, D)
    return np.log1p(gains).reshape(3, -1, len(scale)).transpose(2, 0, 1)
