"""Tuning rules and answers: from the certificates of a grid of both to the pair that is worth its loss."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from raycsr.certification import METRICS, collapse_in_words, collapsed_classes, metric_of, summarize
from raycsr.certification.bounds import IntArray
from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.models.rules import ARGMAX, KINDS, Rule, parse_rules
from raycsr.training.validation import first_whole, shuffled

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0)
"""The first grid, in units of logits."""

THRESHOLDS = (0.6, 0.7, 0.8, 0.9)
"""The shares of votes that costly answers are asked for, beside the majority."""

LEAST_IMAGES = 20
"""A class with fewer images says too little about its recall: one standard deviation of it is 0.1 then."""

_FINER = 7  # strengths of the second grid


@dataclass(frozen=True)
class Budget:
    """What a rule and an answer may lose against argmax.

    Accuracy alone does not protect a class. On CIFAR-10 (a small network, pair cat -> dog), a rule within an accuracy
    loss of 0.02 took the recall of dogs from 0.55 to 0.01, at a rob_cs of 0.73 instead of 0.40; within a recall loss
    of 0.15 as well, rob_cs was 0.55 to 0.58 with no accuracy lost at all. For seed cat the accuracy binds first: at
    a loss of 0.022 the worst class lost 0.12.

    Attributes:
        accuracy: Accuracy that may be lost, as a share of all images.
        recall: Recall that any one class may lose of which at least LEAST_IMAGES images were drawn.
        coverage: Coverage that may be lost, as a share of all images: an answer that abstains is safe, and no answer.
    """

    accuracy: float = 0.02
    recall: float = 0.15
    coverage: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what is no budget."""
        budgets = {"budget": self.accuracy, "recall_budget": self.recall, "coverage_budget": self.coverage}
        for name, value in budgets.items():
            if not 0 < value < 1:
                raise UserError(
                    f"{name} is a share between 0 and 1, got {value}; give 0.02 for two points of a hundred"
                )


def draw_images(
    labels: np.ndarray, costs: CostMatrix, images: int, seed: int, groups: IntArray | None = None
) -> np.ndarray:
    """Draws images of which a rule's effect can be told: half of them of seed classes.

    The other half is shared by target classes, which a rule may starve, and all others. A part with too few
    images is taken whole.

    Args:
        labels: Labels of the data; int (N,).
        costs: The cost matrix.
        images: Number of images to draw.
        seed: Seed of the draw.
        groups: Groups, equal for images that must stay together, such as those of one patient; int (N,). By default
            each image stands alone. Groups are drawn whole, so it may be a few images more.

    Returns:
        Positions in `labels`, ascending.

    Raises:
        UserError: No image is of a seed class.
    """
    part = _parts(labels, costs)
    present = [p for p in range(3) if (part == p).any()]
    if 0 not in present:
        raise UserError(f"none of the {len(labels)} images is of a class that the costs are about; give other data")
    groups = np.arange(len(labels)) if groups is None else groups
    order = shuffled(groups, np.random.default_rng(seed & (2**64 - 1)))
    others = len(present) - 1
    drawn = []
    for p in present:
        quota = images if not others else images // 2 if p == 0 else images // 2 // others
        of_part = order[part[order] == p]
        drawn.append(of_part[: first_whole(groups[of_part], quota)])
    return np.flatnonzero(np.isin(groups, groups[np.concatenate(drawn)]))


def weights_of(drawn: np.ndarray, labels: np.ndarray, costs: CostMatrix) -> np.ndarray:
    """How many of the data's images each drawn one stands for, so that weighted shares estimate the data's own.

    Args:
        drawn: Labels of the drawn images; int (D,).
        labels: Labels of the data; int (N,).
        costs: The cost matrix they were drawn for.

    Returns:
        float (D,), of sum N where every part of the data was drawn from.
    """
    ours = np.bincount(_parts(drawn, costs), minlength=3)
    theirs = np.bincount(_parts(labels, costs), minlength=3)
    return (theirs / np.maximum(ours, 1))[_parts(drawn, costs)]


def _parts(labels: np.ndarray, costs: CostMatrix) -> np.ndarray:
    """0 for seed classes, 1 for classes that are targets only, 2 for the others."""
    return np.where(costs.sensitive[labels], 0, np.where(costs.target_classes[labels], 1, 2))


