"""How often no costly mistake is possible, and what the mistakes cost that still are."""

from raycsr.certification.intervals import mean_intervals, share_intervals
from raycsr.certification.metrics.record import SENSITIVE, Metric

ROB_CS = Metric(
    title="rob_cs",
    about="of the images on which some mistake is costly, the share on which no perturbation makes one",
    population=SENSITIVE,
    more_is_better=True,
    values=lambda images: images.certified("cost_sensitive_radius"),
    intervals=share_intervals,
    guaranteed=True,
    shows_interval=True,
)
ROB_COST = Metric(
    title="rob_cost",
    about="of these images, the mean sum of the costs that are not ruled out; less is better",
    population=SENSITIVE,
    more_is_better=False,
    values=lambda images: images.costs_left[0],
    intervals=mean_intervals,
    shows_interval=True,
)
WORST_CASE_COST = Metric(
    title="worst cost",
    about="of these images, the mean of the largest cost that is not ruled out; less is better",
    population=SENSITIVE,
    more_is_better=False,
    values=lambda images: images.costs_left[1],
    intervals=mean_intervals,
    tables=("comparison",),
)
