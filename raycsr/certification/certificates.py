"""From votes to certificates: each image's standard, group-wise and pair-wise radii."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from raycsr.certification.bounds import (
    BOUNDS,
    MOST_SAMPLES,
    Bounds,
    FloatArray,
    IntArray,
    check_alpha,
    distinct_triples,
)
from raycsr.costs import CostMatrix, as_cost_matrix
from raycsr.errors import UserError, nearest

# How an image's alpha is spent: this share on the lower bound on p_A, the rest on the upper bounds together.
# Next to spending it all on p_A, the group radius loses little (0.1 % at n = 100,000) and the pair-wise
# radii gain much.
SHARE_OF_P_A = 0.9

# Votes are made dense for this many (image, class) entries at a time.
BLOCK_ENTRIES = 2**20


@dataclass(frozen=True)
class SparseVotes:
    """Votes of N images, kept for the classes that got any: image i has entries offsets[i] to offsets[i + 1].

    Attributes:
        offsets: int64 (N + 1,), ascending from 0.
        classes: int32, ascending within an image.
        counts: int64, aligned with classes.

    Raises:
        UserError: arrays that do not fit together, classes out of order, negative counts.

    Example:
        >>> votes = SparseVotes.from_dense([[90, 0, 10], [0, 100, 0]])
        >>> votes.classes, votes.counts
        (array([0, 2, 1], dtype=int32), array([ 90,  10, 100]))
        >>> votes.dense(3)[0]
        array([90,  0, 10])
    """

    offsets: IntArray
    classes: NDArray[np.int32]
    counts: IntArray

    def __post_init__(self) -> None:
        """Check what everything below relies on."""
        ends = (int(self.offsets[0]), int(self.offsets[-1]))
        if ends != (0, len(self.classes)) or ends != (0, len(self.counts)):
            raise UserError(
                f"votes with offsets from {ends[0]} to {ends[1]} hold {len(self.classes)} classes and "
                f"{len(self.counts)} counts; offsets must run from 0 to the length of both"
            )
        if len(self.counts) and self.counts.min() < 0:
            raise UserError(f"a class has {self.counts.min()} votes; votes cannot be negative")
        _refuse_too_many(self.counts)  # so that no sum of an image's votes wraps
        descends = self.classes[1:] <= self.classes[:-1]
        starts = self.offsets[(self.offsets > 0) & (self.offsets < len(self.classes))]
        descends[starts - 1] = False  # the first class of the next image may be any
        if descends.any():
            raise UserError(f"votes list class {self.classes[1:][descends][0]} out of order; sort by class")

    @classmethod
    def from_dense(cls, counts: ArrayLike) -> "SparseVotes":
        """Keep the non-zero entries of an integer array (N, m)."""
        array = np.asarray(counts)
        if array.dtype.kind not in "iu" or array.ndim != 2:
            raise UserError(f"votes of type {array.dtype} and shape {array.shape}; give integers (N, m)")
        _refuse_too_many(array)
        voted = array != 0
        offsets = np.concatenate([[0], np.cumsum(np.count_nonzero(voted, axis=1))])
        classes = np.broadcast_to(np.arange(array.shape[1], dtype=np.int32), array.shape)[voted]
        return cls(offsets, classes, array[voted].astype(np.int64, copy=False))

    def __len__(self) -> int:
        """The number of images."""
        return len(self.offsets) - 1

    def __getitem__(self, images: slice) -> "SparseVotes":
        """The votes of a run of images, such as votes[100:200]."""
        start, stop, _ = images.indices(len(self))
        entries = slice(self.offsets[start], self.offsets[stop])
        offsets = self.offsets[start : stop + 1] - self.offsets[start]
        return SparseVotes(offsets, self.classes[entries], self.counts[entries])

    def dense(self, num_classes: int) -> IntArray:
        """The votes as int64 (N, num_classes)."""
        if len(self.classes) and self.classes.max() >= num_classes:
            raise UserError(f"votes for class {self.classes.max()}, but there are {num_classes} classes")
        dense = np.zeros((len(self), num_classes), dtype=np.int64)
        dense[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.classes] = self.counts
        return dense

    def totals(self) -> IntArray:
        """The votes of each image in total, (N,)."""
        return np.diff(np.concatenate([[0], np.cumsum(self.counts)])[self.offsets])


def _refuse_too_many(counts: NDArray[np.integer]) -> None:
    if counts.size and counts.max() > MOST_SAMPLES:
        raise UserError(f"a class has {counts.max():,} votes; an image has {MOST_SAMPLES:,} samples at most")


def certify_counts(
    counts0: ArrayLike,
    counts: ArrayLike,
    labels: ArrayLike,
    *,
    costs: CostMatrix | str,
    sigma: float,
    sampling: str | Iterable[str],
    alpha: float = 0.001,
    image_ids: Iterable[str] | None = None,
    rules: Iterable[str] | None = None,
    errors: Iterable[str | None] | None = None,
) -> pd.DataFrame:
    """Certify images from their dense votes.

    Args:
        counts0: int (N, m), the votes of the selection samples: they name the top class A.
        counts: int (N, m), the votes of the estimation samples, drawn from other noise: they bound the p_k.
        labels: int (N,), the true classes.
        costs: the cost matrix, (m, m); or how a command line writes it, with classes by index, such as `seed:8`.
        sigma: standard deviation of the noise in [0, 1] pixel units, which are the units of all radii (L2).
        sampling: how n was chosen, for all rows or for each, which must agree: `fixed`, where it was settled before
            any vote was seen, or `sequential`, where votes may have said when to stop. It decides on the bounds:
            Clopper-Pearson's, or those of a confidence sequence, which hold at every n at once. It has no default,
            since Clopper-Pearson's bounds on votes that said when to stop are none.
        alpha: failure probability of one image's certificate in total. The standard certificate
            (standard_radius, p_a_lower_standard) and the cost-sensitive one are two statements at alpha each.
        image_ids: (N,) names of the images; their positions if None.
        rules: (N,) the decision rule of each row; `argmax` if None.
        errors: (N,) why an image has no votes worth having, or None: its row certifies nothing.

    Returns:
        One row an image, in order, with the columns: image_id, rule, label, prediction (A; null on error),
        abstain, standard_radius, p_a_lower_standard (at alpha), p_a_lower (at 0.9 alpha),
        cost_sensitive_radius (within it the smoothed classifier never enters Omega_y; NaN where that is
        empty), p_b_upper and pairwise_radius (arrays aligned with costs.targets(label): within its own radius
        a target is never returned), alpha, error.

    Raises:
        UserError: arguments out of range, shapes that disagree, a row with neither votes nor an error, or a
            sampling design for which the bounds do not hold.

    Source: Cohen, Rosenfeld & Kolter, ICML 2019, theorem 1 (standard); Xin, Chen, Backes & Zhang, ICML 2025
    (cost-sensitive). Bounds hold together at alpha by Bonferroni.

    Example:
        >>> counts0, counts = [[60, 4, 0], [30, 34, 0]], [[990, 10, 0], [510, 490, 0]]  # two images, three classes
        >>> certificates = certify_counts(counts0, counts, [0, 0], costs="pair:0/1", sigma=0.5, sampling="fixed")
        >>> certificates[["prediction", "abstain", "standard_radius"]].round(3)
           prediction  abstain  standard_radius
        0           0    False            0.989
        1           1     True            0.000
    """
    shape = np.shape(counts)
    if np.shape(counts0) != shape:
        raise UserError(f"counts0 has shape {np.shape(counts0)}, counts {shape}; both are (images, classes)")
    costs = as_cost_matrix(costs, shape[1] if len(shape) == 2 else None)
    if shape[1:] != (costs.num_classes,):
        raise UserError(f"counts has shape {shape}, the cost matrix {costs.num_classes} classes; make them agree")
    return certify_votes(
        SparseVotes.from_dense(counts0),
        SparseVotes.from_dense(counts),
        labels,
        costs=costs,
        sigma=sigma,
        alpha=alpha,
        sampling=sampling,
        image_ids=image_ids,
        rules=rules,
        errors=errors,
    )


def certify_votes(
    selection: SparseVotes,
    estimation: SparseVotes,
    labels: ArrayLike,
    *,
    costs: CostMatrix,
    sigma: float,
    sampling: str | Iterable[str],
    alpha: float = 0.001,
    image_ids: Iterable[str] | None = None,
    rules: Iterable[str] | None = None,
    errors: Iterable[str | None] | None = None,
) -> pd.DataFrame:
    """Certify images from their sparse votes: see `certify_counts`, which takes them dense.

    Example:
        >>> votes = SparseVotes.from_dense([[990, 10, 0]])
        >>> certificates = certify_votes(votes, votes, [0], costs=CostMatrix.uniform(3), sigma=0.5, sampling="fixed")
        >>> certificates["standard_radius"].round(3).tolist()
        [0.989]
    """
    num_images, costs = len(selection), as_cost_matrix(costs)
    if not (np.isfinite(sigma) and sigma > 0):
        raise UserError(f"sigma is {sigma}; give the noise level in [0, 1] pixel units, above 0")
    check_alpha(alpha)
    if len(estimation) != num_images:
        raise UserError(f"{num_images} rows of selection votes, {len(estimation)} of estimation; give one an image")
    truth = _checked_labels(labels, num_images, costs.num_classes)
    ids = _one_each("image_ids", (str(i) for i in range(num_images)) if image_ids is None else image_ids, num_images)
    rule = _one_each("rules", "argmax" if rules is None else rules, num_images)
    error = _one_each("errors", errors, num_images)
    errored = pd.notna(error)
    error[~errored] = None  # NaN, which is how a table says None
    bounds = _bounds_of(_one_each("sampling", sampling, num_images))

    estimation = _without(estimation, errored)
    n = estimation.totals()
    unvoted = ~errored & ((selection.totals() == 0) | (n == 0))
    if unvoted.any():
        raise UserError(f"image {ids[unvoted][0]!r} has no votes and no error; sample it, or say why in errors")
    top, top_votes = _top_classes(selection, estimation, costs.num_classes)
    p_a_lower_standard = bounds.lower(top_votes, n, alpha)
    p_a_lower = bounds.lower(top_votes, n, SHARE_OF_P_A * alpha)
    p_b_upper, pairwise_radius, offsets = _targets(estimation, n, truth, top, p_a_lower, bounds, costs, sigma, alpha)

    cost_sensitive_radius = np.full(num_images, np.nan)
    sensitive = costs.sensitive[truth]
    if sensitive.any():
        cost_sensitive_radius[sensitive] = np.minimum.reduceat(pairwise_radius, offsets[:-1][sensitive])

    return pd.DataFrame(
        {
            "image_id": ids,
            "rule": rule,
            "label": truth,
            "prediction": pd.arrays.IntegerArray(top, errored),
            "abstain": (p_a_lower_standard <= 0.5) & ~errored,
            "standard_radius": sigma * np.maximum(0.0, ndtri(p_a_lower_standard)),
            "p_a_lower_standard": p_a_lower_standard,
            "p_a_lower": p_a_lower,
            "cost_sensitive_radius": cost_sensitive_radius,
            "p_b_upper": _views(p_b_upper, offsets),
            "pairwise_radius": _views(pairwise_radius, offsets),
            "alpha": float(alpha),
            "error": pd.Series(error, dtype="object"),  # else pandas makes NaN of None
        }
    )


def _top_classes(selection: SparseVotes, estimation: SparseVotes, num_classes: int) -> tuple[IntArray, IntArray]:
    """The top class A of the selection votes, lowest index on a tie, and A's estimation votes; each (N,)."""
    top, votes = np.zeros(len(selection), np.int64), np.zeros(len(selection), np.int64)
    for block in _blocks(len(selection), num_classes):
        top[block] = selection[block].dense(num_classes).argmax(axis=1)
        votes[block] = np.take_along_axis(estimation[block].dense(num_classes), top[block, None], axis=1)[:, 0]
    return top, votes


