"""From certificates to numbers: accuracy, certified accuracy, cost-sensitive robustness, recalls."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from raycsr.certification.bounds import FloatArray, IntArray
from raycsr.certification.groups import group_column, group_numbers
from raycsr.costs import CostMatrix, as_cost_matrix
from raycsr.errors import UserError

# Estimates, in the order of the summary's columns -> whether more is better.
METRICS = {
    "accuracy": True,
    "certified_accuracy": True,
    "acr": True,
    "rob_cs": True,
    "rob_cost": False,
    "worst_case_cost": False,
    "seed_recall": True,
    "target_recall": True,
}

# Standard normal quantile of a two-sided 95 % interval, and the percentiles of a bootstrapped one.
Z_95 = 1.959963984540054
PERCENTILES_95 = (2.5, 97.5)
RESAMPLES = 1000

# Images from which on a mean is normal enough: resampling them would give the same limits, forty times as slowly.
NORMAL_FROM = 1000

# Groups, as Kish counts them, of which the spread says something: two, of which one may be a few times as large.
FEWEST_GROUPS = 1.5

# The guaranteed shares hold with probability 1 - RHO.
RHO = 0.001

# Pair-wise radii are gathered for this many images at a time, resamples are drawn this many at a time.
BLOCK_IMAGES = 1024
BLOCK_RESAMPLES = 100


def metric_of(costs: CostMatrix) -> str:
    """The metric that models and rules compete in under a cost matrix, where nobody names another.

    rob_cs counts the images on which no costly mistake is possible, whatever it costs; where mistakes cost more or
    less, it cannot tell those apart, and rob_cost decides: the mean of the costs that are not ruled out.

    Args:
        costs: the cost matrix.

    Returns:
        `rob_cost` where two mistakes have different positive costs, else `rob_cs`.
    """
    positive = costs.values[costs.values > 0]
    return "rob_cost" if len(positive) and not np.isclose(positive.min(), positive.max()) else "rob_cs"


def summarize(
    certificates: pd.DataFrame,
    *,
    costs: CostMatrix,
    radii: ArrayLike,
    intervals: bool = True,
    groups: ArrayLike | None = None,
) -> pd.DataFrame:
    """Sum certificates up at each radius. "Certified at r" means radius > 0 and radius >= r.

    Args:
        certificates: rows of `certify_counts` of one decision rule and one alpha, in memory or read back.
        costs: the cost matrix they were made with.
        radii: the radii r (R,), in the units of sigma.
        intervals: whether to add 95 % intervals over images; a curve of many radii is quicker without.
        groups: (N,) which images are not independent, such as those of one patient: they have one value, those that
            stand alone None. By default the certificates' column `group`, where they have one. Intervals are then
            over groups, each of which is drawn whole.

    Returns:
        One row a radius, in the order given, with the columns

        - radius, num_images, num_errors, num_sensitive (images with a cost-sensitive radius), num_target (images of
          target classes), num_groups;
        - accuracy: share of images with prediction == label and not abstained;
        - certified_accuracy: share of images that are correct with standard_radius certified at r;
        - acr: mean of standard_radius where correct, of 0 elsewhere;
        - rob_cs: share of the sensitive images whose cost_sensitive_radius is certified at r;
        - rob_cost: mean over them of the sum of C[y, j] over the targets j not certified at r;
        - worst_case_cost: mean over them of the largest such C[y, j], all an adversary within r can cost;
        - seed_recall, target_recall: accuracy among the images of seed classes, of target classes;
        - with `intervals`, NAME_low and NAME_high: Wilson for shares; for means the normal interval, below 1,000 images
          a seeded bootstrap; over groups `wilson` at the effective number of images for shares, Student's t for means;
        - certified_accuracy_guaranteed, rob_cs_guaranteed: with probability 1 - 0.001 the true certified share
          is no smaller, at all radii at once: share - q / N with q = binom.ppf(1 - 0.001, N, alpha). It is about
          these very images, whose noise is independent, so groups do not change it.

        Errored images count in every denominator and in no numerator. NaN where a denominator is 0.

    Raises:
        UserError: no rows, several rules or alphas, a negative radius, certificates of other costs, or not a group an
            image.
    """
    thresholds, costs = checked_radii(radii), as_cost_matrix(costs)
    refuse_mixed(certificates)
    numbers = _group_of_each(certificates, groups)
    labels = certificates["label"].to_numpy(np.int64)
    standard_radius = certificates["standard_radius"].to_numpy(np.float64)
    group_radius = certificates["cost_sensitive_radius"].to_numpy(np.float64, na_value=np.nan)
    sensitive = ~np.isnan(group_radius)
    refuse_other_costs(certificates, labels, sensitive, costs)
    prediction = certificates["prediction"].to_numpy(np.float64, na_value=np.nan)
    correct = (prediction == labels) & ~certificates["abstain"].to_numpy(bool)

    # A row an image of the denominator, a column a radius (one alone, where the radius does not matter).
    of_seeds, of_targets = costs.sensitive[labels], costs.target_classes[labels]
    denominators = {"rob_cs": sensitive, "seed_recall": of_seeds, "target_recall": of_targets}
    shares = {
        "accuracy": correct[:, None],
        "certified_accuracy": correct[:, None] & certified(standard_radius, thresholds),
        "rob_cs": certified(group_radius[sensitive], thresholds),
        "seed_recall": correct[of_seeds, None],
        "target_recall": correct[of_targets, None],
    }
    acr = (standard_radius * correct)[:, None]
    rob_cost, worst_case_cost = _costs_left(certificates[sensitive], labels[sensitive], costs, thresholds)
    means = {"acr": acr, "rob_cost": rob_cost, "worst_case_cost": worst_case_cost}

    columns: dict[str, ArrayLike] = {
        "radius": thresholds,
        "num_images": len(certificates),
        "num_errors": certificates["error"].notna().sum(),
        "num_sensitive": sensitive.sum(),
        "num_target": of_targets.sum(),
        "num_groups": len(np.unique(numbers)),
    }
    for name in METRICS:
        columns[name] = _mean(shares[name] if name in shares else means[name])
    if intervals:
        limits = {name: wilson(hits, numbers[denominators.get(name, ...)]) for name, hits in shares.items()}
        (limits["acr"],) = _mean_intervals(numbers, acr)
        limits["rob_cost"], limits["worst_case_cost"] = _mean_intervals(numbers[sensitive], rob_cost, worst_case_cost)
        for name in METRICS:
            columns[f"{name}_low"], columns[f"{name}_high"] = limits[name]
    for name in ("certified_accuracy", "rob_cs"):
        columns[f"{name}_guaranteed"] = _guaranteed(shares[name], float(certificates["alpha"].iloc[0]))
    return pd.DataFrame({name: np.broadcast_to(column, thresholds.shape) for name, column in columns.items()})


def certified(radii: FloatArray, thresholds: FloatArray) -> NDArray[np.bool_]:
    """Whether each radius is certified at each of R thresholds, in a last axis more: (..., R)."""
    return (radii > 0)[..., None] & (radii[..., None] >= thresholds)


def _costs_left(
    certificates: pd.DataFrame, labels: IntArray, costs: CostMatrix, thresholds: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Sum and maximum of C[y, j] over each image's targets j not certified at each threshold, (N, R) each.

    As r grows a target is lost once and for good: it is entered where that happens, and the entries are then
    accumulated over r. The work is one look-up a target, however many thresholds there are.
    """
    order = np.argsort(thresholds)
    steps = len(thresholds) + 1  # at the last one, beyond all thresholds, enter the targets never lost
    sums, maxima = np.empty((len(labels), len(thresholds))), np.empty((len(labels), len(thresholds)))
    for start in range(0, len(labels), BLOCK_IMAGES):
        block = slice(start, start + BLOCK_IMAGES)
        cost_rows = costs.values[labels[block]]
        image, target = np.nonzero(cost_rows)
        cost = cost_rows[image, target]
        radius = np.concatenate(certificates["pairwise_radius"].iloc[block].to_list())
        lost_at = np.where(radius > 0, np.searchsorted(thresholds[order], radius, side="right"), 0)
        cell = image * steps + lost_at
        entered_sum = np.bincount(cell, cost, minlength=len(cost_rows) * steps).reshape(-1, steps)
        entered_max = np.zeros(len(cost_rows) * steps)
        np.maximum.at(entered_max, cell, cost)
        sums[block, order] = np.cumsum(entered_sum, axis=1)[:, :-1]
        maxima[block, order] = np.maximum.accumulate(entered_max.reshape(-1, steps), axis=1)[:, :-1]
    return sums, maxima


