"""What certifies that a class is never answered, and the choice between the ways to it, made before the votes are seen.

A class j is not answered at x + d where some class is more likely there. Two routes show it, up to a radius, whatever
the answer (`answers`), for each says j only where j is the most likely class:

- pair: the top class A is. With L <= p_A and U >= p_j that holds up to sigma/2 (Phi^-1(L) - Phi^-1(U)) (Cohen,
  Rosenfeld & Kolter, ICML 2019, theorem 1, of which A need not be the most likely class nor have a majority; for costs
  Xin, Chen, Backes & Zhang, ICML 2025).
- set: the mean of a set T of other classes is, so one of them is. With L <= p_T, the share of all of T together, that
  holds up to the r at which Phi(Phi^-1(L) - r/sigma) = |T| Phi(Phi^-1(U) + r/sigma): by Neyman and Pearson no shift of
  the noise by r takes more from T, nor adds more to j (after Jia, Cao, Wang & Gong, ICLR 2020, theorem 1, for top-k).
  T = {A} is the pair.

Where j is not in T, and is not A, 1 - L bounds p_j as well: shares sum to 1.

Nor is j answered where its share does not exceed its threshold tau, if the answer has one for it:

- threshold: with U >= p_j that holds up to sigma (Phi^-1(tau) - Phi^-1(U)), by Neyman and Pearson again. It needs no
  p_A, and j may be A. For tau >= 1/2 it is, in truth, never shorter than the others: p_A is at most 1 - p_j.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize.elementwise import find_root
from scipy.special import log_ndtr, ndtri

from raycsr.certification.answers import ARGMAX, Answer
from raycsr.certification.bounds import FloatArray, IntArray
from raycsr.certification.methods import Method
from raycsr.certification.targets import Targets
from raycsr.certification.votes import SparseVotes
from raycsr.costs import CostMatrix


class Settled(NamedTuple):
    """What is settled about N images before a vote that estimates is seen.

    Attributes:
        top: The class A of each image, (N,).
        harmless: The set T of each image, as one entry a class of it; images of the pair route alone have none.
        lower: The level of the bound on p_A, and of that on p_T where T is bounded too, (N,).
        upper: The level of the bound on each target's share, a float.
        by_threshold: Which targets take the threshold route, and no other, flat as in `Targets`.
        alone: The level of the bound on such a target's share, a float: the only bound that its route needs.
    """

    top: IntArray
    harmless: SparseVotes
    lower: FloatArray
    upper: float
    by_threshold: NDArray[np.bool_]
    alone: float

    @property
    def set_size(self) -> IntArray:
        """The size of each image's T, 0 where it takes the pair route alone, (N,)."""
        return self.harmless.totals()


def settle(
    selection: SparseVotes,
    labels: IntArray,
    *,
    costs: CostMatrix,
    method: Method,
    alpha: float,
    answer: Answer = ARGMAX,
) -> Settled:
    """Settles, for each image, what is bounded and at which level, for the statement "no class of Omega is answered".

    This function sees the selection votes, and no others: given them, all that it returns is constant, and a bound that
    the estimation votes then give fails with the probability of its level. The statement about an image is false only
    if it is about the one target whose true radius is the shortest, for which the bounds on p_A (and p_T) and on that
    target's share would have to fail: with probability `lower` (twice, where T is bounded too) + `upper` <= alpha
    (an intersection-union test: Berger, Technometrics 1982). So nothing is divided by the number of targets. If that
    one target takes the threshold route, the bound on its share alone would have to fail: with probability `alone`,
    which is alpha.

    Args:
        selection: Votes of the selection samples, of N images.
        labels: The true classes, (N,).
        costs: The cost matrix; Omega is what is costly to answer for an image's class.
        method: Method, which says its levels and whether it pays for the set route.
        alpha: Failure probability of the statement.
        answer: What the smoothed classifier says, given shares.
    """
    top, targets = selection.top(), Targets(labels, costs)
    lower, upper = method.levels(alpha)
    by_threshold = _by_threshold(selection, top, targets, answer)
    harmless = _favoured_sets(selection, top, targets, by_threshold) if method.set_route else _no_sets(len(selection))
    return Settled(top, harmless, np.where(harmless.totals() > 0, lower / 2, lower), upper, by_threshold, alpha)


def _by_threshold(selection: SparseVotes, top: IntArray, targets: Targets, answer: Answer) -> NDArray[np.bool_]:
    """Which targets take the threshold route: those whose threshold is 1/2 or more.

    Of a lower one the route is taken that is the longer one by the selection votes, against the pair's: by Phi^-1 z of
    shares z_tau - z_j against (z_A - z_j) / 2, of which A itself has none.
    """
    taus = targets.of_classes(answer.of_classes(targets.costs.num_classes))
    chosen = taus >= 0.5
    low = (taus > 0) & ~chosen
    if low.any():
        n0, (entries, places) = selection.totals(), targets.entries(selection)
        z = targets.of_images(_quantile(0, n0))
        z[places] = _quantile(selection.counts[entries], n0[selection.images[entries]])
        z_top = targets.of_images(_quantile(selection.of(top), n0))
        chosen[low] = 2 * ndtri(taus[low]) > (z_top + z)[low]
        on_top = np.flatnonzero(targets.costs.of(targets.labels, top) > 0)
        of_tops = targets.places(on_top, top[on_top])
        chosen[of_tops] = taus[of_tops] > 0
    return chosen


