"""Training objectives, one file each, all of the signature `Objective`."""

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import torch
from torch import nn

from raycsr.costs import CostMatrix
from raycsr.errors import UserError, nearest
from raycsr.extensions import Extensions
from raycsr.training.objectives.cat_rs import cat_rs
from raycsr.training.objectives.consistency import consistency
from raycsr.training.objectives.denoise import denoise
from raycsr.training.objectives.easy import easy
from raycsr.training.objectives.gaussian import gaussian
from raycsr.training.objectives.hyperparameters import check_hyperparameter
from raycsr.training.objectives.macer import macer
from raycsr.training.objectives.margin_cs import margin_cs
from raycsr.training.objectives.reweighting import Reduction, Reweighted, is_per_image
from raycsr.training.objectives.shares import Shares
from raycsr.training.objectives.smoothadv import smoothadv
from raycsr.training.objectives.smoothmix import smoothmix
from raycsr.training.objectives.stability import stability


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
        """Returns the loss of images (N, 3, H, W) in [0, 1] with labels (N,), a mean over them; progress is in [0, 1].

        One with a further keyword `image_ids` is given the N names of the images. Of several workers each has its own
        images of the batch, and the mean of their losses counts each by how many.
        """


_WRITTEN: dict[str, Callable[..., torch.Tensor]] = {
    "gaussian": gaussian,
    "macer": macer,
    "smoothadv": smoothadv,
    "consistency": consistency,
    "smoothmix": smoothmix,
    "cat_rs": cat_rs,
    "easy": easy,
    "margin_cs": margin_cs,
    "denoise": denoise,
    "stability": stability,
}
OBJECTIVES: dict[str, Objective] = {
    **_WRITTEN,
    **{f"{name}_cs": Reweighted(f"{name}_cs", one) for name, one in _WRITTEN.items() if is_per_image(one)},
}
OF_DENOISERS = frozenset({"denoise", "stability", "stability_cs"})
"""Those that train the denoisers in front of a classifier, which stays as it is; the others train what is behind."""
COST_SENSITIVE = frozenset(name for name in OBJECTIVES if name.endswith("_cs"))
_BATCH = ("model", "images", "labels")  # given by position
# no hyper-parameters, which a user may set
_NOT_SET = {*inspect.signature(Objective.__call__).parameters, "reduction", "image_ids"}


def _wrong(objective: Any) -> str | None:
    """What is wrong with an objective of a package."""
    try:
        signature = inspect.signature(objective, eval_str=True)
        signature.bind(*_BATCH, sigma=0, costs=0, progress=0, generator=0)
    except Exception as error:  # whatever evaluating its annotations raises
        return f"it is no raycsr.training.objectives.Objective ({error})"
    definition = getattr(objective, "definition", 1)
    if type(definition) is not int or definition < 1:  # checkpoints and sweeps note it
        return f"its definition is {definition!r}, and must be a whole number, 1 or more"
    if is_per_image(objective) and "weight" in signature.parameters:
        return "it takes reduction, so that its name with _cs has a hyper-parameter weight, and has one itself"
    return None


_ADDED = Extensions("objective", "raycsr.objectives", OBJECTIVES, _wrong)


def objective_names() -> list[str]:
    """All objectives: raycsr's own, those of installed packages, and the reweighted ones of these."""
    names = [*OBJECTIVES, *_ADDED.names()]
    for name in _ADDED.names():
        with suppress(UserError):  # said where that name is asked for
            names += [f"{name}_cs"] if is_per_image(_ADDED.load(name)) else []
    return list(dict.fromkeys(names))


def find_objective(name: str) -> Objective:
    """The objective of that name, without its hyper-parameters.

    Raises:
        UserError: There is none, or the package that adds it is broken.
    """
    added = _ADDED.load(name)  # first: it refuses a name that is raycsr's own
    if added is not None:
        return added
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    plain = name.removesuffix("_cs")
    added = _ADDED.load(plain) if plain not in (name, *OBJECTIVES) else None
    if added is not None and is_per_image(added):
        return Reweighted(name, added)
    raise UserError(f"unknown objective {name!r}: {nearest(name, objective_names())}")


def definition_of(name: str) -> int:
    """Which definition of the objective of that name this is: its `definition`, 1 where it has none.

    A number is raised whenever the same options give another loss: what was begun under another does not go on.

    Raises:
        UserError: There is none of that name, or the package that adds it is broken.
    """
    return getattr(find_objective(name), "definition", 1)


def resolve_objective(
    name: str,
    args: Mapping[str, Any] | None = None,
    *,
    costs: CostMatrix | None,
    read_shares: Callable[[str], Shares] | None = None,
) -> Objective:
    """Returns the objective of that name with its hyper-parameters set, checked before anything is paid for.

    Args:
        name: One of `objective_names()`. One that ends in `_cs` needs costs.
        args: Hyper-parameters that differ from their defaults: the objective's own keyword arguments.
        costs: The cost matrix of the training, whose values `train` hands to the objective as a tensor.
        read_shares: What reads the votes of a run, for objectives that are given one's location.

    Returns:
        A partial of the objective, which can be pickled.

    Raises:
        UserError: There is no such objective or hyper-parameter, a value is of the wrong type or out of range,
            the package that adds the objective is broken, or the objective needs a seed class and the costs have none.

    Example:
        >>> objective = resolve_objective("gaussian", costs=None)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> noise = {"sigma": 0.25, "generator": torch.Generator()}
        >>> loss = objective(model, images, labels, costs=None, progress=0.0, **noise)
        >>> loss.shape  # a scalar: the mean over the batch
        torch.Size([])
    """
    objective = find_objective(name)
    kinds = _hyperparameters(objective)
    args = dict(args or {})
    for key, value in args.items():
        if key not in kinds:
            raise UserError(f"{name} has no hyper-parameter {key!r}; it has {', '.join(kinds) or 'none'}.")
        check_hyperparameter(f"{key} of {name}", value, kinds[key])
    if name.endswith("_cs"):
        if costs is None:
            raise UserError(f"{name} needs a cost matrix and got none; give costs, or use gaussian.")
        if not costs.sensitive.any():
            raise UserError(f"{name} needs a seed class, {costs!r} has none; make a cost positive, or use gaussian.")
    for key in [key for key, kind in kinds.items() if kind is Shares]:
        args[key] = _shares(f"{key} of {name}", args.get(key), read_shares)
    return functools.partial(objective, **args)


def _shares(label: str, value: object, read: Callable[[str], Shares] | None) -> Shares:
    if isinstance(value, Shares):
        return value
    if not isinstance(value, str) or read is None:
        raise UserError(
            f"{label} is {value!r}; give the location of a run of the training images, of a gaussian network: raycsr "
            "sample --data.split train"
        )
    return read(value)


def _hyperparameters(objective: Objective) -> dict[str, Any]:
    """Returns the types of the arguments that an objective has beyond those of `Objective`."""
    parameters = list(inspect.signature(objective, eval_str=True).parameters.values())[len(_BATCH) :]
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    return {one.name: one.annotation for one in named if one.name not in _NOT_SET}


__all__ = [
    "COST_SENSITIVE",
    "OBJECTIVES",
    "OF_DENOISERS",
    "Objective",
    "Reduction",
    "Reweighted",
    "Shares",
    "cat_rs",
    "consistency",
    "definition_of",
    "denoise",
    "easy",
    "find_objective",
    "gaussian",
    "macer",
    "margin_cs",
    "objective_names",
    "resolve_objective",
    "smoothadv",
    "smoothmix",
    "stability",
]
