"""95 % intervals over images: of shares, and of means; also where images come in groups that belong together."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from raycsr.certification.bounds import FloatArray, IntArray

# Standard normal quantile of a two-sided 95 % interval, and the percentiles of a bootstrapped one.
Z_95 = 1.959963984540054
PERCENTILES_95 = (2.5, 97.5)
RESAMPLES = 1000

# Images from which on a mean is normal enough: resampling them would give the same limits, forty times as slowly.
NORMAL_FROM = 1000

# Groups, as Kish counts them, of which the spread says something: two, of which one may be a few times as large.
FEWEST_GROUPS = 1.5

# Resamples are drawn this many at a time.
BLOCK_RESAMPLES = 100

# (limits below, limits above), (R,) each
Limits = tuple[FloatArray, FloatArray]


def mean(values: NDArray[np.bool_] | FloatArray) -> FloatArray:
    """Mean over images, NaN over none: (N, R) -> (R,)."""
    return values.mean(axis=0) if len(values) else np.full(values.shape[1], np.nan)


def share_intervals(groups: IntArray, *hits: NDArray[np.bool_]) -> list[Limits]:
    """The intervals of shares: `wilson` of each array (N, R) about the same N images."""
    return [wilson(one, groups) for one in hits]


def wilson(hits: NDArray[np.bool_], groups: IntArray | None = None) -> Limits:
    """The 95 % score interval of a share (Wilson, JASA 1927).

    Where images come in groups, it is that of the effective number of images: N over the design effect (how many times
    the share's variance is that of independent images, by the groups' own spread, at least 1), less what Student's t
    takes for few groups (Franco, Little, Louis & Slud, J. Survey Stat. Methodol. 2019). Its degrees of freedom are
    those of Kish's number of groups, N^2 / sum of N_g^2, less 1: a large group among small ones says little of the
    spread. A share of 0 or 1 has no spread to see: there all images of a group count as one, by Kish's number again.

    Args:
        hits: Hits, 0 or 1, in a column for each share; (N, R).
        groups: Numbers that are equal where images are not independent; by default all are; int (N,).

    Returns:
        The limits, (R,) each; 0 and 1 where (nearly) all images are of one group, NaN where there are none.
    """
    share, num_images = mean(hits), np.full(hits.shape[1], float(max(1, len(hits))))
    if groups is not None:
        sizes = group_sizes(groups)
        if len(sizes) < len(hits):
            if _kish(sizes) < FEWEST_GROUPS:
                return np.zeros_like(share), np.ones_like(share)
            num_images = _effective(hits, groups, sizes)
    return score_interval(share, num_images)


def score_interval(share: FloatArray, num_images: FloatArray) -> Limits:
    """The 95 % score interval of shares of so many independent images, (R,) each; NaN where a share is."""
    centre = share + Z_95**2 / (2 * num_images)
    half = Z_95 * np.sqrt(share * (1 - share) / num_images + Z_95**2 / (4 * num_images**2))
    scale = 1 + Z_95**2 / num_images
    return np.maximum(0.0, (centre - half) / scale), np.minimum(1.0, (centre + half) / scale)


def _effective(values: NDArray[np.bool_] | FloatArray, groups: IntArray, sizes: IntArray) -> FloatArray:
    """How many independent images say as much about each mean (R,) as these do, in groups of several sizes."""
    num_images, num_groups = len(values), _kish(sizes)
    independent = values.var(axis=0) / num_images
    effect = np.full_like(independent, num_images / num_groups)
    seen = independent > 0
    effect[seen] = _variance(values[:, seen], groups) / independent[seen]
    return num_images / np.maximum(effect, 1.0) * (Z_95 / _student(num_groups)) ** 2


def _variance(values: NDArray[np.bool_] | FloatArray, groups: IntArray) -> FloatArray:
    """The variance of each column's mean (R,), where groups are drawn whole: a jackknife that leaves one out at a time.

    A large group pulls the mean towards its own: by its distance from that, it would seem to vary little.
    """
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sums = np.add.reduceat((values - mean(values))[order], starts, axis=0)  # (G, R)
    others = len(groups) - np.diff(starts, append=len(groups))
    return (len(starts) - 1) / len(starts) * ((sums / others[:, None]) ** 2).sum(axis=0)


def group_sizes(groups: IntArray) -> IntArray:
    """How many images each group has, (G,), by the groups' numbers: int (N,)."""
    ordered = np.sort(groups)
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    return np.diff(starts, append=len(ordered))


