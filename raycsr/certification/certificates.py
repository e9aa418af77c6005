"""From votes to certificates: each image's standard, group-wise and pair-wise radii."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from raycsr.certification.answers import Answer, as_answer
from raycsr.certification.bounds import FloatArray, IntArray, check_alpha
from raycsr.certification.eprocess import Stakes, betting_radius
from raycsr.certification.methods import NEWEST, Method, method_named
from raycsr.certification.routes import (
    Settled,
    answered_radii,
    pair_radius,
    route_names,
    set_radius,
    settle,
    threshold_radius,
    votes_of_sets,
)
from raycsr.certification.targets import Targets
from raycsr.certification.top_k import ahead_radius
from raycsr.certification.votes import SparseVotes
from raycsr.costs import CostMatrix, as_cost_matrix
from raycsr.errors import UserError, nearest

# How the statement about all pairs of an image spends its alpha: this share on the lower bound on p_A, the rest on the
# upper bounds together.
SHARE_OF_P_A = 0.9


def certify_counts(
    counts0: ArrayLike,
    counts: ArrayLike,
    labels: ArrayLike,
    *,
    costs: CostMatrix | str,
    sigma: float,
    sampling: str | Iterable[str],
    alpha: float = 0.001,
    answer: Answer | str = "argmax",
    method: str | None = None,
    image_ids: Iterable[str] | None = None,
    rules: Iterable[str] | None = None,
    errors: Iterable[str | None] | None = None,
) -> pd.DataFrame:
    """Certify images from their dense votes.

    Args:
        counts0: The votes of the selection samples: they name the top class A; int (N, m).
        counts: The votes of the estimation samples, drawn from other noise: they bound the p_k; int (N, m).
        labels: The true classes; int (N,).
        costs: The cost matrix, (m, m); or how a command line writes it, with classes by index, such as `seed:8`.
        sigma: Standard deviation of the noise in [0, 1] pixel units, which are the units of all radii (L2).
        sampling: How n was chosen, for all rows or for each, which must agree: `fixed`, where it was settled before any
            vote was seen, or `sequential`, where votes may have said when to stop. It decides on the bounds:
            Clopper-Pearson's, or those of a confidence sequence, which hold at every n at once. It has no default,
            since Clopper-Pearson's bounds on votes that said when to stop are none.
        alpha: Failure probability of one statement about an image. An image's row makes several, each at alpha and not
            together: the standard one, the multiclass one, that about its group of costly targets
            (cost_sensitive_radius), that about all of its pairs jointly (p_a_lower, p_b_upper, pairwise_radius), and
            one about each target by itself (target_radius). Whoever asserts k of them about an image is wrong with
            probability k alpha at most.
        answer: What the smoothed classifier says, given the shares of its votes, and so what its certificates are of:
            `argmax`, or one that may abstain, such as `majority` (`raycsr.certification.answers.parse_answer`). To pick
            it by these very votes, among R answers, costs R alpha instead of alpha.
        method: The method of `raycsr.certification.methods.METHODS` that settles bounds, levels and routes; by default
            the newest of the design. To choose it by these very votes, image by image, costs another alpha.
        image_ids: (N,) names of the images; their positions if None.
        rules: (N,) the decision rule of each row; `argmax` if None.
        errors: (N,) why an image has no votes worth having, or None: its row certifies nothing.

    Returns:
        One row an image, in order, with the columns

        - image_id, rule, label, prediction (the class A; null on error), alpha, answer (its id), method, error;
        - p_a_lower_standard, the bound on p_A at alpha alone, and standard_radius: within it the smoothed classifier
          answers A, by that bound: the convention of published tables. A threshold of A above 1/2 shortens it;
        - multiclass_radius: the same, by p_A and the runner-up's share, so that p_A need not exceed 1/2. NaN by
          methods that do not state it;
        - abstain: it is not proven that A is answered at the image itself. For argmax and majority that is
          p_a_lower_standard <= 1/2; where other thresholds are asked for, p_a_lower_standard <= tau_A, or for a tau_A
          below 1/2 a multiclass_radius of 0, which by argmax ignores `abstain`;
        - cost_sensitive_radius: within it the smoothed classifier never enters Omega_y; NaN where that is empty. It is
          the least of target_radius, an array aligned with costs.targets(label): within its own radius a target is
          never answered. p_a_lower_group is the bound on p_A that they stand on, NaN where they stand on none; route
          the ways that were paid for: `pair`, with `set:T` for T harmless classes together, and `threshold`, joined
          by a plus;
        - p_a_lower (at 0.9 alpha), p_b_upper and pairwise_radius (arrays aligned with costs.targets(label)): all
          targets of an image jointly, by the pair route; where every one of them takes the threshold route, by that
          alone, for which p_a_lower is not needed.

    Raises:
        UserError: arguments out of range, shapes that disagree, a row with neither votes nor an error, an
            answer of other classes, or a method or a sampling design for which the bounds do not hold.

    Source: Cohen, Rosenfeld & Kolter, ICML 2019, theorem 1 (standard, multiclass); Xin, Chen, Backes & Zhang, ICML
    2025 (cost-sensitive); why the group pays for one target: `raycsr.certification.routes.settle`. All pairs hold
    together by Bonferroni.

    Example:
        >>> counts0, counts = [[60, 4, 0], [30, 34, 0]], [[990, 10, 0], [510, 490, 0]]  # two images, three classes
        >>> certificates = certify_counts(counts0, counts, [0, 0], costs="pair:0/1", sigma=0.5, sampling="fixed")
        >>> certificates[["prediction", "abstain", "standard_radius"]].round(3)
           prediction  abstain  standard_radius
        0           0    False            0.989
        1           1     True            0.000
    """
    shape = np.shape(counts)
    if np.shape(counts0) != shape:
        raise UserError(f"counts0 has shape {np.shape(counts0)}, counts {shape}; both are (images, classes)")
    costs = as_cost_matrix(costs, shape[1] if len(shape) == 2 else None)
    if shape[1:] != (costs.num_classes,):
        raise UserError(f"counts has shape {shape}, the cost matrix {costs.num_classes} classes; make them agree")
    return certify_votes(
        SparseVotes.from_dense(counts0),
        SparseVotes.from_dense(counts),
        labels,
        costs=costs,
        sigma=sigma,
        alpha=alpha,
        answer=answer,
        sampling=sampling,
        method=method,
        image_ids=image_ids,
        rules=rules,
        errors=errors,
    )


def certify_votes(
    selection: SparseVotes,
    estimation: SparseVotes,
    labels: ArrayLike,
    *,
    costs: CostMatrix,
    sigma: float,
    sampling: str | Iterable[str],
    alpha: float = 0.001,
    answer: Answer | str = "argmax",
    method: str | None = None,
    image_ids: Iterable[str] | None = None,
    rules: Iterable[str] | None = None,
    errors: Iterable[str | None] | None = None,
) -> pd.DataFrame:
    """Certify images from their sparse votes: see `certify_counts`, which takes them dense.

    Example:
        >>> votes = SparseVotes.from_dense([[990, 10, 0]])
        >>> certificates = certify_votes(votes, votes, [0], costs=CostMatrix.uniform(3), sigma=0.5, sampling="fixed")
        >>> certificates["standard_radius"].round(3).tolist()
        [0.989]
    """
    num_images, costs = len(selection), as_cost_matrix(costs)
    if not (np.isfinite(sigma) and sigma > 0):
        raise UserError(f"sigma is {sigma}; give the noise level in [0, 1] pixel units, above 0")
    check_alpha(alpha)
    if len(estimation) != num_images:
        raise UserError(f"{num_images} rows of selection votes, {len(estimation)} of estimation; give one an image")
    for counted in (selection, estimation):
        counted.refuse_other_classes(costs.num_classes)
    truth = _checked_labels(labels, num_images, costs.num_classes)
    ids = _one_each("image_ids", (str(i) for i in range(num_images)) if image_ids is None else image_ids, num_images)
    rule = _one_each("rules", "argmax" if rules is None else rules, num_images)
    error = _one_each("errors", errors, num_images)
    errored = pd.notna(error)
    error[~errored] = None  # NaN, which is how a table says None
    by = _method(_one_each("sampling", sampling, num_images), method)

    estimation = estimation.kept(~errored[estimation.images])  # to the bounds, an errored image is one without votes
    n = estimation.totals()
    # votes that say when to stop may say it before the first that estimates: nothing is certified then
    unvoted = ~errored & ((selection.totals() == 0) | ((n == 0) & (by.design == "fixed")))
    if unvoted.any():
        raise UserError(f"image {ids[unvoted][0]!r} has no votes and no error; sample it, or say why in errors")
    says = as_answer(answer, costs.num_classes, costs.class_names)
    taus = says.of_classes(costs.num_classes)
    settled = settle(selection, truth, costs=costs, method=by, alpha=alpha, answer=says)
    votes = _Votes(estimation, n, settled.top, estimation.of(settled.top), Targets(truth, costs))
    p_a_lower_standard = by.bounds.lower(votes.of_top, n, alpha)
    p_a_lower, p_b_upper, pairwise_radius = _all_pairs(votes, settled, by, sigma, alpha, taus)
    p_a_lower_group, target_radius, multiclass_radius = p_a_lower, pairwise_radius, np.full(num_images, np.nan)
    stakes = _stakes(votes, selection, settled)
    if by.by_evidence:
        p_a_lower_group = np.full(num_images, np.nan)
        if not settled.by_threshold.all():  # evidence of radii takes ten times as long as bounds on shares
            target_radius = _each_target_by_evidence(votes, stakes, sigma, alpha)
    elif by.each_alone:
        p_a_lower_group, target_radius = _each_target(votes, settled, by, sigma)
    if by.each_alone and (taus[settled.top] < 0.5).any():
        multiclass_radius = ahead_radius(stakes.of_answer(), by, sigma, alpha)
    elif by.each_alone:
        multiclass_radius = np.full(num_images, np.inf)
    if by.each_alone and settled.by_threshold.any():
        by_threshold = _each_target_by_threshold(votes, settled, by, sigma, taus)
        target_radius = np.where(settled.by_threshold, by_threshold, target_radius)
    offsets, sensitive = votes.targets.offsets, costs.sensitive[truth]
    p_a_lower_group = np.where(sensitive & (votes.targets.count(~settled.by_threshold) == 0), np.nan, p_a_lower_group)
    cost_sensitive_radius = np.full(num_images, np.nan)
    if sensitive.any():
        cost_sensitive_radius[sensitive] = np.minimum.reduceat(target_radius, offsets[:-1][sensitive])
    standard_radius, multiclass_radius, abstains = answered_radii(
        p_a_lower_standard, multiclass_radius, says, taus[settled.top], sigma
    )

    return pd.DataFrame(
        {
            "image_id": ids,
            "rule": rule,
            "label": truth,
            "prediction": pd.arrays.IntegerArray(settled.top, errored),
            "abstain": abstains & ~errored,
            "standard_radius": standard_radius,
            "p_a_lower_standard": p_a_lower_standard,
            "multiclass_radius": multiclass_radius,
            "cost_sensitive_radius": cost_sensitive_radius,
            "target_radius": _views(target_radius, offsets),
            "p_a_lower_group": p_a_lower_group,
            "route": route_names(settled, votes.targets),
            "p_a_lower": p_a_lower,
            "p_b_upper": _views(p_b_upper, offsets),
            "pairwise_radius": _views(pairwise_radius, offsets),
            "alpha": float(alpha),
            "answer": says.id,
            "method": by.name,
            "error": pd.Series(error, dtype="object"),  # else pandas makes NaN of None
        }
    )


class _Votes:
    """The estimation votes of N images, and where those for target classes stand among all targets.

    Most targets have no vote, and of an image what is said of one of these is said of all: it is worked out once an
    image, and then once a vote's entry.
    """

    def __init__(self, votes: SparseVotes, n: IntArray, top: IntArray, of_top: IntArray, targets: Targets) -> None:
        self.votes, self.n, self.top, self.of_top, self.targets = votes, n, top, of_top, targets
        entries, self._places = targets.entries(votes)
        # of each distinct target: one without votes, entries
        self.images = np.concatenate([np.arange(len(n)), votes.images[entries]])
        self.counts = np.concatenate([np.zeros(len(n), np.int64), votes.counts[entries]])
        self.on_top = np.flatnonzero(targets.costs.of(targets.labels, top) > 0)  # images of which A is a target
        self.top_places = targets.places(self.on_top, top[self.on_top])

    def of_runner_up(self) -> IntArray:
        """The most votes of a class other than A, (N,)."""
        return self.votes.kept(self.votes.classes != self.top[self.votes.images]).largest()

    def spread(self, distinct: FloatArray) -> FloatArray:
        """A number for each distinct target -> one for each target of each image, flat."""
        flat = self.targets.of_images(distinct[: len(self.n)])
        flat[self._places] = distinct[len(self.n) :]
        return flat


def _all_pairs(
    votes: _Votes, settled: Settled, method: Method, sigma: float, alpha: float, taus: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """p_a_lower (N,), and p_b_upper and pairwise_radius of every image's targets, flat: all of an image hold together.

    Of a target j other than A: min(U_j, 1 - L), and sigma/2 (Phi^-1(L) - Phi^-1(that)). Of A itself: U_A,
    and 0, since 1 - L does not bound p_A. Where j has a threshold, by which its U_j certifies a radius as well, the
    longer of the two; where all targets of an image go by theirs, L is not needed, and theirs is all of alpha.
    """
    of, bounds, targets = votes.images, method.bounds, votes.targets
    p_a_lower = bounds.lower(votes.of_top, votes.n, SHARE_OF_P_A * alpha)
    alone = (targets.count(settled.by_threshold) == targets.number) & (targets.number > 0)
    low = np.where(alone, -np.inf, ndtri(p_a_lower))
    level = np.where(alone, alpha / np.maximum(1, targets.number), level_of_target(alpha, targets.number))
    upper = bounds.upper(votes.counts, votes.n[of], level[of])
    high = np.minimum(ndtri(upper), -low[of])  # Phi^-1(1 - L) = -Phi^-1(L)
    p_b_upper = votes.spread(np.where(alone[of], upper, np.minimum(upper, 1 - p_a_lower[of])))
    pairwise_radius = votes.spread(sigma * pair_radius(low[of], high))
    on_top = votes.on_top
    p_b_upper[votes.top_places] = bounds.upper(votes.of_top[on_top], votes.n[on_top], level[on_top])
    pairwise_radius[votes.top_places] = 0.0
    if taus.any():
        by_threshold = sigma * threshold_radius(targets.of_classes(taus), ndtri(p_b_upper))
        pairwise_radius = np.maximum(pairwise_radius, by_threshold)
    return p_a_lower, p_b_upper, pairwise_radius


def _each_target_by_threshold(
    votes: _Votes, settled: Settled, method: Method, sigma: float, taus: FloatArray
) -> FloatArray:
    """target_radius of every image's targets by the threshold route, flat: each by the bound on its own share alone."""
    upper = method.bounds.upper(votes.counts, votes.n[votes.images], settled.alone)
    return sigma * threshold_radius(votes.targets.of_classes(taus), votes.spread(ndtri(upper)))


