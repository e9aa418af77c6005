"""Decision rules: logits -> class. With any of them f is a base classifier of its own.

A rule is fixed before it is certified, and its smoothed version is certified by the same theorems as argmax
is. A cost-sensitive one gives up some answers that would be costly if they were wrong, without training.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from raycsr.class_names import read_values
from raycsr.costs import CostMatrix
from raycsr.costs.specs import is_cost_spec
from raycsr.errors import UserError, nearest, shown
from raycsr.forms import Forms, kind_of

if TYPE_CHECKING:
    import torch

KINDS = ("argmax", "offset", "expected_cost")
_FORMS = ("argmax", "offset:1*COSTS", "expected_cost:1*COSTS", "tuned")


@dataclass(frozen=True)
class Rule:
    """A decision rule. Two rules are equal where their parameters are, however they were written.

    Attributes:
        kind: `argmax`; `offset`: argmax_k(z_k + b_k); `expected_cost`:
            argmin_k sum_j softmax(z)_j * (1[j != k] + tau * C[j, k]), the Bayes rule of the cost matrix blended
            with accuracy (Elkan, IJCAI 2001). Ties go to the lowest class.
        offsets: b of `offset`, one a class, in units of logits. A constant added to all of them changes no
            decision, so they are kept with their largest at 0.
        tau: of `expected_cost`, 0 or more.
        costs: C of `expected_cost`, m rows of m values; row = true class.
        spec: how a person writes it; by default its id.

    Raises:
        UserError: an unknown kind, or parameters that are none of it: not finite, tau negative, C no cost matrix.
    """

    kind: str = "argmax"
    offsets: tuple[float, ...] = ()
    tau: float = 0.0
    costs: tuple[tuple[float, ...], ...] = ()
    spec: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Check the parameters, and bring them to the one form that the id is taken of."""
        if self.kind not in KINDS:
            raise UserError(f"unknown kind of rule {self.kind!r}: {nearest(self.kind, KINDS)}")
        if not all(map(math.isfinite, self.offsets)) or (self.kind == "offset") != (len(self.offsets) > 0):
            raise UserError(f"rule {self.kind} has offsets {self.offsets}; give a finite one a class, to offset alone")
        if not (math.isfinite(self.tau) and self.tau >= 0):
            raise UserError(f"rule {self.kind} has tau {self.tau}; give a finite number, 0 or more")
        if self.kind == "expected_cost":
            CostMatrix(self.costs)  # refuses what is none
        elif self.tau or self.costs:
            raise UserError(f"rule {self.kind} has tau {self.tau} and costs; give them to expected_cost alone")
        top = max(self.offsets, default=0.0)
        # rounded: b and b + constant differ in their last bits; decisions are made in float32 anyway
        object.__setattr__(self, "offsets", tuple(round(b - top, 9) + 0.0 for b in self.offsets))
        object.__setattr__(self, "tau", self.tau + 0.0)
        object.__setattr__(self, "costs", tuple(tuple(row) for row in self.costs))
        object.__setattr__(self, "spec", self.spec or self.id)

    @cached_property
    def id(self) -> str:
        """Names the rule in votes and certificates: its kind and a digest of its parameters."""
        if self.kind == "argmax":
            return "argmax"
        parameters = np.concatenate([self.offsets, [self.tau], np.ravel(self.costs)])
        return f"{self.kind}-{sha256(parameters.astype('<f8').tobytes()).hexdigest()[:10]}"

    @property
    def num_classes(self) -> int | None:
        """The number m of classes that it is for; None for argmax, which serves any."""
        return len(self.offsets) or len(self.costs) or None

    def __call__(self, logits: "torch.Tensor") -> "torch.Tensor":
        """Decides: logits (..., m) -> classes, int64 (...)."""
        from raycsr.models.decisions import Decisions  # torch, which a rule alone does not need

        return Decisions([self], logits.device)(logits)[..., 0]

    def to_dict(self) -> dict[str, Any]:
        """Returns the rule as JSON values, for a checkpoint or a run."""
        parameters: dict[str, Any] = {}
        if self.kind == "offset":
            parameters = {"offsets": list(self.offsets)}
        if self.kind == "expected_cost":
            parameters = {"tau": self.tau, "costs": [list(row) for row in self.costs]}
        return {"id": self.id, "kind": self.kind, "spec": self.spec, **parameters}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Rule":
        """Returns the rule that `to_dict` described."""
        return cls(
            values["kind"],
            tuple(values.get("offsets", ())),
            values.get("tau", 0.0),
            tuple(tuple(row) for row in values.get("costs", ())),
            values["spec"],
        )


ARGMAX = Rule()


