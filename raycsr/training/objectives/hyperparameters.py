"""What values a hyper-parameter of an objective may take."""

import math
from typing import Any, Literal, get_args, get_origin

from raycsr.errors import UserError, nearest


def check_hyperparameter(label: str, value: object, kind: Any) -> None:
    """Refuses a value that is not of the annotated kind.

    Args:
        label: Name of the hyper-parameter in the message, such as "k of margin_cs".
        value: Value that the user gave.
        kind: int, a number of things: at least 1; float, a weight or a width: finite and not negative;
            bool or str; or a Literal of names. What has another kind, or none, is the objective's own to check.

    Raises:
        UserError: The value is of another type or out of range.
    """
    if kind is int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{label} is {value!r}; give a whole number of at least 1.")
    elif kind is float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise UserError(f"{label} is {value!r}; give a finite number of at least 0.")
    elif kind in (bool, str):
        if not isinstance(value, kind):
            raise UserError(f"{label} is {value!r}; give {'true or false' if kind is bool else 'a text'}.")
    elif get_origin(kind) is Literal and value not in get_args(kind):
        raise UserError(f"{label} is {value!r}: {nearest(str(value), map(str, get_args(kind)))}")
