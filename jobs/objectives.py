"""All objectives from one start at equal cost, each with and without a tuned decision rule, under two cost matrices.

    python -m jobs.objectives --path DIR --start gaussian.pt --results RESULTS

DIR holds CIFAR-10 as Parquet; the start is what `raycsr train --config jobs/configs/cifar10-small.yaml` gives. Each
training has PASSES forward and backward passes of an image through the network, those of attacks counted. The same
command goes on where it was stopped.
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from jobs.front import joined
from raycsr.cli import run_job
from raycsr.data.options import DataOptions
from raycsr.distributed.options import ObjectiveOptions, PoolOptions
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.reports import (
    Column,
    Document,
    Section,
    Table,
    as_markdown,
    as_text,
    at_equal_accuracy,
    equal_accuracy_table,
    front,
    front_table,
)
from raycsr.reports.curves import plot_front
from raycsr.reports.tables import cell, column, marks_line
from raycsr.smoothing.options import SamplingOptions
from raycsr.store import Store
from raycsr.training.objectives import COST_SENSITIVE, OBJECTIVES
from raycsr.training.options import AugmentationOptions, TrainingOptions, ValidationOptions
from raycsr.verbs.report import report
from raycsr.verbs.sample import sample
from raycsr.verbs.train import train
from raycsr.verbs.tune_rule import tune_rule

PASSES = 500_000
SIGMA = 0.25
EXPERIMENT = "objectives"
MATRICES = {"seed:cat": "cat", "pair:cat/dog": "cat-dog"}
BUDGETS = {"seed:cat": 0.02, "pair:cat/dog": 0.015}  # accuracy that a tuned rule may lose on training images
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
LEAST_HELD_OUT = 500  # images that no training sees


@dataclass(frozen=True)
class Recipe:
    """An objective's hyper-parameters here, and what an image costs: forward and backward passes a step."""

    passes: int
    args: dict[str, Any] = field(default_factory=dict)
    args_of_costs: dict[str, dict[str, Any]] = field(default_factory=dict)


RECIPES = {
    "gaussian": Recipe(1),
    "macer": Recipe(4, {"k": 4}),
    "smoothadv": Recipe(5, {"k": 1, "steps": 4, "radius": 0.25}),
    "consistency": Recipe(2, {"lam": 20.0}),
    "smoothmix": Recipe(6, {"k": 1}),
    "margin_cs": Recipe(4, {"k": 4}),
}
RECIPES |= {f"{name}_cs": recipe for name, recipe in RECIPES.items() if f"{name}_cs" in OBJECTIVES}


