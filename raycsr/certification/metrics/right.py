"""How often the answer is right, and how far from the image it provably stays so."""

from raycsr.certification.intervals import mean_intervals, share_intervals
from raycsr.certification.metrics.record import IMAGES, Metric

ACCURACY = Metric(
    title="accuracy",
    population=IMAGES,
    more_is_better=True,
    values=lambda images: images.correct[:, None],
    intervals=share_intervals,
)
CERTIFIED_ACCURACY = Metric(
    title="certified acc.",
    population=IMAGES,
    more_is_better=True,
    values=lambda images: images.correct[:, None] & images.certified("standard_radius"),
    intervals=share_intervals,
    guaranteed=True,
    shows_interval=True,
    tables=("ranking",),
)
AVERAGE_RADIUS = Metric(
    title="ACR",
    population=IMAGES,
    more_is_better=True,
    values=lambda images: (images.numbers("standard_radius") * images.correct)[:, None],
    intervals=mean_intervals,
    tables=("leaderboard",),
)
