"""The comparison of all objectives: equal cost is equal cost."""

import functools

import pytest
import torch
from torch import nn

from jobs.objectives import MATRICES, PASSES, RECIPES, options_of, schedule
from raycsr.costs import CostMatrix
from raycsr.training.objectives import OBJECTIVES, resolve_objective


def test_all_objectives_are_compared():
    assert set(RECIPES) == set(OBJECTIVES)


@pytest.mark.parametrize("costs", MATRICES)
@pytest.mark.parametrize("name", RECIPES)
def test_an_image_costs_as_many_passes_as_the_recipe_says(name, costs):
    rows = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 10))
    model.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    matrix = CostMatrix.from_spec("seed:3", 10)
    objective = resolve_objective(name, options_of(name, costs)["objective"].args, costs=matrix)
    tensor = torch.tensor(matrix.values, dtype=torch.float32)
    call = functools.partial(objective, model, torch.rand(4, 3, 1, 1), torch.tensor([0, 1, 2, 3]))
    call(sigma=0.25, costs=tensor, progress=0.9, generator=torch.Generator())
    assert sum(rows) == 4 * RECIPES[name].passes


@pytest.mark.parametrize("name", RECIPES)
def test_trainings_have_as_many_passes(name):
    epochs, images = schedule(RECIPES[name], 49_500)
    assert images <= 49_500
    assert 0.999 * PASSES <= epochs * images * RECIPES[name].passes <= PASSES
