"""How far one class stays ahead of others, and so among the k most likely ones: certified top-k."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from raycsr.certification.bounds import FloatArray, check_alpha
from raycsr.certification.eprocess import Stakes, betting_radius
from raycsr.certification.methods import NEWEST, Method, method_named
from raycsr.certification.routes import pair_radius
from raycsr.certification.votes import SparseVotes
from raycsr.errors import UserError


def top_k_radius(
    counts0: ArrayLike | SparseVotes,
    counts: ArrayLike | SparseVotes,
    labels: ArrayLike,
    *,
    k: int,
    sigma: float,
    sampling: str,
    alpha: float = 0.001,
    method: str | None = None,
) -> FloatArray:
    """The radius within which the true class stays among the k most likely classes of each image.

    The k - 1 other classes with the most selection votes are left aside: as long as no class but them is as likely as
    the true one, at most k - 1 classes are. That is the statement about a group of targets, "none of them is as likely
    as y", which is false only if it is about the one that comes nearest (intersection-union), whatever k is. Which
    classes are left aside is settled before a vote that estimates is seen.

    Args:
        counts0: The votes of the selection samples; int (N, m), or sparse.
        counts: The votes of the estimation samples; int (N, m), or sparse. An image without any certifies nothing.
        labels: The true classes; int (N,).
        k: How many classes may be named, from 1 on.
        sigma: Standard deviation of the noise in [0, 1] pixel units, which are the units of the radii (L2).
        sampling: How n was chosen: `fixed` or `sequential`, as in `certify_counts`.
        alpha: Failure probability of this statement about an image. It is one more beside those of `certify_counts`.
        method: The method, of `raycsr.certification.methods.METHODS`; by default the newest of the design.

    Returns:
        The radii, (N,); 0 where there is none. Certified top-k accuracy at r is the share above 0 that is no smaller
        than r.

    Raises:
        UserError: a k below 1, votes and labels that disagree, or a method that does not hold for the design.

    Source: Jia, Cao, Wang & Gong, ICLR 2020, theorem 1 for one rival (t = 1): theirs may be longer where several
    classes would have to come near together, and pays for the bounds on all classes.

    Example:
        >>> counts0, counts = [[30, 20, 14, 0]], [[480, 330, 180, 10]]
        >>> [top_k_radius(counts0, counts, [1], k=k, sigma=0.5, sampling="fixed").round(3).item() for k in (1, 2, 3)]
        [0.0, 0.043, 0.337]
    """
    if k < 1:
        raise UserError(f"k is {k}; give how many classes may be named, from 1 on")
    check_alpha(alpha)
    if sampling not in NEWEST:
        raise UserError(f"no bounds are known for votes sampled by {sampling!r}; choose from {', '.join(NEWEST)}")
    by = NEWEST[sampling] if method is None else method_named(method, sampling)
    selection, estimation = (
        votes if isinstance(votes, SparseVotes) else SparseVotes.from_dense(votes) for votes in (counts0, counts)
    )
    y = np.asarray(labels)
    if not len(selection) == len(estimation) == len(y):
        raise UserError(f"{len(selection)} rows of selection votes, {len(estimation)} of estimation, {len(y)} labels")
    rivals = estimation.kept(~_left_aside(selection, estimation, y, k - 1))
    totals, totals0 = estimation.totals(), selection.totals()
    stakes = Stakes.of_pair(totals, estimation.of(y), rivals.largest(), totals0, selection.of(y))
    return ahead_radius(stakes, by, sigma, alpha)


def _left_aside(selection: SparseVotes, estimation: SparseVotes, labels: ArrayLike, number: int) -> NDArray[np.bool_]:
    """Which entries of the estimation votes are of the true class, or of the others with the most selection votes."""
    y = np.asarray(labels)
    images, classes, counts = selection.images, selection.classes, selection.counts
    others = np.flatnonzero((classes != y[images]) & (counts > 0))
    others = others[np.lexsort((classes[others], -counts[others], images[others]))]
    rank = np.arange(len(others)) - np.searchsorted(images[others], images[others])
    first = others[rank < number]
    stride = 1 + max(int(votes.classes.max(initial=0)) for votes in (selection, estimation))
    keys, aside = estimation.images * stride + estimation.classes, images * stride + classes
    return np.isin(keys, aside[first]) | (estimation.classes == y[estimation.images])


def ahead_radius(stakes: Stakes, method: Method, sigma: float, alpha: float) -> FloatArray:
    """Within it one class, fixed before the votes, is more likely than each of its rivals, (N,); by the pair route.

    Args:
        stakes: Votes of the class (`of_top`), and of the rival that has the most of them (`of_target`).
        method: Method, by whose bounds or evidence the radius is certified.
        sigma: Noise level; the radii are in its units.
        alpha: Failure probability of each image's radius.
    """
    if method.by_evidence:
        return betting_radius(stakes, sigma, alpha)
    lower, upper = method.levels(alpha)
    low = ndtri(method.bounds.lower(stakes.of_top, stakes.n, lower))
    high = ndtri(method.bounds.upper(stakes.of_target, stakes.n, upper))
    return sigma * pair_radius(low, np.minimum(high, -low))
