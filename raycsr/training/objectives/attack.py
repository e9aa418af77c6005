"""A gradient attack on the smoothed classifier under given noise (Salman et al., NeurIPS 2019, SmoothAdv)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from raycsr.smoothing.attack import step_up
from raycsr.training.objectives.copies import logits_of_copies
from raycsr.training.objectives.normal_quantile import log_mean_softmax


def attack(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    noise: torch.Tensor,
    *,
    steps: int,
    step: float,
    radius: float | None = None,
) -> torch.Tensor:
    """Returns images moved up the gradient of -log of the mean softmax of their true class.

    The model is in eval mode meanwhile: its batch statistics never see an attack pass. An image whose gradient
    is zero, or shorter than 1e-8, stays where it is.

    Args:
        model: The base classifier.
        images: Pixels in [0, 1]; float32 (N, 3, H, W).
        labels: Classes of the images; int64 (N,).
        noise: Noise of k copies, over which the mean is taken, the same in each step; (N, k, 3, H, W).
        steps: Gradient steps, each a forward and a backward pass of N * k rows.
        step: L2 length of a step, in [0, 1] pixel units.
        radius: L2 distance from the image that is not left; None sets no bound.

    Returns:
        (N, 3, H, W) in [0, 1], without a graph.
    """
    moved = images
    with eval_mode(model):
        for _ in range(steps):
            moved = moved.detach().requires_grad_(True)
            log_p = log_mean_softmax(logits_of_copies(model, moved, noise))  # (N, m)
            (gradient,) = torch.autograd.grad(functional.nll_loss(log_p, labels, reduction="sum"), moved)
            moved = step_up(images, moved.detach(), gradient, length=step, radius=radius)
    return moved.detach()


def attack_in_ball(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    noise: torch.Tensor,
    *,
    steps: int,
    radius: float,
) -> torch.Tensor:
    """Returns what `attack` finds within an L2 radius by steps of 2 * radius / steps; the images for a radius of 0."""
    if radius == 0:
        return images
    return attack(model, images, labels, noise, steps=steps, step=2 * radius / steps, radius=radius)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Has all modules in eval mode within, and each as it was behind."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:  # each its own: some may be frozen in eval mode
            module.training = training
