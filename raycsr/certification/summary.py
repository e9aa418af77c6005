"""From certificates to numbers: accuracy, certified accuracy, cost-sensitive robustness, recalls."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from raycsr.certification.bounds import FloatArray, IntArray
from raycsr.certification.groups import group_column, group_numbers
from raycsr.certification.intervals import Limits, group_sizes, mean
from raycsr.certification.metrics import METRICS
from raycsr.certification.metrics.record import IMAGES, Judged, Population, Values
from raycsr.costs import CostMatrix, as_cost_matrix
from raycsr.errors import UserError

# The guaranteed shares hold with probability 1 - RHO.
RHO = 0.001


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
        certificates: Rows of `certify_counts` of one decision rule, alpha, answer and method, in memory or read back.
        costs: The cost matrix they were made with.
        radii: The radii r (R,), in the units of sigma.
        intervals: Whether to add 95 % intervals over images; a curve of many radii is quicker without.
        groups: (N,) which images are not independent, such as those of one patient: they have one value, those that
            stand alone None. By default the certificates' column `group`, where they have one. Intervals are then
            over groups, each of which is drawn whole.

    Returns:
        One row a radius, in the order given, with a column for each of `METRICS`, and others:

        - radius, num_images, num_errors, num_sensitive (images with a cost-sensitive radius), num_target (images of
          target classes), num_answered (of those that are answered), num_groups;
        - coverage: share of images that are answered, be it rightly or not: without an error, and not abstained;
        - accuracy: share of images with prediction == label and not abstained;
        - answered_accuracy: the same share of the answered images alone;
        - certified_accuracy: share of images that are correct with standard_radius certified at r: the convention of
          published tables;
        - argmax_accuracy: share of images with prediction == label, whether or not that is proven;
        - multiclass_certified_accuracy: share of these images with multiclass_radius certified at r, which is a robust
          accuracy of the answer, and by argmax may exceed `accuracy`; NaN where certificates lack that radius, as
          those of published tables and of the first methods do;
        - acr: mean of standard_radius where correct, of 0 elsewhere;
        - rob_cs: share of the sensitive images whose cost_sensitive_radius is certified at r;
        - rob_cost: mean over them of the sum of C[y, j] over the targets j not certified at r, by pairwise_radius,
          which holds for all targets of an image jointly;
        - worst_case_cost: mean over them of the largest C[y, j] of a target j not certified at r, all an adversary
          within r can cost, by target_radius: at one radius no more is said than about one target. At several radii
          it is several statements;
        - seed_recall, target_recall: accuracy among the images of seed classes, of target classes;
        - with `intervals`, NAME_low and NAME_high: Wilson for shares; for means the normal interval, below 1,000 images
          a seeded bootstrap; over groups `wilson` at the effective number of images for shares, Student's t for means;
        - certified_accuracy_guaranteed, multiclass_certified_accuracy_guaranteed, rob_cs_guaranteed: of each the true
          certified share is no smaller with probability 1 - 0.001, at all radii at once: share - q / N with
          q = binom.ppf(1 - 0.001, N, alpha). It is about these very images, whose noise is independent, so groups do
          not change it.

        Errored images count in every denominator and in no numerator. NaN where a denominator is 0.

    Raises:
        UserError: no rows, several rules, alphas, answers or methods, a negative radius, certificates of other costs,
            or not a group an image.

    Example:
        >>> from raycsr import certify_counts
        >>> costs, votes = CostMatrix.seedwise(2, [0]), [[990, 10], [400, 600], [0, 1000]]
        >>> certificates = certify_counts(votes, votes, [0, 0, 1], costs=costs, sigma=0.5, sampling="fixed")
        >>> table = summarize(certificates, costs=costs, radii=[0, 0.5, 1.1], intervals=False)
        >>> table[["radius", "accuracy", "certified_accuracy", "rob_cs"]].round(3)
           radius  accuracy  certified_accuracy  rob_cs
        0     0.0     0.667               0.667     0.5
        1     0.5     0.667               0.667     0.5
        2     1.1     0.667               0.333     0.0
    """
    thresholds, costs = checked_radii(radii), as_cost_matrix(costs)
    refuse_mixed(certificates)
    groups_of = _group_of_each(certificates, groups)
    images = Judged(certificates, np.arange(len(certificates)), costs, thresholds)
    refuse_other_costs(certificates, images.labels, ~np.isnan(images.numbers("cost_sensitive_radius")), costs)

    judged = {one: images.only(one.of(images)) for one in dict.fromkeys(one.population for one in METRICS.values())}
    values = {name: one.values(judged[one.population]) for name, one in METRICS.items()}
    columns: dict[str, ArrayLike] = {
        "radius": thresholds,
        "num_images": len(certificates),
        "num_errors": certificates["error"].notna().sum(),
        **{one.count: len(those.rows) for one, those in judged.items() if one.count and one is not IMAGES},
        "num_groups": len(group_sizes(groups_of)),
        **{name: mean(of_images) for name, of_images in values.items()},
    }
    if intervals:
        for name, limits in _intervals(values, {one: groups_of[those.rows] for one, those in judged.items()}).items():
            columns[f"{name}_low"], columns[f"{name}_high"] = limits
    for name, metric in METRICS.items():
        if metric.guaranteed:
            columns[f"{name}_guaranteed"] = _guaranteed(values[name], float(certificates["alpha"].iloc[0]))
    return pd.DataFrame({name: np.broadcast_to(column, thresholds.shape) for name, column in columns.items()})