def _no_sets(num_images: int) -> SparseVotes:
    return SparseVotes(np.zeros(num_images + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64))


def _favoured_sets(
    selection: SparseVotes, top: IntArray, targets: Targets, by_threshold: NDArray[np.bool_]
) -> SparseVotes:
    """The set T of each image whose radius is the largest by its selection votes; none where that is {A}.

    Candidates are the t harmless classes with the most votes, for each t. An image of which A is costly gets none, nor
    one of which every target takes the threshold route.
    """
    images, labels = selection.images, targets.labels
    entries, places = targets.entries(selection)
    costly, rivals = np.zeros((2, len(images)), bool)
    costly[entries], rivals[entries] = True, ~by_threshold[places]
    rival = selection.kept(rivals).largest()
    pays = (targets.count(~by_threshold) > 0) & (targets.costs.of(labels, top) == 0)
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
    radius = set_radius(_quantile(in_set, n0), _quantile(against, n0), num)[inverse.reshape(-1)]
    order = np.lexsort((size, -radius, of))
    _, first = np.unique(of[order], return_index=True)
    favoured = np.zeros(len(labels), np.int64)
    favoured[of[order[first]]] = size[order[first]]
    favoured[favoured == 1] = 0
    chosen = entries[size <= favoured[of]]
    chosen = chosen[np.lexsort((selection.classes[chosen], images[chosen]))]
    offsets = np.concatenate([[0], np.cumsum(favoured)])
    return SparseVotes(offsets, selection.classes[chosen], np.ones(len(chosen), np.int64))


def _quantile(votes: ArrayLike, n0: IntArray) -> FloatArray:
    """Phi^-1 of a share by selection votes, with half a vote more, so that none is no certainty."""
    return np.asarray(ndtri((np.asarray(votes) + 0.5) / (n0 + 1)))


def votes_of_sets(estimation: SparseVotes, sets: SparseVotes) -> IntArray:
    """How many votes of each image are for a class of its set, (N,)."""
    stride = 1 + max(estimation.classes.max(initial=0), sets.classes.max(initial=0))
    keys, wanted = (votes.images * stride + votes.classes for votes in (estimation, sets))
    return estimation.kept(np.isin(keys, wanted, assume_unique=True)).totals()


def pair_radius(low: ArrayLike, high: ArrayLike) -> FloatArray:
    """The radius of the pair route in units of sigma, by Phi^-1 of the bounds on p_A and p_j; 0 where there is none."""
    return np.maximum(0.0, (np.asarray(low) - np.asarray(high)) / 2)


def threshold_radius(tau: ArrayLike, high: ArrayLike) -> FloatArray:
    """The radius of the threshold route in units of sigma, by tau and Phi^-1 of the bound on p_j; 0 where none is."""
    return np.maximum(0.0, ndtri(tau) - np.asarray(high))


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


def answered_radii(
    p_a_lower: FloatArray, multiclass_radius: FloatArray, says: Answer, taus: FloatArray, sigma: float
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """standard_radius and multiclass_radius, within which A is answered, and whether that is unproven at the image.

    A is answered where it is the most likely class and its share exceeds its threshold. Where that is 1/2 or more, the
    second says it all. Else the radius is the lesser of two, each at all of alpha: it exceeds the truth only where the
    one does that the truth is made of (intersection-union).

    Args:
        p_a_lower: The bound on p_A at alpha, (N,).
        multiclass_radius: Within it A is the most likely class, (N,); NaN by methods that do not state it.
        says: The answer.
        taus: The threshold of each image's A, (N,).
        sigma: Noise level.
    """
    place = ndtri(p_a_lower)
    standard_radius = sigma * np.maximum(0.0, place - ndtri(np.maximum(taus, 0.5)))
    unproven = standard_radius <= 0
    if says.is_argmax:
        return standard_radius, multiclass_radius, unproven
    some = taus > 0
    exceeds = np.full(len(taus), np.inf)
    exceeds[some] = sigma * np.maximum(0.0, place[some] - ndtri(taus[some]))
    radius = np.where(taus < 0.5, np.minimum(multiclass_radius, exceeds), exceeds)
    radius[np.isnan(multiclass_radius)] = np.nan
    return standard_radius, radius, np.where((taus < 0.5) & ~np.isnan(radius), radius <= 0, unproven)


def route_names(settled: Settled, targets: Targets) -> NDArray[np.object_]:
    """The routes that were paid for, in words, (N,)."""
    by_threshold = targets.count(settled.by_threshold)
    kind = 2 * settled.set_size + (by_threshold > 0)
    kind[(by_threshold == targets.number) & (targets.number > 0)] = -1
    kinds, which = np.unique(kind, return_inverse=True)
    return np.array([_route(*divmod(one, 2)) if one >= 0 else "threshold" for one in kinds.tolist()], object)[which]


def _route(set_size: int, some_by_threshold: int) -> str:
    return "pair" + (f"+set:{set_size}" if set_size else "") + ("+threshold" if some_by_threshold else "")
