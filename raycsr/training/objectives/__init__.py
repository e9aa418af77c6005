"""Training objectives, one file each, all of the signature `Objective`."""

import difflib
import functools
import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.training.objectives.consistency import consistency
from raycsr.training.objectives.gaussian import gaussian
from raycsr.training.objectives.gaussian_cs import gaussian_cs
from raycsr.training.objectives.hyperparameters import check_hyperparameter
from raycsr.training.objectives.macer import macer
from raycsr.training.objectives.margin_cs import margin_cs
from raycsr.training.objectives.smoothadv import smoothadv
from raycsr.training.objectives.smoothadv_cs import smoothadv_cs
from raycsr.training.objectives.smoothmix import smoothmix
from raycsr.training.objectives.smoothmix_cs import smoothmix_cs


class Objective(Protocol):
    """What `train` minimises: the loss of one batch, a scalar."""

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
    ) -> torch.Tensor:
        """Returns the loss of images (N, 3, H, W) in [0,1] with labels (N,); progress is in [0,1]."""


OBJECTIVES: dict[str, Objective] = {
    "gaussian": gaussian,
    "gaussian_cs": gaussian_cs,
    "macer": macer,
    "smoothadv": smoothadv,
    "smoothadv_cs": smoothadv_cs,
    "consistency": consistency,
    "smoothmix": smoothmix,
    "smoothmix_cs": smoothmix_cs,
    "margin_cs": margin_cs,
}
COST_SENSITIVE = frozenset(name for name in OBJECTIVES if name.endswith("_cs"))


def resolve_objective(name: str, args: Mapping[str, Any] | None = None, *, costs: CostMatrix | None) -> Objective:
    """Returns the objective of that name with its hyper-parameters set, checked before anything is paid for.

    Args:
        name: One of `OBJECTIVES`.
        args: Hyper-parameters that differ from their defaults: the objective's own keyword arguments.
        costs: The cost matrix of the training, whose values `train` hands to the objective as a tensor.

    Returns:
        A partial of the objective, which can be pickled.

    Raises:
        UserError: There is no such objective or hyper-parameter, a value is of the wrong type or out of range,
            or the objective needs a seed class and the costs have none.
    """
    if name not in OBJECTIVES:
        near = difflib.get_close_matches(name, OBJECTIVES) or OBJECTIVES
        raise UserError(f"unknown objective {name!r}; nearest names: {', '.join(near)}.")
    objective = OBJECTIVES[name]
    kinds = _hyperparameters(objective)
    args = args or {}
    for key, value in args.items():
        if key not in kinds:
            raise UserError(f"{name} has no hyper-parameter {key!r}; it has {', '.join(kinds) or 'none'}.")
        check_hyperparameter(f"{key} of {name}", value, kinds[key])
    if name in COST_SENSITIVE:
        if costs is None:
            raise UserError(f"{name} needs a cost matrix and got none; give costs, or use gaussian.")
        if not costs.sensitive.any():
            raise UserError(f"{name} needs a seed class, {costs!r} has none; make a cost positive, or use gaussian.")
    return functools.partial(objective, **args)


def _hyperparameters(objective: Objective) -> dict[str, Any]:
    """Returns the types of the keyword arguments that an objective has beyond those of `Objective`."""
    common = inspect.signature(Objective.__call__).parameters
    parameters = inspect.signature(objective).parameters.values()
    return {parameter.name: parameter.annotation for parameter in parameters if parameter.name not in common}


__all__ = [
    "COST_SENSITIVE",
    "OBJECTIVES",
    "Objective",
    "consistency",
    "gaussian",
    "gaussian_cs",
    "macer",
    "margin_cs",
    "resolve_objective",
    "smoothadv",
    "smoothadv_cs",
    "smoothmix",
    "smoothmix_cs",
]
