"""Denoisers in front of the classifier, one kind a file: with one, a classifier that never saw noise certifies.

f may be classifier o denoiser (Salman et al., NeurIPS 2020), and any theorem about f holds for it as it stands.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Real
from typing import Any

import torch

from raycsr.errors import UserError, behind, nearest, shown
from raycsr.extensions import Extensions
from raycsr.models.denoisers.denoiser import RESIZING, Denoiser, DenoiserContents, resized
from raycsr.models.denoisers.diffusers_folder import DiffusersModel, diffusers_in
from raycsr.models.denoisers.diffusion import DiffusionModel
from raycsr.models.denoisers.dncnn import DnCNN
from raycsr.models.denoisers.drunet import DRUNet
from raycsr.models.denoisers.memnet import MemNet
from raycsr.models.weights import load_weights, unwrapped

KINDS: dict[str, type[Denoiser]] = {
    "dncnn": DnCNN,
    "memnet": MemNet,
    "drunet": DRUNet,
    "diffusion": DiffusionModel,
    "diffusers": DiffusersModel,
}

# of the networks' own code, which was given arguments of whatever kind
_CREATION_ERRORS = (RuntimeError, ValueError, TypeError, AssertionError, LookupError, AttributeError)


def _wrong(kind: Any) -> str | None:
    """What is wrong with a kind of a package."""
    if not (isinstance(kind, type) and issubclass(kind, Denoiser)):
        return "it is no subclass of raycsr.models.denoisers.Denoiser"
    own = {name for one in kind.__mro__[: kind.__mro__.index(Denoiser)] for name in vars(one)}
    lacks = [name for name in ("archs", "build", "forward") if name not in own]
    if lacks:
        return f"it lacks {', '.join(lacks)}"
    if kind.takes_levels and not kind.needs_sigma:
        return "takes_levels is true and needs_sigma is not, and without levels it would be told its sigma"
    taken = [arch for arch in kind.archs if any(arch in one.archs for one in KINDS.values())]
    return f"its architecture {taken[0]!r} has the name of one of raycsr's own" if taken else None


_ADDED = Extensions("kind of denoiser", "raycsr.denoisers", KINDS, _wrong)


def denoiser_kinds() -> dict[str, type[Denoiser]]:
    """All kinds: raycsr's own, and those of installed packages that can be used."""
    kinds = dict(KINDS)
    for name in _ADDED.names():
        with suppress(UserError):  # said where that name is asked for
            kinds[name] = _ADDED.load(name)
    return kinds


def denoiser_archs() -> dict[str, type[Denoiser]]:
    """All architectures, each with its kind."""
    return {arch: kind for kind in denoiser_kinds().values() for arch in kind.archs}


def is_denoiser(name: str) -> bool:
    """Whether a name is that of an architecture.

    Raises:
        UserError: A package that adds a kind of this name is broken.
    """
    _ADDED.load(name)
    return name in denoiser_archs()


def find_denoiser(arch: str) -> type[Denoiser]:
    """The kind that has an architecture.

    Raises:
        UserError: None has it, or the package that adds it is broken.
    """
    if not is_denoiser(arch):
        raise UserError(f"unknown denoiser {shown(arch)}: {nearest(arch, denoiser_archs())}")
    return denoiser_archs()[arch]