def compare_rules(certificates: pd.DataFrame, *, costs: CostMatrix, radius: float, weights: np.ndarray) -> pd.DataFrame:
    """Compares decision rules and answers on the same images.

    An answer is right, and answered, where both it and the majority prove it: else one with a threshold below 1/2 would
    seem to gain what is but another convention, by which argmax would have it as well.

    Args:
        certificates: Rows of `Counted.certify`: the same N images under each rule and answer, argmax by argmax first.
        costs: The cost matrix they were made with.
        radius: L2 radius of rob_cs, in [0, 1] pixel units.
        weights: Weights of the images, as `weights_of` returns them; (N,).

    Returns:
        One row a rule and answer, argmax by argmax first: rule and answer (ids), accuracy, coverage and target_recall
        (weighted), rob_cs, rob_cost, seed_recall, accuracy_loss and coverage_loss (against argmax), recall_loss (the
        largest of any class that has LEAST_IMAGES), recall_class (that class; -1 where no class has them), and
        collapsed (the classes that collapsed, in words).
    """
    labels = certificates["label"].to_numpy(np.int64)[: len(weights)]
    of_targets = costs.target_classes[labels]
    judged = np.flatnonzero(np.bincount(labels, minlength=costs.num_classes) >= LEAST_IMAGES)
    rows: list[dict] = []
    plain = certificates[(certificates["rule"] == "argmax") & (certificates["answer"] == "argmax")]
    plainly_answered, plainly_right = _answered(plain, labels)
    for (rule, answer), theirs in certificates.groupby(["rule", "answer"], sort=False):
        answered, right = _answered(theirs, labels)
        lost = plainly_right.astype(float) - right
        losses = np.array([lost[labels == k].mean() for k in judged])
        summary = summarize(theirs, costs=costs, radii=[radius], intervals=False).iloc[0]
        rows.append(
            {
                "rule": rule,
                "answer": answer,
                "accuracy": np.average(right, weights=weights),
                "rob_cs": summary["rob_cs"],
                "rob_cost": summary["rob_cost"],
                "seed_recall": summary["seed_recall"],
                "target_recall": _average(right[of_targets], weights[of_targets]),
                "coverage": np.average(answered, weights=weights),
                "accuracy_loss": np.average(lost, weights=weights),
                "coverage_loss": np.average(plainly_answered.astype(float) - answered, weights=weights),
                "recall_loss": losses.max(initial=0.0),
                "recall_class": int(judged[losses.argmax()]) if len(judged) else -1,
                "collapsed": collapse_in_words(
                    collapsed_classes(theirs, costs.num_classes, plain if rows else None), costs.class_names
                ),
            }
        )
    return pd.DataFrame(rows)


