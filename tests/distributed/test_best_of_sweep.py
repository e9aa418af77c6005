"""What a sweep compares, and keeps: the best checkpoint of each sigma and cost matrix has a file of its own."""

import warnings

import pandas as pd
import pytest

from raycsr.certification import METRICS
from raycsr.data.options import DataOptions
from raycsr.distributed.options import SearchOptions
from raycsr.distributed.search.job import check_sweep, inputs_of_backbones, keep_best, pixels_of_each_backbone
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.store import Store
from raycsr.training.options import ValidationOptions


def trial(folder, name, sigma, costs):
    model = load_base_classifier(ModelOptions("cifar_resnet8", num_classes=3, input_size=8, init_seed=int(name)))
    save_checkpoint(folder / f"{name}.pt", model, training_info={"sigma": sigma, "costs": costs})
    facts = {"trial": name, "state": "finished", "sigma": sigma, "costs": costs, "metric": "rob_cs"}
    return {**facts, **dict.fromkeys(METRICS, 0.5), "checkpoint": str(folder / f"{name}.pt")}


@pytest.mark.parametrize(
    "two",
    [
        [(0.25, f"/{'a-long-folder/' * 5}one.csv"), (0.25, f"/{'a-long-folder/' * 5}other.csv")],
        [(0.25, "pair:a/b,c/d"), (0.25, "pair:a-b/c,d")],
        [(0.25, "seed:1"), (0.25000001, "seed:1")],
    ],
)
def test_costs_and_sigmas_that_are_written_alike_have_each_their_own_best(tmp_path, two):
    trials = pd.DataFrame([trial(tmp_path, str(i), *kind) for i, kind in enumerate(two)])
    best = keep_best(trials, Store(tmp_path), SearchOptions())
    assert len(set(best.values())) == 2
    for sigma, costs in two:
        info = load_base_classifier(best[sigma, costs]).training_info
        assert (info["sigma"], info["costs"]) == (sigma, costs)
    assert keep_best(trials, Store(tmp_path), SearchOptions()) == best


def test_others_are_named_by_their_sigma_and_costs_alone(tmp_path):
    trials = pd.DataFrame([trial(tmp_path, "0", 0.25, "seed:1"), trial(tmp_path, "1", 0.5, "seed:1")])
    best = keep_best(trials, Store(tmp_path), SearchOptions())
    assert best == {(s, "seed:1"): f"{tmp_path}/best/sigma{s}-seed-1.pt" for s in (0.25, 0.5)}


def test_trials_of_several_input_sizes_are_said_to_be_no_equals(tmp_path):
    config = TrainConfig(
        data=DataOptions("digits", split="train", limit=100),
        model=ModelOptions("cifar_resnet8", input_size=8),
        sigma=0.25,
        validation=ValidationOptions(images=10, sensitive=0),
    )
    sizes = check_sweep(config, {"model.input_size": {"grid": [16, 8]}}, SearchOptions())
    with pytest.warns(UserWarning, match="trials take images of 8 x 8 and 16 x 16 px, and sigma and radii"):
        pixels_of_each_backbone(sizes, inputs_of_backbones(sizes))
    seeds = check_sweep(config, {"model.init_seed": {"grid": [1, 2]}}, SearchOptions())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels_of_each_backbone(seeds, inputs_of_backbones(seeds))
