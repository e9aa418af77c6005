"""One-sided confidence bounds on a class's probability, from its votes among n."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize.elementwise import find_root
from scipy.special import betaincc, betainccinv, betaincinv, betaln

from raycsr.errors import UserError

_TINY = np.finfo(np.float64).tiny

# Of one image. Beta quantiles are computed in float64, which loses single votes above 2^53, and no run counts so many.
MOST_SAMPLES = 10**12

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def binomial_lower(counts: ArrayLike, n: ArrayLike, level: ArrayLike) -> FloatArray:
    """Lower Clopper-Pearson bound: above the true probability with probability at most `level`.

    The p at which `counts` or more votes of n have probability `level` (Clopper & Pearson, Biometrika 1934).
    Holds only where n was fixed before the votes were drawn. No votes at all (n = 0) bound nothing: 0.

    Args:
        counts: Number of votes of the class, 0 <= counts <= n.
        n: Number of votes in total.
        level: Failure probability of each bound, in (0, 1). The three are broadcast.

    Returns:
        The bounds, of the broadcast shape; below 1, so that no quantile of them is infinite.

    Example:
        >>> binomial_lower([50, 99, 100], 100, 0.001).round(4)
        array([0.3448, 0.9114, 0.9333])
    """
    (k, n, level), inverse = distinct_triples(counts, n, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = np.where(k == 0, 0.0, np.where(k == n, level ** (1 / n), betaincinv(k, n - k + 1, level)))
    return np.minimum(bound, np.nextafter(1.0, 0.0))[inverse]


def binomial_upper(counts: ArrayLike, n: ArrayLike, level: ArrayLike) -> FloatArray:
    """Upper Clopper-Pearson bound: below the true probability with probability at most `level`.

    The p at which `counts` or fewer votes of n have probability `level`; arguments and shape as
    `binomial_lower`. No votes at all (n = 0) bound nothing: 1.

    Example:
        >>> binomial_upper([0, 1, 50], 100, 0.001).round(4)
        array([0.0667, 0.0886, 0.6552])
    """
    (k, n, level), inverse = distinct_triples(counts, n, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        none = -np.expm1(np.log(level) / n)  # 1 - level**(1/n), without its cancellation at large n
        # The complemented inverse: 1 - level would round a level of 1e-17 away.
        bound = np.where(k == n, 1.0, np.where(k == 0, none, betainccinv(k + 1, n - k, level)))
    return bound[inverse]


def sequence_lower(counts: ArrayLike, n: ArrayLike, level: ArrayLike) -> FloatArray:
    """Lower bound of a confidence sequence: it is ever above the true probability with probability at most `level`.

    "Ever" is over all n at once, as votes come in one by one; so it holds whatever rule said when to stop, and
    whether to go on later. The smallest p that the mixture martingale with weights Beta(1/2, 1/2),
    B(k + 1/2, n - k + 1/2) / B(1/2, 1/2) / (p^k (1 - p)^(n - k)), has not taken to 1 / level (Ville's inequality;
    Robbins, Ann. Math. Stat. 1970; for smoothing Voracek, NeurIPS 2024).

    Args:
        counts: Number of votes of the class, 0 <= counts <= n.
        n: Number of votes in total, so far.
        level: Failure probability of the whole sequence, in (0, 1). The three are broadcast.

    Returns:
        The bounds, of the broadcast shape; below 1, and 0 where there is no vote.

    Example:
        >>> bool(sequence_lower(99, 100, 0.001) < binomial_lower(99, 100, 0.001))  # what stopping early costs
        True
    """
    (k, n, level), inverse = distinct_triples(counts, n, level)
    bound = np.zeros(len(k))
    log_tail = betaln(k + 0.5, n - k + 0.5) - betaln(0.5, 0.5) + np.log(level)  # of p^k (1 - p)^(n - k) at the bound
    every = (k == n) & (n > 0)
    bound[every] = np.exp(log_tail[every] / n[every])
    some = (k > 0) & (k < n)
    below = find_root(
        lambda p, k, rest, log_tail: k * np.log(p) + rest * np.log1p(-p) - log_tail,
        (np.full(some.sum(), _TINY), k[some] / n[some]),
        args=(k[some], (n - k)[some], log_tail[some]),
        tolerances={"xatol": 0.0, "xrtol": 1e-13, "fatol": 0.0, "frtol": 0.0},
    ).bracket[0]  # the lower end: what is left of an error is on the safe side
    bound[some] = below
    return np.minimum(bound, np.nextafter(1.0, 0.0))[inverse]


def sequence_upper(counts: ArrayLike, n: ArrayLike, level: ArrayLike) -> FloatArray:
    """Upper bound of a confidence sequence: it is ever below the true probability with probability at most `level`.

    Arguments and shape as `sequence_lower`; 1 where all votes are for the class.
    """
    counts, n = _checked(counts, n)
    return 1.0 - sequence_lower(n - counts, n, level)  # votes against a class


def evidence_of_share(counts: ArrayLike, n: ArrayLike, share: ArrayLike, truncated: bool = True) -> FloatArray:
    """The logarithm of the evidence against "the class's probability is at most `share`".

    That of the likelihood ratios of all larger shares to this one, weighed by Beta(1/2, 1/2): each is a supermartingale
    while the probability is `share` or less.

    Args:
        counts: Number of votes of the class.
        n: Number of votes in total.
        share: A probability. The three are broadcast.
        truncated: False gives an upper bound of it, at a tenth of the cost.
    """
    k, n, share = np.broadcast_arrays(np.asarray(counts, np.float64), np.asarray(n, np.float64), share)
    above = betaincc(k + 0.5, n - k + 0.5, share) if truncated else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = betaln(k + 0.5, n - k + 0.5) - betaln(0.5, 0.5) - np.log(betaincc(0.5, 0.5, share))
        evidence = weights + np.log(above) - k * np.log(share) - (n - k) * np.log1p(-share)
    return np.where(share < 1, evidence, 0.0)  # nothing speaks against 1


def betting_lower(counts: ArrayLike, n: ArrayLike, level: ArrayLike) -> FloatArray:
    """Lower bound on a share: the probability that it is ever above the truth, over all n, is at most `level`.

    All shares below it have evidence of 1 / level against them (`evidence_of_share`). As the share p rises to
    k/n - sqrt(p) / 2n that falls, and beyond it is below 2, so that there is one crossing:
    d/dp log E = w (1 - 1/E) - (k - n p) / (p (1 - p)), where w, the weight at p over that above it, is at most
    1 / (2 sqrt(p) (1 - p)). It lies between the bound of `sequence_lower`, which has the level on either side, and that
    of Clopper and Pearson, the highest of all for one n.

    Arguments and shape as `sequence_lower`. The level is below 1/2, and a larger one is taken as .49.
    """
    (k, n, level), inverse = distinct_triples(counts, n, np.minimum(level, 0.49))
    bound, some = np.zeros(len(k)), k > 0
    bound[some] = find_root(
        lambda p, k, n, level: evidence_of_share(k, n, p) + np.log(level),
        (sequence_lower(k[some], n[some], level[some]), binomial_lower(k[some], n[some], level[some])),
        args=(k[some], n[some], level[some]),
        tolerances={"xatol": 0.0, "xrtol": 1e-13, "fatol": 0.0, "frtol": 0.0},
    ).bracket[0]  # the lower end: what is left of an error is on the safe side
    return bound[inverse]


def betting_upper(counts: ArrayLike, n: ArrayLike, level: ArrayLike) -> FloatArray:
    """Upper bound on a share: the probability that it is ever below the truth, over all n, is at most `level`."""
    return 1.0 - betting_lower(np.asarray(n) - np.asarray(counts), n, level)  # votes against a class


def distinct_triples(
    counts: ArrayLike, n: ArrayLike, level: ArrayLike
) -> tuple[tuple[IntArray, IntArray, FloatArray], IntArray]:
    """The distinct (count, n, level) among the broadcast arguments, and where each element finds its own.

    A beta quantile costs microseconds and votes repeat themselves: a million bounds need a few thousand.

    Returns:
        Three arrays (D,), and `inverse` of the broadcast shape with values in [0, D).

    Raises:
        UserError: counts or n that bounds cannot be given for.
    """
    counts, n = _checked(counts, n)
    level = np.asarray(level, np.float64)
    n_codes, distinct_n = pd.factorize(n.ravel())
    level_codes, distinct_level = pd.factorize(level.ravel())
    setting = n_codes.reshape(n.shape) * len(distinct_level) + level_codes.reshape(level.shape)
    count_codes, distinct_counts = pd.factorize(counts.ravel())  # not the counts: products of large ones would wrap
    stride = max(len(distinct_counts), 1)
    key = np.asarray(setting * stride + count_codes.reshape(counts.shape))
    inverse, keys = pd.factorize(key.ravel())
    setting, of_count = np.divmod(keys, stride)
    of_n, of_level = np.divmod(setting, len(distinct_level))
    return (distinct_counts[of_count], distinct_n[of_n], distinct_level[of_level]), inverse.reshape(key.shape)


def _checked(counts: ArrayLike, n: ArrayLike) -> tuple[IntArray, IntArray]:
    """Counts and n as int64.

    Raises:
        UserError: numbers that are no integers, more samples than MOST_SAMPLES, counts below 0 or above n.
    """
    counts, n = np.asarray(counts), np.asarray(n)
    for name, array in (("counts", counts), ("n", n)):
        if array.dtype.kind not in "iu" and array.size:
            raise UserError(f"{name} has type {array.dtype}; give integers")
        if array.max(initial=0) > MOST_SAMPLES:
            raise UserError(f"{name} is {array.max():,}; an image has {MOST_SAMPLES:,} samples at most")
    counts, n = counts.astype(np.int64, copy=False), n.astype(np.int64, copy=False)
    wrong = (counts < 0) | (counts > n)
    if wrong.any():
        count, of = (int(np.broadcast_to(array, wrong.shape)[wrong][0]) for array in (counts, n))
        raise UserError(f"{count:,} votes of {of:,} samples; give 0 to n votes")
    return counts, n


class Bounds(NamedTuple):
    """One-sided bounds on a share.

    Attributes:
        lower: (counts, n, level) -> lower bounds.
        upper: (counts, n, level) -> upper bounds.
    """

    lower: Callable[[ArrayLike, ArrayLike, ArrayLike], FloatArray]
    upper: Callable[[ArrayLike, ArrayLike, ArrayLike], FloatArray]


# Bounds by name. The first hold where n was fixed before the first vote, the others where the votes themselves may have
# said when to stop. What certificates are made with them, of which sampling design: `methods.py`.
BOUNDS = {
    "clopper-pearson": Bounds(binomial_lower, binomial_upper),
    "beta-binomial": Bounds(sequence_lower, sequence_upper),
    "betting": Bounds(betting_lower, betting_upper),
}


def check_alpha(alpha: float, name: str = "alpha") -> None:
    """Refuses a failure probability that is none.

    Raises:
        UserError: naming the option and its value.

    Example:
        >>> check_alpha(5)
        Traceback (most recent call last):
        raycsr.errors.UserError: alpha is 5; give a failure probability between 0 and 1, such as 0.001
    """
    if not 0 < alpha < 1:
        raise UserError(f"{name} is {alpha}; give a failure probability between 0 and 1, such as 0.001")
