"""Two certified classifiers side by side, paired by image: what differs, by how much, and whether chance explains it.

Intervals of two summaries that overlap say little: both stand on the same images, of which most are alike under both.
What counts is the images that differ. Everything here is about those (McNemar, Psychometrika 1947).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtr

from raycsr.certification.bounds import FloatArray, IntArray
from raycsr.certification.groups import group_column, group_numbers
from raycsr.certification.intervals import (
    NORMAL_FROM,
    group_sizes,
    mean_difference_interval,
    share_difference_interval,
)
from raycsr.certification.metrics import METRICS
from raycsr.certification.metrics.record import Judged
from raycsr.certification.summary import checked_radii, refuse_mixed, refuse_other_costs
from raycsr.costs import CostMatrix, as_cost_matrix
from raycsr.errors import UserError

# A difference is called significant where chance alone would give one as large less often than this.
SIGNIFICANCE = 0.05

# Up to so many groups that differ all exchanges are counted; above it so many are drawn.
_COUNTED = 13
_EXCHANGES = 9999
_BLOCK = 1000  # exchanges drawn at a time

COMPARED = tuple(name for name, metric in METRICS.items() if "comparison" in metric.tables)
"""The metrics of a comparison, in the order of the summary."""


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    costs: CostMatrix,
    radius: float,
    groups: Mapping[str, str | None] | None = None,
    margin: float | None = None,
) -> pd.DataFrame:
    """Compares two certified classifiers on the images that both have certificates of.

    The p of a metric is the probability, were A and B exchangeable, of a difference as large as this one or larger.
    Of a share of independent images it is the exact McNemar test; else A and B are exchanged in each group of images by
    itself, which is that test for numbers of any kind and for images that belong together: all exchanges are
    counted, or 9,999 drawn by a fixed seed, or, of 1,000 groups that differ, the normal limit is taken. `p_holm` is p
    after the step-down correction of Holm (Scand. J. Stat. 1979): the probability that any metric of the table without
    a true difference is called different at .05 is .05 at most.

    Args:
        a: Rows of `certify_counts` of one decision rule, alpha and method, in memory or read back.
        b: Such rows of another classifier, rule or sigma; images are matched by their `image_id`.
        costs: The cost matrix that both were made with.
        radius: The radius at which both are taken, in the units of sigma.
        groups: image_id -> name of its group, for images that are not independent, such as those of one patient; None
            for one that stands alone. By default the certificates' column `group`, where they have one.
        margin: How much worse B may be than A and count as no worse, as a share of images (.02 is two points).

    Returns:
        One row a metric that both have, in the order of the summary:

        - metric; num_images, those that it is about;
        - a, b: its value of each; difference: b - a; difference_low and difference_high: the 95 % interval of the
          difference over images, or over groups: of shares that of Bonett & Price, of means a paired bootstrap, from
          1,000 images on the normal interval, over groups Student's t;
        - a_better, b_better: on how many images the value of each is the better one;
        - p, p_holm: as above; better: `a` or `b` where p_holm is below .05, else nothing;
        - no_worse, with `margin`, of shares: whether the interval lies above -margin: B is then no worse than A by more
          than the margin, which is said falsely with probability 2.5 % at most.

    Raises:
        UserError: no image in common, labels, alphas or costs that differ, certificates of several rules, an image
            twice, images that `groups` does not name, or a margin that is no share.

    Example:
        >>> from raycsr import certify_counts
        >>> costs, labels, ids = CostMatrix.seedwise(2, [0]), [0] * 8, [f"{i}.png" for i in range(8)]
        >>> def certified(votes):
        ...     how = dict(costs=costs, sigma=0.5, sampling="fixed", image_ids=ids)
        ...     return certify_counts([votes] * 8, [votes] * 8, labels, **how)
        >>> table = compare(certified([600, 400]), certified([990, 10]), costs=costs, radius=0.5).set_index("metric")
        >>> table.loc["rob_cs", ["a", "b", "p"]].tolist()  # 8 images, all better: 2 / 2^8
        [0.0, 1.0, 0.0078125]
    """
    if margin is not None and not 0 < margin < 1:
        raise UserError(f"margin {margin:g} is no share of images that may be lost; give one above 0, such as 0.02")
    return _corrected(differences(pair(a, b, costs=costs, radius=radius, groups=groups), COMPARED), margin)


@dataclass(frozen=True)
class Pairs:
    """The N images that two sets of certificates have in common, in one order.

    Attributes:
        a: The images as the first set has them, at one radius.
        b: The same images as the second has them.
        groups: The number of each image's group; int (N,).
    """

    a: Judged
    b: Judged
    groups: IntArray


def pair(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    costs: CostMatrix,
    radius: float,
    groups: Mapping[str, str | None] | None = None,
) -> Pairs:
    """Matches certificates by image; the arguments and the errors are those of `compare`."""
    threshold, costs = checked_radii(radius), as_cost_matrix(costs)
    for one in (a, b):
        refuse_mixed(one)
        again = one["image_id"].duplicated()
        if again.any():
            raise UserError(f"image {one['image_id'][again].iloc[0]!r} is there twice; give each image one certificate")
    positions = pd.Index(b["image_id"]).get_indexer(pd.Index(a["image_id"]))
    of_a = np.flatnonzero(positions >= 0)
    of_b = positions[of_a]
    if not len(of_a):
        raise UserError(
            f"no image is in both: the first has {a['image_id'].iloc[0]!r}, the second {b['image_id'].iloc[0]!r}; "
            "compare what was certified on the same images"
        )
    alphas = [float(one["alpha"].iloc[0]) for one in (a, b)]
    if alphas[0] != alphas[1] and not np.isnan(alphas).all():  # NaN: of a published table that does not say it
        raise UserError(f"certificates at alpha {alphas[0]:g} and at {alphas[1]:g}; certify both at one of them")
    sides = Judged(a, of_a, costs, threshold), Judged(b, of_b, costs, threshold)
    for side in sides:
        refuse_other_costs(
            side.certificates.iloc[side.rows], side.labels, ~np.isnan(side.numbers("cost_sensitive_radius")), costs
        )
    differ = np.flatnonzero(sides[0].labels != sides[1].labels)
    if len(differ):
        image, first, second = a["image_id"].iloc[of_a[differ[0]]], *(side.labels[differ[0]] for side in sides)
        raise UserError(
            f"image {image!r} is of class {first} in the first and of class {second} in the second; "
            "give both the same data, by data.class_names in the same order"
        )
    return Pairs(*sides, _groups_of(a.iloc[of_a], b.iloc[of_b], groups))


def _groups_of(a: pd.DataFrame, b: pd.DataFrame, groups: Mapping[str, str | None] | None) -> IntArray:
    """The number of each image's group, (N,); where both have groups, those of the first."""
    if groups is not None:
        absent = [image for image in a["image_id"] if image not in groups]
        if absent:
            raise UserError(
                f"groups name no group of {len(absent):,} of {len(a):,} images (the first {absent[0]!r}); "
                "name each, and leave the group empty of one that stands alone"
            )
        return group_numbers(np.array([groups[image] for image in a["image_id"]], dtype=object))
    for one in (a, b):
        numbers = group_column(one)
        if numbers is not None:
            return numbers
    return np.arange(len(a))


