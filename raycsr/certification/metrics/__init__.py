"""The metrics of certified images, in the order of the summary's columns: a file with a `Metric`, and a line here.

The summary, its intervals, the tables, metrics.json, what a training reports and what a sweep may compete in follow
from them.
"""

import numpy as np

from raycsr.certification.metrics.costly import ROB_COST, ROB_CS, WORST_CASE_COST
from raycsr.certification.metrics.recalls import SEED_RECALL, TARGET_RECALL
from raycsr.certification.metrics.record import Metric
from raycsr.certification.metrics.right import (
    ACCURACY,
    ANSWERED_ACCURACY,
    ARGMAX_ACCURACY,
    AVERAGE_RADIUS,
    CERTIFIED_ACCURACY,
    COVERAGE,
    MULTICLASS_CERTIFIED_ACCURACY,
)
from raycsr.costs import CostMatrix

METRICS: dict[str, Metric] = {
    "accuracy": ACCURACY,
    "coverage": COVERAGE,
    "answered_accuracy": ANSWERED_ACCURACY,
    "certified_accuracy": CERTIFIED_ACCURACY,
    "argmax_accuracy": ARGMAX_ACCURACY,
    "multiclass_certified_accuracy": MULTICLASS_CERTIFIED_ACCURACY,
    "acr": AVERAGE_RADIUS,
    "rob_cs": ROB_CS,
    "rob_cost": ROB_COST,
    "worst_case_cost": WORST_CASE_COST,
    "seed_recall": SEED_RECALL,
    "target_recall": TARGET_RECALL,
}


def metric_of(costs: CostMatrix) -> str:
    """The metric that models and rules compete in under a cost matrix, where nobody names another.

    rob_cs counts the images on which no costly mistake is possible, whatever it costs; where mistakes cost more or
    less, it cannot tell those apart, and rob_cost decides: the mean of the costs that are not ruled out.

    Args:
        costs: The cost matrix.

    Returns:
        `rob_cost` where two mistakes have different positive costs, else `rob_cs`.

    Example:
        >>> metric_of(CostMatrix([[0, 10], [1, 0]])), metric_of(CostMatrix.uniform(2))
        ('rob_cost', 'rob_cs')
    """
    return "rob_cost" if costs.positive is not None and not np.isclose(*costs.positive, atol=0) else "rob_cs"
