"""Easy images first, as "Average Certified Radius is a Poor Metric" makes records with (Sun et al., ICML 2025)."""

from collections.abc import Sequence

import torch
from scipy.special import betaincinv, ndtri
from torch import nn
from torch.nn import functional

from raycsr.training.objectives.attack import eval_mode
from raycsr.training.objectives.copies import cross_entropy_of_copies, draw_noise, lengths, logits_of_copies
from raycsr.training.objectives.reweighting import Reduction
from raycsr.training.objectives.shares import Shares
from raycsr.training.ranks import averaged

_LEAST = 1e-8  # is added to lengths that are divided by
_OF = 16  # samples that a weight is told by, of which 12 at least count as right
_WEIGHTS = [float(ndtri(betaincinv(c, _OF - c + 1, 0.1))) for c in range(12, _OF + 1)]


def easy(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    sigma: float,
    costs: torch.Tensor | None,
    progress: float,
    generator: torch.Generator,
    image_ids: Sequence[str],
    votes: Shares,
    k: int = 4,
    threshold: float = 0.5,
    start: float = 0.4,
    steps: int = 3,
    step: float = 0.25,
    reduction: Reduction = "mean",
) -> torch.Tensor:
    """Returns the weighted mean CE over k noisy copies, from `start` on without hard images and under harder noise.

    p, a baseline's share of votes for the true class, tells the weight of an image: 0 below the threshold, else
    Phi^-1(L), L the lower bound at .1 of a probability that was hit in p of 16 samples, of 12 at least. Published on
    CIFAR-10: threshold .5 and 3 steps from epoch 60 of 150 on at sigma .25; .4 and 6 steps from 70 on at .5. There
    images are drawn by those weights, which are told anew every ten epochs by the network itself.

    Args:
        model: The base classifier.
        images: Pixels in [0, 1]; float32 (N, 3, H, W).
        labels: Classes of the images; int64 (N,).
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix, which this objective does not use; (m, m).
        progress: Share of the training that is done.
        generator: Source of the noise, on the device of the images.
        image_ids: N names of the images.
        votes: A gaussian baseline's votes of the training images; for a user the location of its run, of
            `raycsr sample --data.split train`.
        k: Noisy copies an image; a forward pass has N * k rows.
        threshold: Share of votes below which an image is dropped.
        start: Share of the training before all images count alike, under plain noise.
        steps: Gradient steps of the attack on the noise.
        step: L2 length of each, in [0, 1] pixel units.
        reduction: "mean" for the loss of the batch, "none" for that of each image.

    Returns:
        The loss, a scalar; or each image's, (N,).
    """
    noise = draw_noise(images, k, sigma, generator)
    if progress < start:
        losses = cross_entropy_of_copies(logits_of_copies(model, images, noise), labels)
        return losses.mean() if reduction == "mean" else losses
    share = votes.of(image_ids, images.device).gather(1, labels[:, None]).squeeze(1)  # (N,)
    hits = (share.clamp(0.75, 1) * _OF + 1e-4).long()  # (N,), whole ones in spite of rounding
    weights = torch.tensor(_WEIGHTS, device=images.device)[hits - 12] * (share >= threshold)  # (N,)
    # of the whole batch, of which workers may have unequal shares
    total, number = averaged(torch.stack([weights.sum(), torch.ones_like(weights).sum()]))
    mean = (total / number).clamp(min=torch.finfo(weights.dtype).tiny)  # 0 / tiny is 0: none is left
    harder = noise_that_misleads(model, images, labels, noise, steps=steps, step=step)
    losses = weights / mean * cross_entropy_of_copies(logits_of_copies(model, images, harder), labels)  # (N,)
    return losses.mean() if reduction == "mean" else losses


def noise_that_misleads(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, noise: torch.Tensor, *, steps: int, step: float
) -> torch.Tensor:
    """Returns noise (N, k, 3, H, W) of the same lengths, moved up the gradient of each copy's CE until that is wrong.

    The model is in eval mode meanwhile. A copy that is wrong keeps its noise.
    """
    kept, moved = lengths(noise), noise
    wrong = torch.zeros(noise.shape[:2], dtype=torch.bool, device=images.device)  # (N, k)
    with eval_mode(model):
        for _ in range(steps):
            moved = moved.detach().requires_grad_(True)
            logits = logits_of_copies(model, images, moved)  # (N, k, m)
            loss = functional.cross_entropy(
                logits.flatten(0, 1), labels.repeat_interleave(noise.shape[1]), reduction="sum"
            )
            (gradient,) = torch.autograd.grad(loss, moved)
            wrong |= logits.argmax(dim=2) != labels[:, None]
            further = moved.detach() + step * gradient / (lengths(gradient) + _LEAST)
            further = further / (lengths(further) + _LEAST) * kept
            moved = torch.where(wrong[:, :, None, None, None], moved.detach(), further)
    return moved.detach()
