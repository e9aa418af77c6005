"""All objectives from one start at equal cost, by argmax and by a tuned rule and answer, under two cost matrices.

    python -m jobs.objectives --path DIR --start gaussian.pt --results RESULTS

DIR holds CIFAR-10 as Parquet; the start is what `raycsr train --config jobs/configs/cifar10-small.yaml` gives. Each
training has as many forward and backward passes of an image through the network, those of attacks counted. Of an
objective's variants that one is chosen, for each cost matrix, which has the largest rob_cs on held-out training images
and loses to the most accurate one there no more accuracy than a tuned rule may. It alone is tuned, and certified on
test images. Objectives that lean on a baseline's votes are given those of the start; these passes come on top.
The same command goes on where it was stopped.
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jobs.front import joined
from raycsr.certification import Answer
from raycsr.cli import run_job
from raycsr.data.memory import read_pixels
from raycsr.data.options import DataOptions
from raycsr.distributed.options import ObjectiveOptions, PoolOptions
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.distributed.training.plan import prepare
from raycsr.models.loading import load_base_classifier
from raycsr.models.rules import ARGMAX
from raycsr.models.spec import ModelOptions
from raycsr.reports import (
    Column,
    Document,
    Paragraph,
    Section,
    Table,
    as_markdown,
    as_text,
    at_equal_accuracy,
    equal_accuracy_table,
    front,
    front_table,
)
from raycsr.reports.certified import id_of
from raycsr.reports.curves import plot_front
from raycsr.reports.tables import cell, column, marks_line
from raycsr.smoothing.options import SamplingOptions
from raycsr.store import Store
from raycsr.training.objectives import COST_SENSITIVE
from raycsr.training.options import AugmentationOptions, TrainingOptions, ValidationOptions
from raycsr.training.validation import certified_metrics
from raycsr.verbs.report import report
from raycsr.verbs.sample import sample
from raycsr.verbs.train import train
from raycsr.verbs.tune_rule import tune_rule

PASSES = 500_000
SIGMA = 0.25
EXPERIMENT = "objectives"
POOL = PoolOptions(actors=1, cpus_per_actor=1)
MATRICES = {"seed:cat": "cat", "pair:cat/dog": "cat-dog"}
BUDGETS = {"seed:cat": 0.02, "pair:cat/dog": 0.015}  # accuracy that a tuned rule may lose on training images
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
LEAST_HELD_OUT = 500  # images that no training sees


@dataclass(frozen=True)
class Recipe:
    """An objective's hyper-parameters here, and what an image costs: forward and backward passes a step."""

    passes: int
    args: dict[str, Any] = field(default_factory=dict)
    variants: tuple[dict[str, Any], ...] = ({},)


LEANING = {  # on votes of the start
    "cat_rs": Recipe(8, {"k": 2, "steps": 2, "lam": 0.5}),
    "easy": Recipe(4, {"k": 1, "start": 0.0}),  # hard images are dropped from the first step on: the start is trained
}
RECIPES = {
    "gaussian": Recipe(1),
    "macer": Recipe(4, {"k": 4}),
    "smoothadv": Recipe(5, {"k": 1, "steps": 4, "radius": 0.25}),
    "consistency": Recipe(2, {"lam": 20.0}),
    "smoothmix": Recipe(6, {"k": 1}),
    "margin_cs": Recipe(4, {"k": 4}, tuple({"form": f, "lam": lam} for f in ("sum", "max") for lam in (0.5, 1.0, 3.0))),
    **LEANING,
}
WEIGHTS = tuple({"weight": weight} for weight in (0.1, 0.3, 1.0))
REWEIGHTED = ("gaussian", "smoothadv", "smoothmix", "easy")  # the published ones, and a sampler that knows costs
RECIPES |= {f"{name}_cs": replace(RECIPES[name], variants=WEIGHTS) for name in REWEIGHTED}