def _each_target(votes: _Votes, settled: Settled, method: Method, sigma: float) -> tuple[FloatArray, FloatArray]:
    """p_a_lower_group (N,), and target_radius of every image's targets, flat: each holds by itself.

    The bounds of an image's target hold together at alpha, so the longer radius of two routes does. No target is in
    the image's set, so that 1 - L of the set bounds its share, too. Of A itself it is 0.
    """
    of, size = votes.images, settled.set_size
    p_a_lower = method.bounds.lower(votes.of_top, votes.n, settled.lower)
    upper = method.bounds.upper(votes.counts, votes.n[of], settled.upper)
    low = ndtri(p_a_lower)
    high = np.minimum(ndtri(upper), -low[of])
    by_set = np.flatnonzero(size[of] > 0)
    if len(by_set):
        in_set = votes_of_sets(votes.votes, settled.harmless)
        low_of_set = ndtri(method.bounds.lower(in_set, votes.n, settled.lower))[of[by_set]]
        high[by_set] = np.minimum(high[by_set], -low_of_set)
    radius = pair_radius(low[of], high)
    if len(by_set):
        radius[by_set] = np.maximum(radius[by_set], set_radius(low_of_set, high[by_set], size[of[by_set]]))
    target_radius = votes.spread(sigma * radius)
    target_radius[votes.top_places] = 0.0
    return p_a_lower, target_radius


