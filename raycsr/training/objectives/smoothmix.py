"""SmoothMix: calibrated between an image and its attacked self (Jeong et al., NeurIPS 2021)."""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from raycsr.smoothing.attack import within
from raycsr.training.objectives.attack import attack
from raycsr.training.objectives.copies import cross_entropy_of_copies, draw_noise, logits_of_copies, ramp
from raycsr.training.objectives.normal_quantile import log_mean_softmax
from raycsr.training.objectives.reweighting import Reduction, reduced

MixStep = Literal[0, 1]


def smoothmix(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    sigma: float,
    costs: torch.Tensor | None,
    progress: float,
    generator: torch.Generator,
    k: int = 2,
    steps: int = 4,
    step: float = 2.0,
    eta: float = 5.0,
    warmup: float = 0.1,
    mix_step: MixStep = 0,
    reduction: Reduction = "mean",
) -> torch.Tensor:
    """Returns the mean of CE + eta * [the image is right] * KL(target || f(mixed + noise)).

    Both are means over k copies. mixed = (1 - w) x + w x_adv and target = (1 - w) p + w / m, with w uniform on
    [0, 1/2] and p the mean softmax of the copies, whose largest class says what is right. The attack that gives
    x_adv is held in by the pixels' range alone.

    Published on CIFAR-10: k 2, 4 steps of .5, 1 and 2 at sigma .25, .5 and 1, eta 5, a warm-up of 10 epochs of 150,
    and at sigma .5 and 1 with a `mix_step` of 1: the attack's first step, at most of the length that the warm-up has
    reached, then stands for the image itself, in the cross-entropy as in what is mixed.

    Args:
        model: The base classifier.
        images: Pixels in [0, 1]; float32 (N, 3, H, W).
        labels: Classes of the images; int64 (N,).
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix, which this objective does not use; (m, m).
        progress: Share of the training that is done.
        generator: Source of the noise and of the mixing weights, on the device of the images.
        k: Noisy copies an image, the same noise in the attack and in the loss: two passes of N * k rows.
        steps: Gradient steps of the attack.
        step: L2 length of each, in units of sigma.
        eta: Weight of the mixed images.
        warmup: Share of the training over which that weight grows from 0.
        mix_step: Steps of the attack after which its image stands for the one that was given.
        reduction: "mean" for the loss of the batch, "none" for each image's cross-entropy and the rest.

    Returns:
        The loss, a scalar; or its two parts, (N, 2).
    """
    noise = draw_noise(images, k, sigma, generator)
    grown, length = ramp(progress, warmup), step * sigma
    attacked = attack(model, images, labels, noise, steps=mix_step, step=length)
    clean = within(attacked, images, grown * mix_step * length)
    attacked = attack(model, attacked, labels, noise, steps=steps - mix_step, step=length)
    weight = torch.rand(len(images), generator=generator, device=images.device) / 2  # (N,)
    mixed = clean.lerp(attacked, weight[:, None, None, None])
    logits = logits_of_copies(model, clean, noise)  # (N, k, m)
    of_mixed = logits_of_copies(model, mixed, noise).log_softmax(dim=2)
    log_p = log_mean_softmax(logits)  # (N, m)
    log_target = torch.logaddexp(  # in logarithms, so that no gradient is infinite where p is 0
        torch.log1p(-weight)[:, None] + log_p, (weight / logits.shape[2]).log()[:, None]
    )
    target_of_each = log_target[:, None].expand_as(of_mixed)
    divergence = functional.kl_div(of_mixed, target_of_each, reduction="none", log_target=True).sum(2).mean(1)  # (N,)
    right = log_p.argmax(dim=1) == labels
    return reduced(cross_entropy_of_copies(logits, labels), eta * grown * right * divergence, reduction)
