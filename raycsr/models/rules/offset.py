"""`offset:1.5*COSTS`, `offset:cat=1.5,dog=-0.5`: something is added to the logits of each class."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from raycsr.class_names import read_values
from raycsr.costs import CostMatrix
from raycsr.errors import UserError, shown
from raycsr.models.rules.rule import Rule
from raycsr.models.rules.strengths import is_strengths, read_strengths

if TYPE_CHECKING:
    import torch

    from raycsr.models.rules.rule import Decide


@dataclass(frozen=True)
class Offset(Rule):
    """argmax_k(z_k + b_k), of equal ones the lowest class.

    Attributes:
        offsets: b, one a class, in units of logits. A constant added to all of them changes no decision, so they are
            kept with their largest at 0.

    Raises:
        UserError: There is none, or one is not finite.
    """

    offsets: tuple[float, ...]

    kind: ClassVar[str] = "offset"
    forms: ClassVar[tuple[str, ...]] = ("offset:1*COSTS", "offset:0.5,1,1.5*COSTS", "offset:cat=1.5,dog=-0.5")

    def __post_init__(self) -> None:
        """Checks the offsets, and brings them to one form."""
        if not (self.offsets and all(map(math.isfinite, self.offsets))):
            raise UserError(f"rule offset has offsets {tuple(self.offsets)}; give a finite one a class")
        top = max(self.offsets)
        # rounded: b and b + constant differ in their last bits; decisions are made in float32 anyway
        object.__setattr__(self, "offsets", tuple(round(b - top, 9) + 0.0 for b in self.offsets))
        super().__post_init__()

    def _digested(self) -> Iterator[np.ndarray]:
        yield np.array([*self.offsets, 0.0])  # ids of stored votes have a tau behind them

    @property
    def num_classes(self) -> int:
        """An offset a class."""
        return len(self.offsets)

    @property
    def strength(self) -> float:
        """How far the lowest class is lowered."""
        return -min(self.offsets)

    @classmethod
    def parse(cls, spec: str, num_classes: int, class_names: Sequence[str] | None) -> "Sequence[Rule]":
        """Returns the rule of some classes; or a rule a strength, b = -strength * column sums of C / largest."""
        rest = spec.partition(":")[2]
        before, star, _ = rest.partition("*")
        if not star or ("=" in rest and not is_strengths(before)):  # a name may hold a star
            return [_of_classes(spec, rest, num_classes, class_names)]
        strengths, costs_spec = read_strengths(spec)
        sums = CostMatrix.from_spec(costs_spec, num_classes, class_names).column_sums
        if np.allclose(sums, sums[0], atol=0):
            raise UserError(
                f"rule offset with costs {costs_spec!r} would change nothing, for every class is as costly to answer "
                "as any other; name the costly classes, or use expected_cost"
            )
        lowering = sums / sums.max()
        return [
            cls(tuple((-strength * lowering).tolist()), spec=f"offset:{token}*{costs_spec}")
            for token, strength in strengths.items()
        ]

    @classmethod
    def decider(cls, rules: "Sequence[Offset]", device: "torch.device | str") -> "Decide":
        """Returns what adds the offsets of all rules to the logits."""
        import torch

        offsets = torch.tensor([rule.offsets for rule in rules], dtype=torch.float32, device=device)  # (R, m)
        return lambda z: (z.unsqueeze(-2) + offsets).argmax(-1)

    @classmethod
    def grid(cls, costs: CostMatrix, spec: str, strengths: Sequence[float]) -> dict[str, float]:
        """Returns rules that lower the costliest answer by each; none where every class is as costly as any other."""
        sums = costs.column_sums
        return {} if np.allclose(sums, sums[0], atol=0) else {f"offset:{s:.4g}*{spec}": s for s in strengths}


def _of_classes(spec: str, rest: str, num_classes: int, class_names: Sequence[str] | None) -> Offset:
    try:
        named = read_values(rest, num_classes, class_names)
    except UserError as error:
        raise UserError(f"rule {shown(spec)} not understood: {error}") from None
    return Offset(tuple(named.get(k, 0.0) for k in range(num_classes)), spec=spec)
