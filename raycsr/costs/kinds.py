"""What a kind of cost spec is: how people write it, and the costs that it means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from raycsr.costs.distinct_rows import DistinctRows


@dataclass(frozen=True)
class CostKind:
    """A kind of cost spec, such as `seed:cat,dog`: a name that says all, or a name, a colon and a text.

    Attributes:
        form: An example, for the help and for messages; it begins with the kind's name, and has a colon where a text
            follows the name.
        values: The text behind the colon, the number m of classes, and their names where the data has them -> the
            costs; (m, m), row = true class, or its distinct rows, which take less memory where there are many classes.
            Raises a UserError about the text where it means none.
    """

    form: str
    values: Callable[[str, int, Sequence[str] | None], ArrayLike | DistinctRows]
