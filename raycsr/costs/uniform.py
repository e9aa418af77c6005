"""`uniform`: every mistake costs 1."""

from collections.abc import Sequence

import numpy as np

from raycsr.costs.distinct_rows import DistinctRows
from raycsr.costs.kinds import CostKind


def _values(text: str, num_classes: int, class_names: Sequence[str] | None) -> DistinctRows:
    return DistinctRows(np.ones((1, num_classes)), np.zeros(num_classes, np.int32))


UNIFORM = CostKind("uniform", _values)
