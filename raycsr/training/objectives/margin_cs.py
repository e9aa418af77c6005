"""Margins towards the costly classes (Xin, Chen, Backes, Zhang, ICML 2025, after MACER: Zhai et al., ICLR 2020)."""

import math
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from raycsr.errors import UserError
from raycsr.training.objectives.copies import draw_noise, logits_of_copies
from raycsr.training.objectives.hyperparameters import check_hyperparameter
from raycsr.training.objectives.margins import hinge, standard_margin
from raycsr.training.objectives.normal_quantile import log_mean_softmax, mean_class_quantiles

Form = Literal["sum", "max"]
_FLOAT32_LOWEST = -5.543  # Phi^-1(2^-26): 2p - 1 of a smaller p is rounded to -1
_FLOAT32_HIGHEST = 5.420  # Phi^-1(1 - 2^-25): a larger p is rounded to 1


def margin_cs(
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
    lam: float = 3.0,
    gamma_n: float = 4.0,
    gamma_s: float = 16.0,
    form: Form = "sum",
    standard_too: bool = False,
    drop_saturated: bool = False,
) -> torch.Tensor:
    """Returns CE of the mean softmax over k noisy copies + lam * sigma/2 * the batch's mean of `margin_terms`.

    The published figures were made by the paper's code: form "max", lam 3, drop_saturated, and for pairs of classes
    standard_too. The paper's formula is form "sum" with C as it is given; here C is first divided by the mean of what
    its seed classes' rows sum up to, so that lam means the same for both forms, for one costly target and for nine, and
    in whatever unit costs are told. Costs of different size keep their ratios.

    Args:
        model: The base classifier.
        images: Pixels in [0, 1]; float32 (N, 3, H, W).
        labels: Classes of the images; int64 (N,).
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix; (m, m).
        progress: Share of the training that is done; this objective does not use it.
        generator: Source of the noise, on the device of the images.
        k: Noisy copies an image; a forward pass has N * k rows.
        beta: Inverse temperature of the softmax in the margins.
        lam: Weight of the margins.
        gamma_n: Margin xi up to which images of classes without costs are pushed: a radius of sigma/2 * gamma_n.
        gamma_s: The same for images of seed classes; those that are wrong by more are left to CE.
        form: "sum" over all costly targets weighted by C, as the paper has it; "max", the hardest target
            only, without C, as its published code does.
        standard_too: Whether images of seed classes have the other classes' margin, against all classes, as well.
        drop_saturated: Whether a margin has no part in the loss where float32 takes one of its two probabilities for 0
            or 1, as in the published code: Phi^-1 below -5.54 or above 5.42. Its gamma_s of 16 acts like 10.4 so.

    Returns:
        The loss, a scalar.

    Raises:
        UserError: There is no cost matrix, k < 1, or the form is unknown.
    """
    check_hyperparameter("k of margin_cs", k, int)
    check_hyperparameter("form of margin_cs", form, Form)
    if costs is None:
        raise UserError("margin_cs got no cost matrix; give costs, or use gaussian.")
    logits = logits_of_copies(model, images, draw_noise(images, k, sigma, generator))  # (N, k, m)
    ce = functional.nll_loss(log_mean_softmax(logits), labels)
    row_sums = costs.sum(dim=1)  # (m,)
    mean_of_seeds = row_sums.sum() / (row_sums > 0).sum().clamp(min=1)  # no indexing: the device does not wait
    terms = margin_terms(
        mean_class_quantiles(logits, beta),
        labels,
        costs=costs / mean_of_seeds,
        gamma_n=gamma_n,
        gamma_s=gamma_s,
        form=form,
        standard_too=standard_too,
        drop_saturated=drop_saturated,
    )
    return ce + lam * sigma / 2 * terms.mean()


margin_cs.definition = 2  # type: ignore[attr-defined]  # 1 took costs as they are given


def margin_terms(
    quantiles: torch.Tensor,
    labels: torch.Tensor,
    *,
    costs: torch.Tensor,
    gamma_n: float,
    gamma_s: float,
    form: Form,
    standard_too: bool = False,
    drop_saturated: bool = False,
) -> torch.Tensor:
    """Returns what each image lacks to its margin; sigma/2 times that is a radius.

    With q = Phi^-1(mean softmax(beta * logits)) of an image of true class y and xi_j = q_y - q_j:

    - y is no seed class: gamma_n - xi where 0 < xi < gamma_n, xi = min_j xi_j; mistakes are left to CE.
    - "sum": the sum over j of C[y, j] * (gamma_s - xi_j) where |xi_j| < gamma_s; mistakes count too.
    - "max": gamma_s - xi where |xi| < gamma_s, xi = min over j in Omega_y of xi_j.

    The positive side is the true class and not the top class, as in the published code for pairs: with that, xi_j is
    always 0, and has no gradient, where the top class is the costly one. The conditions carry no gradient.

    Args:
        quantiles: q, the normal quantiles of all classes (`mean_class_quantiles`); (N, m).
        labels: Classes of the images; int64 (N,).
        costs: Cost matrix C; (m, m).
        gamma_n: Margin for images of classes without costs.
        gamma_s: Margin for images of seed classes.
        form: "sum" or "max".
        standard_too: Whether images of seed classes have the first of the three as well.
        drop_saturated: Whether xi_j is left out where float32 takes one of its probabilities for 0 or 1.

    Returns:
        (N,).
    """
    true_class = quantiles.gather(1, labels[:, None])  # (N, 1)
    standard = hinge(standard_margin(quantiles, labels), 0, gamma_n)  # (N,)
    row = costs[labels]  # (N, m)
    targets = row > 0  # (N, m): Omega_y
    others = quantiles
    if form == "max":
        others = quantiles.masked_fill(~targets, -math.inf).amax(dim=1, keepdim=True)  # (N, 1), the hardest
    terms = hinge(true_class - others, -gamma_s, gamma_s)  # (N, m), or (N, 1)
    if drop_saturated:
        terms = torch.where(_told_by_float32(true_class) & _told_by_float32(others), terms, 0)
    sensitive = terms.squeeze(1) if form == "max" else (row * terms).sum(dim=1)  # (N,)
    if standard_too:
        sensitive = sensitive + standard
    return torch.where(targets.any(dim=1), sensitive, standard)


def _told_by_float32(quantiles: torch.Tensor) -> torch.Tensor:
    """Whether torch.distributions.Normal.icdf of the probability is finite: erfinv(2p - 1), in float32."""
    return (quantiles > _FLOAT32_LOWEST) & (quantiles < _FLOAT32_HIGHEST)
