"""`threshold:0.7*COSTS`, `threshold:dog=0.7,cat=0.5`: Chow's reject option, with a threshold a class.

Source: Chow, On optimum recognition error and reject tradeoff, IEEE Transactions on Information Theory, 1970.
"""

from collections.abc import Sequence

import numpy as np

from raycsr.certification.answers.answer import AnswerKind
from raycsr.class_names import read_values
from raycsr.costs import CostMatrix
from raycsr.errors import UserError


def _thresholds(text: str, num_classes: int | None, class_names: Sequence[str] | None) -> Sequence[float]:
    """Of classes that are named; or one number for every class that it is costly to answer, and 0 for the others."""
    if num_classes is None:
        raise UserError("it needs the number of classes, which is not known here; give a raycsr.Answer")
    before, star, spec = text.partition("*")
    share = _number(before)
    if share is not None and not star:
        raise UserError(f"it names no class; write threshold:{before}*COSTS, or threshold:{before}*uniform for all")
    if share is None:  # of classes, of which a name may hold a star
        named = read_values(text, num_classes, class_names)
        return [named.get(k, 0.0) for k in range(num_classes)]
    costly = CostMatrix.from_spec(spec.strip(), num_classes, class_names).target_classes
    if not costly.any():
        raise UserError(f"under costs {spec.strip()!r} no answer is costly; name costs of which one is")
    return np.where(costly, share, 0.0).tolist()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


THRESHOLD_KIND = AnswerKind(("threshold:0.7*COSTS", "threshold:dog=0.7,cat=0.5"), _thresholds)
