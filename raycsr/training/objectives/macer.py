"""MACER: the certified radius is maximised without an attack (Zhai et al., ICLR 2020)."""

import torch
from torch import nn
from torch.nn import functional

from raycsr.training.objectives.copies import draw_noise, logits_of_copies
from raycsr.training.objectives.margins import hinge, standard_margin
from raycsr.training.objectives.normal_quantile import log_mean_softmax, mean_class_quantiles
from raycsr.training.objectives.reweighting import Reduction, reduced


def macer(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    sigma: float,
    costs: torch.Tensor | None,
    progress: float,
    generator: torch.Generator,
    k: int = 16,
    beta: float = 16.0,
    lam: float = 12.0,
    gamma: float = 8.0,
    start: float = 0.0,
    reduction: Reduction = "mean",
) -> torch.Tensor:
    """Returns CE of the mean softmax over k noisy copies + lam * sigma/2 * the batch's mean of gamma - xi.

    With q = Phi^-1(mean softmax(beta * logits)), xi = q_y - max_j q_j over the other classes: images that are
    right, by less than gamma, are pushed further; mistakes are left to CE. Published lam: 12 at sigma .25, 4 at
    .5, and at 1.0 12 from the first drop of the learning rate on, epoch 200 of 440.

    Args:
        model: The base classifier.
        images: Pixels in [0, 1]; float32 (N, 3, H, W).
        labels: Classes of the images; int64 (N,).
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix, which this objective does not use; (m, m).
        progress: Share of the training that is done.
        generator: Source of the noise, on the device of the images.
        k: Noisy copies an image; a forward pass has N * k rows.
        beta: Inverse temperature of the softmax in the margins.
        lam: Weight of the margins.
        gamma: Margin xi up to which images are pushed: a radius of sigma/2 * gamma.
        start: Share of the training before the margins count.
        reduction: "mean" for the loss of the batch, "none" for each image's cross-entropy and the rest.

    Returns:
        The loss, a scalar; or its two parts, (N, 2).
    """
    logits = logits_of_copies(model, images, draw_noise(images, k, sigma, generator))  # (N, k, m)
    ce = functional.nll_loss(log_mean_softmax(logits), labels, reduction="none")  # (N,)
    if progress < start:
        return reduced(ce, torch.zeros_like(ce), reduction)
    margins = standard_margin(mean_class_quantiles(logits, beta), labels)  # (N,)
    return reduced(ce, lam * sigma / 2 * hinge(margins, 0, gamma), reduction)
