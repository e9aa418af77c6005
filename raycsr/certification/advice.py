"""Before sampling: what would so many samples certify, by the votes of a pilot that are sampled again on paper."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raycsr.certification.certificates import certify_counts
from raycsr.certification.summary import summarize
from raycsr.costs import CostMatrix

_TIMES = 20  # that each image of the pilot is sampled on paper


def likely_shares(votes: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Vote shares that may have given some votes, a few of each class that got none.

    Args:
        votes: int (N, m).
        generator: Source of the draw.

    Returns:
        A draw for each image from the Dirichlet distribution of its votes, each with 1/m beside; (N, m).
    """
    drawn = generator.standard_gamma(votes + 1 / votes.shape[-1])
    return drawn / drawn.sum(axis=-1, keepdims=True)


def expected_summary(
    votes: NDArray[np.int64],
    labels: NDArray[np.int64],
    costs: CostMatrix,
    *,
    sigma: float,
    draws: tuple[int, int],
    alpha: float,
    radii: Sequence[float],
) -> pd.DataFrame:
    """What a fixed number of samples would certify of images like those of a pilot.

    Args:
        votes: Votes of the pilot; int (N, m).
        labels: Classes of its images; int (N,).
        costs: Cost matrix.
        sigma: Noise level of the pilot, in [0, 1] pixel units.
        draws: n0 and n, the numbers of selection and of estimation samples.
        alpha: Failure probability of one image's certificate.
        radii: L2 radii (R,), in [0, 1] pixel units.

    Returns:
        A row a radius, as `summarize` gives it, without intervals. Shares beyond what the pilot's own number of votes
        can tell apart are guesses.

    Example:
        >>> votes, labels = np.array([[950, 50], [600, 400]]), np.array([0, 0])
        >>> of = dict(sigma=0.5, alpha=0.001, radii=[0.5])
        >>> few, many = (
        ...     expected_summary(votes, labels, CostMatrix.uniform(2), draws=(64, n), **of) for n in (64, 10_000)
        ... )
        >>> [float(one["rob_cs"].iloc[0]) for one in (few, many)]  # the first reaches .5, if it is sampled enough
        [0.125, 0.5]
    """
    generator = np.random.default_rng(0)
    shares = likely_shares(np.repeat(votes, _TIMES, axis=0), generator)
    counts0, counts = (generator.multinomial(n, shares) for n in draws)
    certificates = certify_counts(
        counts0, counts, np.repeat(labels, _TIMES), costs=costs, sigma=sigma, sampling="fixed", alpha=alpha
    )
    return summarize(certificates, costs=costs, radii=radii, intervals=False)
