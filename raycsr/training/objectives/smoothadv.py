"""SmoothAdv: adversarial training of the smoothed classifier (Salman et al., NeurIPS 2019)."""

import torch
from torch import nn

from raycsr.training.objectives.attack import attack_in_ball
from raycsr.training.objectives.copies import cross_entropy_of_copies, draw_noise, logits_of_copies, ramp
from raycsr.training.objectives.reweighting import Reduction


def smoothadv(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    sigma: float,
    costs: torch.Tensor | None,
    progress: float,
    generator: torch.Generator,
    k: int = 2,
    steps: int = 10,
    radius: float = 0.5,
    warmup: float = 0.1,
    multi_noise: bool = True,
    reduction: Reduction = "mean",
) -> torch.Tensor:
    """Returns the mean CE over noisy copies of each image's attacked self.

    The attack is projected gradient ascent on -log of the mean softmax of the true class. Published: 10 steps,
    radius 64 to 512 / 256, k 1 to 8, a warm-up of 10 epochs of 150.

    Args:
        model: The base classifier.
        images: Pixels in [0, 1]; float32 (N, 3, H, W).
        labels: Classes of the images; int64 (N,).
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix, which this objective does not use; (m, m).
        progress: Share of the training that is done.
        generator: Source of the noise, on the device of the images.
        k: Noisy copies an image, the same noise in the attack and in the loss: N * k rows a forward pass.
        steps: Gradient steps of the attack, of 2 * radius / steps each.
        radius: L2 distance that the attack moves an image at most, in [0, 1] pixel units.
        warmup: Share of the training over which the radius grows from 0.
        multi_noise: Whether all k copies are in the loss; false leaves the first one there, as the paper's code does
            unless it is told otherwise (`--train-multi-noise`). Its successors' code has all.
        reduction: "mean" for the loss of the batch, "none" for that of each image.

    Returns:
        The loss, a scalar; or each image's, (N,).
    """
    noise = draw_noise(images, k, sigma, generator)
    images = attack_in_ball(model, images, labels, noise, steps=steps, radius=radius * ramp(progress, warmup))
    losses = cross_entropy_of_copies(logits_of_copies(model, images, noise[:, : k if multi_noise else 1]), labels)
    return losses.mean() if reduction == "mean" else losses
