"""What all objectives have in common."""

import pickle

import pytest
import torch
from torch import nn

from raycsr.costs import CostMatrix
from raycsr.training.objectives import OBJECTIVES, resolve_objective

COSTS = CostMatrix.seedwise(3, [0])
PASSES = {"smoothmix": 2, "smoothmix_cs": 2}  # that train the network; 1 of the others


@pytest.fixture
def network():
    """With batch statistics, of which some are frozen."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3)
    )
    layers.train()
    layers[4].eval()
    return layers


def loss(name, network, autocast=False):
    objective = pickle.loads(pickle.dumps(resolve_objective(name, costs=COSTS)))  # as a trial gets it
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return objective(
            network,
            images,
            torch.tensor([0, 1, 2, 0, 1, 2]),
            sigma=0.25,
            costs=torch.tensor(COSTS.values, dtype=torch.float32),
            progress=0.5,
            generator=torch.Generator().manual_seed(2),
        )


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_is_a_finite_scalar_with_a_gradient_for_all_weights(name, network, autocast):
    value = loss(name, network, autocast)
    assert value.shape == () and value.dtype == torch.float32 and torch.isfinite(value)
    value.backward()
    for parameter in network.parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_same_generator_gives_the_same_loss(name, network):
    network.eval()
    assert loss(name, network).item() == loss(name, network).item()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_batch_statistics_see_no_attack_and_modes_are_restored(name, network):
    loss(name, network)
    assert network[1].num_batches_tracked == PASSES.get(name, 1)
    assert network[4].num_batches_tracked == 0
    assert network.training and network[1].training and not network[4].training