def differences(pairs: Pairs, metrics: Iterable[str]) -> pd.DataFrame:
    """The rows of `compare` as far as p, of the metrics that both have about the same images."""
    columns = ["metric", "num_images", "a", "b", "difference", "difference_low", "difference_high"]
    rows = [row for name in metrics if (row := _difference(pairs, name)) is not None]
    return pd.DataFrame(rows, columns=[*columns, "a_better", "b_better", "p"])


def _difference(pairs: Pairs, name: str) -> dict | None:
    """The row of one metric; None where one of both lacks it, or the images that it is about are not the same."""
    metric = METRICS[name]
    those, others = metric.population.of(pairs.a), metric.population.of(pairs.b)
    if not those.any() or (those != others).any():
        return None
    a, b = (metric.values(side.only(those)).astype(np.float64) for side in (pairs.a, pairs.b))  # (N, 1) each
    if np.isnan(a).any() or np.isnan(b).any():
        return None
    gains, groups = b - a, group_numbers(pairs.groups[those])
    interval = share_difference_interval if metric.is_share else mean_difference_interval
    (low,), (high,) = interval(gains, groups)
    better = gains[:, 0] if metric.more_is_better else -gains[:, 0]
    return {
        "metric": name,
        "num_images": len(gains),
        "a": a.mean(),
        "b": b.mean(),
        "difference": gains.mean(),
        "difference_low": low,
        "difference_high": high,
        "a_better": int((better < 0).sum()),
        "b_better": int((better > 0).sum()),
        "p": paired_p(gains[:, 0], groups, are_shares=metric.is_share),
    }


def against_first(
    certificates: Sequence[pd.DataFrame], *, costs: CostMatrix, radius: float, metric: str
) -> list[float]:
    """The p of one metric of each of several classifiers against the first, corrected for all pairs among them.

    For the first may have been picked because it is the best: of so many pairs (not only those with the first) any is
    called different at .05 by chance with probability .05 at most (Bonferroni).

    Args:
        certificates: Rows of `certify_counts` of each, under one cost matrix and alpha.
        costs: Cost matrix.
        radius: The radius, in the units of sigma.
        metric: Name of the metric.

    Returns:
        A p each, of those behind the first; NaN where no image is in both.
    """
    first, *others = (_values_of_images(one, costs, radius, metric) for one in certificates)
    pairs = len(certificates) * (len(certificates) - 1) // 2
    found = []
    for other in others:
        both = first if first.index.equals(other.index) else first[first.index.isin(other.index)]
        gains = other["value"].reindex(both.index).to_numpy() - both["value"].to_numpy()
        known = len(gains) and not np.isnan(gains).any()
        p = paired_p(gains, group_numbers(both["group"]), are_shares=METRICS[metric].is_share) if known else np.nan
        found.append(min(1.0, pairs * p) if known else np.nan)
    return found