def _targets(
    estimation: SparseVotes,
    n: IntArray,
    truth: IntArray,
    top: IntArray,
    p_a_lower: FloatArray,
    bounds: Bounds,
    costs: CostMatrix,
    sigma: float,
    alpha: float,
) -> tuple[FloatArray, FloatArray, IntArray]:
    """p_b_upper and pairwise_radius of every image's targets, flat, and the images' offsets in them (N + 1,).

    Of a target j other than A: min(U_j, 1 - L), and sigma/2 (Phi^-1(L) - Phi^-1(that)). Of A itself: U_A,
    and 0, since 1 - L does not bound p_A.
    """
    num_targets = np.count_nonzero(costs.values > 0, axis=1)[truth]
    offsets = np.concatenate([[0], np.cumsum(num_targets)])
    p_b_upper, pairwise_radius = np.empty(offsets[-1]), np.empty(offsets[-1])
    level, quantile_a = level_of_target(alpha, num_targets), ndtri(p_a_lower)
    for block in _blocks(len(truth), costs.num_classes):
        counts = estimation[block].dense(costs.num_classes)  # (B, m)
        # Votes repeat themselves: take quantiles of the distinct bounds only.
        triples, inverse = distinct_triples(counts, n[block, None], level[block, None])
        distinct_upper = bounds.upper(*triples)
        upper, quantile_upper = distinct_upper[inverse], ndtri(distinct_upper)[inverse]  # (B, m) each
        quantile_b = np.minimum(quantile_upper, -quantile_a[block, None])  # Phi^-1(1 - L) = -Phi^-1(L)
        radius = np.maximum(0.0, sigma / 2 * (quantile_a[block, None] - quantile_b))
        is_top = np.arange(costs.num_classes) == top[block, None]
        radius[is_top] = 0.0
        upper = np.where(is_top, upper, np.minimum(upper, 1 - p_a_lower[block, None]))
        flat = slice(offsets[block.start], offsets[block.stop])
        is_target = costs.values[truth[block]] > 0
        p_b_upper[flat], pairwise_radius[flat] = upper[is_target], radius[is_target]
    return p_b_upper, pairwise_radius, offsets


