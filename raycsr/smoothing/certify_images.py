"""Judging a base classifier by certificates, in this process: what training and the tuning of rules share."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from raycsr.certification import certify_counts
from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.prepare import prepare_for_inference, resolve_precision
from raycsr.models.rules import Rule
from raycsr.smoothing.engine import Sampler


def certify_images(
    base_classifier: BaseClassifier,
    pixels: np.ndarray,
    labels: ArrayLike,
    *,
    costs: CostMatrix,
    sigma: float,
    n0: int,
    n: int,
    alpha: float = 0.001,
    rules: Sequence[Rule | str] = ("argmax",),
    seed: int = 0,
    batch_size: int = 64,
    precision: str = "auto",
    progress: Callable[[int], object] | None = None,
    image_ids: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Certifies images under all rules, by the engine and the bounds of `raycsr sample` and `raycsr certify`.

    The base classifier is sampled as a copy prepared for inference, on the device that it is on; it is left
    as it is (its mode, its gradients), and so is torch's global random state.

    Args:
        base_classifier: The base classifier.
        pixels: uint8 (N, H, W, 3).
        labels: int (N,).
        costs: The cost matrix (m, m).
        sigma: Standard deviation of the noise, in [0, 1] pixel units, which are the units of all radii (L2).
        n0: Selection samples an image.
        n: Estimation samples an image.
        alpha: Failure probability of one image's certificate.
        rules: Decision rules, or how a person writes them; one forward pass serves them all.
        seed: Of the noise; an image's noise depends on it and on the image's id.
        batch_size: Rows of a forward pass, a power of two.
        precision: "auto", "fp32", "bf16" or "fp16", as in `SamplingOptions`.
        progress: Called after each image with 1, as the `update` of a tqdm bar is.
        image_ids: N ids; by default the positions, as text.

    Returns:
        The rows that `raycsr.certify_counts` describes: N for the first rule, then N for the next, and so on.
        An image with a logit that is not finite has an error.

    Raises:
        UserError: pixels and labels disagree, or an argument cannot be sampled or certified with.
    """
    truth = np.asarray(labels)
    ids = [str(i) for i in range(len(truth))] if image_ids is None else list(image_ids)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3 or len(pixels) != len(truth):
        raise UserError(
            f"pixels are {pixels.dtype} {pixels.shape} with {len(truth)} labels: give uint8 (N, H, W, 3) and N labels."
        )
    device = base_classifier.scale.device
    network = prepare_for_inference(base_classifier, precision=resolve_precision(precision, device), device=device)
    sampler = Sampler(
        network,
        sigma=sigma,
        n0=n0,
        n=n,
        seed=seed,
        batch_size=batch_size,
        rules=rules,
        device=device,
        purpose="tuning",  # what is chosen here is certified on votes that nobody has looked at
    )
    shape = (len(sampler.rules), len(pixels), base_classifier.num_classes)
    counts0, counts = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    errors: list[str | None] = [None] * len(pixels)
    for i, image in enumerate(torch.from_numpy(pixels).permute(0, 3, 1, 2)):  # (3, H, W)
        try:
            counts0[:, i], counts[:, i] = sampler.count(image, ids[i])
        except FloatingPointError as error:
            errors[i] = str(error)
        if progress is not None:
            progress(1)
    certificates = [
        certify_counts(
            counts0[r],
            counts[r],
            truth,
            costs=costs,
            sigma=sigma,
            sampling="fixed",
            alpha=alpha,
            image_ids=ids,
            rules=[rule.id] * len(truth),
            errors=errors,
        )
        for r, rule in enumerate(sampler.rules)
    ]
    return pd.concat(certificates, ignore_index=True)
