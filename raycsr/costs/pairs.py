"""`pair:cat/dog,3/8`: to take a cat for a dog costs 1, and class 3 for class 8; all other mistakes cost nothing."""

from collections.abc import Sequence

from raycsr.class_names import read_pairs
from raycsr.costs.distinct_rows import DistinctRows
from raycsr.costs.kinds import CostKind


def _values(text: str, num_classes: int, class_names: Sequence[str] | None) -> DistinctRows:
    pairs: dict[int, list[int]] = {}
    for seed, target in read_pairs(text, num_classes, class_names):
        pairs.setdefault(seed, []).append(target)
    return DistinctRows.of_pairs(num_classes, pairs)


PAIRS = CostKind("pair:cat/dog,3/8", _values)
