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
) -> torch.Tensor:
    """Returns CE of the mean softmax over k noisy copies + lam * sigma/2 * the batch's mean of `margin_terms`.

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
        lam: Weight of the margins. It does not transfer between the two forms.
        gamma_n: Margin xi up to which images of classes without costs are pushed: a radius of sigma/2 * gamma_n.
        gamma_s: The same for images of seed classes; those that are wrong by more are left to CE.
        form: "sum" over all costly targets weighted by C, as the paper has it; "max", the hardest target
            only, without C, as its published code does.

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
    terms = margin_terms(logits, labels, costs=costs, beta=beta, gamma_n=gamma_n, gamma_s=gamma_s, form=form)
    return ce + lam * sigma / 2 * terms.mean()


def margin_terms(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    costs: torch.Tensor,
    beta: float,
    gamma_n: float,
    gamma_s: float,
    form: Form,
) -> torch.Tensor:
    """Returns what each image lacks to its margin; sigma/2 times that is a radius.

    With q = Phi^-1(mean softmax(beta * logits)) of an image of true class y and xi_j = q_y - q_j:

    - y is no seed class: gamma_n - xi where 0 < xi < gamma_n, xi = min_j xi_j; mistakes are left to CE.
    - "sum": the sum over j of C[y, j] * (gamma_s - xi_j) where |xi_j| < gamma_s; mistakes count too.
    - "max": gamma_s - xi where |xi| < gamma_s, xi = min over j in Omega_y of xi_j.

    The positive side is the true class and not the top class: with that, xi_j is always 0, and has no
    gradient, where the top class is the costly one. The conditions carry no gradient.

    Args:
        logits: Logits of k noisy copies; (N, k, m).
        labels: Classes of the images; int64 (N,).
        costs: Cost matrix; (m, m).
        beta: Inverse temperature of the softmax.
        gamma_n: Margin for images of classes without costs.
        gamma_s: Margin for images of seed classes.
        form: "sum" or "max".

    Returns:
        (N,).
    """
    quantiles = mean_class_quantiles(logits, beta)  # (N, m)
    true_class = quantiles.gather(1, labels[:, None])  # (N, 1)
    standard = hinge(standard_margin(quantiles, labels), 0, gamma_n)  # (N,)
    row = costs[labels]  # (N, m)
    targets = row > 0  # (N, m): Omega_y
    if form == "sum":
        sensitive = (row * hinge(true_class - quantiles, -gamma_s, gamma_s)).sum(dim=1)  # (N,)
    else:
        hardest = quantiles.masked_fill(~targets, -math.inf).amax(dim=1, keepdim=True)  # (N, 1)
        sensitive = hinge(true_class - hardest, -gamma_s, gamma_s).squeeze(1)  # (N,)
    return torch.where(targets.any(dim=1), sensitive, standard)
