"""Consistency: the predictions of noisy copies agree (Jeong and Shin, NeurIPS 2020)."""

import torch
from torch import nn
from torch.nn import functional

from raycsr.training.objectives.attack import attack_in_ball
from raycsr.training.objectives.copies import cross_entropy_of_copies, draw_noise, logits_of_copies, ramp
from raycsr.training.objectives.normal_quantile import log_mean_softmax
from raycsr.training.objectives.reweighting import Reduction, reduced


def consistency(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    sigma: float,
    costs: torch.Tensor | None,
    progress: float,
    generator: torch.Generator,
    k: int = 2,
    lam: float = 10.0,
    eta: float = 0.5,
    radius: float = 0.0,
    steps: int = 10,
    warmup: float = 0.1,
    reduction: Reduction = "mean",
) -> torch.Tensor:
    """Returns mean CE of k noisy copies + lam * mean KL(p || p_i) + eta * entropy(p), p the mean of the copies' p_i.

    Published lam on CIFAR-10: 20 at sigma .25, 10 at .5 and 1.0. With a radius each image is first attacked as
    `smoothadv` does it, under the same noise: the paper's "SmoothAdv + Consistency".

    Args:
        model: The base classifier.
        images: Pixels in [0, 1]; float32 (N, 3, H, W).
        labels: Classes of the images; int64 (N,).
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix, which this objective does not use; (m, m).
        progress: Share of the training that is done.
        generator: Source of the noise, on the device of the images.
        k: Noisy copies an image; a forward pass has N * k rows.
        lam: Weight of the divergence of the copies from their mean.
        eta: Weight of the mean's entropy.
        radius: L2 distance that an attack moves an image at most, in [0, 1] pixel units; 0 makes no attack.
        steps: Gradient steps of the attack, of 2 * radius / steps each.
        warmup: Share of the training over which the radius grows from 0.
        reduction: "mean" for the loss of the batch, "none" for each image's cross-entropy and the rest.

    Returns:
        The loss, a scalar; or its two parts, (N, 2).
    """
    noise = draw_noise(images, k, sigma, generator)
    images = attack_in_ball(model, images, labels, noise, steps=steps, radius=radius * ramp(progress, warmup))
    logits = logits_of_copies(model, images, noise)  # (N, k, m)
    log_mean = log_mean_softmax(logits)  # (N, m)
    mean_of_each = log_mean[:, None].expand_as(logits)
    divergence = functional.kl_div(logits.log_softmax(2), mean_of_each, reduction="none", log_target=True).sum(2)
    entropy = -(log_mean.exp() * log_mean).sum(dim=1)  # (N,)
    return reduced(cross_entropy_of_copies(logits, labels), lam * divergence.mean(dim=1) + eta * entropy, reduction)
