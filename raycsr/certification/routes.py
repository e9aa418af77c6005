"""What certifies that a class is never answered, and the choice between the ways to it, made before the votes are seen.

A class j is not answered at x + d where some class is more likely there. Two routes show it, up to a radius:

- pair: the top class A is. With L <= p_A and U >= p_j that holds up to sigma/2 (Phi^-1(L) - Phi^-1(U)) (Cohen,
  Rosenfeld & Kolter, ICML 2019, theorem 1, of which A need not be the most likely class nor have a majority; for costs
  Xin, Chen, Backes & Zhang, ICML 2025).
- set: the mean of a set T of other classes is, so one of them is. With L <= p_T, the share of all of T together, that
  holds up to the r at which Phi(Phi^-1(L) - r/sigma) = |T| Phi(Phi^-1(U) + r/sigma): by Neyman and Pearson no shift of
  the noise by r takes more from T, nor adds more to j (after Jia, Cao, Wang & Gong, ICLR 2020, theorem 1, for top-k).
  T = {A} is the pair.

Where j is not in T, and is not A, 1 - L bounds p_j as well: shares sum to 1.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize.elementwise import find_root
from scipy.special import log_ndtr, ndtri

from raycsr.certification.bounds import FloatArray, IntArray
from raycsr.certification.methods import Method
from raycsr.certification.votes import SparseVotes
from raycsr.costs import CostMatrix


class Settled(NamedTuple):
    """What is settled about N images before a vote that estimates is seen.

    Attributes:
        top: The class A of each image, (N,).
        harmless: The set T of each image, as one entry a class of it; images of the pair route alone have none.
        lower: The level of the bound on p_A, and of that on p_T where T is bounded too, (N,).
        upper: The level of the bound on each target's share, a float.
    """

    top: IntArray
    harmless: SparseVotes
    lower: FloatArray
    upper: float

    @property
    def set_size(self) -> IntArray:
        """The size of each image's T, 0 where it takes the pair route alone, (N,)."""
        return self.harmless.totals()


def settle(selection: SparseVotes, labels: IntArray, *, costs: CostMatrix, method: Method, alpha: float) -> Settled:
    """Settles, for each image, what is bounded and at which level, for the statement "no class of Omega is answered".

    This function sees the selection votes, and no others: given them, all that it returns is constant, and a bound that
    the estimation votes then give fails with the probability of its level. The statement about an image is false only
    if it is about the one target whose true radius is the shortest, for which the bounds on p_A (and p_T) and on that
    target's share would have to fail: with probability `lower` (twice, where T is bounded too) + `upper` <= alpha
    (an intersection-union test: Berger, Technometrics 1982). So nothing is divided by the number of targets.

    Args:
        selection: Votes of the selection samples, of N images.
        labels: The true classes, (N,).
        costs: The cost matrix; Omega is what is costly to answer for an image's class.
        method: Method, which says its levels and whether it pays for the set route.
        alpha: Failure probability of the statement.
    """
    top = selection.top()
    lower, upper = method.levels(alpha)
    harmless = _favoured_sets(selection, labels, top, costs) if method.set_route else _no_sets(len(selection))
    return Settled(top, harmless, np.where(harmless.totals() > 0, lower / 2, lower), upper)


def _no_sets(num_images: int) -> SparseVotes:
    return SparseVotes(np.zeros(num_images + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64))


def _favoured_sets(selection: SparseVotes, labels: IntArray, top: IntArray, costs: CostMatrix) -> SparseVotes:
    """The set T of each image whose radius is the largest by its selection votes; none where that is {A}.

    Candidates are the t harmless classes with the most votes, for each t. An image of which A is costly has radius 0
    in any case, and gets none.
    """
    images = selection.images
    costly = costs.values[labels[images], selection.classes] > 0
    rival = selection.kept(costly).largest()
    pays = costs.sensitive[labels] & (costs.values[labels, top] == 0)
    entries = np.flatnonzero(~costly & pays[images] & (selection.counts > 0))
    entries = entries[np.lexsort((selection.classes[entries], -selection.counts[entries], images[entries]))]
    of = images[entries]  # ascending, the most votes of an image first, which are A's
    start = np.searchsorted(of, of)
    size = np.arange(len(of)) - start + 1
    votes = np.cumsum(selection.counts[entries])
    votes -= (votes - selection.counts[entries])[start]
    total = selection.totals()[of]
    key, inverse = np.unique(np.stack([votes, rival[of], size, total]), axis=1, return_inverse=True)
    in_set, against, num, n0 = key
    # half a vote more, so that none is no certainty
    radius = set_radius(ndtri((in_set + 0.5) / (n0 + 1)), ndtri((against + 0.5) / (n0 + 1)), num)[inverse.reshape(-1)]
    order = np.lexsort((size, -radius, of))
    _, first = np.unique(of[order], return_index=True)
    favoured = np.zeros(len(labels), np.int64)
    favoured[of[order[first]]] = size[order[first]]
    favoured[favoured == 1] = 0
    chosen = entries[size <= favoured[of]]
    chosen = chosen[np.lexsort((selection.classes[chosen], images[chosen]))]
    offsets = np.concatenate([[0], np.cumsum(favoured)])
    return SparseVotes(offsets, selection.classes[chosen], np.ones(len(chosen), np.int64))


def votes_of_sets(estimation: SparseVotes, sets: SparseVotes) -> IntArray:
    """How many votes of each image are for a class of its set, (N,)."""
    stride = 1 + max(estimation.classes.max(initial=0), sets.classes.max(initial=0))
    keys, wanted = (votes.images * stride + votes.classes for votes in (estimation, sets))
    return estimation.kept(np.isin(keys, wanted, assume_unique=True)).totals()


def pair_radius(low: ArrayLike, high: ArrayLike) -> FloatArray:
    """The radius of the pair route in units of sigma, by Phi^-1 of the bounds on p_A and p_j; 0 where there is none."""
    return np.maximum(0.0, (np.asarray(low) - np.asarray(high)) / 2)


def set_radius(low: ArrayLike, high: ArrayLike, size: ArrayLike) -> FloatArray:
    """The radius of the set route in units of sigma, never rounded up.

    Args:
        low: Phi^-1 of the lower bound on the share of the set.
        high: Phi^-1 of the upper bound on the target's share.
        size: Number of classes in the set. The three are broadcast.

    Returns:
        The largest z >= 0 with Phi(low - z) >= size Phi(high + z), less an error of the last digits; 0 where there is
        none.
    """
    arrays = np.broadcast_arrays(*(np.asarray(array, np.float64) for array in (low, high, size)))
    low, high, size = (array.ravel() for array in arrays)
    most = pair_radius(low, high)
    radius = np.where(size == 1, most, 0.0)
    some = np.isfinite(low) & np.isfinite(high) & (size > 1) & (most > 0)
    some[some] = _surplus(np.zeros(1), low[some], high[some], size[some]) > 0
    if some.any():
        args = (low[some], high[some], size[some])
        tolerances = {"xatol": 0.0, "xrtol": 1e-12, "fatol": 0.0, "frtol": 0.0}
        found = find_root(_surplus, (np.zeros(some.sum()), most[some]), args=args, tolerances=tolerances)
        radius[some] = found.bracket[0]  # the lower end: what is left of an error is on the safe side
    return radius.reshape(arrays[0].shape)


def _surplus(z: FloatArray, low: FloatArray, high: FloatArray, size: FloatArray) -> FloatArray:
    """By how much the log of the set's mean share exceeds that of the target's share at a distance z; falls with z."""
    return log_ndtr(low - z) - np.log(size) - log_ndtr(high + z)
