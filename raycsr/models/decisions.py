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
        m = self.num_classes or 1  # a single 0 is broadcast
        added = [rule for rule in rules if rule.kind != "expected_cost"]
        offsets = [rule.offsets or (0.0,) * m for rule in added]
        self._offsets = torch.tensor(offsets, dtype=torch.float32, device=device)  # (R, m)
        self._expected_costs = []
        weighed: list[Rule] = []
        for costs in dict.fromkeys(rule.costs for rule in rules if rule.kind == "expected_cost"):
            alike = [rule for rule in rules if rule.kind == "expected_cost" and rule.costs == costs]
            taus = torch.tensor([[rule.tau] for rule in alike], dtype=torch.float32, device=device)  # (R, 1)
            values = torch.tensor(costs, dtype=torch.float32, device=device)
            # What is taken from a whole row changes no decision. Taking the median leaves few entries that are not
            # 0, so classes that cost the same come out the same to the last bit, and ties stay ties.
            self._expected_costs.append((taus, values - values.median(dim=1, keepdim=True).values))
            weighed += alike
        computed = [*added, *weighed]
        self._order = torch.tensor([computed.index(rule) for rule in rules], device=device)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Decides: logits (..., m) -> classes, int64 (..., rules).

        Raises:
            UserError: the rules are for another number of classes.
        """
        if self.num_classes not in (None, logits.shape[-1]):
            raise UserError(f"a rule is for {self.num_classes} classes and the classifier has {logits.shape[-1]}")
        z = logits.float()
        classes = [(z.unsqueeze(-2) + self._offsets).argmax(-1)] if len(self._offsets) else []
        below = z - z.amax(-1, keepdim=True)
        for taus, costs in self._expected_costs:
            # The expected cost less a constant, divided by the largest probability. expm1 keeps classes apart
            # that are nearly equal, so that tau = 0 is argmax exactly.
            loss = -torch.expm1(below)  # (..., m)
            harm = below.exp() @ costs  # (..., m)
            classes.append((loss.unsqueeze(-2) + taus * harm.unsqueeze(-2)).argmin(-1))
        return torch.cat(classes, -1).index_select(-1, self._order)
