"""Cost-sensitivity by reweighting: sensitive images count more (the baseline of Xin, Backes, Zhang 2023)."""

import torch

from raycsr.errors import UserError
from raycsr.training.workers import averaged


def reweighted(
    losses: torch.Tensor, labels: torch.Tensor, costs: torch.Tensor | None, weight: float, name: str
) -> torch.Tensor:
    """Returns mean loss + weight * (sum_i s_i loss_i / sum_i s_i), s_i the sum of the label's row of C.

    Where all seed classes cost the same, the second mean is the published one, over the images of the seed
    classes. It is 0 for a batch without any.

    Args:
        losses: Of each image, (N,).
        labels: int64 (N,).
        costs: Cost matrix (m, m).
        weight: Of the sensitive images' mean.
        name: Of the objective, for the message.

    Returns:
        The loss of the batch, a scalar.

    Raises:
        UserError: There is no cost matrix.
    """
    if costs is None:
        raise UserError(f"{name} got no cost matrix; give costs, or use {name.removesuffix('_cs')}.")
    sensitivity = costs.sum(dim=1)[labels]  # (N,)
    total = averaged(sensitivity.sum())  # over workers: the mean of their losses is the loss of the whole batch
    total = total.clamp(min=torch.finfo(costs.dtype).tiny)  # 0 / tiny is 0: no branch, no host sync
    return losses.mean() + weight * (sensitivity / total * losses).sum()
