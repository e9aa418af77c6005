"""Decision rules at work: logits -> classes, several rules at once on one device."""

from collections.abc import Sequence

import torch

from raycsr.errors import UserError
from raycsr.models.rules import Rule


class Decisions:
    """Several rules on one device: all decide at once, from the logits of one forward pass.

    A decision does not depend on which other rules there are, to the last bit: votes of a rule are the same
    whether it was sampled alone or in a grid.
    """

    def __init__(self, rules: Sequence[Rule], device: torch.device | str) -> None:
        """Puts the parameters of the rules on the device, so that deciding waits for nothing."""
        sizes = sorted({rule.num_classes for rule in rules if rule.num_classes})
        if len(sizes) > 1:
            raise UserError(f"rules for {sizes[0]} and for {sizes[1]} classes cannot decide on the same logits")
        self.num_classes = sizes[0] if sizes else None
        self.num_rules = len(rules)
        of_kinds: dict[type[Rule], list[int]] = {}
        for r, rule in enumerate(rules):
            of_kinds.setdefault(type(rule), []).append(r)
        self._deciders = [kind.decider([rules[r] for r in those], device) for kind, those in of_kinds.items()]
        place = [r for those in of_kinds.values() for r in those]
        self._order = torch.tensor([place.index(r) for r in range(len(rules))], device=device)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Decides: logits (..., m) -> classes, int64 (..., rules).

        Raises:
            UserError: the rules are for another number of classes.
        """
        if self.num_classes not in (None, logits.shape[-1]):
            raise UserError(f"a rule is for {self.num_classes} classes and the classifier has {logits.shape[-1]}")
        z = logits.float()
        return torch.cat([decide(z) for decide in self._deciders], -1).index_select(-1, self._order)
