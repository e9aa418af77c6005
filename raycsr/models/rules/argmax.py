"""`argmax`: the class of the largest logit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raycsr.models.rules.rule import Rule

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Argmax(Rule):
    """argmax_k z_k, of equal ones the lowest class."""

    kind: ClassVar[str] = "argmax"
    forms: ClassVar[tuple[str, ...]] = ("argmax",)

    @classmethod
    def parse(cls, spec: str, num_classes: int, class_names: Sequence[str] | None) -> "Sequence[Rule]":
        """Returns the rule, whatever the classes."""
        return [cls()]

    def decide(self, logits: "torch.Tensor") -> "torch.Tensor":
        """Returns the argmax."""
        return logits.argmax(-1)
