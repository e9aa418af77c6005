"""What a decision rule is, of whatever kind."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from raycsr.costs import CostMatrix

if TYPE_CHECKING:
    import torch

    # logits (..., m) -> classes, int64 (..., rules)
    Decide = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Rule:
    """A decision rule: logits -> class. A kind of rule is a subclass, whose fields are its parameters.

    Two rules are equal where their parameters are, however they were written. Parameters are numbers, or tuples of
    them, which a kind checks and brings to one form in its `__post_init__`, for the id is taken of them.

    Attributes:
        spec: Spec of the rule, as a person writes it; by default its id.
        kind: Kind of the rule, which stands before the colon of a spec, and in the rule's id.
        forms: Examples of specs, for the help and for messages; each begins with the kind and a colon. COSTS stands for
            any spec of costs.
    """

    spec: str = field(default="", compare=False, kw_only=True)

    kind: ClassVar[str]
    forms: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        """Names a rule that nobody wrote."""
        object.__setattr__(self, "spec", self.spec or self.id)

    @property
    def num_classes(self) -> int | None:
        """The number m of classes that it is for; None where it serves any."""
        return None

    @property
    def strength(self) -> float:
        """How far it is from argmax, 0 or more: tables put rules of a kind in this order."""
        return 0.0

    @classmethod
    def parse(cls, spec: str, num_classes: int, class_names: Sequence[str] | None) -> "Sequence[Rule]":
        """Returns the rules that a spec of this kind means. Every kind has its own.

        Args:
            spec: The whole text, such as `offset:1.5*COSTS`, in one of the forms.
            num_classes: The number m of classes.
            class_names: Their names, where known.

        Raises:
            UserError: The spec is not understood.
        """
        raise NotImplementedError

    def decide(self, logits: "torch.Tensor") -> "torch.Tensor":
        """Decides: float32 logits (..., m) -> classes, int64 (...). Every kind has its own, or a `decider`.

        Of equal classes the lowest is answered. Torch is imported here, and not by the module: rules are read where
        there is none.
        """
        raise NotImplementedError

    @classmethod
    def decider(cls, rules: "Sequence[Self]", device: "torch.device | str") -> "Decide":
        """Returns what decides by several rules of this kind at once: float32 logits (..., m) -> int64 (..., rules).

        By default each decides for itself. A kind's own puts parameters on the device here, so that deciding waits for
        nothing, and shares what rules share; what one decides must not depend on the others, to the last bit.
        """
        import torch

        return lambda logits: torch.stack([rule.decide(logits) for rule in rules], -1)

    @classmethod
    def grid(cls, costs: CostMatrix, spec: str, strengths: Sequence[float]) -> dict[str, float]:
        """Returns the specs that `tune-rule` compares, and the strength of each; none where it does not tune this kind.

        Args:
            costs: The cost matrix.
            spec: Spec of the costs, as a person writes it.
            strengths: Strengths in units of logits: how far the costliest answer is lowered, or what comes to it.
        """
        return {}

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters by name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "spec"}

    @cached_property
    def id(self) -> str:
        """Names the rule in votes and certificates: its kind and a digest of its parameters, where it has any."""
        if not self.parameters:
            return self.kind
        digest = sha256()
        for numbers in self._digested():
            digest.update(numbers.astype("<f8", copy=False).tobytes())
        return f"{self.kind}-{digest.hexdigest()[:10]}"

    def _digested(self) -> Iterator[np.ndarray]:
        """All numbers of the parameters, in their order, some at once."""
        for one in self.parameters.values():
            yield np.asarray(one, np.float64)

    def __call__(self, logits: "torch.Tensor") -> "torch.Tensor":
        """Decides: logits (..., m) -> classes, int64 (...)."""
        from raycsr.models.decisions import Decisions  # torch, which a rule alone does not need

        return Decisions([self], logits.device)(logits)[..., 0]

    def to_dict(self) -> dict[str, Any]:
        """Returns the rule as JSON values, for a checkpoint or a run."""
        parameters = {name: _as_lists(value) for name, value in self.parameters.items()}
        return {"id": self.id, "kind": self.kind, "spec": self.spec, **parameters}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> "Rule":
        """Returns the rule of this kind that `to_dict` described; a parameter that is unknown or absent is refused."""
        parameters = {name: value for name, value in values.items() if name not in ("id", "kind", "spec")}
        return cls(**parameters, spec=values["spec"])


def _as_lists(value: Any) -> Any:
    return [_as_lists(one) for one in value] if isinstance(value, tuple) else value
