"""Tuning a decision rule and an answer: training images -> the two that are worth their loss, in the checkpoint."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from raycsr.certification import METRICS, Answer, group_column, largest_radius, metric_of
from raycsr.certification.answers import AnswerSpec, parse_answers
from raycsr.costs import CostMatrix, CostSpec
from raycsr.data.options import DataOptions
from raycsr.errors import UserError
from raycsr.models.rules import ARGMAX, Rule
from raycsr.models.spec import ModelOptions
from raycsr.options import listed, takes
from raycsr.progress import Progress
from raycsr.reports.comparison import metric_in_words, non_dominated
from raycsr.reports.document import Column, Table
from raycsr.reports.tables import cell, column, marks_line
from raycsr.reports.text import as_text
from raycsr.results import ImageSet, own_checkpoint

if TYPE_CHECKING:
    from raycsr.models.base_classifier import BaseClassifier
    from raycsr.training.tuning import Tuned

ALPHA = 0.001  # of the certificates that rules are compared by; what `raycsr certify` takes by default


@dataclass(frozen=True, kw_only=True)
class TuneRuleArguments:
    """The options of `raycsr tune-rule`.

    Attributes:
        model: The base classifier: a checkpoint, or the name of a timm model.
        costs: Cost matrix.
        budget: Accuracy that the rule and the answer may lose against argmax, as a share of all images.
        recall_budget: Recall that any class may lose against argmax, of the classes with at least 20 of the drawn
            images.
        coverage_budget: Coverage that may be lost against argmax, as a share of all images: an answer that abstains
            makes no costly mistake, and gives no answer.
        radius: L2 radius at which rob_cs and rob_cost are taken, in [0, 1] pixel units; by default sigma.
        data: The images to tune on, never those to be certified; by default those that the checkpoint was trained on.
        sigma: Noise level in [0, 1] pixel units; by default that of the training.
        images: Number of images to draw: half of them of seed classes, the rest of target classes and of the others.
        n0: Number of selection samples of an image.
        n: Number of estimation samples of an image.
        batch_size: Number of rows of a forward pass, a power of two.
        answers: Answers to compare beside argmax; by default majority, and thresholds of 0.6 to 0.9 of the classes that
            it is costly to answer. `argmax` alone tunes a rule and no answer.
        strengths: Strengths of the first grid, in units of logits: an offset rule lowers the costliest answer by each,
            an expected_cost rule has tau = (e^strength - 1) / largest cost. By default 0.25 to 3.
        seed: Seed of the draw of images and of the noise.
        out: Checkpoint to write; by default the model's own file, where it is a checkpoint of raycsr.
        allow_test_images: Whether to take images of which a folder, split or shard is named test, val or validation.
    """

    model: str | ModelOptions
    costs: CostSpec
    budget: float = 0.02
    recall_budget: float = 0.15
    coverage_budget: float = 0.05
    radius: float | None = None
    data: DataOptions | None = None
    sigma: float | None = None
    images: int = 1000
    n0: int = 64
    n: int = 512
    batch_size: int = 64
    answers: list[AnswerSpec] | None = None
    strengths: list[float] | None = None
    seed: int = 0
    out: str | None = None
    allow_test_images: bool = False


@takes(TuneRuleArguments)
def tune_rule(asked: TuneRuleArguments) -> Rule:
    """Tunes a decision rule and an answer on training images and stores both in the checkpoint.

    `raycsr sample --rules tuned` and `raycsr certify --answers` then certify them. A grid of rules (offset and
    expected_cost, see `raycsr sample`) shares one sampling pass, and a finer grid around the best rule follows; each
    rule is compared under all answers, which cost no sample more. The pair of the largest rob_cs at the radius is
    chosen among those within all budgets; where costs differ in size it is that of the smallest rob_cost. Both are
    fixed before any image is seen that they are certified on, so that certificates hold at their alpha. The budgets are
    kept on the images that are tuned on. On others the losses are similar but not bounded; `raycsr report` shows them.

    Args:
        asked: Options of the verb; a caller gives its fields as keyword arguments.

    Returns:
        The rule, argmax where no other within the budgets is better. The answer is in the checkpoint, beside the rule's
        id.

    Raises:
        UserError: Something is wrong that can be known before sampling.
    """
    from raycsr.data.memory import read_pixels
    from raycsr.data.of_training import data_of, sigma_of
    from raycsr.data.sources import open_source, with_split
    from raycsr.data.splits import refuse_test_images
    from raycsr.distributed.cluster import refuse_lost
    from raycsr.distributed.pool import worker_device
    from raycsr.distributed.sampling.classes import check_classes, classes_by_position
    from raycsr.models.loading import load_base_classifier, warn_of_random_weights
    from raycsr.smoothing.certify_images import count_images
    from raycsr.smoothing.options import Draws
    from raycsr.training.tuning import STRENGTHS, THRESHOLDS, Budget, draw_images, tune, weights_of

    allowed, costs = Budget(asked.budget, asked.recall_budget, asked.coverage_budget), asked.costs
    options = ModelOptions(asked.model) if isinstance(asked.model, str) else asked.model
    load_base_classifier(options)  # what is wrong with it is told first
    warn_of_random_weights(options)  # a checkpoint may be made of them, which looks like any other
    path = _path(options, asked.out)
    refuse_lost(path, "model" if asked.out is None else "out")
    with own_checkpoint(path):
        base_classifier = load_base_classifier(options)  # with what another has just stored
        base_classifier.to(worker_device(int8=base_classifier.calibration is not None))
        sigma = sigma_of(base_classifier, options.name, asked.sigma)
        radius = _radius(asked.radius, sigma, asked.n)
        draws = Draws(sigma, asked.n0, asked.n, asked.seed, asked.batch_size)
        grid = STRENGTHS if asked.strengths is None else listed(asked.strengths)
        if not grid or not all(np.isfinite(s) and s > 0 for s in grid):
            raise UserError(f"strengths must be positive numbers, got {grid}")
        source = open_source(with_split(data_of(base_classifier, options.name, asked.data), "train"))
        listing = source.list()
        refuse_test_images(source.options, listing, allowed=asked.allow_test_images)
        check_classes(listing, base_classifier, options.name)
        matrix = CostMatrix.from_spec(costs, base_classifier.num_classes, listing.class_names)
        if not matrix.sensitive.any():
            raise UserError(f"costs {costs!r} have no costly mistake, so no rule can avoid one; give a positive cost")

        specs = [f"threshold:{share}*{costs}" for share in THRESHOLDS]
        specs = ["argmax", *(["majority", *specs] if asked.answers is None else listed(asked.answers))]
        answers = parse_answers(specs, base_classifier.num_classes, listing.class_names)
        labels = listing.images["label"].to_numpy(np.int64)
        drawn = listing.images.iloc[draw_images(labels, matrix, asked.images, asked.seed, group_column(listing.images))]
        pixels = read_pixels(source, drawn, base_classifier.preprocessing)
        of_seeds = int(matrix.sensitive[pixels.labels].sum())
        print(
            f"tune      {options.name} for costs {costs} under sigma {sigma:g}\n"
            f"by        {metric_in_words(metric_of(matrix))} at radius {radius:g}\n"
            f"data      {source}\n"
            f"images    {len(pixels):,}, of which {of_seeds:,} of seed classes; {draws.n0:,} + {draws.n:,} samples an "
            "image, twice",
            *listing.notes,
            *classes_by_position(listing, base_classifier),
            sep="\n",
        )

        def certify(rules: list[Rule]) -> pd.DataFrame:
            with Progress(len(pixels), f"{len(rules)} rules", "images") as shown:
                images = {str(i): image for i, image in enumerate(pixels.images)}
                counted = count_images(base_classifier, images, draws, rules=rules, progress=shown.update)
            return counted.certify(pixels.labels, costs=matrix, alpha=ALPHA, answers=answers)

        tuned = tune(
            certify,
            costs=matrix,
            spec=costs,
            class_names=listing.class_names,
            radius=radius,
            weights=weights_of(pixels.labels, labels, matrix),
            budget=allowed,
            strengths=grid,
        )
        said = {answer.id: answer for answer in answers}
        answer = said[tuned.answer]
        print(f"compared  {len(tuned.table)} rules and answers; below, argmax and those on the front of them")
        print(_shown(tuned, said, listing.class_names))
        if tuned.chosen == 0:
            print(f"argmax stays, and nothing is stored: nothing else within the budgets has a better {tuned.metric}")
            return tuned.rule
        facts = {"costs": costs, "radius": radius, "sigma": sigma}
        facts |= {name: getattr(asked, name) for name in ("budget", "recall_budget", "coverage_budget")}
        try:
            _store(base_classifier, options.name, path, tuned, answer, facts, ImageSet.of(drawn, listing.identity))
        except UserError as error:  # what was paid for is told all the same
            raise UserError(
                f"rule {tuned.rule.spec} and answer {answer.spec} are NOT stored: {error}; certify them all the same "
                f"by {_evaluated(tuned.rule, tuned.rule.spec, answer)}, or tune again"
            ) from error
        print(
            f"stored rule {tuned.rule.spec} and answer {answer.spec} in {path}; certify them on other images by "
            f"{_evaluated(tuned.rule, 'tuned', answer)}"
        )
        return tuned.rule


def _evaluated(rule: Rule, named: str, answer: Answer) -> str:
    """The command that certifies a rule, by what it is named by, and an answer."""
    by = [] if rule == ARGMAX else [f"--rules {shlex.quote(named)}"]
    by += [] if answer.is_argmax else [f"--answers {shlex.quote(answer.spec)}"]
    return f"`raycsr evaluate ... {' '.join(by)}`"


def _path(options: ModelOptions, out: str | None) -> str:
    """The checkpoint to write."""
    from raycsr.models.checkpoints import is_raycsr_checkpoint

    name, size = options.name, options.input_size
    if out is None and not is_raycsr_checkpoint(name):
        raise UserError(f"model {name!r} is no checkpoint of raycsr and cannot hold a rule; give --out CHECKPOINT")
    changes = {f"model.input_size {size}": size is not None, "model.denoiser": options.denoisers}
    for what, is_given in changes.items():
        if out is None and is_given:
            raise UserError(f"{what} would change {name} itself: leave it out, or give --out CHECKPOINT")
    return out or name


def _radius(radius: float | None, sigma: float, n: int) -> float:
    asked, reach = sigma if radius is None else radius, largest_radius(n, ALPHA, sigma)
    if not 0 < asked <= reach:
        raise UserError(
            f"radius is {asked:g}, and n={n} samples certify one above 0 and up to {reach:.4g} at sigma {sigma:g}; "
            "give a smaller --radius or a larger --n"
        )
    return asked


_STORED = ("accuracy", "coverage", "rob_cs", "rob_cost")
_SHOWN = ("accuracy", "accuracy_loss", "coverage", "rob_cs", "rob_cost", "seed_recall", "target_recall")


def _shown(tuned: "Tuned", answers: Mapping[str, Answer], class_names: list[str]) -> str:
    """The rules and answers on the front of accuracy and metric, as a table, beside argmax; the chosen pair marked."""
    rows, found = [], tuned.table.to_dict("records")
    for row in found:
        row["rule"], row["says"] = tuned.rules[row["rule"]], answers[row["answer"]]
    shown = _on_front(tuned)
    for i in sorted(shown, key=lambda i: _order(found[i]["rule"])):
        row = found[i]
        worst = f" ({class_names[row['recall_class']]})" if row["recall_loss"] > 0 else ""
        mark = "<- chosen" if i == tuned.chosen else ""
        numbers = [cell(row, name) for name in _SHOWN]
        rows.append([row["rule"].spec, row["says"].spec, *numbers, f"{row['recall_loss']:.3f}{worst}", mark])
    flattered = pd.DataFrame(found).iloc[shown]
    names = {name: [one.spec for one in flattered[column]] for name, column in (("rule", "rule"), ("answer", "says"))}
    marks = marks_line(flattered.assign(**names), ["rule", "answer"])
    titles = [Column("rule"), Column("answer"), *map(column, _SHOWN), Column("worst recall loss"), Column("")]
    return as_text(Table(titles, rows, marks))


def _on_front(tuned: "Tuned") -> list[int]:
    """Positions of argmax, of the chosen pair, and of those on the front; of pairs of the same numbers the first."""
    table, more = tuned.table, METRICS[tuned.metric].more_is_better
    first = ~table.duplicated(list(_SHOWN))
    first.iloc[tuned.chosen] = True
    first &= non_dominated(table["accuracy"], table[tuned.metric] if more else -table[tuned.metric])
    first.iloc[[0, tuned.chosen]] = True
    return [int(i) for i in np.flatnonzero(first)]


def _order(rule: Rule) -> tuple[str, float]:
    return rule.kind, rule.strength


def _store(
    base_classifier: "BaseClassifier",
    name: str,
    path: str,
    tuned: "Tuned",
    answer: Answer,
    facts: dict[str, Any],
    images: ImageSet,
) -> None:
    """Adds the rule and the answer to the checkpoint, in the place of those that were tuned for the same."""
    from raycsr.models.checkpoints import is_raycsr_checkpoint, load_training_state, save_checkpoint

    before, after = (tuned.table.iloc[i] for i in (0, tuned.chosen))
    entry = {"id": tuned.rule.id, "answer": answer.to_dict(), **facts, "tuned_on": images.to_dict()}
    entry |= {f"{key}_before": float(before[key]) for key in _STORED}
    entry |= {f"{key}_after": float(after[key]) for key in _STORED}
    earlier = base_classifier.training_info.get("tuned_rules", [])
    same = [(one["id"], one.get("answer")) == (entry["id"], entry["answer"]) for one in earlier]
    kept = [one for one, is_same in zip(earlier, same, strict=True) if not (is_same or facts.items() <= one.items())]
    gone = {one["id"] for one in earlier} - {one["id"] for one in kept} | {tuned.rule.id, ARGMAX.id}
    new = [] if tuned.rule == ARGMAX else [tuned.rule]  # which every run counts
    base_classifier.rules = (*(rule for rule in base_classifier.rules if rule.id not in gone), *new)
    entries = [*kept, entry]
    save_checkpoint(
        path,
        base_classifier,
        training_info={**base_classifier.training_info, "tuned_rules": entries},
        training_state=load_training_state(name) if is_raycsr_checkpoint(name) else None,
    )