def _values_of_images(certificates: pd.DataFrame, costs: CostMatrix, radius: float, metric: str) -> pd.DataFrame:
    """image_id -> value of a metric and number of the group, of the images that the metric is about."""
    every = Judged(certificates, np.arange(len(certificates)), costs, checked_radii(radius))
    judged = every.only(METRICS[metric].population.of(every))
    groups = group_column(certificates)
    columns = {
        "value": METRICS[metric].values(judged)[:, 0].astype(np.float64),
        "group": judged.rows if groups is None else groups[judged.rows],
    }
    return pd.DataFrame(columns, index=pd.Index(certificates["image_id"].to_numpy()[judged.rows]))


def _corrected(table: pd.DataFrame, margin: float | None) -> pd.DataFrame:
    """The rows with what is told from them: the corrected p, which is better, and with a margin which is no worse."""
    table["p_holm"] = holm(table["p"])
    more = np.array([METRICS[name].more_is_better for name in table["metric"]], dtype=bool)
    b_better = (table["difference"] > 0) == more
    table["better"] = np.where(table["p_holm"] >= SIGNIFICANCE, "", np.where(b_better, "b", "a"))
    if margin is not None:
        shares = np.array([METRICS[name].is_share for name in table["metric"]], dtype=bool)
        least_gain = np.where(more, table["difference_low"], -table["difference_high"])
        no_worse = pd.array(least_gain > -margin, dtype="boolean")
        no_worse[~shares] = pd.NA
        table["no_worse"] = no_worse
    return table


def paired_p(gains: FloatArray, groups: IntArray, *, are_shares: bool) -> float:
    """The probability of a difference as large as that of N images, were the two that are compared exchangeable.

    Args:
        gains: What the second has more than the first on each image; (N,).
        groups: Numbers that are equal where images are not independent; int (N,).
        are_shares: Whether each gain is -1, 0 or 1.
    """
    if are_shares and len(group_sizes(groups)) == len(groups):
        return mcnemar(int((gains < 0).sum()), int((gains > 0).sum()))
    return exchange_p(np.bincount(groups, weights=gains).astype(np.float64))


def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided p of the exact McNemar test: a binomial test of 1/2 on the images that only one of both has.

    Args:
        only_a: Number of images that only the first has, such as those that it alone answers rightly.
        only_b: Number of images that only the second has.

    Example:
        >>> mcnemar(0, 5), mcnemar(2, 2)
        (0.0625, 1.0)
    """
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def exchange_p(sums: FloatArray) -> float:
    """The two-sided p of "A and B are exchangeable in each group", by the sum of differences.

    An exchange turns the sign of a group's difference (Fisher's test of paired samples). It is valid for any number of
    groups, and for a mean of 0 without that symmetry in the limit of many. Drawn exchanges count the one that was
    seen as one of them, so that p is never too small (Phipson & Smyth 2010).

    Args:
        sums: The difference of each group, summed over its images; (G,).

    Example:
        >>> exchange_p(np.array([2.0, 1.0, 0.0, 3.0]))  # of 2^3 exchanges two are as far from 0
        0.25
    """
    sums = sums[np.abs(sums) > 1e-12]
    seen = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()  # what is equal but for rounding is as large
    if len(sums) <= _COUNTED:
        signs = 1 - 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)  # (2^G, G)
        return float((np.abs(signs @ sums) >= seen).mean())
    if len(sums) >= NORMAL_FROM:
        return 2 * float(ndtr(-abs(sums.sum()) / np.sqrt((sums**2).sum())))
    generator, as_large = np.random.default_rng(0), 1
    for drawn in range(0, _EXCHANGES, _BLOCK):
        exchanged = generator.random((min(_BLOCK, _EXCHANGES - drawn), len(sums)), dtype=np.float32) < 0.5
        as_large += int((np.abs(sums.sum() - 2 * (exchanged @ sums)) >= seen).sum())
    return as_large / (_EXCHANGES + 1)


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """The p of several tests, corrected so that any is below .05 by chance with probability .05 at most (Holm 1979).

    Args:
        p: The p of each test; (T,).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    given = np.asarray(p, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * (len(given) - np.arange(len(given))))
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(1.0, stepped)
    return corrected
