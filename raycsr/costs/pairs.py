"""`pair:cat/dog,3/8`: to take a cat for a dog costs 1, and class 3 for class 8; all other mistakes cost nothing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raycsr.class_names import read_pairs
from raycsr.costs.kinds import CostKind


def _values(text: str, num_classes: int, class_names: Sequence[str] | None) -> NDArray[np.float64]:
    values = np.zeros((num_classes, num_classes))
    for seed, target in read_pairs(text, num_classes, class_names):
        values[seed, target] = 1
    return values


PAIRS = CostKind("pair:cat/dog,3/8", _values)