def _stakes(votes: _Votes, selection: SparseVotes, settled: Settled) -> Stakes:
    """The votes of images that radii by betting hang on; as the target stands the runner-up, until one is named."""
    n0, of_top0, size = selection.totals(), selection.of(settled.top), settled.set_size
    of_set, of_set0 = (
        np.where(size > 0, votes_of_sets(counted, settled.harmless), of_top)
        for counted, of_top in ((votes.votes, votes.of_top), (selection, of_top0))
    )
    return Stakes(votes.n, votes.of_runner_up(), votes.of_top, of_set, n0, of_top0, of_set0, np.maximum(size, 1))


def _each_target_by_evidence(votes: _Votes, stakes: Stakes, sigma: float, alpha: float) -> FloatArray:
    """target_radius of every image's targets, flat: each at alpha by itself. Of A itself it is 0."""
    of = stakes.rows(votes.images)
    # of A, whose radius is none, any number will do
    of_target = np.minimum(votes.counts, of.n - np.maximum(of.of_top, of.of_set))
    target_radius = votes.spread(betting_radius(of._replace(of_target=of_target), sigma, alpha))
    target_radius[votes.top_places] = 0.0
    return target_radius


def level_of_target(alpha: float, num_targets: IntArray) -> FloatArray:
    """The failure probability of one target's bound among all pairs: what p_A leaves of alpha, shared among targets."""
    return (1 - SHARE_OF_P_A) * alpha / np.maximum(1, num_targets)


