"""What values a hyper-parameter of an objective may take."""

import difflib
import math
from typing import Any, get_args

from raycsr.errors import UserError


def check_hyperparameter(label: str, value: object, kind: Any) -> None:
    """Refuses a value that is not of the annotated kind.

    Args:
        label: How the message names it, such as "k of margin_cs".
        value: What the user gave.
        kind: int, a number of things: at least 1; float, a weight or a width: finite and not negative;
            or a Literal of names.

    Raises:
        UserError: The value is of another type or out of range.
    """
    if kind is int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{label} is {value!r}; give a whole number of at least 1.")
    elif kind is float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise UserError(f"{label} is {value!r}; give a finite number of at least 0.")
    elif value not in get_args(kind):
        names = get_args(kind)
        near = difflib.get_close_matches(str(value), names) or names
        raise UserError(f"{label} is {value!r}; nearest names: {', '.join(near)}.")
