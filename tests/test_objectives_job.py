"""The comparison of all objectives: equal cost is equal cost."""

import functools

import numpy as np
import pytest
import torch
from handmade import NO_B, PLAIN, write_run
from torch import nn

from jobs import objectives
from jobs.objectives import (
    MATRICES,
    PASSES,
    RECIPES,
    choices,
    chosen,
    compared,
    leans,
    options_of,
    schedule,
    table_of,
    trained_for,
)
from raycsr.costs import CostMatrix
from raycsr.training.objectives import OBJECTIVES, OF_DENOISERS, Shares, resolve_objective


def test_all_objectives_are_compared_and_the_published_reweighted_ones():
    reweighted = {name for name in OBJECTIVES if name.endswith("_cs")} - {"margin_cs"}
    assert set(RECIPES) - reweighted == set(OBJECTIVES) - reweighted - OF_DENOISERS
    assert set(RECIPES) & reweighted == {"gaussian_cs", "smoothadv_cs", "smoothmix_cs", "easy_cs"}


def test_a_variant_is_chosen_on_held_out_images_within_a_budget_of_accuracy():
    judged = {"a": (0.60, 0.9), "b": (0.69, 0.5), "c": (0.68, 0.6), "d": (0.70, 0.6)}
    metrics = {name: {"accuracy": accuracy, "rob_cs": rob_cs} for name, (accuracy, rob_cs) in judged.items()}
    assert chosen(metrics, 0.02) == "d"  # of equal rob_cs the more accurate
    assert chosen(metrics, 0.2) == "a"
    assert chosen(metrics, 0.0) == "d"
    table = choices({"margin_cs": metrics}, {"margin_cs": "c"})
    assert [row[0] for row in table.rows if row[3] == "chosen"] == ["c"]


def test_all_variants_are_trained_under_names_of_their_own():
    made = {
        options_of(name, trained_for(name, costs), variant)["name"]: options_of(name, costs, variant)["objective"].args
        for name in RECIPES
        for costs in MATRICES
        for variant in range(len(RECIPES[name].variants))
    }
    assert len(made) == 7 + 4 * 3 + 2 * 6
    assert {a["weight"] for n, a in made.items() if n.startswith("smoothmix_cs")} == {0.1, 0.3, 1.0}
    margins = {(a["form"], a["lam"]) for n, a in made.items() if n.startswith("margin_cs")}
    assert margins == {(form, lam) for form in ("sum", "max") for lam in (0.5, 1.0, 3.0)}
    assert all("." not in name for name in made)


@pytest.mark.parametrize("costs", MATRICES)
@pytest.mark.parametrize("name", RECIPES)
def test_an_image_costs_as_many_passes_as_the_recipe_says(name, costs):
    rows = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 10))
    model.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    matrix, ids = CostMatrix.from_spec("seed:3", 10), ["a", "b", "c", "d"]
    votes = Shares("results/run", ids, np.eye(10, dtype=np.float32)[:4])  # sure of each image, so that none is dropped
    args = options_of(name, costs)["objective"].args | ({"votes": "results/run"} if leans(name) else {})
    objective = resolve_objective(name, args, costs=matrix, read_shares=lambda run: votes)
    tensor = torch.tensor(matrix.values, dtype=torch.float32)
    call = functools.partial(objective, model, torch.rand(4, 3, 1, 1), torch.tensor([0, 1, 2, 3]))
    more = {"image_ids": ids} if leans(name) else {}
    call(sigma=0.25, costs=tensor, progress=0.9, generator=torch.Generator(), **more)
    assert sum(rows) == 4 * RECIPES[name].passes


@pytest.mark.parametrize("name", RECIPES)
def test_trainings_have_as_many_passes(name):
    epochs, images = schedule(RECIPES[name], 49_500)
    assert images <= 49_500
    assert 0.999 * PASSES <= epochs * images * RECIPES[name].passes <= PASSES


def test_rows_are_named_by_objective(tmp_path, monkeypatch):
    """The robust run of each objective and its accurate one differ, as do the objectives' checkpoints."""
    rule = "offset:1*pair:a/b"
    checkpoints = {"gaussian": f"{tmp_path}/gaussian.pt", "margin_cs": f"{tmp_path}/margin_cs-cat.pt"}
    stored = {}
    for checkpoint, answers in zip(checkpoints.values(), (PLAIN, NO_B), strict=True):
        model = checkpoint.rsplit("/", 1)[1]
        pair = [
            write_run(tmp_path, model, {"argmax": answers, rule: NO_B}, sigma=objectives.SIGMA, experiment=side)
            for side in ("robust", "accurate")
        ]
        stored[checkpoint] = tuple(run.location for run in pair)
    monkeypatch.setattr(objectives, "runs", lambda checkpoint, *_: stored[checkpoint])
    monkeypatch.setattr(objectives, "seconds", len)
    points = compared("pair:a/b", checkpoints, "", "", radius=0.25)
    assert points["objective"].tolist() == ["gaussian", "gaussian", "margin_cs", "margin_cs"]
    tuned = points.loc[points["rule_id"] != "argmax", "rule_id"].iloc[0]
    table = table_of(points, {one: {"argmax": "argmax", tuned: "tuned rule"} for one in checkpoints})
    assert [[*row[:3], row[4].split()[0]] for row in table.rows] == [  # rob_cs without its interval
        ["gaussian", "argmax", "0.833", "0.500"],
        ["gaussian", f"tuned rule: {rule}", "0.833", "1.000"],
        ["margin_cs", "argmax", "0.833", "1.000"],
        ["margin_cs", f"tuned rule: {rule}", "0.833", "1.000"],
    ]
