"""From the losses of images to the loss of a batch: their mean, or one in which costly images count more.

An objective whose loss is a mean over images takes `reduction`, as PyTorch's losses do: "mean" gives the loss of the
batch, "none" that of each image, of shape (N,); or of shape (N, 2), where a reweighting shall change the first column
alone, which is the cross-entropy. Any such objective NAME has a cost-sensitive variant NAME_cs for nothing.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from raycsr.errors import UserError
from raycsr.training.ranks import averaged

Reduction = Literal["mean", "none"]


def reduced(cross_entropy: torch.Tensor, rest: torch.Tensor, reduction: Reduction) -> torch.Tensor:
    """Returns the mean of the sums of two parts of the images' losses, a scalar; or the parts as columns.

    Args:
        cross_entropy: The part that a reweighting changes; (N,).
        rest: The part that it leaves alone; (N,).
        reduction: "mean" for the loss of the batch, "none" for the two parts of each image.

    Returns:
        The loss, a scalar; or (N, 2).
    """
    return (cross_entropy + rest).mean() if reduction == "mean" else torch.stack([cross_entropy, rest], dim=1)


def is_per_image(objective: Callable[..., torch.Tensor]) -> bool:
    """Whether an objective gives the loss of each image, too: it takes `reduction`."""
    return "reduction" in inspect.signature(objective).parameters


@dataclass(frozen=True)
class Reweighted:
    """NAME_cs: an objective whose cross-entropy counts the images of costly classes more (Xin et al. 2023).

    That is their baseline. Their code has it for gaussian, smoothadv and smoothmix, whose consistency with mixed images
    it does not reweigh; so are the other objectives' terms beside the cross-entropy left alone here.

    Attributes:
        name: Name of the objective in messages, such as "gaussian_cs".
        objective: The objective, which takes `reduction`.
    """

    name: str
    objective: Callable[..., torch.Tensor]

    @property
    def definition(self) -> int:
        """One above that of the objective, whose loss is part of this; 1 reweighted all of that, at a weight of 1."""
        return 1 + int(getattr(self.objective, "definition", 1))

    @property
    def __signature__(self) -> inspect.Signature:
        """The objective's, with `weight` as the first hyper-parameter and without `reduction`."""
        weight = inspect.signature(type(self).__call__).parameters["weight"]
        theirs = inspect.signature(self.objective, eval_str=True).parameters.values()
        parameters = [weight, *(one for one in theirs if one.name != "reduction")]
        return inspect.Signature(sorted(parameters, key=lambda one: one.kind))  # positional ones come first

    def __call__(
        self,
        model: nn.Module,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        sigma: float,
        costs: torch.Tensor | None,
        progress: float,
        generator: torch.Generator,
        weight: float = 0.1,
        **hyperparameters: Any,
    ) -> torch.Tensor:
        """Returns mean loss + weight * (sum_i s_i CE_i / sum_i s_i), s_i the sum of the label's row of C.

        Where all seed classes cost the same, the second mean is the published one, over the images of the seed
        classes. It is 0 for a batch without any. The published weight is .1: of ten classes that are equally frequent
        an image of the one seed class counts twice, and 11 times at a weight of 1.

        Args:
            model: The base classifier.
            images: Pixels in [0, 1]; float32 (N, 3, H, W).
            labels: Classes of the images; int64 (N,).
            sigma: Noise level in [0, 1] pixel units.
            costs: Cost matrix; (m, m).
            progress: Share of the training that is done.
            generator: Source of the noise, on the device of the images.
            weight: Weight of the mean cross-entropy of the sensitive images.
            **hyperparameters: Those of the objective.

        Returns:
            The loss, a scalar.

        Raises:
            UserError: There is no cost matrix.
        """
        if costs is None:
            raise UserError(f"{self.name} got no cost matrix; give costs, or use {self.name.removesuffix('_cs')}.")
        losses = self.objective(
            model,
            images,
            labels,
            sigma=sigma,
            costs=costs,
            progress=progress,
            generator=generator,
            reduction="none",
            **hyperparameters,
        )  # (N,), or (N, 2)
        weighed = losses if losses.ndim == 1 else losses[:, 0]  # (N,)
        sensitivity = costs.sum(dim=1)[labels]  # (N,)
        # Over workers: the mean of their losses, each counted by its number of images, is the loss of the whole batch.
        total, number = averaged(torch.stack([sensitivity.sum(), torch.ones_like(sensitivity).sum()]))
        total = total.clamp(min=torch.finfo(costs.dtype).tiny)  # 0 / tiny is 0: no branch, no host sync
        second = (sensitivity / total * weighed).sum() * (number / len(losses))
        return losses.sum() / len(losses) + weight * second
