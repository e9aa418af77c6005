"""Judging a base classifier by certificates, in this process: what training and tuning share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from raycsr.certification import Answer, certify_counts
from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.prepare import prepare_for_inference, resolve_precision
from raycsr.models.rules import Rule
from raycsr.smoothing.engine import Sampler
from raycsr.smoothing.options import Draws


@dataclass(frozen=True)
class Counted:
    """The votes of N images under R rules.

    Attributes:
        ids: Ids of the images.
        rules: The decision rules.
        sigma: Noise level, in [0, 1] pixel units.
        counts0: Selection votes; int64 (R, N, m).
        counts: Estimation votes; int64 (R, N, m).
        errors: Why an image has no votes, or None.
    """

    ids: list[str]
    rules: Sequence[Rule]
    sigma: float
    counts0: np.ndarray
    counts: np.ndarray
    errors: list[str | None]

    def certify(
        self,
        labels: ArrayLike,
        *,
        costs: CostMatrix,
        alpha: float = 0.001,
        answers: Iterable[Answer | str] = ("argmax",),
    ) -> pd.DataFrame:
        """Certifies the images under each rule and answer.

        Args:
            labels: Classes in the order of the images; int (N,).
            costs: Cost matrix; (m, m).
            alpha: Failure probability of one image's certificate.
            answers: What the smoothed classifier says, given shares.

        Returns:
            The rows that `raycsr.certify_counts` describes: N for the first rule and answer, N for the first rule and
            the next answer, and so on.
        """
        certificates = [
            certify_counts(
                self.counts0[r],
                self.counts[r],
                labels,
                costs=costs,
                sigma=self.sigma,
                sampling="fixed",
                alpha=alpha,
                answer=answer,
                image_ids=self.ids,
                rules=[rule.id] * len(self.ids),
                errors=self.errors,
            )
            for r, rule in enumerate(self.rules)
            for answer in answers
        ]
        return pd.concat(certificates, ignore_index=True)


def certify_images(
    base_classifier: BaseClassifier,
    images: Mapping[str, np.ndarray],
    labels: ArrayLike,
    draws: Draws,
    *,
    costs: CostMatrix,
    alpha: float = 0.001,
    rules: Sequence[Rule | str] = ("argmax",),
    progress: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """Certifies images under all rules, by the engine and the bounds of `raycsr sample` and `raycsr certify`.

    Args:
        base_classifier: The base classifier, as `count_images` takes it, and so images, draws, rules and progress.
        images: Ids of N images -> their pixels.
        labels: Classes in the order of the images; int (N,).
        draws: The noisy copies of an image; radii (L2) are in the units of its sigma.
        costs: Cost matrix; (m, m).
        alpha: Failure probability of one image's certificate.
        rules: Decision rules.
        progress: Called after each image.

    Returns:
        The rows that `raycsr.certify_counts` describes: N for the first rule, then N for the next, and so on.

    Raises:
        UserError: pixels and labels disagree, or an argument cannot be sampled or certified with.
    """
    truth = np.asarray(labels)
    if len(images) != len(truth):
        raise UserError(f"there are {len(images)} images and {len(truth)} labels: give a label for each image")
    counted = count_images(base_classifier, images, draws, rules=rules, progress=progress)
    return counted.certify(truth, costs=costs, alpha=alpha)


def count_images(
    base_classifier: BaseClassifier,
    images: Mapping[str, np.ndarray],
    draws: Draws,
    *,
    rules: Sequence[Rule | str] = ("argmax",),
    progress: Callable[[int], object] | None = None,
) -> Counted:
    """Samples images under all rules, for what is never certified: noise of the phase `tuning`.

    The base classifier is sampled as a copy prepared for inference, on the device that it is on; it is left
    as it is (its mode, its gradients), and so is torch's global random state.

    Args:
        base_classifier: The base classifier.
        images: Ids of N images -> their pixels; uint8 (H, W, 3).
        draws: The noisy copies of an image.
        rules: Decision rules, or how a person writes them; one forward pass serves them all.
        progress: Called after each image with 1, as the `update` of a tqdm bar is.

    Returns:
        The votes. An image with a logit that is not finite has an error.

    Raises:
        UserError: pixels that are none, or an argument that cannot be sampled with.
    """
    for image_id, pixels in images.items():
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
            raise UserError(f"image {image_id!r} is {pixels.dtype} {pixels.shape}: give pixels as uint8 (H, W, 3)")
    device = base_classifier.scale.device
    precision = resolve_precision("auto", device, base_classifier)
    network = prepare_for_inference(base_classifier, precision=precision, device=device)
    sampler = Sampler(
        network,
        draws,
        rules=rules,
        device=device,
        purpose="tuning",  # what is chosen here is certified on votes that nobody has looked at
    )
    shape = (len(sampler.rules), len(images), base_classifier.num_classes)
    counts0, counts = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    errors: list[str | None] = [None] * len(images)
    for i, (image_id, pixels) in enumerate(images.items()):
        try:
            image = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)
            counts0[:, i], counts[:, i] = sampler.count(image, image_id)
        except FloatingPointError as error:
            errors[i] = str(error)
        if progress is not None:
            progress(1)
    return Counted(list(images), sampler.rules, draws.sigma, counts0, counts, errors)