def _mean(values: NDArray[np.bool_] | FloatArray) -> FloatArray:
    """Mean over images, NaN over none."""
    return values.mean(axis=0) if len(values) else np.full(values.shape[1], np.nan)


def _group_of_each(certificates: pd.DataFrame, groups: ArrayLike | None) -> IntArray:
    """The number of each image's group (N,); all differ where no image belongs with another."""
    numbers = group_column(certificates) if groups is None else group_numbers(groups)
    if numbers is None:
        return np.arange(len(certificates))
    if len(numbers) != len(certificates):
        raise UserError(f"{len(numbers)} groups for {len(certificates)} certificates; give each image its group")
    return numbers


def wilson(hits: NDArray[np.bool_], groups: IntArray | None = None) -> tuple[FloatArray, FloatArray]:
    """The 95 % score interval of a share (Wilson, JASA 1927).

    Where images come in groups, it is that of the effective number of images: N over the design effect (how many times
    the share's variance is that of independent images, by the groups' own spread, at least 1), less what Student's t
    takes for few groups (Franco, Little, Louis & Slud, J. Survey Stat. Methodol. 2019). Its degrees of freedom are
    those of Kish's number of groups, N^2 / sum of N_g^2, less 1: a large group among small ones says little of the
    spread. A share of 0 or 1 has no spread to see: there all images of a group count as one, by Kish's number again.

    Args:
        hits: (N, R), a column a share.
        groups: int (N,), equal where images are not independent; by default all are.

    Returns:
        The limits, (R,) each; 0 and 1 where (nearly) all images are of one group, NaN where there are none.
    """
    share, num_images = _mean(hits), np.full(hits.shape[1], float(max(1, len(hits))))
    if groups is not None:
        sizes = np.unique(groups, return_counts=True)[1]
        if len(sizes) < len(hits):
            if _kish(sizes) < FEWEST_GROUPS:
                return np.zeros_like(share), np.ones_like(share)
            num_images = _effective(hits, groups, sizes)
    centre = share + Z_95**2 / (2 * num_images)
    half = Z_95 * np.sqrt(share * (1 - share) / num_images + Z_95**2 / (4 * num_images**2))
    scale = 1 + Z_95**2 / num_images
    return np.maximum(0.0, (centre - half) / scale), np.minimum(1.0, (centre + half) / scale)