def schedule(recipe: Recipe, images: int, passes: int = PASSES) -> tuple[int, int]:
    """Returns the epochs of a training and the images of each, so that it has as many passes."""
    seen = passes // recipe.passes
    epochs = -(-seen // images)
    return epochs, seen // epochs


def leans(objective: str) -> bool:
    """Whether an objective is given the start's votes of its training images."""
    return objective.removesuffix("_cs") in LEANING


def options_of(objective: str, costs: str, variant: int = 0, passes: int = PASSES) -> dict[str, Any]:
    """Returns what `train` is called with, but for the places of the data, the start, its votes and the results."""
    recipe, cost_sensitive = RECIPES[objective], objective in COST_SENSITIVE
    epochs, images = schedule(recipe, 50_000 - LEAST_HELD_OUT, passes)
    changed = recipe.variants[variant]
    name = "-".join([objective, *([MATRICES[costs]] if cost_sensitive else []), *map(str, changed.values())])
    return {
        "data": DataOptions("parquet", split="train", class_names=CLASSES, limit=images + LEAST_HELD_OUT),
        "sigma": SIGMA,
        "experiment": EXPERIMENT,
        "name": name.replace(".", "_"),
        "costs": costs,  # of validation alone where the objective has none
        "objective": ObjectiveOptions(objective, recipe.args | changed),
        "training": TrainingOptions(epochs=epochs, batch_size=128, lr=0.02),
        "augmentation": AugmentationOptions(crop_padding=4, flip=True),
        "validation": ValidationOptions(every=epochs, images=300, sensitive=200),
    }


def trained_for(objective: str, costs: str) -> str:
    """Returns the matrix that a training is given: margin_cs alone tells costly answers apart.

    The others weigh images by their class, which is one and the same under both matrices, or know no costs.
    """
    return costs if objective == "margin_cs" else "seed:cat"


def variants(path: str, start: str, results: str, passes: int) -> dict[tuple[str, str], list[str]]:
    """Trains what is not trained yet, and returns (costs, objective) -> checkpoints, one of each variant."""
    found: dict[tuple[str, str], list[str]] = {}
    votes = votes_of(path, start, results, passes)
    for objective, recipe in RECIPES.items():
        for costs in MATRICES:
            for variant in range(len(recipe.variants)):
                options = options_of(objective, trained_for(objective, costs), variant, passes)
                options["data"] = replace(options["data"], path=path)
                if leans(objective):
                    options["objective"].args["votes"] = votes
                made = train(**options, model=ModelOptions(start), results=results).checkpoint
                found.setdefault((costs, objective), []).append(made)
    return found


def votes_of(path: str, start: str, results: str, passes: int) -> str:
    """Samples the start on the training images of the objectives that lean on its votes, and returns the run."""
    data = [options_of(objective, "seed:cat", passes=passes)["data"] for objective in LEANING]
    found = sample(
        data=replace(max(data, key=lambda one: one.limit), path=path),
        model=ModelOptions(start),
        sampling=SamplingOptions(sigma=SIGMA, n0=4, n=64, batch_size=64),  # the top class is asked of nobody
        pool=POOL,
        results=results,
        experiment=EXPERIMENT,
    )
    return found[0].run.location


def held_out(checkpoint: str, costs: str, path: str) -> dict[str, float]:
    """Returns accuracy and rob_cs under a cost matrix, at radius sigma, on the images that the training held out."""
    info = load_base_classifier(checkpoint).training_info
    metrics = info["history"][-1]["metrics"]
    if info["costs"] != costs:  # the same images, for the same class is costly
        options = options_of("gaussian", costs)
        data = DataOptions(**{**info["data"], "path": path})
        kept = {name: options[name] for name in ("sigma", "validation", "training")}
        plan = prepare(TrainConfig(data=data, model=ModelOptions(checkpoint), costs=costs, stream=False, **kept))
        rows = np.concatenate([plan.held_out.random, plan.held_out.seed_class])
        pixels = read_pixels(plan.source, plan.listing.images.iloc[rows], plan.model.preprocessing)
        metrics = certified_metrics(
            plan.model,
            pixels.images,
            pixels.labels,
            len(plan.held_out.random),
            costs=plan.costs,
            sigma=SIGMA,
            options=options["validation"],
        )
    return {name: float(metrics[name] or 0) for name in ("accuracy", "rob_cs")}


def chosen(of_variants: dict[str, dict[str, float]], budget: float) -> str:
    """Returns the checkpoint with the largest rob_cs of those within a budget of accuracy of the most accurate.

    All are judged by the same images, which are others for objectives of other costs a step.
    """
    least = max(metrics["accuracy"] for metrics in of_variants.values()) - budget
    enough = {one: m for one, m in of_variants.items() if m["accuracy"] >= least}
    return max(enough, key=lambda one: (enough[one]["rob_cs"], enough[one]["accuracy"]))


def tuned(checkpoint: str, costs: str) -> dict[str, Any] | None:
    """Returns the entry of the rule and the answer that were tuned for the costs, on training images.

    Tunes where none is stored. Its `id` is the rule's and its `answer` the answer's; None where nothing is better than
    argmax.
    """

    def stored() -> list[dict]:
        entries = load_base_classifier(checkpoint).training_info.get("tuned_rules", [])
        return [entry for entry in entries if entry["costs"] == costs]

    if not stored():
        tune_rule(model=checkpoint, costs=costs, budget=BUDGETS[costs], recall_budget=0.3, images=300, n=128)
    return stored()[0] if stored() else None


def runs(checkpoint: str, matrices: list[str], path: str, results: str) -> tuple[str, str]:
    """Samples the cats at n = 256 and 1,000 images of all classes at n = 128, and returns the two runs."""
    test = DataOptions("parquet", path=path, split="test", class_names=CLASSES)
    base_classifier = load_base_classifier(checkpoint)
    entries = base_classifier.training_info.get("tuned_rules", [])
    rules = ["tuned", *(f"offset:0.5,1,1.5,2,3*{costs}" for costs in matrices)]
    common: dict[str, Any] = {
        "model": ModelOptions(checkpoint),
        "pool": POOL,
        "results": results,
        "experiment": EXPERIMENT,
        "rules": rules if base_classifier.rules else rules[1:],
        "costs": matrices,
        "answers": list(dict.fromkeys(["argmax", *(entry["answer"]["spec"] for entry in entries)])),
    }
    robust, accurate = (
        sample(data=data, sampling=SamplingOptions(sigma=SIGMA, n0=64, n=n, batch_size=64), **common)[0].run.location
        for data, n in ((replace(test, classes=["cat"]), 256), (replace(test, limit=1000), 128))
    )
    return robust, accurate


def seconds(checkpoint: str) -> float:
    """Returns what a training took."""
    info = load_base_classifier(checkpoint).training_info
    images = info["data"]["limit"] - LEAST_HELD_OUT
    return sum(images / epoch["images_per_second"] for epoch in info["history"])


def compared(costs: str, of_objective: dict[str, str], path: str, results: str, radius: float) -> pd.DataFrame:
    """Returns a row an objective and decision rule under a cost matrix, given each objective's checkpoint."""
    matrices = {o: [m for m in MATRICES if trained_for(o, m) == trained_for(o, costs)] for o in of_objective}
    pairs = [runs(checkpoint, matrices[o], path, results) for o, checkpoint in of_objective.items()]
    robust, accurate = (report(run=list(side), costs=[costs], radii=[radius]) for side in zip(*pairs, strict=True))
    points = joined(robust, accurate)
    objectives = {f"{Path(checkpoint).name} σ={SIGMA:g}": objective for objective, checkpoint in of_objective.items()}
    points["objective"] = points["run"].map(objectives)
    points["seconds"] = points["objective"].map({o: seconds(one) for o, one in of_objective.items()})
    return points


def main(*, path: str, start: str, results: str, radius: float = SIGMA, passes: int = PASSES) -> None:
    """Trains, chooses, tunes, samples and compares.

    Args:
        path: CIFAR-10 as Parquet, both splits.
        start: Checkpoint that all trainings begin with.
        results: Folder of results.
        radius: L2 radius of the table, in [0, 1] pixel units.
        passes: Forward and backward passes of an image, in each training.
    """
    of_all = variants(path, start, results, passes)
    judged = {key: {one: held_out(one, key[0], path) for one in checkpoints} for key, checkpoints in of_all.items()}
    found = {key: chosen(of_variants, BUDGETS[key[0]]) for key, of_variants in judged.items()}
    # all before any is sampled: a rule is counted with the others, in one pass
    picks = {key: picked(checkpoint, key[0]) for key, checkpoint in found.items()}
    sections, store = [], Store(f"{results}/{EXPERIMENT}")
    for costs in MATRICES:
        of_objective = {objective: checkpoint for (spec, objective), checkpoint in found.items() if spec == costs}
        points = compared(costs, of_objective, path, results, radius)
        chosen_before = choices({o: judged[costs, o] for o in of_objective}, of_objective)
        table = table_of(points, {objective: picks[costs, objective] for objective in of_objective})
        picked_here = [front_table(front(points)), equal_accuracy_table(at_equal_accuracy(points))]
        sections.append(Section(f"Costs: {costs}", [chosen_before, table, PICKED_HERE, *picked_here]))
        store.write(f"front-{MATRICES[costs]}.png", plot_front(pictured(points)))
    document = Document(f"Objectives at radius {radius:g}, {passes:,} passes each", sections)
    store.write("objectives.md", as_markdown(document).encode())
    print(as_text(document))


PICTURED = ("gaussian", "smoothadv", "margin_cs", "cat_rs", "gaussian_cs", "smoothadv_cs")  # twelve can't be told apart


def pictured(points: pd.DataFrame) -> pd.DataFrame:
    """Returns what the picture shows of some objectives: their fronts, and their argmax."""
    some = points[points["objective"].isin(PICTURED)]
    return pd.concat([front(some), some[some["rule_id"] == ARGMAX.id]]).drop_duplicates(["run", "rule_id"])


PICKED_HERE = Paragraph(
    "Rules below are picked on the certified images: a picture of what there is, and no certificate of a pick."
)


def choices(judged: dict[str, dict[str, dict[str, float]]], picked: dict[str, str]) -> Table:
    """A row a variant, by its held-out training images; the chosen one of each objective is marked."""
    columns = [Column("variant"), Column("held-out accuracy", numeric=True), Column("held-out rob_cs", numeric=True)]
    rows = [
        [Path(one).stem, f"{m['accuracy']:.3f}", f"{m['rob_cs']:.3f}", "chosen" if one == picked[objective] else ""]
        for objective, of_variants in judged.items()
        for one, m in of_variants.items()
    ]
    return Table([*columns, Column("")], rows)


def picked(checkpoint: str, costs: str) -> dict[str, str]:
    """What is certified of an objective: the id in reports -> argmax, the tuned rule, and that by the tuned answer."""
    entry, ids = tuned(checkpoint, costs), {ARGMAX.id: "argmax"}
    if entry is not None:
        ids.setdefault(entry["id"], "tuned rule")
        ids.setdefault(id_of(entry["id"], Answer.of_dict(entry["answer"])), "tuned rule and answer")
    return ids


def table_of(points: pd.DataFrame, picks: dict[str, dict[str, str]]) -> Table:
    """The table of README: a row an objective and what of it was picked, which `picked` returns of each."""
    names = ["accuracy", "coverage", "rob_cs", "rob_cost", "acr", "seed_recall", "target_recall"]
    rows, shown = [], []
    for objective, ids in picks.items():
        of_objective = points[points["objective"] == objective].set_index("rule_id", drop=False)
        for rule_id, name in ids.items():
            point = of_objective.loc[rule_id].to_dict()
            rule = name if rule_id == ARGMAX.id else f"{name}: {point['rule']}"
            rows.append([objective, rule, *(cell(point, one) for one in names), f"{point['seconds']:.0f}"])
            shown.append(point)
    columns = [Column("objective"), Column("rule"), *map(column, names), Column("s", numeric=True)]
    return Table(columns, rows, marks_line(pd.DataFrame(shown)))


if __name__ == "__main__":
    sys.exit(run_job(main))
