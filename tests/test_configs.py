"""Each YAML is understood by its verb, and every point of every space is a training that could start."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from raycsr.cli import arguments
from raycsr.costs import CostMatrix
from raycsr.distributed.search.space import at_point, corner_points
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.models.loading import load_base_classifier
from raycsr.models.rules import parse_rules
from raycsr.models.spec import ModelOptions
from raycsr.training.augmentation import Augmentation
from raycsr.training.loop import check_training
from raycsr.training.objectives import resolve_objective
from raycsr.training.validation import check_validation
from raycsr.verbs.attack import attack
from raycsr.verbs.sample import sample
from raycsr.verbs.sweep import sweep
from raycsr.verbs.train import train

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "jobs" / "configs").glob("*.yaml"))
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CLASSES = {"data/ham10k/ham10k.csv": ["benign", "malignant"], "data/cifar10": CIFAR10}


def verb(path):
    keys = yaml.safe_load(path.read_text())
    return sweep if "space" in keys else train if "training" in keys else attack if "noises" in keys else sample


def parsed(path):
    configs = [path.with_name("cohen-cifar10.yaml"), path] if path.name.startswith("recipe-") else [path]
    words = [word for one in configs for word in ("--config", str(one))]
    return SimpleNamespace(**arguments("raycsr", verb(path), [*words, "--results", "r"]))


def of(function):
    paths = [path for path in CONFIGS if verb(path) is function]
    return pytest.mark.parametrize("path", paths, ids=[path.name for path in paths])


@of(sample)
def test_each_config_of_sample_is_understood(path):
    options = parsed(path)
    names = options.data.class_names
    for spec in options.costs:
        assert CostMatrix.from_spec(spec, 10, names).sensitive.any()
    assert parse_rules(options.rules or ["argmax"], num_classes=10, class_names=names)
    assert options.sampling.n > options.sampling.n0


def check(config):
    """All of a training's checks that need no data."""
    names = CLASSES.get(config.data.path)
    costs = CostMatrix.from_spec(config.costs, len(names or range(10)), names)
    resolve_objective(config.objective.name, config.objective.args, costs=costs)
    check_training(config.training)
    check_validation(config.validation, config.sigma)
    Augmentation(config.augmentation, (32, 32))


def config_of(options):
    return TrainConfig(**{name: getattr(options, name) for name in TrainConfig.__dataclass_fields__})


@of(train)
def test_each_config_of_train_is_understood(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = config_of(parsed(path))
    check(config)
    assert "train" in (config.data.split, Path(config.data.path).name) and load_base_classifier(
        config.model, num_classes=10
    )


@of(sweep)
def test_each_config_of_sweep_is_understood(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = parsed(path)
    models = set()
    for point in corner_points(options.space):
        config = at_point(config_of(options), point)
        check(config)
        models.add((config.model.name, config.model.input_size))
    for name, input_size in models:  # of random weights: there is no network
        assert load_base_classifier(ModelOptions(name, input_size=input_size), num_classes=10)
    assert options.data.path is None or options.data.path != options.test.path or options.test.split == "test"


@pytest.mark.parametrize("readme", ["README.md", "jobs/README.md"])
def test_there_are_the_configs_that_a_readme_names(readme):
    named = set(re.findall(r"\bconfigs/([\w-]+\.yaml)", (ROOT / readme).read_text()))
    assert named and named <= {path.name for path in CONFIGS}


def test_jobs_readme_has_every_config():
    listed = set(re.findall(r"\(configs/([\w-]+\.yaml)\)", (ROOT / "jobs/README.md").read_text()))
    assert listed == {path.name for path in CONFIGS}
