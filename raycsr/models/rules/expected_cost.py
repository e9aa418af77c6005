"""`expected_cost:2*COSTS`: the class whose expected cost is the least."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.models.rules.rule import Rule
from raycsr.models.rules.strengths import read_strengths

if TYPE_CHECKING:
    import torch

    from raycsr.models.rules.rule import Decide


_MOST = 1e30  # of tau and of a cost times tau, which are float32 when they are added up


@dataclass(frozen=True)
class ExpectedCost(Rule):
    """argmin_k sum_j softmax(z)_j * (1[j != k] + tau * C[j, k]), of equal ones the lowest class.

    The Bayes rule of the cost matrix, blended with accuracy (Elkan, IJCAI 2001).

    Attributes:
        tau: 0 or more.
        costs: C, a cost matrix, or m rows of m values; row = true class. Rules of one matrix share it.

    Raises:
        UserError: tau is negative or not finite, or C is no cost matrix.
    """

    tau: float
    costs: CostMatrix

    kind: ClassVar[str] = "expected_cost"
    forms: ClassVar[tuple[str, ...]] = ("expected_cost:1*COSTS",)

    def __post_init__(self) -> None:
        """Checks the parameters, and brings them to one form."""
        if not (math.isfinite(self.tau) and self.tau >= 0):
            raise UserError(f"rule expected_cost has tau {self.tau}; give a finite number, 0 or more")
        object.__setattr__(self, "tau", self.tau + 0.0)
        if not isinstance(self.costs, CostMatrix):
            object.__setattr__(self, "costs", CostMatrix(self.costs))  # refuses what is none
        if self.tau * max(1.0, self.costs.distinct.rows.max()) > _MOST:
            raise UserError(
                f"rule expected_cost has tau {self.tau:g}, above {_MOST:g}, or so times a cost: give a smaller one"
            )
        super().__post_init__()

    @property
    def num_classes(self) -> int:
        """A row of costs a class."""
        return self.costs.num_classes

    @property
    def strength(self) -> float:
        """What a mistake's cost is weighed by against accuracy."""
        return self.tau

    @classmethod
    def parse(cls, spec: str, num_classes: int, class_names: Sequence[str] | None) -> "Sequence[Rule]":
        """Returns a rule a strength, which is its tau."""
        strengths, costs_spec = read_strengths(spec)
        costs = CostMatrix.from_spec(costs_spec, num_classes, class_names)
        return [cls(tau, costs, spec=f"expected_cost:{token}*{costs_spec}") for token, tau in strengths.items()]

    @classmethod
    def decider(cls, rules: "Sequence[ExpectedCost]", device: "torch.device | str") -> "Decide":
        """Returns what weighs the probabilities by the costs; rules with the same costs share that."""
        import torch

        alike: dict[CostMatrix, list[int]] = {}
        for r, rule in enumerate(rules):
            alike.setdefault(rule.costs, []).append(r)
        weighing = []
        for costs, those in alike.items():
            taus = torch.tensor([[rules[r].tau] for r in those], dtype=torch.float32, device=device)  # (R, 1)
            # What is taken from a whole row changes no decision. Taking the median leaves few entries that are not
            # 0, so classes that cost the same come out the same to the last bit, and ties stay ties.
            values, start = torch.empty((costs.num_classes, costs.num_classes)), 0  # m m, which is there once
            for rows in costs.distinct.blocks():
                values[start : start + len(rows)] = _less_median(rows)
                start += len(rows)
            weighing.append((taus, values.to(device)))
        place = [r for those in alike.values() for r in those]
        order = torch.tensor([place.index(r) for r in range(len(rules))], device=device)

        def decide(z: "torch.Tensor") -> "torch.Tensor":
            below = z - z.amax(-1, keepdim=True)
            # The expected cost less a constant, divided by the largest probability. expm1 keeps classes apart that are
            # nearly equal, so that tau = 0 is argmax exactly.
            loss = -torch.expm1(below)  # (..., m)
            classes = []
            for taus, costs in weighing:
                harm = below.exp() @ costs  # (..., m)
                classes.append((loss.unsqueeze(-2) + taus * harm.unsqueeze(-2)).argmin(-1))
            return torch.cat(classes, -1).index_select(-1, order)

        return decide

    @classmethod
    def grid(cls, costs: CostMatrix, spec: str, strengths: Sequence[float]) -> dict[str, float]:
        """Returns rules of tau = (e^s - 1) / largest cost: for one seed class that is the rule of an offset of s."""
        if costs.positive is None:
            return {}
        return {f"expected_cost:{math.expm1(s) / costs.positive[1]:.4g}*{spec}": s for s in strengths}

    def to_dict(self) -> dict[str, Any]:
        """Returns the rule as JSON values: `costs`, m rows of m, or of many classes the distinct ones, `rows`."""
        costs = self.costs.to_json()
        named = {"costs" if name == "values" else name: values for name, values in costs.items()}
        return {"id": self.id, "kind": self.kind, "spec": self.spec, "tau": self.tau, **named}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Rule:
        """Returns the rule that `to_dict` described."""
        if "rows" not in values:
            return super().of_dict(values)
        others = {name: value for name, value in values.items() if name != "rows"}
        return super().of_dict({**others, "costs": CostMatrix.of_json({"rows": values["rows"]})})

    def _digested(self) -> Iterator[np.ndarray]:
        yield np.array([self.tau])
        yield from self.costs.distinct.blocks()


def _less_median(rows: np.ndarray) -> "torch.Tensor":
    """Rows of costs, (S, m), less the median of each, float32."""
    import torch

    values = torch.from_numpy(rows).float()
    return values - values.median(dim=1, keepdim=True).values
