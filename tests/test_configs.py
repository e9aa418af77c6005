from pathlib import Path

import pytest

from raycsr.cli import parser
from raycsr.costs import CostMatrix
from raycsr.pipelines.sample import sample

CONFIGS = sorted((Path(__file__).parents[1] / "jobs" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_each_config_is_understood(path):
    options = parser("sample", sample)
    parsed = options.instantiate(options.parse_args(["--config", str(path), "--results", "r"]))
    names = parsed.data.class_names
    for spec in parsed.costs:
        assert CostMatrix.from_spec(spec, 10, names).sensitive.any()
    assert parsed.sampling.n > parsed.sampling.n0


def test_there_are_the_configs_that_the_readme_names():
    assert {path.name for path in CONFIGS} >= {"digits.yaml", "cifar10.yaml", "imagenet.yaml"}