def create_denoiser(
    arch: str,
    args: Mapping[str, Any] | None = None,
    *,
    sigma: float | None = None,
    input_size: tuple[int, int] | None = None,
    levels: Sequence[float] | None = None,
    init_seed: int = 0,
) -> Denoiser:
    """Creates a denoiser with seeded random weights, on the CPU; the caller's random state is left as it was.

    Args:
        arch: Architecture.
        args: Its further arguments.
        sigma: Noise level that it is made for, in [0, 1] pixel units.
        input_size: Height and width that it takes; None leaves it to the kind.
        levels: Noise levels that it is told, in [0, 1] pixel units; None tells it sigma alone.
        init_seed: Seed of the weights.

    Raises:
        UserError: There is no such architecture, its arguments do not fit, it needs a sigma, or it takes no levels.
    """
    kind = find_denoiser(arch)
    if sigma is not None and not _is_level(sigma):
        raise UserError(f"model.denoiser.sigma is {sigma}: give the noise level that it is made for, above 0.")
    if kind.needs_sigma and sigma is None:
        raise UserError(f"denoiser {arch!r} takes the noise level as an input: give model.denoiser.sigma.")
    if levels is not None:
        _check_levels(kind, arch, levels)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(init_seed)
            made = kind(arch, args, sigma=sigma, input_size=input_size)
            if levels is not None and sigma is not None:
                made.make_for(sigma, levels)
            return made
    except _CREATION_ERRORS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"denoiser {arch!r} with args {dict(args or {})} cannot be created: {reason}") from error


def _check_levels(kind: type[Denoiser], arch: str, levels: Sequence[float]) -> None:
    """Refuses levels that a denoiser cannot be told."""
    if not kind.takes_levels:
        raise UserError(f"denoiser {arch!r} is not told the noise level: leave model.denoiser.levels out.")
    if not levels or not all(map(_is_level, levels)) or len({*levels}) < len(levels):
        raise UserError(f"model.denoiser.levels is {[*levels]}: give noise levels above 0, each once.")


def _is_level(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


def assemble_denoiser(
    contents: DenoiserContents,
    *,
    sigma: float | None = None,
    input_size: int | None = None,
    levels: Sequence[float] | None = None,
) -> Denoiser:
    """Builds the denoiser that a file describes, all of its weights from the file.

    Args:
        contents: Contents of the file.
        sigma: Noise level that the user says it is made for; None takes what the file says.
        input_size: Height and width that it is given, in pixels; None takes what the file says.
        levels: Noise levels that the user has it told; None takes what the file says.

    Raises:
        UserError: What the file says does not hold together, or contradicts the user.
    """
    path, said = contents.path, contents.sigma
    size = contents.input_size if input_size is None else (input_size, input_size)
    if levels is None and contents.levels:
        if sigma not in (None, said):
            raise UserError(
                f"the denoiser in {path} is told noise levels {[*contents.levels]} for sigma {said}, and "
                f"model.denoiser.sigma is {sigma:g}: give model.denoiser.levels, too."
            )
        levels = contents.levels
    sigma_of_both = said if sigma is None else sigma
    try:
        made = create_denoiser(contents.arch, contents.args, sigma=sigma_of_both, input_size=size, levels=levels)
    except UserError as error:
        raise behind(f"{path}: ", error) from error
    if sigma is not None and said is not None and sigma != said and not made.needs_sigma:
        raise UserError(f"the denoiser in {path} is made for sigma {said:g}, and model.denoiser.sigma is {sigma:g}.")
    weights = unwrapped(contents.weights, made.network.state_dict().keys())
    fix = "give model.denoiser.name ARCH and model.denoiser.pretrained FILE, with args as in training"
    load_weights(path, f"denoiser {contents.arch}", made.network, weights, fix=fix)
    return made


def denoiser_in(path: str, content: Any) -> DenoiserContents | None:
    """What a file of others' code says of a denoiser; None where it is none that is known."""
    found = (kind.of_file(path, content) for kind in denoiser_kinds().values())
    return next((one for one in found if one is not None), None)


__all__ = [
    "KINDS",
    "RESIZING",
    "DRUNet",
    "Denoiser",
    "DenoiserContents",
    "DiffusersModel",
    "DiffusionModel",
    "DnCNN",
    "MemNet",
    "assemble_denoiser",
    "create_denoiser",
    "denoiser_archs",
    "denoiser_in",
    "denoiser_kinds",
    "diffusers_in",
    "find_denoiser",
    "is_denoiser",
    "resized",
]
