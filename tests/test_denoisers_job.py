"""The comparison of denoisers: equal passes are equal passes."""

from types import SimpleNamespace

import pandas as pd
import pytest

from jobs import denoisers
from raycsr.costs import CostMatrix
from raycsr.data.options import DataOptions
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.options import SamplingOptions
from raycsr.training.objectives import OF_DENOISERS, resolve_objective

DIGITS = {"data": DataOptions("digits"), "model": ModelOptions("cifar_resnet8", input_size=8)}


def test_each_way_adds_as_many_epochs_to_the_same_classifier(monkeypatch, tmp_path):
    trainings, sampled = [], []

    def train(**options):
        trainings.append(options)
        return SimpleNamespace(checkpoint=f"{options['name']}.pt")

    monkeypatch.setattr(denoisers, "train", train)
    monkeypatch.setattr(denoisers, "tune_rule", lambda **options: None)
    monkeypatch.setattr(denoisers, "load_base_classifier", lambda name: SimpleNamespace(training_info={}))
    monkeypatch.setattr(denoisers, "rows_of", lambda setting, checkpoint, *_: sampled.append(checkpoint) or rows())
    denoisers.main(**DIGITS, results=str(tmp_path), epochs=[7, 3])
    clean, *others = trainings
    assert clean["training"].epochs == 7 and clean["sigma"] == 0.001
    assert {one["training"].epochs for one in others} == {3}
    for one in others:
        assert one["model"].name == "gaussian-0_001.pt"
        assert (one["objective"].name in OF_DENOISERS) == bool(one["model"].denoisers)
        resolve_objective(one["objective"].name, one["objective"].args, costs=CostMatrix.seedwise(10, [8]))
    assert len({one["name"] for one in trainings}) == len(trainings) and sampled.count("gaussian-0_001.pt") == 2
    assert "| trained under noise " in (tmp_path / "denoisers/denoisers.md").read_text()


def rows():
    return pd.DataFrame([{"rule": "argmax", **dict.fromkeys(denoisers.SHOWN, 0.5)}])


@pytest.mark.long
def test_the_whole_comparison_runs(tmp_path):
    draws = SamplingOptions(sigma=0.25, n0=16, n=64, batch_size=64)
    denoisers.main(**DIGITS, results=str(tmp_path), epochs=[1, 1], images=10, sampling=draws, sigmas=[0.25])
    table = (tmp_path / "denoisers/denoisers.md").read_text()
    assert all(way.label in table for way in (*denoisers.WAYS, *denoisers.COSTLY))