def _intervals(values: dict[str, Values], groups: dict[Population, IntArray]) -> dict[str, Limits]:
    """The interval of each metric, in their order: those of one kind about the same images are resampled together."""
    limits: dict[str, Limits] = {}
    for population, intervals in dict.fromkeys((one.population, one.intervals) for one in METRICS.values()):
        names = [name for name, one in METRICS.items() if (one.population, one.intervals) == (population, intervals)]
        limits.update(zip(names, intervals(groups[population], *(values[name] for name in names)), strict=True))
    return {name: limits[name] for name in METRICS}


def _group_of_each(certificates: pd.DataFrame, groups: ArrayLike | None) -> IntArray:
    """The number of each image's group (N,); all differ where no image belongs with another."""
    numbers = group_column(certificates) if groups is None else group_numbers(groups)
    if numbers is None:
        return np.arange(len(certificates))
    if len(numbers) != len(certificates):
        raise UserError(f"{len(numbers)} groups for {len(certificates)} certificates; give each image its group")
    return numbers


def _guaranteed(hits: Values, alpha: float) -> FloatArray:
    """What is left of a certified share if as many certificates fail as may with probability RHO."""
    if len(hits) == 0:
        return mean(hits)
    return np.maximum(0.0, mean(hits) - most_false(len(hits), alpha) / len(hits))


def most_false(num_images: int, alpha: float, among: int = 1) -> float:
    """How many of a set's certificates are false at most, but with probability RHO; NaN where alpha is.

    Args:
        num_images: Number of images, whose certificates fail independently.
        alpha: Failure probability of one.
        among: Number of sets of which this one was picked by its certificates: it then holds for each of them at once.

    Example:
        >>> most_false(100, 0.01), most_false(100, 0.01, among=2)
        (5.0, 6.0)
    """
    from scipy.stats import binom  # half a second to import, which workers that only certify need not wait for

    return float(binom.ppf(1 - RHO / among, num_images, alpha))


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
    for column in certificates.columns.intersection(
        ["run_id", "costs", "rule", "alpha", "answer", "method"], sort=False
    ):
        if (certificates[column] == certificates[column].iloc[0]).all():
            continue
        values = certificates[column].unique()  # NaN, an alpha that nobody said, is not equal to itself
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
    num_targets = costs.num_targets[labels]
    num_radii = np.zeros(len(labels), np.int64)
    num_radii[sensitive] = list(map(len, certificates["pairwise_radius"].to_numpy()[sensitive]))
    differs = num_radii != num_targets
    if differs.any():
        image = certificates["image_id"].to_numpy()[differs][0]
        given, wanted = num_radii[differs][0], num_targets[differs][0]
        raise UserError(f"image {image!r} has {given} pair-wise radii, the costs {wanted} targets; {fix}")
