"""The verbs: each module is one, and reads from top to bottom; `VERBS` lists them, with what their help shows first.

What needs PyTorch is imported by the function that needs it: help, and what is wrong with options, wait for none of it.
"""

import importlib
from collections.abc import Callable
from typing import NamedTuple


class Verb(NamedTuple):
    """A verb of the command.

    Attributes:
        where: Module and function, which are imported when the verb is asked for, and not before.
        what: What it does, in a line.
        example: A call of it, as its help ends with; without `raycsr`.
        common: Options that its help shows, beside those that it requires; all, where none are named.
    """

    where: str
    what: str
    example: str = ""
    common: tuple[str, ...] = ()


_MODEL_AND_IMAGES = ("data.path", "data.split", "data.limit", "model.pretrained")
_POOL = ("pool.actors", "pool.gpus_per_actor")
_SAMPLING = ("sampling.sigma", "sampling.n", "sampling.radii", *_POOL, "costs", "rules")

VERBS = {
    "quickstart": Verb(
        "raycsr.verbs.quickstart:quickstart",
        "train, certify and report on handwritten digits",
        "quickstart --results results",
    ),
    "sample": Verb(
        "raycsr.verbs.sample:sample",
        "images -> votes, on Ray; continues what was interrupted",
        "sample --data.source imagefolder --data.path photos/test --model.name model.pt --sampling.sigma 0.5 "
        "--results results",
        (*_MODEL_AND_IMAGES, *_SAMPLING, "experiment"),
    ),
    "certify": Verb(
        "raycsr.verbs.certify:certify",
        "votes -> certificates, for any cost matrix",
        "certify --run results/default/runs/1f3a --costs uniform seed:cat,dog costs.csv",
    ),
    "report": Verb(
        "raycsr.verbs.report:report",
        "certificates -> a table and certified curves",
        "report --run results/default/runs --radii 0.25,0.5 --out report",
    ),
    "compare": Verb(
        "raycsr.verbs.compare:compare",
        "two runs or rules, paired by image: what differs, and is it chance?",
        "compare --run results/default/runs/1f3a results/default/runs/8c20 --costs seed:cat --radius 0.5",
    ),
    "show": Verb(
        "raycsr.verbs.show:show",
        "images beside noisy copies and pictures as near as a radius",
        "show --data.source imagefolder --data.path photos/test --radius 0.5 --sigma 0.5",
        ("data.path", "data.split", "images", "input_size", "seed", "out"),
    ),
    "train": Verb(
        "raycsr.verbs.train:train",
        "images -> a base classifier, judged by certificates",
        "train --data.source imagefolder --data.path photos/train --model.name resnet18 --sigma 0.5 --costs seed:cat "
        "--results results",
        (
            *("data.path", "model.pretrained", "costs", "objective.name", "objective.args", "training.epochs"),
            *("training.batch_size", "training.lr", "augmentation.flip", "validation.every", "workers.number", "name"),
        ),
    ),
    "sweep": Verb(
        "raycsr.verbs.sweep:sweep",
        "trainings over a space, on Ray Tune; keeps those that certify best",
        "sweep --data.source digits --model.name cifar_resnet8 --model.input_size 8 "
        "--space '{sigma: {grid: [0.25, 0.5]}}' --results results",
        (
            *("data.path", "costs", "objective.name", "training.epochs", "name", "search.metric", "search.budget"),
            *("search.samples", "search.scheduler", "search.max_hours", "search.gpus_per_trial", "test.source"),
        ),
    ),
    "tune-rule": Verb(
        "raycsr.verbs.tune_rule:tune_rule",
        "training images -> a cost-sensitive decision rule",
        "tune-rule --model results/default/checkpoints/gaussian.pt --costs seed:cat --budget 0.02",
        (
            *("budget", "recall_budget", "coverage_budget", "answers", "radius", "sigma", "images", "n"),
            *("data.source", "data.path", "out"),
        ),
    ),
    "quantise": Verb(
        "raycsr.verbs.quantise:quantise",
        "a base classifier and training images -> one in int8, for CPUs",
        "quantise --model results/default/checkpoints/gaussian.pt --out gaussian-int8.pt",
        ("model", "out", "sigma", "images", "data.source", "data.path"),
    ),
    "attack": Verb(
        "raycsr.verbs.attack:attack",
        "gradients against a run's certificates, and beyond them",
        "attack --run results/default/runs/1f3a --costs seed:cat --images 200",
        ("radii", "times", "images", "rule", "steps", "noises", "n", "data.path", "model.name", *_POOL),
    ),
    "predict": Verb(
        "raycsr.verbs.predict:predict",
        "unlabelled images -> what the smoothed classifier says of each",
        "predict --run results/default/runs/1f3a --data.source imagefolder --data.path photos/new --results results",
        (
            *("run", "model.name", "sigma", "data.source", "data.path", "image", "results", "out", "rule", "answer"),
            *("costs", "n", "alpha_p", *_POOL),
        ),
    ),
    "evaluate": Verb(
        "raycsr.verbs.evaluate:evaluate",
        "sample, certify and report",
        "evaluate --data.source imagefolder --data.path photos/test --model.name model.pt --costs seed:cat "
        "--results results --out report",
        (*_MODEL_AND_IMAGES, *_SAMPLING, "radii", "out"),
    ),
    "validate": Verb(
        "raycsr.verbs.validate:validate",
        "check a sample, train, sweep or attack, and print its plan",
        "validate sample --data.source digits --model.name cifar_resnet8 --model.input_size 8 --results results "
        "--time_one_batch true",
    ),
    "ls": Verb(
        "raycsr.verbs.ls:ls",
        "what a results folder holds, and how far each run is: raycsr ls RESULTS",
        "ls results",
    ),
    "stop": Verb(
        "raycsr.verbs.stop:stop",
        "end the sampling of runs from another shell; what is begun is finished",
        "stop --run results/default/runs/1f3a",
    ),
    "cp": Verb(
        "raycsr.verbs.cp:cp",
        "copy runs to another place, local or S3; checks what it wrote",
        "cp --run results/default/runs/1f3a --results s3://bucket/results",
    ),
    "merge": Verb(
        "raycsr.verbs.merge:merge",
        "add to a run what others, sampled apart, have that it lacks",
        "merge --run other/default/runs/1f3a --into results/default/runs/1f3a",
    ),
    "rm": Verb(
        "raycsr.verbs.rm:rm", "delete runs; says what it deletes, and asks first", "rm --run results/default/runs/1f3a"
    ),
    "configs": Verb(
        "raycsr.verbs.configs:configs",
        "the files of options that come with raycsr: list them, or print one",
        "configs digits > digits.yaml",
    ),
    "completion": Verb(
        "raycsr.verbs.completion:completion",
        "what a shell needs to complete verbs and options",
        "completion bash > ~/.local/share/bash-completion/completions/raycsr",
    ),
}

VALIDATED = ("sample", "train", "sweep", "attack")
"""Verbs whose options `validate` checks, and whose plan it prints."""


def function_of(verb: str) -> Callable:
    """The function of a verb, whose module is imported."""
    module, name = VERBS[verb].where.split(":")
    return getattr(importlib.import_module(module), name)
