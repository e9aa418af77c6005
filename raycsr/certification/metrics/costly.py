"""How often no costly mistake is possible, and what the mistakes cost that still are."""

from raycsr.certification.intervals import mean_intervals, share_intervals
from raycsr.certification.metrics.record import SENSITIVE, Metric

ROB_CS = Metric(
    title="rob_cs",
    population=SENSITIVE,
    more_is_better=True,
    values=lambda images: images.certified("cost_sensitive_radius"),
    intervals=share_intervals,
    guaranteed=True,
    shows_interval=True,
)
ROB_COST = Metric(
    title="rob_cost",
    population=SENSITIVE,
    more_is_better=False,
    values=lambda images: images.costs_left[0],
    intervals=mean_intervals,
    shows_interval=True,
)
WORST_CASE_COST = Metric(
    title="worst cost",
    population=SENSITIVE,
    more_is_better=False,
    values=lambda images: images.costs_left[1],
    intervals=mean_intervals,
    tables=("comparison",),
)