def _effective(hits: NDArray[np.bool_], groups: IntArray, sizes: IntArray) -> FloatArray:
    """How many independent images say as much about each share (R,) as these do, in groups of several sizes."""
    share, num_images, num_groups = _mean(hits), len(hits), _kish(sizes)
    independent = share * (1 - share) / num_images
    effect = np.full_like(share, num_images / num_groups)
    seen = independent > 0
    effect[seen] = _variance(hits[:, seen], groups) / independent[seen]
    return num_images / np.maximum(effect, 1.0) * (Z_95 / _student(num_groups)) ** 2


def _variance(values: NDArray[np.bool_] | FloatArray, groups: IntArray) -> FloatArray:
    """The variance of each column's mean (R,), where groups are drawn whole: a jackknife that leaves one out at a time.

    A large group pulls the mean towards its own: by its distance from that, it would seem to vary little.
    """
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sums = np.add.reduceat((values - _mean(values))[order], starts, axis=0)  # (G, R)
    others = len(groups) - np.diff(starts, append=len(groups))
    return (len(starts) - 1) / len(starts) * ((sums / others[:, None]) ** 2).sum(axis=0)


def _kish(sizes: IntArray) -> float:
    """How many groups of one size say as much as groups of these sizes, where all images of a group are alike."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _student(num_groups: float) -> float:
    return float(stdtrit(num_groups - 1, 0.975))


def _mean_intervals(groups: IntArray, *values: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    """The 95 % interval of each column's mean, in arrays (N, R) of non-negative numbers about the same N images.

    Few independent images are resampled; groups, which may be few, have Student's t. NaN where (nearly) all are of one.
    """
    sizes = np.unique(groups, return_counts=True)[1]
    if len(sizes) == len(groups):
        if len(groups) < NORMAL_FROM:
            return _bootstrap(*values)
        return [_around_mean(array, Z_95 * array.std(axis=0) / np.sqrt(len(groups))) for array in values]
    if _kish(sizes) < FEWEST_GROUPS:
        return [(np.full(array.shape[1], np.nan), np.full(array.shape[1], np.nan)) for array in values]
    return [_around_mean(array, _student(_kish(sizes)) * np.sqrt(_variance(array, groups))) for array in values]


def _around_mean(values: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray]:
    mean = _mean(values)
    return np.maximum(0.0, mean - half), mean + half


def _bootstrap(*values: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    """The 95 % percentile interval of each column's mean, in arrays (N, R) about the same N images."""
    num_images = len(values[0])
    if num_images == 0:
        return [(_mean(array), _mean(array)) for array in values]
    generator = np.random.default_rng(0)
    means: list[list[FloatArray]] = [[] for _ in values]
    for _ in range(0, RESAMPLES, BLOCK_RESAMPLES):
        drawn = generator.integers(num_images, size=(BLOCK_RESAMPLES, num_images))
        times = np.array([np.bincount(images, minlength=num_images) for images in drawn], dtype=np.float64)
        for array, resampled in zip(values, means, strict=True):
            resampled.append(times @ array / num_images)
    low_high = [np.percentile(np.concatenate(resampled), PERCENTILES_95, axis=0) for resampled in means]
    return [(low, high) for low, high in low_high]


