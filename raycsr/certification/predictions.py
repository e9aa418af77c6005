"""What the deployed smoothed classifier says of an image, and when it may: fresh votes must prove its answer.

The smoothed classifier g is a function of probabilities that nobody knows. What is deployed draws votes, names the
class A' of its n0 selection votes, and says it only once its estimation votes have proven, at level alpha_p, that g
answers A'. Else it abstains. The proof is a sequential one, so that most images need few votes.

Suppose that g does not answer A'. Then p_k >= p_A' for one k (a tie counts as such), or p_A' <= tau_A', below which g
abstains. Against the first speaks the evidence of the wager W = 1_A' - 1_k, the pair's at radius 0 (`eprocess`): its
mean is not above 0. Against the second speak likelihood ratios (`bounds.evidence_of_share`). Each reaches 1 / alpha_p
with probability alpha_p at most, at whatever number of votes one looks; and A' is said only where all have reached it,
so that the one which is true would have had to fail (intersection-union). Of all k the one with most votes has the
least evidence against it, so it decides. Where tau_A' is 1/2 or more, p_A' > tau_A' leaves no room for a rival, and is
the one test.

So if a certificate says that g answers no class of Omega within R of x, and holds with probability 1 - alpha, then for
any x' within R that is fixed before its votes are drawn

    P(a class of Omega is said) <= alpha + alpha_p + N eta

with N samples, of which each is eta away from Gaussian noise in total variation; in K calls alpha + K (alpha_p + N
eta). Whoever chooses x' can still have it abstain.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from raycsr.certification.answers import Answer
from raycsr.certification.bounds import FloatArray, IntArray, binomial_upper, check_alpha, evidence_of_share
from raycsr.certification.certificates import certify_counts
from raycsr.certification.eprocess import Stakes, is_certified
from raycsr.costs import CostMatrix
from raycsr.errors import UserError

_TOGETHER = 1024  # images and true classes that are certified at once
_FUTILITY_LEVEL = 0.01  # of the optimistic shares by which an image is given up


class Predictions:
    """Decides whether an image's answer may be said, must be withheld, or needs more votes.

    Attributes:
        taus: Share that each class must exceed to be answered, float (m,); 0 where there is no such demand.
        alpha_p: Probability with which something is said that the smoothed classifier does not answer, at most.
        n: Largest number of estimation samples.

    Example:
        >>> predictions = Predictions(np.full(3, 0.5), alpha_p=0.001, n=10_000)
        >>> predictions.are_decided([[64, 0, 0]], [[64, 0, 0]]).tolist()  # all votes agree: class 0 is said
        [True]
        >>> predictions.answers([[64, 0, 0], [40, 24, 0]], [[64, 0, 0], [45, 19, 0]]).tolist()
        [0, -1]
    """

    def __init__(self, taus: ArrayLike, *, alpha_p: float, n: int) -> None:
        """Takes what is demanded of an answer.

        Raises:
            UserError: alpha_p is no probability, or n votes prove nothing at it even if all agree.
        """
        check_alpha(alpha_p, "alpha_p")
        self.taus, self.alpha_p, self.n = np.asarray(taus, np.float64), alpha_p, n
        every = np.full(len(self.taus), n, np.int64)
        if not self._proven(Stakes.of_pair(every, every, 0 * every, every, every), np.arange(len(self.taus))).any():
            raise UserError(
                f"n={n} samples prove no answer at alpha_p={alpha_p:g}, even if all agree; raise n, or alpha_p"
            )

    def answers(self, counts0: ArrayLike, counts: ArrayLike) -> IntArray:
        """What is said of each image by its votes: a class, or -1 where it abstains; int64 (N,).

        Args:
            counts0: Selection votes, int (N, m).
            counts: Estimation votes, int (N, m), as many as there are by any rule of when to stop.
        """
        stakes, top = _stakes(counts0, counts)
        return np.where(self._proven(stakes, top), top, -1)

    def are_decided(self, counts0: ArrayLike, counts: ArrayLike) -> NDArray[np.bool_]:
        """Whether more votes are of no use, bool (N,): an image's answer may be said, or will hardly ever (futility).

        Args:
            counts0: Selection votes, int (N, m).
            counts: Estimation votes, int (N, m).
        """
        stakes, top = _stakes(counts0, counts)
        done = self._proven(stakes, top)
        done[~done] = ~self._proven(self._at_best(stakes.rows(~done)), top[~done])
        return done

    def _proven(self, stakes: Stakes, top: IntArray) -> NDArray[np.bool_]:
        """Whether the evidence for each image's answer suffices, bool (N,); `of_target` is of its best rival."""
        tau, enough = self.taus[top], -np.log(self.alpha_p)
        exceeds = np.ones(len(top), bool)
        some = tau > 0
        exceeds[some] = evidence_of_share(stakes.of_top[some], stakes.n[some], tau[some]) >= enough
        rivals = np.flatnonzero(exceeds & (tau < 0.5))
        levels = np.full(len(rivals), self.alpha_p)
        exceeds[rivals] = is_certified(stakes.rows(rivals), np.zeros(len(rivals)), 1.0, levels)
        return exceeds

    def _at_best(self, stakes: Stakes) -> Stakes:
        """The votes at the end, were those that are left to fall by an optimistic share of the answer.

        It proves nothing, and only ends the sampling of images that would abstain with n votes as well, all but
        `_FUTILITY_LEVEL` of them.
        """
        left = np.maximum(self.n - stakes.n, 0)
        more = np.ceil(left * binomial_upper(stakes.of_top, stakes.n, _FUTILITY_LEVEL)).astype(np.int64)
        most = stakes.of_top + more
        return stakes._replace(n=stakes.n + left, of_top=most, of_set=most)


