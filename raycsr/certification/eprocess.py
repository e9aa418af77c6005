"""Radii by betting: tests of a radius itself that hold whatever said when to stop, or whether to go on later.

A box of bounds, one on p_A and one on p_j, is not the best test of "j is not answered within r". If it may be answered
there, several things are so, and each is tested by a non-negative supermartingale that starts at 1, the evidence. T is
a set of t harmless classes, settled by the selection votes (`routes.settle`); it may be {A}. z is r/sigma.

- set: p_j >= h(p_T) with h(p) = Phi(Phi^-1(Phi(Phi^-1(p) - z) / t) - z), since j is as likely there as the mean of T
  (`routes`; after Jia, Cao, Wang & Gong, ICLR 2020). h is convex, so that it lies above its tangent at any q: the wager
  W = h'(q) 1_T - 1_j has a mean of at most c = h'(q) q - h(q), and the product of 1 + b (W - c) over the samples,
  0 < b < 1 / (1 + c), cannot be expected to grow.
- pair: the same of T = {A}, where h(p) = Phi(Phi^-1(p) - 2 z) (Xin, Chen, Backes & Zhang, ICML 2025).
- share: p_T <= Phi(Phi^-1(t / (t + 1)) + z), for T and j have no more than all votes there; of T = {A} that is a
  majority (Cohen, Rosenfeld & Kolter, ICML 2019). Likelihood ratios against it (`bounds.evidence_of_share`).

An average of evidence is evidence, as is one over several q and b that the selection votes place. Half of it are
wagers, those of the pair, or of pair and set alike; half is of the share. By Ville's inequality it ever reaches
1 / level with probability at most `level` (Waudby-Smith & Ramdas, JRSS B 2024, on betting; Robbins, Ann. Math. Stat.
1970, on mixtures). No level is split between the routes.

Of a group of targets the one with most votes has the least evidence against it, and its test alone, at the whole level,
tests the group (intersection-union): if the group's radius is below r, one fixed target may be answered within r.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from raycsr.certification.bounds import FloatArray, IntArray, evidence_of_share

GRID = 200
"""Radii by betting are multiples of sigma / GRID: each is tested, and those below it."""

_TANGENTS = (-2.0, -1.0, 0.0)  # in standard errors from what the selection votes say of Phi^-1(p_T)
_BETS = (0.95, 0.6, 0.35, 0.2, 0.11, 0.06, 0.03)  # of 1 / (1 + c), with which a single sample could ruin the bettor
_SLACK = 1e-12  # relative, by which c is rounded up
_FEW = 16  # images that are sooner all worked out than compared with each other
_TOGETHER = 1 << 8  # radii of images that are tested at once
_KEPT = 1 << 7  # statements about an image, and images in flight, of which the wagers are kept, those of two routes


class Stakes(NamedTuple):
    """The votes of N images that a radius against one target class hangs on; int (N,) each.

    Attributes:
        n: Number of estimation samples.
        of_target: Number of estimation votes of the target, which is not A, nor of the set.
        of_top: Number of estimation votes of the answer A.
        of_set: Number of estimation votes of all classes of the set T; where it is {A} those of A.
        n0: Number of selection samples.
        of_top0: Number of selection votes of A.
        of_set0: Number of selection votes of T.
        set_size: Number of classes of T, 1 where it is {A}.
    """

    n: IntArray
    of_target: IntArray
    of_top: IntArray
    of_set: IntArray
    n0: IntArray
    of_top0: IntArray
    of_set0: IntArray
    set_size: IntArray

    @classmethod
    def of_pair(cls, n: IntArray, of_top: IntArray, of_target: IntArray, n0: IntArray, of_top0: IntArray) -> "Stakes":
        """Those of which T is {A}."""
        return cls(n, of_target, of_top, of_top, n0, of_top0, of_top0, np.ones_like(n))

    def of_answer(self) -> "Stakes":
        """Those of the same target, of which T is {A}."""
        return Stakes.of_pair(self.n, self.of_top, self.of_target, self.n0, self.of_top0)

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
    last = last_step(np.broadcast_to(np.asarray(radii, np.float64), stakes.n.shape), sigma)
    reached = is_certified(stakes, grid_radius(last, sigma), sigma, levels)  # it mostly decides
    if reached.any():
        some, of_some, which = _distinct(stakes.rows(reached), levels[reached])
        reached[reached] = _steps(some, sigma, of_some, last.max())[which] >= last[reached]
    return reached


def last_step(radii: FloatArray, sigma: float) -> IntArray:
    """The steps of the least radii of the grid that are no smaller than some others, (N,)."""
    last = (radii / sigma * GRID).astype(np.int64)
    while (short := grid_radius(last, sigma) < radii).any():
        last = last + short
    return last


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
    levels = np.broadcast_to(np.asarray(level, np.float64), stakes.n.shape)
    if len(levels) < _FEW:
        return stakes, levels, np.arange(len(levels))
    at, which = _first_of_each(*stakes, levels)
    return stakes.rows(at), levels[at], which


def _first_of_each(*columns: IntArray | FloatArray) -> tuple[IntArray, IntArray]:
    """Of rows (N,) of several columns: where each distinct one is first, (D,), and which of these each row is, (N,)."""
    which = np.zeros(len(columns[0]), np.int64)
    for column in columns:  # one at a time, so that no product of their numbers wraps
        codes, values = pd.factorize(column)
        which = pd.factorize(which * len(values) + codes)[0]
    at = np.empty(which.max(initial=-1) + 1, np.int64)
    at[which[::-1]] = np.arange(len(which))[::-1]
    return at, which


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
    certified = evidence >= enough
    doubtful = np.flatnonzero(~certified)  # an incomplete beta function takes ten times as long as all the rest
    size = stakes.set_size
    share = ndtr(ndtri(size / (size + 1)) + scale)
    for truncated in (False, True):
        of_share = evidence_of_share(stakes.of_set[doubtful], stakes.n[doubtful], share[doubtful], truncated)
        doubtful = doubtful[np.logaddexp(evidence[doubtful], of_share) >= enough[doubtful]]
    certified[doubtful] = True
    return certified


def _of_wagers(stakes: Stakes, scale: FloatArray) -> FloatArray:
    """The logarithm of the evidence of wagers: of the pair, or the average of pair and set, (N,)."""
    n, of_target, of_top, _, n0, of_top0, _, size = stakes
    evidence = _of_route(n, of_target, of_top, n0, of_top0, np.ones_like(n), scale)
    some = np.flatnonzero(size > 1)
    if len(some):
        n, of_target, _, of_set, n0, _, of_set0, size = stakes.rows(some)
        by_set = _of_route(n, of_target, of_set, n0, of_set0, size, scale[some])
        evidence[some] = np.logaddexp(evidence[some], by_set) - np.log(2)
    return evidence


def _of_route(
    n: IntArray, of_target: IntArray, ours: IntArray, n0: IntArray, ours0: IntArray, size: IntArray, scale: FloatArray
) -> FloatArray:
    """The logarithm of the evidence against p_j >= h(p_T), where r is `scale` times sigma, (N,)."""
    wagers = _wagers_of_each(scale, ours0, n0, size)  # (N, 3, bets)
    fortunes = ours[:, None] * wagers[:, 0] + of_target[:, None] * wagers[:, 1]
    fortunes += (n - ours - of_target)[:, None] * wagers[:, 2]  # (N, bets)
    most = fortunes.max(axis=1, initial=-np.inf)
    return most + np.log(np.exp(fortunes - most[:, None]).mean(axis=1))


def _wagers_of_each(scale: FloatArray, ours0: IntArray, n0: IntArray, size: IntArray) -> FloatArray:
    """The wagers of each image, (N, 3, bets): worked out once for all that are alike; those of a few are kept."""
    if len(scale) <= _KEPT:
        return _kept(scale.tobytes(), np.stack([ours0, n0, size]).tobytes())
    if len(scale) <= _TOGETHER:  # sooner all worked out than compared with each other
        return _wagers(scale, ours0, n0, size)
    at, which = _first_of_each(scale, ours0, n0, size)
    return _wagers(scale[at], ours0[at], n0[at], size[at])[which]


@lru_cache(2 * _KEPT)
def _kept(scale: bytes, votes: bytes) -> FloatArray:
    """The wagers of a few images, whose votes are looked at again and again."""
    ours0, n0, size = np.frombuffer(votes, np.int64).reshape(3, -1)
    return _wagers(np.frombuffer(scale), ours0, n0, size)


def _wagers(scale: FloatArray, ours0: IntArray, n0: IntArray, size: IntArray) -> FloatArray:
    """By what a sample multiplies each bettor's fortune, in logarithms: one for T, for the target, for neither.

    Args:
        scale: Ratios r/sigma, (D,).
        ours0: Selection votes of T, (D,).
        n0: All selection votes, (D,).
        size: Number of classes of T, (D,).

    Returns:
        (D, 3, bets).
    """
    share = (ours0 + 0.5) / (n0 + 1)
    place = ndtri(share)
    error = np.sqrt(share * (1 - share) / np.maximum(n0, 1)) * np.sqrt(2 * np.pi) * np.exp(place**2 / 2)
    quantile = place + np.array(_TANGENTS)[:, None] * error  # Phi^-1(q), (tangents, D)
    of_mean = quantile - scale  # Phi^-1 of the least mean share of T at a distance of r
    several = size > 1
    of_mean[:, several] = ndtri(ndtr(of_mean[:, several]) / size[several])
    height = ndtr(of_mean - scale)  # h(q)
    slope = np.exp(scale * (of_mean + quantile - scale)) / size  # h'(q)
    mean = slope * ndtr(quantile) - height
    mean = mean + _SLACK * (mean + 2 * height)  # c
    bet = np.array(_BETS)[:, None, None] / (1 + mean)  # (bets, tangents, D)
    gains = np.stack([slope - mean, -1 - mean, -mean])[:, None] * bet  # (3, bets, tangents, D)
    return np.log1p(gains).reshape(3, bet.shape[0] * bet.shape[1], -1).transpose(2, 0, 1)