def _kish(sizes: IntArray) -> float:
    """How many groups of one size say as much as groups of these sizes, where all images of a group are alike."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _student(num_groups: float) -> float:
    return float(stdtrit(num_groups - 1, 0.975))


def mean_intervals(groups: IntArray, *values: FloatArray) -> list[Limits]:
    """The 95 % interval of each column's mean, in arrays (N, R) of non-negative numbers about the same N images.

    Few independent images are resampled; groups, which may be few, have Student's t. NaN where (nearly) all are of one.
    """
    return [(np.maximum(0.0, low), high) for low, high in _means(groups, *values)]


def mean_difference_interval(differences: FloatArray, groups: IntArray) -> Limits:
    """The 95 % interval of the mean of paired differences (N, R): those of `mean_intervals`, of numbers of any sign."""
    return _means(groups, differences)[0]


def share_difference_interval(differences: FloatArray, groups: IntArray) -> Limits:
    """The 95 % interval of the difference of two shares of the same images.

    That of Bonett & Price (J. Educ. Behav. Stat. 2012), which Fagerland, Lydersen & Laake (Stat. Med. 2014) recommend:
    one image is added that only the first has, and one that only the second has, so that where no images differ, the
    limits still do. Where images come in groups, their number is the effective one, as `wilson` takes it.

    Args:
        differences: 1 where only the first has an image, -1 where only the second has, else 0; (N, R).
        groups: Numbers that are equal where images are not independent; int (N,).

    Returns:
        The limits, (R,) each; -1 and 1 where there are no images, or (nearly) all are of one group.
    """
    sizes, columns = group_sizes(groups), differences.shape[1]
    num_images = np.full(columns, float(len(differences)))
    if len(sizes) == 0 or (len(sizes) < len(groups) and _kish(sizes) < FEWEST_GROUPS):
        return np.full(columns, -1.0), np.ones(columns)
    if len(sizes) < len(groups):
        num_images = _effective(differences, groups, sizes)
    first, second = (((differences == sign).mean(axis=0) * num_images + 1) / (num_images + 2) for sign in (1, -1))
    half = Z_95 * np.sqrt((first + second - (first - second) ** 2) / (num_images + 2))
    return np.maximum(-1.0, first - second - half), np.minimum(1.0, first - second + half)


def _means(groups: IntArray, *values: FloatArray) -> list[Limits]:
    sizes = group_sizes(groups)
    if len(sizes) == len(groups):
        if len(groups) < NORMAL_FROM:
            return _bootstrap(*values)
        return [_around_mean(array, Z_95 * array.std(axis=0) / np.sqrt(len(groups))) for array in values]
    if _kish(sizes) < FEWEST_GROUPS:
        return [(np.full(array.shape[1], np.nan), np.full(array.shape[1], np.nan)) for array in values]
    return [_around_mean(array, _student(_kish(sizes)) * np.sqrt(_variance(array, groups))) for array in values]


def _around_mean(values: FloatArray, half: FloatArray) -> Limits:
    centre = mean(values)
    return centre - half, centre + half


def _bootstrap(*values: FloatArray) -> list[Limits]:
    """The 95 % percentile interval of each column's mean, in arrays (N, R) about the same N images."""
    num_images = len(values[0])
    if num_images == 0:
        return [(mean(array), mean(array)) for array in values]
    generator = np.random.default_rng(0)
    means: list[list[FloatArray]] = [[] for _ in values]
    for _ in range(0, RESAMPLES, BLOCK_RESAMPLES):
        drawn = generator.integers(num_images, size=(BLOCK_RESAMPLES, num_images))
        times = np.array([np.bincount(images, minlength=num_images) for images in drawn], dtype=np.float64)
        for array, resampled in zip(values, means, strict=True):
            resampled.append(times @ array / num_images)
    low_high = [np.percentile(np.concatenate(resampled), PERCENTILES_95, axis=0) for resampled in means]
    return [(low, high) for low, high in low_high]
