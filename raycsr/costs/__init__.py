"""Cost matrices: which mistakes are costly, and how much each one costs."""

from raycsr.costs.matrix import CostMatrix, as_cost_matrix
from raycsr.costs.specs import CostKind, CostSpec

__all__ = ["CostKind", "CostMatrix", "CostSpec", "as_cost_matrix"]
