"""Counting votes from Python: images in, the votes of any torch module on their noisy copies out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.prepare import prepare_for_inference, refuse_batch_dependence
from raycsr.models.rules import Rule
from raycsr.smoothing.engine import Request, Sampler
from raycsr.smoothing.noise import Noise, grey_levels
from raycsr.smoothing.options import Draws


@dataclass(frozen=True)
class Votes:
    """Votes of the base classifier on noisy copies of N images.

    Attributes:
        counts0: The selection votes; int64 (N, rules, m).
        counts: The estimation votes, drawn from other noise; int64 (N, rules, m).
        image_ids: The N images' ids.
        rules: The decision rules' ids, in the order of the second axis.
        errors: For each image None, or why its votes are all zero.
        noise: The noise scheme. What is certified from votes of `float32` holds but for what floating point leaks.

    Example:
        >>> one = np.array([[[5, 1]]])  # one image, one rule, two classes
        >>> Votes(counts0=one, counts=2 * one, image_ids=("a.png",), rules=("argmax",), errors=(None,)).counts.shape
        (1, 1, 2)
    """

    counts0: np.ndarray
    counts: np.ndarray
    image_ids: tuple[str, ...]
    rules: tuple[str, ...]
    errors: tuple[str | None, ...]
    noise: Noise = "lattice"


def count_votes(
    base_classifier: torch.nn.Module,
    images: torch.Tensor,
    *,
    sigma: float,
    n0: int,
    n: int,
    seed: int,
    image_ids: Sequence[str],
    rules: Sequence[Rule | str] = ("argmax",),
    batch_size: int = 64,
    noise: Noise = "lattice",
) -> Votes:
    """Counts the votes of a base classifier on noisy copies of images (Cohen et al. 2019, SampleUnderNoise).

    Args:
        base_classifier: Pixels in [0, 1] -> logits; used as it is, on the device of its parameters; but one that is
            quantised, in int8.
        images: (N, C, H, W), uint8 in 0..255, or floating point in [0, 1] of whole grey levels k / 255.
        sigma: Standard deviation of the noise, in [0, 1] pixel units.
        n0: Number of selection samples of an image.
        n: Number of estimation samples of an image.
        seed: Seed of the noise.
        image_ids: N distinct names; an image's noise depends on (seed, image_id) and on nothing else.
        rules: Decision rules, or how a person writes them: `argmax`, `offset:1.5*pair:3/5`, ...
        batch_size: Number of rows of a forward pass, a power of two.
        noise: Its scheme. `lattice` is exact (methods: "Noise"); `float32` takes any floating point images, and what is
            certified from its votes holds but for what floating point leaks of the image.

    Returns:
        The votes; an image with a non-finite logit has zero votes and an error.

    Raises:
        UserError: where an argument cannot be sampled with, an image has no whole grey levels, or its logits depend
            on the rest of its batch.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
        >>> images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
        >>> votes = count_votes(network, images, sigma=0.25, n0=10, n=100, seed=0, image_ids=["a", "b"])
        >>> votes.counts.shape, votes.counts.sum(axis=2).tolist()  # (images, rules, classes)
        ((2, 1, 2), [[100], [100]])
    """
    ids = tuple(image_ids)
    if len(ids) != len(images) or len(set(ids)) != len(ids):
        raise UserError(f"image_ids must name each of the {len(images)} images once, got {len(ids)} ids")
    draws = Draws(sigma, n0, n, seed, batch_size)
    parameter = next(base_classifier.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    if noise == "lattice":
        images = grey_levels(images)  # of all, before any is sampled
    base_classifier.eval()
    if isinstance(base_classifier, BaseClassifier) and base_classifier.awaits_int8:
        base_classifier = prepare_for_inference(base_classifier, precision="int8", device=device)
    if len(images):
        refuse_batch_dependence(base_classifier, images.shape[1:], device)
    sampler = Sampler(base_classifier, draws, rules=rules, device=device, noise=noise)
    requests = (Request(image, image_id) for image, image_id in zip(images, ids, strict=True))
    counted = sorted(sampler.sample(requests), key=lambda one: one.position)
    none = np.zeros((0, len(sampler.rules), 1), np.int64)
    return Votes(
        counts0=np.stack([one.counts0 for one in counted]) if counted else none,
        counts=np.stack([one.counts for one in counted]) if counted else none,
        image_ids=ids,
        rules=tuple(rule.id for rule in sampler.rules),
        errors=tuple(one.error for one in counted),
        noise=noise,
    )
