"""The kinds of cost specs: each is a file with its `CostKind`, and a line of `_KINDS`.

Packages add others by entry points of the group `raycsr.costs`.
"""

from contextlib import suppress
from typing import Annotated, Any

from raycsr.costs.files import is_cost_file
from raycsr.costs.groups import GROUPS
from raycsr.costs.kinds import CostKind
from raycsr.costs.pairs import PAIRS
from raycsr.costs.seeds import SEEDS
from raycsr.costs.uniform import UNIFORM
from raycsr.errors import UserError, shown, similar
from raycsr.extensions import Extensions
from raycsr.forms import Forms, kind_of

_KINDS = {
    "uniform": UNIFORM,
    "seed": SEEDS,
    "pair": PAIRS,
    "groups": GROUPS,
}


def _wrong(kind: Any) -> str | None:
    """What is wrong with a kind of a package."""
    if isinstance(kind, CostKind):
        return None
    return f"it is of type {type(kind).__name__}, no raycsr.costs.CostKind"


_ADDED = Extensions("cost spec", "raycsr.costs", _KINDS, _wrong)


def find_kind(spec: str) -> CostKind | None:
    """Returns the kind that a spec is of; None for the path of a file.

    Raises:
        UserError: It is neither, or the package that adds the kind cannot be used.
    """
    name, colon, _ = spec.partition(":")
    kind = _ADDED.load(name) or _KINDS.get(name)
    if kind is not None and (":" in kind.form) == bool(colon):
        return kind
    if is_cost_file(spec):
        return None
    forms = _forms()
    close = [forms[one] for one in similar(name, forms)]
    fix = f"did you mean {' or '.join(close)}?" if close else f"use {cost_forms()}"
    raise UserError(f"costs {shown(spec)} not understood; {fix}")


def cost_forms() -> str:
    """What help and messages say of the forms."""
    return f"{', '.join(_forms().values())} or a path to a .csv, .tsv, .xlsx or .npy"


def is_cost_spec(text: str) -> bool:
    """Whether a text is written in one of the forms."""
    return kind_of(text.casefold(), _forms().values()) is not None or (is_cost_file(text) and "*" not in text)


def cost_kinds() -> dict[str, CostKind]:
    """All kinds: raycsr's own, and those of installed packages that can be used."""
    kinds = dict(_KINDS)
    for name in _ADDED.names():
        with suppress(UserError):  # said where that name is asked for
            kinds[name] = _ADDED.load(name)
    return kinds


def _forms() -> dict[str, str]:
    """Name -> an example."""
    return {name: kind.form for name, kind in cost_kinds().items()}


CostSpec = Annotated[str, Forms(cost_forms, is_cost_spec)]
