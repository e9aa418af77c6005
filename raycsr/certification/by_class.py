"""From certificates to what is behind the summary: robustness by pair of classes, recalls, the costliest images."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from raycsr.certification.bounds import IntArray
from raycsr.certification.groups import group_column
from raycsr.certification.intervals import score_interval, wilson
from raycsr.certification.metrics.record import alone_column, certified
from raycsr.certification.summary import checked_radii, refuse_mixed, refuse_other_costs
from raycsr.costs import CostMatrix, as_cost_matrix
from raycsr.errors import UserError

# A recall below the first, or below this share of argmax's, has collapsed.
COLLAPSED = 0.05
COLLAPSED_SHARE = 0.5

# A recall of 0 of as many images says that it is below one half (Wilson at 95 %); of fewer it says nothing.
TELLING_IMAGES = 4

_NAMED = 4  # classes in a line of words


def pairwise_robustness(certificates: pd.DataFrame, *, costs: CostMatrix, radius: float) -> pd.DataFrame:
    """Of the images of each class, the share that no perturbation within the radius turns into each other class.

    Args:
        certificates: Rows of `certify_counts` of one run, decision rule and alpha, in memory or read back.
        costs: The cost matrix they were made with.
        radius: L2, in the units of sigma.

    Returns:
        (m, m), seed class x target class, indexed by the costs' class names or by 0 to m - 1: the share of the
        images of class y whose pairwise radius towards j is certified (above 0, and at least `radius`). Errored
        images are in the denominator. NaN where C[y, j] = 0, and where no image is of class y.

    Raises:
        UserError: no rows, several runs, rules or alphas, a negative radius, or certificates of other costs.

    Source: the pair-wise radii of Xin, Chen, Backes & Zhang, ICML 2025; all those of an image hold jointly.

    Example:
        >>> from raycsr import certify_counts
        >>> votes = [[990, 10, 0], [10, 990, 0], [0, 0, 1000]]
        >>> certificates = certify_counts(votes, votes, [0, 0, 2], costs="pair:0/1", sigma=0.5, sampling="fixed")
        >>> pairwise_robustness(certificates, costs=CostMatrix.pairwise(3, {0: [1]}), radius=0.5).loc[0, 1]
        np.float64(0.5)
    """
    threshold, costs = checked_radii(radius), as_cost_matrix(costs)
    shares = np.full((costs.num_classes, costs.num_classes), np.nan)
    for y, rows in _by_class(certificates, costs):
        pairwise = np.stack(certificates["pairwise_radius"].iloc[rows].to_list())  # (images, targets)
        shares[y, costs.targets(y)] = certified(pairwise, threshold)[..., 0].mean(axis=0)
    names = list(costs.class_names or range(costs.num_classes))
    return pd.DataFrame(shares, pd.Index(names, name="seed"), pd.Index(names, name="target"))


def class_recalls(certificates: pd.DataFrame, num_classes: int) -> pd.DataFrame:
    """Of the images of each class, the share that is answered rightly without abstaining.

    Args:
        certificates: Rows of `certify_counts` of one run, decision rule and alpha.
        num_classes: The number m of classes.

    Returns:
        A row a class, 0 to m - 1: num_images, recall, and its 95 % interval over images, recall_low and
        recall_high (Wilson, JASA 1927; over groups where the certificates have a column `group`). Errored images are
        in the denominator; NaN where a class has no image.

    Raises:
        UserError: no rows, several runs, rules or alphas, or a label beyond the classes.

    Example:
        >>> from raycsr import certify_counts
        >>> votes = [[990, 10, 0], [10, 990, 0], [0, 0, 1000]]
        >>> certificates = certify_counts(votes, votes, [0, 0, 2], costs="pair:0/1", sigma=0.5, sampling="fixed")
        >>> class_recalls(certificates, 3)[["num_images", "recall"]]
               num_images  recall
        class
        0               2     0.5
        1               0     NaN
        2               1     1.0
    """
    refuse_mixed(certificates)
    labels = certificates["label"].to_numpy(np.int64)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"labels {labels.min()} to {labels.max()} for {num_classes} classes; give the data's number")
    prediction = certificates["prediction"].to_numpy(np.float64, na_value=np.nan)
    correct = (prediction == labels) & ~certificates["abstain"].to_numpy(bool)
    groups = group_column(certificates)
    num_images = np.bincount(labels, minlength=num_classes)
    recall = np.full(num_classes, np.nan)
    np.divide(np.bincount(labels[correct], minlength=num_classes), num_images, out=recall, where=num_images > 0)
    if groups is None:  # of all classes at once
        low, high = score_interval(recall, np.maximum(num_images, 1.0))
    else:
        limits = [wilson(correct[labels == y, None], groups[labels == y]) for y in range(num_classes)]
        low, high = np.concatenate(limits, axis=1)
    columns = {"num_images": num_images, "recall": recall, "recall_low": low, "recall_high": high}
    return pd.DataFrame(columns, pd.RangeIndex(num_classes, name="class"))


def collapsed_classes(certificates: pd.DataFrame, num_classes: int, argmax: pd.DataFrame | None = None) -> pd.DataFrame:
    """The classes that are hardly answered rightly any more, which flatters what is said of the others.

    A model that always answers "malignant" never takes a malignant image for a benign one: rob_cs is 1. A class has
    collapsed where its recall is below 0.05, or below half of argmax's. Of few images either may be an accident: it
    is said only of classes with at least 4 images, and where the upper end of the recall's 95 % interval is below one
    half, or below argmax's recall.

    Args:
        certificates: Rows of `certify_counts` of one run, decision rule and alpha.
        num_classes: The number m of classes.
        argmax: Certificates of the same model by argmax, where there are any.

    Returns:
        The rows of `class_recalls` of those classes, ascending, with argmax_recall (NaN where it is not known).

    Raises:
        UserError: as `class_recalls`.

    Example:
        >>> from raycsr import certify_counts
        >>> votes = [[0, 100]] * 20  # the answer is always 1
        >>> certificates = certify_counts(votes, votes, [0, 1] * 10, costs="seed:1", sigma=0.5, sampling="fixed")
        >>> collapsed_classes(certificates, 2).index.tolist()
        [0]
    """
    recalls = class_recalls(certificates, num_classes)
    plain = np.nan if argmax is None else class_recalls(argmax, num_classes)["recall"]
    recalls = recalls.assign(argmax_recall=plain)
    recalls = recalls[recalls["num_images"] >= TELLING_IMAGES]
    hardly_any = (recalls["recall"] < COLLAPSED) & (recalls["recall_high"] < 0.5)
    of_argmax = recalls["argmax_recall"]
    less = (recalls["recall"] < COLLAPSED_SHARE * of_argmax) & (recalls["recall_high"] < of_argmax)
    return recalls[hardly_any | less]


def collapse_in_words(collapsed: pd.DataFrame, class_names: Sequence[str] | None = None) -> str:
    """What `collapsed_classes` found, as `dog 1 of 40 right (argmax 0.550)`; nothing where it found nothing.

    Args:
        collapsed: Rows of the classes that collapsed.
        class_names: Names of all classes; by default their numbers.

    Example:
        >>> rows = pd.DataFrame({"num_images": [40], "recall": [0.025], "argmax_recall": [0.55]}, index=[1])
        >>> collapse_in_words(rows, ["cat", "dog"])
        'dog 1 of 40 right (argmax 0.550)'
    """
    words = []
    for row in collapsed.head(_NAMED).reset_index(names="class").to_dict("records"):
        name = class_names[row["class"]] if class_names else row["class"]
        plain = "" if np.isnan(row["argmax_recall"]) else f" (argmax {row['argmax_recall']:.3f})"
        words.append(f"{name} {row['recall'] * row['num_images']:.0f} of {row['num_images']:.0f} right{plain}")
    more = len(collapsed) - _NAMED
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def costliest_images(certificates: pd.DataFrame, *, costs: CostMatrix, radius: float, k: int) -> pd.DataFrame:
    """The images on which an adversary within the radius may do the greatest damage.

    Args:
        certificates: Rows of `certify_counts` of one run, decision rule and alpha.
        costs: The cost matrix they were made with.
        radius: L2, in the units of sigma.
        k: Number of images at most.

    Returns:
        The rows of the k images with the largest worst-case certified cost (the maximum of C[y, j] over the targets
        j that are not certified at the radius by target_radius), fewer where fewer may cost anything. Ties go by the
        sum of the C[y, j] that pairwise_radius does not certify, then by image_id. Added are `worst_case_cost`;
        `cost_left`, that sum; and `reachable`, the class that may be answered at the worst cost: of several, the one
        whose p_b_upper is largest.

    Raises:
        UserError: no rows, several runs, rules or alphas, a negative radius, or certificates of other costs.

    Example:
        >>> from raycsr import certify_counts
        >>> votes = [[990, 10, 0], [10, 990, 0], [0, 0, 1000]]
        >>> certificates = certify_counts(votes, votes, [0, 0, 2], costs="pair:0/1", sigma=0.5, sampling="fixed")
        >>> worst = costliest_images(certificates, costs=CostMatrix.pairwise(3, {0: [1]}, cost=7), radius=0.5, k=10)
        >>> worst[["image_id", "worst_case_cost", "reachable"]]
          image_id  worst_case_cost  reachable
        0        1              7.0          1
    """
    threshold, costs = checked_radii(radius), as_cost_matrix(costs)
    worst, left = np.zeros(len(certificates)), np.zeros(len(certificates))
    reachable = np.full(len(certificates), -1)
    for y, rows in _by_class(certificates, costs):
        targets = costs.targets(y)
        cost_of = costs.rows([y])[0, targets]
        names = alone_column(certificates), "pairwise_radius", "p_b_upper"
        alone, jointly, p_b_upper = (np.stack(certificates[name].iloc[rows].to_list()) for name in names)
        cost = np.where(certified(alone, threshold)[..., 0], 0.0, cost_of)  # (images, targets)
        worst[rows] = cost.max(axis=1)
        left[rows] = np.where(certified(jointly, threshold)[..., 0], 0.0, cost_of).sum(axis=1)
        at_worst = np.where(cost == worst[rows, None], p_b_upper, -1.0)
        reachable[rows] = targets[at_worst.argmax(axis=1)]
    found = certificates.assign(worst_case_cost=worst, cost_left=left, reachable=reachable)
    order = ["worst_case_cost", "cost_left", "image_id"]
    return found[worst > 0].sort_values(order, ascending=[False, False, True]).head(k).reset_index(drop=True)


def _by_class(certificates: pd.DataFrame, costs: CostMatrix) -> Iterator[tuple[int, IntArray]]:
    """Each seed class y that has images: y, and the positions of its rows."""
    refuse_mixed(certificates)
    labels = certificates["label"].to_numpy(np.int64)
    sensitive = certificates["cost_sensitive_radius"].notna().to_numpy(bool)
    refuse_other_costs(certificates, labels, sensitive, costs)
    for y in np.unique(labels[sensitive]).tolist():
        yield y, np.flatnonzero(sensitive & (labels == y))