def schedule(recipe: Recipe, images: int) -> tuple[int, int]:
    """Returns the epochs of a training and the images of each, so that it has PASSES passes."""
    seen = PASSES // recipe.passes
    epochs = -(-seen // images)
    return epochs, seen // epochs


def options_of(objective: str, costs: str) -> dict[str, Any]:
    """Returns what `train` is called with, but for the places of the data, the start and the results."""
    recipe, cost_sensitive = RECIPES[objective], objective in COST_SENSITIVE
    epochs, images = schedule(recipe, 50_000 - LEAST_HELD_OUT)
    return {
        "data": DataOptions("parquet", split="train", class_names=CLASSES, limit=images + LEAST_HELD_OUT),
        "sigma": SIGMA,
        "experiment": EXPERIMENT,
        "name": f"{objective}-{MATRICES[costs]}" if cost_sensitive else objective,
        "costs": costs,  # of validation alone where the objective has none
        "objective": ObjectiveOptions(objective, recipe.args | recipe.args_of_costs.get(costs, {})),
        "training": TrainingOptions(epochs=epochs, batch_size=128, lr=0.02),
        "augmentation": AugmentationOptions(crop_padding=4, flip=True),
        "validation": ValidationOptions(every=epochs, images=300, sensitive=200),
    }


def trained_for(objective: str, costs: str) -> str:
    """Returns the matrix that a training is given: margin_cs alone tells costly answers apart.

    The others weigh images by their class, which is one and the same under both matrices, or know no costs.
    """
    return costs if objective == "margin_cs" else "seed:cat"


def checkpoints(path: str, start: str, results: str) -> dict[tuple[str, str], str]:
    """Trains what is not trained yet, and returns (costs, objective) -> checkpoint."""
    found = {}
    for objective in RECIPES:
        for costs in MATRICES:
            options = options_of(objective, trained_for(objective, costs))
            options["data"] = replace(options["data"], path=path)
            found[costs, objective] = train(**options, model=ModelOptions(start), results=results).checkpoint
    return found


def tuned(checkpoint: str, costs: str) -> str | None:
    """Returns the id of the rule that was tuned for the costs; tunes one on training images where none is stored."""

    def stored() -> list[dict]:
        entries = load_base_classifier(checkpoint).training_info.get("tuned_rules", [])
        return [entry for entry in entries if entry["costs"] == costs]

    if not stored():
        tune_rule(model=checkpoint, costs=costs, budget=BUDGETS[costs], recall_budget=0.3, images=400, n=128)
    return stored()[0]["id"] if stored() else None


def runs(checkpoint: str, matrices: list[str], path: str, results: str) -> tuple[str, str]:
    """Samples the cats at n = 256 and 1,000 images of all classes at n = 128, and returns the two runs."""
    test = DataOptions("parquet", path=path, split="test", class_names=CLASSES)
    rules = ["tuned", *(f"offset:0.5,1,1.5,2,3*{costs}" for costs in matrices)]
    common: dict[str, Any] = {
        "model": ModelOptions(checkpoint),
        "pool": PoolOptions(actors=2, cpus_per_actor=0.5),
        "results": results,
        "experiment": EXPERIMENT,
        "rules": rules if load_base_classifier(checkpoint).rules else rules[1:],
        "costs": matrices,
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


def main(*, path: str, start: str, results: str, radius: float = 0.25) -> None:
    """Trains, tunes, samples and compares.

    Args:
        path: CIFAR-10 as Parquet, both splits.
        start: Checkpoint that all trainings begin with.
        results: Folder of results.
        radius: L2 radius of the table, in [0, 1] pixel units.
    """
    found = checkpoints(path, start, results)
    # all before any is sampled: a rule is counted with the others, in one pass
    tuned_ids = {key: tuned(checkpoint, key[0]) for key, checkpoint in found.items()}
    sections, store = [], Store(f"{results}/{EXPERIMENT}")
    for costs in MATRICES:
        of_objective = {objective: checkpoint for (spec, objective), checkpoint in found.items() if spec == costs}
        points = compared(costs, of_objective, path, results, radius)
        points["tuned"] = points["rule_id"] == points["objective"].map({o: tuned_ids[costs, o] for o in of_objective})
        shown = points[points["tuned"] | (points["rule_id"] == "argmax")].sort_values(["objective", "tuned"])
        tables = [table_of(shown), front_table(front(points)), equal_accuracy_table(at_equal_accuracy(points))]
        sections.append(Section(f"Costs: {costs}", tables))
        store.write(f"front-{MATRICES[costs]}.png", plot_front(points))
    document = Document(f"Objectives at radius {radius:g}", sections)
    store.write("objectives.md", as_markdown(document).encode())
    print(as_text(document))


def table_of(points: pd.DataFrame) -> Table:
    """The table of README: a row an objective and rule."""
    names = ["accuracy", "rob_cs", "rob_cost", "acr", "seed_recall", "target_recall"]
    rows = []
    for point in points.to_dict("records"):
        rule = f"tuned: {point['rule']}" if point["tuned"] else "argmax"
        rows.append([point["objective"], rule, *(cell(point, name) for name in names), f"{point['seconds']:.0f}"])
    columns = [Column("objective"), Column("rule"), *map(column, names), Column("s", numeric=True)]
    return Table(columns, rows, marks_line(points))


if __name__ == "__main__":
    sys.exit(run_job(main))
