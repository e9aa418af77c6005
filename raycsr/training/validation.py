"""Validation by certificate: images held out of training, certified as `raycsr certify` would, at small n."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from raycsr.certification import METRICS, check_alpha, collapse_in_words, collapsed_classes, largest_radius, summarize
from raycsr.certification.bounds import IntArray
from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.smoothing.certify_images import certify_images
from raycsr.smoothing.options import Draws
from raycsr.training.options import ValidationOptions
from raycsr.training.ranks import gathered, shard

_MOST = 0.5  # share of the training images that may be held out


Metrics = dict[str, float | str]  # each of METRICS, and what `collapsed` says in words


@dataclass(frozen=True)
class HeldOut:
    """Positions of the images that are held out of training, and of those that are left.

    Attributes:
        random: The images that are drawn at random from all classes.
        seed_class: Further images, of seed classes.
        left: The images to train on, ascending: all whose group has no image among the others.
    """

    random: np.ndarray
    seed_class: np.ndarray
    left: np.ndarray


def check_validation(options: ValidationOptions, sigma: float) -> None:
    """Refuses options under which nothing could be certified.

    Raises:
        UserError: naming the option and its value.
    """
    for name in ("every", "images", "n0", "n"):
        if getattr(options, name) < 1:
            raise UserError(f"validation.{name} must be at least 1, got {getattr(options, name)}")
    check_alpha(options.alpha, "validation.alpha")
    radius = sigma if options.radius is None else options.radius
    reach = largest_radius(options.n, options.alpha, sigma)
    if not 0 <= radius < reach:
        raise UserError(
            f"validation.radius is {radius:g} and n={options.n} samples certify {max(reach, 0):.4g} at most at sigma "
            f"{sigma:g}; raise validation.n or give a smaller radius"
        )


def hold_out(
    labels: np.ndarray, costs: CostMatrix, options: ValidationOptions, groups: IntArray | None = None
) -> HeldOut:
    """Draws the images to hold out: always the same ones of the same labels, costs, options and groups.

    Args:
        labels: Labels of the data; int (N,).
        costs: The cost matrix.
        options: Numbers of images to hold out.
        groups: Groups, equal for images that must stay on one side, such as those of one patient; int (N,). By default
            each image stands alone. Groups are held out whole, so it may be a few images more.

    Raises:
        UserError: Over half of the images, or of those of seed classes, would be held out.

    Example:
        >>> costs, options = CostMatrix.seedwise(4, [0]), ValidationOptions(images=10, sensitive=6)
        >>> held_out = hold_out(np.arange(100) % 4, costs, options)
        >>> len(held_out.random), len(held_out.seed_class), len(held_out.left)  # of 100, 25 of each class
        (10, 1, 89)
    """
    groups = np.arange(len(labels)) if groups is None else groups
    order = shuffled(groups, np.random.default_rng(0))
    drawn = first_whole(groups[order], options.images)
    random, others = order[:drawn], order[drawn:]
    sensitive = costs.sensitive[labels]
    wanted = max(options.sensitive - int(sensitive[random].sum()), 0)
    others = others[sensitive[others]]
    seed_class = others[: first_whole(groups[others], wanted)]
    held = np.flatnonzero(np.isin(groups, groups[np.concatenate([random, seed_class])]))
    together = ", for a group is held out whole" if len(np.unique(groups)) < len(groups) else ""
    for what, all_images, taken in (
        ("images", len(labels), len(held)),
        ("images of seed classes", int(sensitive.sum()), int(sensitive[held].sum())),
    ):
        if taken > _MOST * all_images:
            raise UserError(
                f"validation would hold out {taken} of {all_images} {what}{together}; "
                f"give fewer, such as validation.images={min(options.images, len(labels) // 5)} and "
                f"validation.sensitive={min(options.sensitive, int(sensitive.sum()) // 5)}"
            )
    return HeldOut(random, seed_class, np.setdiff1d(np.arange(len(labels)), held))


def shuffled(groups: IntArray, generator: np.random.Generator) -> IntArray:
    """Positions of N images in a random order of their groups: images of one group come one after the other."""
    place = np.argsort(generator.permutation(int(groups.max(initial=-1)) + 1))
    return np.argsort(place[groups], kind="stable")


def first_whole(groups: IntArray, number: int) -> int:
    """How many images to take from the front, at least `number` where there are as many, so that no group is cut.

    Args:
        groups: Groups of the images in their order, in which those of one group are neighbours; int (N,).
        number: Smallest number of images to take.
    """
    ends = np.flatnonzero(np.diff(groups, append=-1)) + 1  # where a group ends
    return int(ends[min(int(np.searchsorted(ends, number)), len(ends) - 1)]) if number > 0 and len(ends) else 0


def certified_metrics(
    base_classifier: BaseClassifier,
    pixels: np.ndarray,
    labels: np.ndarray,
    num_random: int,
    *,
    costs: CostMatrix,
    sigma: float,
    options: ValidationOptions,
    progress: Callable[[int], object] | None = None,
) -> Metrics:
    """Certifies held-out images, each worker its shard, and sums the certificates up.

    Args:
        base_classifier: Base classifier whose smoothed version is judged; it is not changed.
        pixels: Images, those of `HeldOut.random` first, then those of `HeldOut.seed_class`; uint8 (N, H, W, 3).
        labels: Classes of the images; int (N,).
        num_random: Number of images of `HeldOut.random`.
        costs: The cost matrix.
        sigma: Noise level in [0, 1] pixel units.
        options: Samples, alpha and radius.
        progress: Called after each image with 1.

    Returns:
        Each of `METRICS` at the radius, NaN where there is no image that it is about; and collapsed, the classes that
        are hardly answered rightly, in words.
    """
    mine = certify_images(
        base_classifier,
        {str(i): pixels[i] for i in range(len(labels))[shard()]},
        labels[shard()],
        Draws(sigma, options.n0, options.n),
        costs=costs,
        alpha=options.alpha,
        progress=progress,
    )
    certificates = pd.concat(gathered(mine)).sort_values("image_id", key=lambda ids: ids.astype(int))
    radius = sigma if options.radius is None else options.radius

    def summary(rows: pd.DataFrame) -> pd.Series:
        return summarize(rows, costs=costs, radii=[radius], intervals=False).iloc[0]

    of_all, of_sensitive = summary(certificates.iloc[:num_random]), summary(certificates)
    metrics = {
        name: float((of_sensitive if metric.population.of_seed_classes else of_all)[name])
        for name, metric in METRICS.items()
    }
    collapsed = collapsed_classes(certificates, costs.num_classes)
    return {**metrics, "collapsed": collapse_in_words(collapsed, costs.class_names)}
