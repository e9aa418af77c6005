"""Specs of a strength and costs, such as `offset:0.5,1*seed:cat`: of each of several strengths a rule."""

import math

from raycsr.errors import UserError


def is_strengths(text: str) -> bool:
    """Whether a text is numbers with commas between."""
    try:
        return [float(token) for token in text.split(",")] != []
    except ValueError:
        return False


def read_strengths(spec: str) -> tuple[dict[str, float], str]:
    """Returns the strengths of a spec, as they are written and as numbers, and the spec of its costs.

    Raises:
        UserError: There is no strength, or one is no finite number of 0 or more.
    """
    kind, _, rest = spec.partition(":")
    strengths, star, costs_spec = rest.partition("*")
    if not star:
        raise UserError(f"rule {spec!r} has no strength; write {kind}:1*{rest}")
    return {token.strip(): _number(token.strip(), spec) for token in strengths.split(",")}, costs_spec.strip()


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