def _views(flat: FloatArray, offsets: IntArray) -> NDArray[np.object_]:
    """A column of arrays that all share the memory of one."""
    column = np.empty(len(offsets) - 1, dtype=object)
    for i in range(len(column)):
        column[i] = flat[offsets[i] : offsets[i + 1]]
    return column


def _one_each(name: str, values: Iterable[str | None] | None, num_images: int) -> NDArray[np.object_]:
    """A column (N,) of what was given once for all images, or once for each."""
    if values is None or isinstance(values, str):
        return np.full(num_images, values, dtype=object)
    column = np.array(list(values), dtype=object)
    if len(column) != num_images:
        raise UserError(f"{name} has {len(column)} entries for {num_images} images; give one an image")
    return column


def _checked_labels(labels: ArrayLike, num_images: int, num_classes: int) -> IntArray:
    array = np.asarray(labels)
    if array.shape != (num_images,) or (array.dtype.kind not in "iu" and num_images > 0):
        raise UserError(f"labels of type {array.dtype} and shape {array.shape}; give {num_images} integers")
    wrong = (array < 0) | (array >= num_classes)
    if wrong.any():
        raise UserError(f"label {array[wrong][0]} is not one of the {num_classes} classes of the cost matrix")
    return array.astype(np.int64)


def _method(sampling: NDArray[np.object_], name: str | None) -> Method:
    """The method for votes of this design, the newest by default; refuses a design that is unknown, and two at once."""
    designs = list(dict.fromkeys(sampling))
    if not designs:  # no rows need no bounds
        designs = ["fixed" if name is None else method_named(name).design]
    if len(designs) > 1:
        raise UserError(f"votes sampled by {' and '.join(map(repr, designs))}; certify those of one design at a time")
    if designs[0] not in NEWEST:
        raise UserError(f"no bounds are known for votes sampled by {designs[0]!r}; {nearest(str(designs[0]), NEWEST)}")
    return NEWEST[designs[0]] if name is None else method_named(name, designs[0])