def level_of_target(alpha: float, num_targets: IntArray) -> FloatArray:
    """The failure probability of one target's bound: what p_A leaves of alpha, shared among the targets."""
    return (1 - SHARE_OF_P_A) * alpha / np.maximum(1, num_targets)


def _blocks(num_images: int, num_classes: int) -> Iterator[slice]:
    """Runs of images whose dense votes are small."""
    step = max(1, BLOCK_ENTRIES // num_classes)
    for start in range(0, num_images, step):
        yield slice(start, min(start + step, num_images))


def _without(votes: SparseVotes, images: NDArray[np.bool_]) -> SparseVotes:
    """The same votes, but none for some images: to the bounds, an errored image is one without votes."""
    if not images.any():
        return votes
    return replace(votes, counts=np.where(np.repeat(images, np.diff(votes.offsets)), 0, votes.counts))


def _views(flat: FloatArray, offsets: IntArray) -> NDArray[np.object_]:
    """A column of arrays that all share the memory of one."""
    column = np.empty(len(offsets) - 1, dtype=object)
    for i in range(len(column)):
        column[i] = flat[offsets[i] : offsets[i + 1]]
    return column


def _one_each(name: str, values: Iterable[str | None] | None, num_images: int) -> NDArray[np.object_]:
    """A column (N,) of what was given once for all images, or once for each."""
    if values is None or isinstance(values, str):
        return np.full(num_images, values, dtype=object)
    column = np.array(list(values), dtype=object)
    if len(column) != num_images:
        raise UserError(f"{name} has {len(column)} entries for {num_images} images; give one an image")
    return column


def _checked_labels(labels: ArrayLike, num_images: int, num_classes: int) -> IntArray:
    array = np.asarray(labels)
    if array.shape != (num_images,) or (array.dtype.kind not in "iu" and num_images > 0):
        raise UserError(f"labels of type {array.dtype} and shape {array.shape}; give {num_images} integers")
    wrong = (array < 0) | (array >= num_classes)
    if wrong.any():
        raise UserError(f"label {array[wrong][0]} is not one of the {num_classes} classes of the cost matrix")
    return array.astype(np.int64)


def _bounds_of(sampling: NDArray[np.object_]) -> Bounds:
    """The bounds that hold for votes of this design; refuses one that is unknown, and two at once."""
    designs = list(dict.fromkeys(sampling)) or ["fixed"]  # no rows need no bounds
    if len(designs) > 1:
        raise UserError(f"votes sampled by {' and '.join(map(repr, designs))}; certify those of one design at a time")
    if designs[0] not in BOUNDS:
        raise UserError(f"no bounds are known for votes sampled by {designs[0]!r}; {nearest(str(designs[0]), BOUNDS)}")
    return BOUNDS[designs[0]]
