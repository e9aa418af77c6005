"""Decision rules: logits -> class. With any of them f is a base classifier of its own."""

from collections.abc import Callable

import torch

from raycsr.errors import UserError

Rule = Callable[[torch.Tensor], torch.Tensor]


def argmax(logits: torch.Tensor) -> torch.Tensor:
    """Returns the class of the largest logit: (..., m) -> int64 (...)."""
    return logits.argmax(dim=-1)


RULES: dict[str, Rule] = {"argmax": argmax}


def resolve_rule(name: str) -> Rule:
    """Returns the rule of that name.

    Raises:
        UserError: There is no such rule.
    """
    if name not in RULES:
        raise UserError(f"unknown rule {name!r}: choose from {', '.join(RULES)}.")
    return RULES[name]