def _answered(certificates: pd.DataFrame, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which images are answered, by a class of which more than half of the votes are proven, and which rightly; (N,)"""
    prediction = certificates["prediction"].to_numpy(np.float64, na_value=np.nan)
    answered = ~certificates["abstain"].to_numpy(bool) & (certificates["p_a_lower_standard"].to_numpy() > 0.5)
    return answered, answered & (prediction == labels)


def _average(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights)) if len(values) else math.nan


def choose_rule(table: pd.DataFrame, budget: Budget, metric: str = "rob_cs") -> int:
    """Picks the rule and answer that are best at a metric within the budget; of equal ones those that lose least.

    Args:
        table: Table that `compare_rules` returned.
        budget: What may be lost against argmax.
        metric: rob_cs, or rob_cost, of which less is better.

    Returns:
        Their position in the table; 0, argmax, where no others within the budget are better at the metric.
    """
    merit = table[metric] if METRICS[metric].more_is_better else -table[metric]
    within = (table["accuracy_loss"] <= budget.accuracy) & (table["recall_loss"] <= budget.recall)
    within &= table["coverage_loss"] <= budget.coverage
    better = table.assign(merit=merit)[within & (merit > merit.iloc[0])].reset_index(names="position")
    if better.empty:
        return 0
    ranked = better.sort_values(["merit", "accuracy_loss"], ascending=[False, True], kind="stable")
    return int(ranked["position"].iloc[0])


def finer_strengths(strengths: Sequence[float], best: float) -> list[float]:
    """A second grid, between the neighbours of the best strength of the first.

    Args:
        strengths: The first grid, positive.
        best: The best of it, or 0 for argmax. Beyond the largest there is as much room as below it.

    Returns:
        Strengths that the first grid has not, ascending.
    """
    known = sorted({0.0, *strengths})
    i = known.index(best)
    low = known[max(i - 1, 0)]
    high = known[i + 1] if i + 1 < len(known) else 2 * best - low
    between = np.linspace(low, high, _FINER + 2)[1:-1]
    return [float(s) for s in between if not np.isclose(s, known).any()]


def rule_grid(
    costs: CostMatrix, spec: str, class_names: Sequence[str], strengths: Sequence[float]
) -> list[tuple[Rule, float]]:
    """Rules of all kinds that can weigh the costs by a strength (`Rule.grid`), each by each strength.

    For one seed class an offset and an expected cost of one strength are the same rule, so they reach as far.

    Args:
        costs: The cost matrix.
        spec: Spec of the costs, as a person writes it.
        class_names: Names of its classes.
        strengths: Strengths in units of logits.

    Returns:
        Each rule and its strength. No offsets where every class is as costly to answer as any other.
    """
    specs = {one: s for kind in KINDS.values() for one, s in kind.grid(costs, spec, strengths).items()}
    rules = parse_rules(list(specs), num_classes=costs.num_classes, class_names=class_names)
    return list(zip(rules, specs.values(), strict=True))


@dataclass(frozen=True)
class Tuned:
    """What tuning came to.

    Attributes:
        rules: Id -> each rule that was compared, argmax first.
        table: Rows of rules and answers, as `compare_rules` returns them.
        chosen: Position of the chosen one in the table.
        metric: Metric that it was chosen by.
    """

    rules: dict[str, Rule]
    table: pd.DataFrame
    chosen: int
    metric: str

    @property
    def rule(self) -> Rule:
        """The chosen rule."""
        return self.rules[self.table["rule"].iloc[self.chosen]]

    @property
    def answer(self) -> str:
        """Id of the chosen answer."""
        return str(self.table["answer"].iloc[self.chosen])


def tune(
    certify: Callable[[list[Rule]], pd.DataFrame],
    *,
    costs: CostMatrix,
    spec: str,
    class_names: Sequence[str],
    radius: float,
    weights: np.ndarray,
    budget: Budget,
    strengths: Sequence[float] = STRENGTHS,
) -> Tuned:
    """Searches the rules that weigh the costs: a grid of strengths, then a finer one around the best.

    Each is compared under all answers, which cost no sample more.

    Args:
        certify: Rules -> the rows of `Counted.certify` on images that are not to be certified, under the answers to
            compare, argmax first; the same images and the same noise at each call.
        costs: The cost matrix.
        spec: Spec of the costs, as a person writes it.
        class_names: Names of its classes.
        radius: L2 radius of the metric, in [0, 1] pixel units.
        weights: Weights of the images, as `weights_of` returns them.
        budget: What may be lost against argmax.
        strengths: The first grid, positive, in units of logits.

    Returns:
        The rule and answer that are best at the metric of the costs (`metric_of`) within the budget, and all that they
        were compared with.
    """
    metric = metric_of(costs)
    compared = [(ARGMAX, 0.0), *rule_grid(costs, spec, class_names, strengths)]
    certificates = certify([rule for rule, _ in compared])
    table = compare_rules(certificates, costs=costs, radius=radius, weights=weights)
    best = table["rule"].iloc[choose_rule(table, budget, metric)]
    finer = finer_strengths(strengths, next(strength for rule, strength in compared if rule.id == best))
    known = {rule.id: rule for rule, _ in compared}
    new = {rule.id: rule for rule, _ in rule_grid(costs, spec, class_names, finer) if rule.id not in known}
    certificates = pd.concat([certificates, certify(list(new.values()))], ignore_index=True)
    table = compare_rules(certificates, costs=costs, radius=radius, weights=weights)
    return Tuned(known | new, table, choose_rule(table, budget, metric), metric)
