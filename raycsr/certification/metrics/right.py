"""How often the answer is right, and how far from the image it provably stays so."""

import numpy as np

from raycsr.certification.intervals import mean_intervals, share_intervals
from raycsr.certification.metrics.record import ANSWERED, IMAGES, Judged, Metric, Values


def _by_both_shares(images: Judged) -> Values:
    """Whether the most likely answer is right and stays so; NaN where certificates do not state that radius."""
    hits = images.argmax_correct[:, None] & images.certified("multiclass_radius")
    return np.full(hits.shape, np.nan) if np.isnan(images.numbers("multiclass_radius")).any() else hits


ACCURACY = Metric(
    title="accuracy",
    about="share of images that are answered rightly",
    population=IMAGES,
    more_is_better=True,
    values=lambda images: images.correct[:, None],
    intervals=share_intervals,
)
COVERAGE = Metric(
    title="coverage",
    about="share of images that are answered, where an answer may abstain",
    population=IMAGES,
    more_is_better=True,
    values=lambda images: images.answered[:, None],
    intervals=share_intervals,
    flattered=False,  # to answer with other classes is to answer
    tables=("front", "comparison"),
)
ANSWERED_ACCURACY = Metric(
    title="accuracy among answered",
    about="of the images that are answered, the share answered rightly",
    population=ANSWERED,
    more_is_better=True,
    values=lambda images: images.correct[:, None],
    intervals=share_intervals,
    tables=(),
)
CERTIFIED_ACCURACY = Metric(
    title="certified acc. (standard)",
    about="share answered rightly at every perturbation up to the radius, by the answer's own share of votes",
    population=IMAGES,
    more_is_better=True,
    values=lambda images: images.correct[:, None] & images.certified("standard_radius"),
    intervals=share_intervals,
    guaranteed=True,
    shows_interval=True,
    tables=("ranking", "comparison"),
)
ARGMAX_ACCURACY = Metric(
    title="argmax accuracy",
    about="share of images whose most likely class is the right one, with no majority needed",
    population=IMAGES,
    more_is_better=True,
    values=lambda images: images.argmax_correct[:, None],
    intervals=share_intervals,
    tables=(),
)
MULTICLASS_CERTIFIED_ACCURACY = Metric(
    title="certified acc. (multiclass)",
    about="as certified_accuracy, by the shares of the answer and of its runner-up",
    population=IMAGES,
    more_is_better=True,
    values=_by_both_shares,
    intervals=share_intervals,
    guaranteed=True,
    shows_interval=True,
    tables=("ranking", "comparison"),
)
AVERAGE_RADIUS = Metric(
    title="ACR",
    about="mean standard radius of all images, 0 where the answer is wrong",
    population=IMAGES,
    more_is_better=True,
    values=lambda images: (images.numbers("standard_radius") * images.correct)[:, None],
    intervals=mean_intervals,
    tables=("leaderboard", "comparison"),
)
