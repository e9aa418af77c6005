"""The accuracy among the images of seed classes, and among those of the classes that they are mistaken for."""

from raycsr.certification.intervals import share_intervals
from raycsr.certification.metrics.record import SEEDS, TARGETS, Metric

SEED_RECALL = Metric(
    title="seed recall",
    about="share answered rightly of the classes with costly mistakes",
    population=SEEDS,
    more_is_better=True,
    values=lambda images: images.correct[:, None],
    intervals=share_intervals,
)
TARGET_RECALL = Metric(
    title="target recall",
    about="share answered rightly of the classes that are costly to answer",
    population=TARGETS,
    more_is_better=True,
    values=lambda images: images.correct[:, None],
    intervals=share_intervals,
    flattered=False,  # a collapsed class is a target that is missed
)