def _guaranteed(hits: NDArray[np.bool_], alpha: float) -> FloatArray:
    """What is left of a certified share if as many certificates fail as may with probability RHO."""
    from scipy.stats import binom  # half a second to import, which workers that only certify need not wait for

    if len(hits) == 0:
        return _mean(hits)
    return np.maximum(0.0, _mean(hits) - binom.ppf(1 - RHO, len(hits), alpha) / len(hits))


def checked_radii(radii: ArrayLike) -> FloatArray:
    """Radii as an array (R,), refused where one is negative or not finite."""
    thresholds = np.atleast_1d(np.asarray(radii, dtype=np.float64))
    wrong = ~(np.isfinite(thresholds) & (thresholds >= 0))
    if wrong.any():
        raise UserError(f"radius {thresholds[wrong][0]} cannot be certified; give radii of 0 or more")
    return thresholds


def refuse_mixed(certificates: pd.DataFrame) -> None:
    """Refuses certificates of which an image may have several: such as `collect_certificates` returns."""
    if certificates.empty:
        raise UserError("there are 0 certificates to sum up; certify some images first")
    for column in certificates.columns.intersection(["run_id", "costs", "rule", "alpha"], sort=False):
        values = certificates[column].unique()
        if len(values) > 1:
            shown = ", ".join(str(value) for value in values)
            raise UserError(f"certificates of several values of {column} ({shown}); select one of them")


def refuse_other_costs(
    certificates: pd.DataFrame, labels: IntArray, sensitive: NDArray[np.bool_], costs: CostMatrix
) -> None:
    """Refuses certificates whose lists of radii do not fit the costs' targets."""
    fix = "give the cost matrix that the certificates were made with"
    if labels.min() < 0 or labels.max() >= costs.num_classes:
        raise UserError(f"labels {labels.min()} to {labels.max()} for costs of {costs.num_classes} classes; {fix}")
    if not sensitive.any():  # standard certificates only, such as those of other programs
        return
    num_targets = np.count_nonzero(costs.values, axis=1)[labels]
    num_radii = np.where(sensitive, certificates["pairwise_radius"].where(sensitive, "").map(len), 0)
    differs = num_radii != num_targets
    if differs.any():
        image = certificates["image_id"].to_numpy()[differs][0]
        given, wanted = num_radii[differs][0], num_targets[differs][0]
        raise UserError(f"image {image!r} has {given} pair-wise radii, the costs {wanted} targets; {fix}")