def parse_rules(
    specs: Sequence[str],
    *,
    num_classes: int | None,
    class_names: Sequence[str] | None = None,
    stored: Iterable[Rule] = (),
) -> list[Rule]:
    """Builds the rules that a command line or a YAML file names, each once, in order.

    Args:
        specs: Of these forms, where COSTS is any spec of `CostMatrix.from_spec`:

            - `argmax`
            - `offset:cat=1.5,dog=-0.5`: what is added to the logits of some classes, by name or index, as costs
              name them.
            - `offset:1.5*COSTS`: b = -1.5 * column sums of C / their largest, which lowers the classes that it
              is costly to answer.
            - `expected_cost:2*COSTS`: tau = 2.
            - `offset:0.5,1,1.5*COSTS`: several strengths are a rule each.
            - `tuned`: all rules that the checkpoint holds.
        num_classes: The number m of classes, where known; all but `argmax` and `tuned` need it.
        class_names: Their names, where known.
        stored: The rules of the checkpoint.

    Returns:
        The rules; those of one spec in the order of their strengths.

    Raises:
        UserError: a spec that is not understood; the message names the nearest that is.
    """
    rules: dict[str, Rule] = {}
    for spec in specs:
        for rule in _parsed(spec.strip(), num_classes, class_names, tuple(stored)):
            rules.setdefault(rule.id, rule)
    return list(rules.values())


def _parsed(
    spec: str, num_classes: int | None, class_names: Sequence[str] | None, stored: tuple[Rule, ...]
) -> Sequence[Rule]:
    kind, _, rest = spec.partition(":")
    if spec == "argmax":
        return [ARGMAX]
    if spec == "tuned":
        if not stored:
            raise UserError(
                "rule 'tuned': the model's checkpoint holds none; make one with `raycsr tune-rule --model M --costs C`"
            )
        return stored
    if kind not in ("offset", "expected_cost") or not rest:
        raise UserError(f"rule {spec!r} not understood: {nearest(kind, _FORMS)}")
    if num_classes is None:
        raise UserError(f"rule {spec!r} needs the number of classes, which this classifier does not say; give a Rule")
    strengths, star, costs_spec = rest.partition("*")
    if kind == "offset" and (not star or ("=" in rest and not _are_numbers(strengths))):  # a name may hold a star
        return [_named_offsets(spec, rest, num_classes, class_names)]
    if not star:
        raise UserError(f"rule {spec!r} has no strength; write {kind}:1*{rest}")
    costs = CostMatrix.from_spec(costs_spec.strip(), num_classes, class_names)
    tokens = [token.strip() for token in strengths.split(",")]
    made = _lowered if kind == "offset" else _weighed
    return made(costs, costs_spec.strip(), {token: _number(token, spec) for token in tokens})


def _lowered(costs: CostMatrix, costs_spec: str, strengths: Mapping[str, float]) -> list[Rule]:
    """Offsets that lower each class by how costly it is to answer."""
    sums = costs.values.sum(axis=0)
    if np.allclose(sums, sums[0]):
        raise UserError(
            f"rule offset with costs {costs_spec!r} would change nothing, for every class is as costly to answer as "
            "any other; name the costly classes, or use expected_cost"
        )
    lowering = sums / sums.max()
    return [
        Rule("offset", tuple((-strength * lowering).tolist()), spec=f"offset:{token}*{costs_spec}")
        for token, strength in strengths.items()
    ]


def _weighed(costs: CostMatrix, costs_spec: str, strengths: Mapping[str, float]) -> list[Rule]:
    rows = tuple(tuple(row) for row in costs.values.tolist())  # one copy for all: a thousand classes are 1e6 values
    return [
        Rule("expected_cost", tau=strength, costs=rows, spec=f"expected_cost:{token}*{costs_spec}")
        for token, strength in strengths.items()
    ]


def _named_offsets(spec: str, rest: str, num_classes: int, class_names: Sequence[str] | None) -> Rule:
    try:
        named = read_values(rest, num_classes, class_names)
    except UserError as error:
        raise UserError(f"rule {shown(spec)} not understood: {error}") from None
    return Rule("offset", tuple(named.get(k, 0.0) for k in range(num_classes)), spec=spec)


def _are_numbers(strengths: str) -> bool:
    try:
        return [float(token) for token in strengths.split(",")] != []
    except ValueError:
        return False


def _number(token: str, spec: str) -> float:
    try:
        strength = float(token)
    except ValueError:
        raise UserError(
            f"rule {spec!r}: strength {token!r} is no number; write 1.5*COSTS, or 0.5,1,1.5*COSTS"
        ) from None
    if not (math.isfinite(strength) and strength >= 0):
        raise UserError(f"rule {spec!r}: strength {token} is not a finite number, 0 or more")
    return strength


def rule_forms() -> str:
    """What help and messages say of the forms."""
    return (
        "argmax, offset:1.5*COSTS, offset:cat=1.5,dog=-0.5, expected_cost:2*COSTS, several strengths as in "
        "offset:0.5,1,1.5*COSTS (a rule each), or tuned for those that `raycsr tune-rule` stored in the checkpoint"
    )


def is_rule_spec(text: str) -> bool:
    """Whether a text is written in one of the forms, or as the costs that are part of one."""
    return kind_of(text.casefold(), _FORMS) is not None or is_cost_spec(text)


RuleSpec = Annotated[str, Forms(rule_forms, is_rule_spec)]
