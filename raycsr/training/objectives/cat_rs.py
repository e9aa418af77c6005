"""CAT-RS: an image's loss goes by how sure the smoothed classifier is of it (Jeong, Kim and Shin, AAAI 2023)."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from raycsr.training.objectives.attack import eval_mode
from raycsr.training.objectives.copies import draw_noise, lengths, logits_of_copies
from raycsr.training.objectives.reweighting import Reduction, reduced
from raycsr.training.objectives.shares import Shares

_LEAST = 1e-8  # is added to the length of a gradient


def cat_rs(
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
    lam: float = 1.0,
    steps: int = 4,
    radius: float = 1.0,
    reduction: Reduction = "mean",
) -> torch.Tensor:
    """Returns the batch's mean of 1/k * sum of the K smallest CE + lam * [K = k] * largest KL(y' || f(x + e')).

    K is drawn for each image from Binomial(k, share of its k copies that f gets right), and is 1 at least: the copies
    of an image that f is unsure of are not all learnt. y' is what a gaussian baseline's votes say of the image, and e'
    the noise of a copy after `harder_noise`. Published lam on CIFAR-10: .5, 1 and 2 at sigma .25, .5 and 1.

    Args:
        model: The base classifier.
        images: Pixels in [0, 1]; float32 (N, 3, H, W).
        labels: Classes of the images; int64 (N,).
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix, which this objective does not use; (m, m).
        progress: Share of the training that is done; this objective does not use it.
        generator: Source of the noise and of K, on the device of the images.
        image_ids: N names of the images.
        votes: A gaussian baseline's votes of the training images; for a user the location of its run, of
            `raycsr sample --data.split train`.
        k: Noisy copies an image; two passes of N * k rows beside the attack.
        lam: Weight of the divergence.
        steps: Gradient steps of the attack on the noise, of 2 * radius / steps each.
        radius: L2 distance that the attack moves a copy's noise at most, in [0, 1] pixel units.
        reduction: "mean" for the loss of the batch, "none" for each image's cross-entropy and the rest.

    Returns:
        The loss, a scalar; or its two parts, (N, 2).
    """
    noise = draw_noise(images, k, sigma, generator)
    logits = logits_of_copies(model, images, noise)  # (N, k, m)
    right = (logits.argmax(dim=2) == labels[:, None]).float().mean(dim=1, keepdim=True)  # (N, 1)
    drawn = torch.rand(noise.shape[:2], generator=generator, device=images.device) < right
    number = drawn.sum(dim=1, keepdim=True).clamp(min=1)  # (N, 1): K
    losses = -logits.log_softmax(dim=2).gather(2, labels[:, None, None].expand(-1, k, 1)).squeeze(2)  # (N, k)
    smallest = torch.arange(k, device=images.device) < number  # (N, k)
    cross_entropy = (losses.sort(dim=1).values * smallest).mean(dim=1)  # (N,)
    targets = votes.of(image_ids, images.device)  # (N, m)
    harder = harder_noise(model, images, targets, noise, steps=steps, radius=radius)
    divergence = divergences(logits_of_copies(model, images, harder), targets).amax(dim=1)  # (N,)
    return reduced(cross_entropy, lam * (number.squeeze(1) == k) * divergence, reduction)


def divergences(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Returns KL(target || softmax) of each copy: logits (N, k, m), targets (N, m) -> (N, k)."""
    of_each = targets[:, None].expand_as(logits)
    return functional.kl_div(logits.log_softmax(dim=2), of_each, reduction="none").sum(dim=2)


def harder_noise(
    model: nn.Module, images: torch.Tensor, targets: torch.Tensor, noise: torch.Tensor, *, steps: int, radius: float
) -> torch.Tensor:
    """Returns noise (N, k, 3, H, W) moved up the gradient of each copy's divergence from the target.

    After each step it is within the radius of where it began, and is given the mean that it had and, about 0, the mean
    square, so that it stays likely. The model is in eval mode meanwhile.
    """
    pixels = tuple(range(2, noise.ndim))
    mean, root = noise.mean(pixels, keepdim=True), noise.square().mean(pixels, keepdim=True).sqrt()
    moved = noise
    with eval_mode(model):
        for _ in range(steps):
            moved = moved.detach().requires_grad_(True)
            loss = divergences(logits_of_copies(model, images, moved), targets).mean(dim=1).sum()
            (gradient,) = torch.autograd.grad(loss, moved)
            shift = moved.detach() + 2 * radius / steps * gradient / (lengths(gradient) + _LEAST) - noise
            shift = shift * (radius / lengths(shift).clamp(min=radius))
            moved = noise + shift
            now = moved.square().mean(pixels, keepdim=True).sqrt()
            moved = mean + (moved - moved.mean(pixels, keepdim=True)) / now * root
    return moved.detach()
