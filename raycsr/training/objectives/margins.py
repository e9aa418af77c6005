"""Margins between normal quantiles of class probabilities: sigma/2 times a margin is a radius."""

import math

import torch


def standard_margin(quantiles: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the true class's quantile less the largest other one: (N, m) -> (N,); positive where f is right."""
    label_column = labels[:, None]  # (N, 1)
    runner_up = quantiles.scatter(1, label_column, -math.inf).amax(dim=1)  # (N,)
    return quantiles.gather(1, label_column).squeeze(1) - runner_up


def hinge(margin: torch.Tensor, lowest: float, gamma: float) -> torch.Tensor:
    """Returns gamma - margin where lowest < margin < gamma, and 0 elsewhere; the conditions carry no gradient."""
    return torch.where((margin > lowest) & (margin < gamma), gamma - margin, 0)