def _stakes(counts0: ArrayLike, counts: ArrayLike) -> tuple[Stakes, IntArray]:
    """What each image's answer hangs on, and the answer: the top class of its selection votes, the lowest on a tie."""
    selection, estimation = np.asarray(counts0, np.int64), np.asarray(counts, np.int64)
    rows, top = np.arange(len(selection)), selection.argmax(axis=1)
    rivals = estimation.copy()
    rivals[rows, top] = -1
    of_rival = np.maximum(rivals.max(axis=1, initial=0), 0)
    totals0, totals = selection.sum(axis=1), estimation.sum(axis=1)
    return Stakes.of_pair(totals, estimation[rows, top], of_rival, totals0, selection[rows, top]), top


def shares_of(counts: ArrayLike, most: int = 5) -> list[dict[int, float]]:
    """The estimated shares of each image's top classes, the largest first; classes without a vote are left out.

    Args:
        counts: Estimation votes, int (N, m).
        most: Largest number of classes of an image.

    Example:
        >>> shares_of([[3, 0, 1]])
        [{0: 0.75, 2: 0.25}]
    """
    votes: FloatArray = np.asarray(counts, np.float64)
    order = np.argsort(-votes, axis=1, kind="stable")[:, :most]
    return [
        {int(k): float(row[k] / row.sum()) for k in classes if row[k]}
        for row, classes in zip(votes, order, strict=True)
    ]


def certify_unlabelled(
    counts0: ArrayLike,
    counts: ArrayLike,
    *,
    costs: CostMatrix | None = None,
    sigma: float,
    sampling: str,
    alpha: float = 0.001,
    answer: Answer | str = "argmax",
    errors: Sequence[str | None] | None = None,
) -> pd.DataFrame:
    """Certifies images of which nobody knows the true class.

    Args:
        counts0: Selection votes, int (N, m).
        counts: Estimation votes, int (N, m).
        costs: Cost matrix, (m, m).
        sigma: Standard deviation of the noise, in [0, 1] pixel units, which are those of the radii (L2).
        sampling: How n was chosen: see `certify_counts`.
        alpha: Failure probability of one statement about an image.
        answer: What the smoothed classifier says, and so what is certified: see `certify_counts`.
        errors: Why an image has no votes worth having, or None, (N,).

    Returns:
        One row an image: prediction (the class A, NA on error), abstain, standard_radius and multiclass_radius as
        `certify_counts` has them, and with costs `radius_if`, float (m,): at y the radius within which no class of
        Omega_y is answered. Its statement is about the image if y is its true class, and at alpha, for that is one of
        them. NaN where Omega_y is empty.

    Example:
        >>> rows = certify_unlabelled([[60, 4, 0]], [[990, 10, 0]], costs=CostMatrix.pairwise(3, {1: [2]}), sigma=0.5,
        ...     sampling="fixed")
        >>> rows["radius_if"][0].round(2)  # if it is of class 1: never 2 within
        array([nan, 1.1, nan])
    """
    selection, estimation = np.asarray(counts0, np.int64), np.asarray(counts, np.int64)
    num_images, m = estimation.shape
    problems = [None] * num_images if errors is None else list(errors)
    facts: dict[str, Any] = {"sigma": sigma, "sampling": sampling, "alpha": alpha, "answer": answer}
    nothing = CostMatrix(np.zeros((m, m)))
    rows = certify_counts(selection, estimation, np.zeros(num_images, int), costs=nothing, errors=problems, **facts)
    found = rows[["prediction", "abstain", "standard_radius", "multiclass_radius"]].copy()
    if costs is None:
        return found
    radius_if = np.full((num_images, m), np.nan)
    classes = np.flatnonzero(costs.sensitive)
    together = max(1, _TOGETHER // max(1, len(classes)))
    for start in range(0, num_images, together):
        some = np.arange(start, min(start + together, num_images))
        images, labels = np.repeat(some, len(classes)), np.tile(classes, len(some))
        rows = certify_counts(
            selection[images], estimation[images], labels, costs=costs, errors=[problems[i] for i in images], **facts
        )
        radius_if[images, labels] = rows["cost_sensitive_radius"]
    return found.assign(radius_if=list(radius_if))
