"""What votes on an attacked picture prove, and how many broken certificates a guarantee allows. Knows no torch."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raycsr.certification.bounds import IntArray, binomial_lower

# A verdict "the smoothed classifier answers this picture by a costly class" is false with probability at most this.
VERDICT_LEVEL = 1e-6

# Were each certificate false with its alpha, more of them would be found broken with probability at most this.
CHANCE = 1e-6


class Verdicts(NamedTuple):
    """What the votes on N pictures prove.

    Attributes:
        target: (N,) the class of a set that the selection votes favour.
        target_votes: (N,) its estimation votes.
        rival: (N,) the class outside the set with the most estimation votes.
        rival_votes: (N,) those.
        proven: (N,) whether the smoothed classifier answers a class of the set, at the level.
    """

    target: IntArray
    target_votes: IntArray
    rival: IntArray
    rival_votes: IntArray
    proven: NDArray[np.bool_]


def verdicts(counts0: IntArray, counts: IntArray, wanted: NDArray[np.bool_], level: float = VERDICT_LEVEL) -> Verdicts:
    """Whether votes prove that the smoothed classifier answers a class of a set, for a number of pictures.

    It does where one class j of the set is likelier than every other class k outside. j is settled by the selection
    votes. Given how many estimation votes fell on j or k, those on j are binomial with share p_j / (p_j + p_k), so
    "p_k >= p_j" is refuted at the level where the lower Clopper-Pearson bound on that share exceeds 1/2. The verdict
    needs all of these to be refuted, so each is at the full level (intersection-union), and the k with the most votes
    decides.

    Args:
        counts0: int64 (N, m), the selection votes.
        counts: int64 (N, m), the estimation votes, whose number was fixed before the first, from other noise.
        wanted: bool (N, m), the set of each picture; neither none nor all classes.
        level: probability at most with which a verdict is false.
    """
    target = np.where(wanted, counts0, -1).argmax(axis=1)
    rival = np.where(wanted, -1, counts).argmax(axis=1)
    target_votes, rival_votes = (np.take_along_axis(counts, k[:, None], axis=1)[:, 0] for k in (target, rival))
    proven = binomial_lower(target_votes, target_votes + rival_votes, level) > 0.5
    return Verdicts(target, target_votes, rival, rival_votes, proven)


def most_broken(certificates: int, alpha: float) -> int:
    """How many of some certificates may be found broken: more are a failure of the guarantee, but for a chance of 1e-6.

    A certificate is found broken where it is false, with probability at most alpha, or by a false verdict. Noise of
    images is independent, so the number is at most binomial.

    Args:
        certificates: how many were attacked, each of another image.
        alpha: failure probability of each.
    """
    from scipy.stats import binom  # half a second to import, for those alone who ask

    return int(binom.ppf(1 - CHANCE, certificates, min(alpha + VERDICT_LEVEL, 1.0)))


def chance_of_broken(broken: int, certificates: int, alpha: float) -> float:
    """The largest probability of so many broken certificates or more, of the binomial distribution of `most_broken`."""
    from scipy.stats import binom

    return float(binom.sf(broken - 1, certificates, min(alpha + VERDICT_LEVEL, 1.0)))
