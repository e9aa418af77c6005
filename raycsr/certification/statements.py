"""What sequential sampling decides about an image, and when it is decided.

Stopping is always sound: certificates from the votes at any stop hold, since their evidence holds at every n at once
(`eprocess`). What this module decides is only whether further votes could still change a statement.
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b, sha256
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from raycsr.certification.answers import ARGMAX, Answer
from raycsr.certification.bounds import FloatArray, IntArray, evidence_of_share
from raycsr.certification.eprocess import Stakes, grid_radius, is_certified, last_step, reaches
from raycsr.certification.methods import NEWEST
from raycsr.certification.routes import settle
from raycsr.certification.votes import SparseVotes
from raycsr.costs import CostMatrix
from raycsr.errors import UserError

# Samples that a statement is worth. After n samples about as many more are needed to tell, so that sampling stops for
# futility where a statement's chance is below n / WORTH: early looks are patient, and late ones are not. That costs
# statements, never soundness.
WORTH = 200_000

# What certifies the votes when sampling has stopped, and by the very same evidence stops it.
METHOD = NEWEST["sequential"]

_MARGIN = 1 + 1e-9  # of a standard radius, so that its certificate, found by bisection, reaches what is decided
_IMAGES = 256  # in flight, of which is kept what the selection votes settle
_CELLS = 1 << 21  # votes that are tallied at once


class Statements:
    """The statements about each image: is its radius at least r, for each radius r.

    Of an image whose answer is right it is the standard radius and the multiclass one, which reports draw, and under
    each cost matrix of which its class is a seed class the cost-sensitive one. A statement is decided once the image's
    certificate makes it, or once none will: its answer is wrong (standard, multiclass) or costly (cost-sensitive), or
    the radius that all samples would certify is below r, were those that are left to fall by optimistic vote shares
    (futility). Each is made of each answer. A target that takes the threshold route is ruled out by its own share, so
    that nothing is lost where the answer is it. The multiclass statement is two where the answer has a threshold below
    1/2: that no other class is as likely, and that its share exceeds the threshold. It is none of its own where the
    threshold is 1/2 or more, for then it is the standard one.

    Example:
        >>> statements = Statements([CostMatrix.seedwise(3, [0])], [0.25], sigma=0.5, alpha=0.001, n=10_048)
        >>> statements.decided([[64, 0, 0]], [[64, 0, 0]], label=0)  # clear after 64 samples
        True
        >>> statements.decided([[40, 24, 0]], [[45, 19, 0]], label=0)  # close: more samples may decide it
        False
    """

    def __init__(
        self,
        costs: Iterable[CostMatrix],
        radii: Iterable[float],
        *,
        sigma: float,
        alpha: float,
        n: int,
        worth: float = WORTH,
        answers: Iterable[Answer] = (ARGMAX,),
    ) -> None:
        """Takes the statements.

        Args:
            costs: The cost matrices, of one number of classes.
            radii: L2, in [0, 1] pixel units.
            sigma: Noise level, in the same units.
            alpha: Failure probability of one image's certificate.
            n: Number of samples that an image may have.
            worth: Number of samples that a statement is worth: after n samples, sampling stops for futility where even
                vote shares that are as good as a chance of n / worth allows would not make it.
            answers: What the smoothed classifier says, given shares.

        Raises:
            UserError: no radius, or one that is not positive.
        """
        self.costs, self.radii = tuple(costs), tuple(sorted(set(radii)))
        self.sigma, self.alpha, self.n, self._worth = sigma, alpha, n, worth
        self.answers = tuple(answers)
        self._questions = [
            _Question(matrix, answer, tau)
            for matrix in self.costs
            for answer in self.answers
            for tau in _taus(answer.of_classes(matrix.num_classes)[matrix.target_classes])
        ]
        # What the answer's own share is to exceed: a majority and its threshold, which the standard radius is about,
        # and its threshold, if it has one.
        taus = [np.array(answer.thresholds) for answer in self.answers]
        shares = [exceeds for tau in taus for exceeds in (np.maximum(tau, 0.5), np.where(tau > 0, tau, 0.5))]
        self._shares = list(dict.fromkeys(tuple(exceeds.tolist()) for exceeds in shares))
        # Of each class, or of all, whether some answer says it by less than a majority, so that its rivals matter.
        self._by_rivals = np.any(np.broadcast_arrays(*(tau < 0.5 for tau in taus)), axis=0)
        self._settled: dict[tuple[bytes, int], _Settled] = {}
        if not self.radii or not all(np.isfinite(r) and r > 0 for r in self.radii):
            raise UserError(f"radii to decide are {list(radii)}; give positive numbers of [0, 1] pixel units")

    @property
    def digest(self) -> str:
        """Names the statements, and the method by which they are made."""
        facts: list = [METHOD.name, [matrix.digest for matrix in self.costs], self.radii]
        facts += [self.sigma, self.alpha, self.n]
        facts += [] if self.answers == (ARGMAX,) else [[answer.id for answer in self.answers]]
        facts += ["multiclass"] if self._by_rivals.any() else []  # which runs of before did not decide
        return sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        """The statements in words."""
        radii = ", ".join(f"{radius:g}" for radius in self.radii)
        number = len(self.costs)
        costs = f", and under {number} cost {'matrix' if number == 1 else 'matrices'}" if number else ""
        answers = "" if self.answers == (ARGMAX,) else f", of {', '.join(answer.spec for answer in self.answers)}"
        kinds = "the standard one and the multiclass one" if self._by_rivals.any() else "the standard one"
        return f"whether radius {radii} is reached: {kinds}{costs}{answers}"

    def decided(self, counts0: ArrayLike, counts: ArrayLike, label: int) -> bool:
        """Whether all statements about an image are decided, for every decision rule.

        Args:
            counts0: Selection votes, int (rules, m).
            counts: Estimation votes, int (rules, m), of one number of samples.
            label: The image's class.
        """
        selection = np.asarray(counts0)
        key = blake2b(selection.tobytes(), digest_size=16).digest(), label
        if key not in self._settled:  # once an image, which is asked about at every look
            if len(self._settled) >= _IMAGES:
                self._settled.clear()
            self._settled[key] = self._settle(selection, np.full(len(selection), label))
        return bool(self.are_decided(self._settled[key].tally(np.asarray(counts))).all())

    def rows_are_decided(self, counts0: IntArray, counts: IntArray, labels: IntArray) -> NDArray[np.bool_]:
        """Whether all statements about each row of votes are decided, bool (N,), as the engine asks.

        Args:
            counts0: Selection votes, int (N, m).
            counts: Estimation votes, int (N, m).
            labels: Classes of the images, int (N,).
        """
        votes = SparseVotes.from_dense(counts0), SparseVotes.from_dense(counts)
        return self.are_decided(self.tally(*votes, labels, counts.shape[1]))

    def tally(self, selection: SparseVotes, estimation: SparseVotes, labels: IntArray, num_classes: int) -> "Tallies":
        """The few numbers of each row's votes that statements depend on.

        Args:
            selection: Selection votes of N rows.
            estimation: Estimation votes of these.
            labels: Classes of the images, int (N,).
            num_classes: Number m of classes.
        """
        size = max(1, _CELLS // num_classes)
        found = []
        for start in range(0, max(1, len(labels)), size):  # as arrays (size, m), of which there are a few at once
            some = slice(start, start + size)
            settled = self._settle(selection[some].dense(num_classes), labels[some])
            found.append(settled.tally(estimation[some].dense(num_classes)))
        return Tallies(*(np.concatenate(columns, axis=-1) for columns in zip(*found, strict=True)))

    def _settle(self, selection: IntArray, labels: IntArray) -> "_Settled":
        rows, top, votes = np.arange(len(labels)), selection.argmax(axis=1), SparseVotes.from_dense(selection)
        stated = np.zeros((len(self._questions) + 1, len(labels)), bool)
        targets, sets, same = [], [], np.zeros(len(labels), bool)
        for i, (matrix, answer, tau) in enumerate(self._questions):
            costly = _rows_of(matrix, labels)
            settled = settle(votes, labels, costs=matrix, method=METHOD, alpha=self.alpha, answer=answer)
            of_top, of_question = costly[rows, top], costly  # whether A is costly, and has no threshold
            if settled.by_threshold.any() or tau:
                by_threshold = np.zeros(costly.shape, bool)
                by_threshold[costly] = settled.by_threshold
                of_top = of_top & ~by_threshold[rows, top]
                of_tau = by_threshold & (answer.of_classes(matrix.num_classes) == tau)
                of_question = of_tau if tau else costly & ~by_threshold
            number = np.count_nonzero(of_question, axis=1)
            stated[i] = (number > 0) & ~of_top
            same |= stated[i] & (tau == 0) & ~of_question[rows, top] & (number == selection.shape[1] - 1)
            targets.append(of_question)
            sets.append(settled.harmless)
        # The last question is the multiclass one, where none of the others is the same: all classes but the answer.
        by_rivals = self._by_rivals[top] if len(self._by_rivals) > 1 else self._by_rivals
        stated[-1] = (top == labels) & by_rivals & ~same
        return _Settled(selection, top, top == labels, stated, targets, sets)

    def are_decided(self, tallies: "Tallies") -> NDArray[np.bool_]:
        """Whether all statements about each row are decided, bool (N,)."""
        is_open = np.zeros(len(tallies.n), bool)
        rows = np.flatnonzero(tallies.right)
        for taus in self._shares:
            place = ndtri(np.array(taus)[tallies.top[rows] if len(taus) > 1 else np.zeros(len(rows), int)])
            is_open[rows] |= self._share_is_open(tallies.n[rows], tallies.of_top[rows], place)
        questions, rows = np.nonzero((tallies.of_target >= 0) & ~is_open)
        taus_of = np.array([*(question.tau for question in self._questions), 0.0])[questions]
        for alone in (taus_of > 0, taus_of == 0):
            of, at = rows[alone], (questions[alone], rows[alone])
            if not len(of):
                continue
            if taus_of[alone][0]:
                against = tallies.n[of] - tallies.of_target[at]
                found = self._share_is_open(tallies.n[of], against, -ndtri(taus_of[alone]))
            else:
                found = self._costly_are_open(tallies.stakes(*at), of)
            is_open[of[found]] = True
        return ~is_open

    def _share_is_open(self, n: IntArray, votes: IntArray, place: FloatArray) -> NDArray[np.bool_]:
        """Whether one of the statements of rows is open that a share alone decides, (N,).

        It is "the share is above Phi(place + r/sigma)": that of the answer, or of all that is not a target.
        """
        share = ndtr(_MARGIN * np.array(self.radii) / self.sigma + place[:, None])
        enough = -np.log(self.alpha)
        reached = evidence_of_share(votes[:, None], n[:, None], share) >= enough
        end, most, _ = self._at_best(n, votes, np.zeros_like(n))
        hopeful = evidence_of_share(most[:, None], end[:, None], share) >= enough
        return np.asarray((~reached & hopeful).any(axis=1))

    def _costly_are_open(self, stakes: Stakes, rows: IntArray) -> NDArray[np.bool_]:
        """Whether one of the statements about targets without a threshold is open, (N,), by stakes of `rows`.

        By the target with the most votes: of no other is the radius shorter. All smaller radii of the grid are asked
        about only where no other statement of the row is open.
        """
        number, of_each = len(self.radii), np.repeat(np.arange(len(rows)), len(self.radii))
        each, levels = stakes.rows(of_each), np.full(len(of_each), self.alpha)
        radii = np.tile(grid_radius(last_step(np.array(self.radii), self.sigma), self.sigma), len(rows))
        reached = is_certified(each, radii, self.sigma, levels)
        hopeful = is_certified(self._stakes_at_best(stakes).rows(of_each), radii, self.sigma, levels)
        is_open = ~reached & hopeful
        doubted = reached & hopeful & ~np.isin(rows, rows[is_open.reshape(-1, number).any(axis=1)])[of_each]
        if doubted.any():
            is_open[doubted] = ~reaches(each.rows(doubted), radii[doubted], self.sigma, self.alpha)
        return np.asarray(is_open.reshape(-1, number).any(axis=1))

    def _stakes_at_best(self, stakes: Stakes) -> Stakes:
        """The votes at the end at best: these prove nothing."""
        end, of_top, least = self._at_best(stakes.n, stakes.of_top, stakes.of_target)
        _, of_set, least_by_set = self._at_best(stakes.n, stakes.of_set, stakes.of_target)
        of_set = np.maximum(of_set, of_top)
        of_target = np.minimum(np.minimum(least, least_by_set), end - of_set)
        return stakes._replace(n=end, of_top=of_top, of_set=of_set, of_target=of_target)

    def _at_best(self, n: IntArray, ours: IntArray, of_target: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """All votes at the end, ours and the target's, were those that are left to fall by the most optimistic shares.

        These are, of the shares (p, q) that are as near to those that were seen as the futility's level allows, those
        with the largest Phi^-1(p) - Phi^-1(q), by the normal approximation. A target without votes gets none.
        """
        left, total = np.maximum(self.n - n, 0), np.maximum(n, 1)
        p, q = (ours + 0.5) / (total + 1), (of_target + 0.5) / (total + 1)
        by_p = np.exp(ndtri(p) ** 2 / 2)  # the derivatives of Phi^-1, but for a factor
        by_q = np.where(of_target > 0, np.exp(ndtri(q) ** 2 / 2), 0.0)
        of_p, of_q = p * ((1 - p) * by_p + q * by_q), q * ((1 - q) * by_q + p * by_p)  # covariance times derivatives
        far = -ndtri(np.minimum(n / self._worth, 0.5)) / np.sqrt(total * (by_p * of_p + by_q * of_q))
        most = ours + np.ceil(left * np.minimum(p + far * of_p, 1)).astype(np.int64)
        least = of_target + np.floor(left * np.maximum(q - far * of_q, 0)).astype(np.int64)
        return n + left, most, np.minimum(least, n + left - most)


class _Question(NamedTuple):
    """A cost-sensitive statement about some of an image's targets, of which one answers for all.

    Attributes:
        costs: The cost matrix.
        answer: What the smoothed classifier says, given shares.
        tau: The threshold of the targets that take the threshold route; 0 for those that take the others.
    """

    costs: CostMatrix
    answer: Answer
    tau: float


def _taus(of_targets: FloatArray) -> list[float]:
    """The thresholds of the questions about target classes of such thresholds."""
    alone = np.unique(of_targets[of_targets > 0]).tolist()
    return [0.0, *alone] if (of_targets < 0.5).any() or not len(of_targets) else alone


def _rows_of(matrix: CostMatrix, labels: IntArray) -> NDArray[np.bool_]:
    """Which classes are costly to answer for each image, (N, m); where all are of one class its row is kept once."""
    if len(labels) and (labels == labels[0]).all():
        return np.broadcast_to(matrix.rows(labels[:1]) > 0, (len(labels), matrix.num_classes))
    return matrix.rows(labels) > 0


class _Settled(NamedTuple):
    """What the selection votes say of N rows of votes, for K questions and after them the multiclass one.

    Attributes:
        selection: Selection votes, int (N, m).
        top: The answer A, int (N,).
        right: Whether it is the image's class, bool (N,).
        stated: Whether there is such a statement, bool (K + 1, N).
        targets: The classes that are not to be answered, bool (N, m) of each of the K questions.
        sets: The set T of each row, of each of the K questions; without an entry where it is the answer alone.
    """

    selection: IntArray
    top: IntArray
    right: NDArray[np.bool_]
    stated: NDArray[np.bool_]
    targets: list[NDArray[np.bool_]]
    sets: list[SparseVotes]

    def tally(self, estimation: IntArray) -> "Tallies":
        """With the estimation votes, int (N, m)."""
        rows = np.arange(len(self.top))
        n0, of_top0 = self.selection.sum(axis=1), self.selection[rows, self.top]
        rivals = np.where(np.arange(estimation.shape[1]) == self.top[rows, None], 0, estimation).max(axis=1)
        of_target = [np.where(targets, estimation, 0).max(axis=1) for targets in self.targets]
        return Tallies(
            estimation.sum(axis=1),
            estimation[rows, self.top],
            n0,
            of_top0,
            self.top,
            self.right,
            np.where(self.stated, np.stack([*of_target, rivals]), -1),
            self._of_sets(estimation),
            self._of_sets(self.selection),
            np.stack([np.maximum(1, sets.totals()) for sets in self.sets] + [np.ones_like(self.top)]),
        )

    def _of_sets(self, votes: IntArray) -> IntArray:
        """The votes, of (N, m), for each set, int (K + 1, N)."""
        of_set = np.tile(votes[np.arange(len(self.top)), self.top], (len(self.stated), 1))
        for i, sets in enumerate(self.sets):
            if len(sets.classes):
                of_classes = np.bincount(sets.images, votes[sets.images, sets.classes], minlength=len(self.top))
                of_set[i] = np.where(sets.totals() > 0, of_classes.astype(np.int64), of_set[i])
        return of_set


class Tallies(NamedTuple):
    """What statements depend on, of N rows of votes and K questions: each cost matrix, by argmax, and the rivals of A.

    Attributes:
        n: Estimation samples, int64 (N,).
        of_top: Estimation votes of the answer, int64 (N,).
        n0: Selection samples, int64 (N,).
        of_top0: Selection votes of the answer, int64 (N,).
        top: The answer, int64 (N,).
        right: Whether the answer is the image's class, bool (N,).
        of_target: The most estimation votes that a target class of the question has, int64 (K, N); -1 where there is no
            statement: the image's class has no such target, or the answer is one without a threshold; of the rivals,
            the answer is wrong, or another question is the same.
        of_set: Estimation votes of the set of harmless classes, int64 (K, N).
        of_set0: Selection votes of it, int64 (K, N).
        set_size: Number of its classes, 1 where it is the answer alone, int64 (K, N).
    """

    n: IntArray
    of_top: IntArray
    n0: IntArray
    of_top0: IntArray
    top: IntArray
    right: NDArray[np.bool_]
    of_target: IntArray
    of_set: IntArray
    of_set0: IntArray
    set_size: IntArray

    def stakes(self, questions: IntArray, rows: IntArray) -> Stakes:
        """The votes that the radii against targets hang on: of so many questions and rows, (S,) each."""
        at = questions, rows
        return Stakes(
            self.n[rows],
            self.of_target[at],
            self.of_top[rows],
            self.of_set[at],
            self.n0[rows],
            self.of_top0[rows],
            self.of_set0[at],
            self.set_size[at],
        )

    def columns(self) -> dict[str, IntArray]:
        """All but n as integer columns, so that they can stand in a table that has n; `of_columns` reads them back."""
        of_rows = {name: getattr(self, name).astype(np.int64) for name in _OF_ROWS}
        return of_rows | {f"{name} {i}": votes for name in _OF_MATRICES for i, votes in enumerate(getattr(self, name))}

    @classmethod
    def of_columns(cls, n: IntArray, columns: Mapping[str, IntArray]) -> "Tallies":
        """Tallies from n and what `columns` gave."""
        found: dict[str, Any] = {name: columns[name] for name in _OF_ROWS}
        for name in _OF_MATRICES:
            of_each = [votes for column, votes in columns.items() if column.startswith(f"{name} ")]
            found[name] = np.array(of_each, np.int64).reshape(len(of_each), len(n))
        return cls(n, **{**found, "right": found["right"].astype(bool)})


_OF_ROWS = ("of_top", "n0", "of_top0", "top", "right")
_OF_MATRICES = ("of_target", "of_set", "of_set0", "set_size")
