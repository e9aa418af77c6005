"""What all objectives have in common."""

import inspect
import pickle

import pytest
import torch
from torch import nn

from raycsr.costs import CostMatrix
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.training.objectives import OBJECTIVES, OF_DENOISERS, Shares, resolve_objective

OF_CLASSIFIERS = [name for name in OBJECTIVES if name not in OF_DENOISERS]
COSTS = CostMatrix.seedwise(3, [0])
PASSES = {"smoothmix": 2, "smoothmix_cs": 2, "cat_rs": 2, "cat_rs_cs": 2}  # that train the network; 1 of the others


def votes_of(name, count):
    """What an objective that leans on votes is told beside its batch, and with what arguments it is resolved."""
    if not name.startswith(("cat_rs", "easy")):
        return {}, {}
    names = [f"{i}.png" for i in range(count)]
    shares = (
        torch.rand(count, 3, generator=torch.Generator().manual_seed(4)) + 2 * torch.eye(3)[torch.arange(count) % 3]
    )
    return {"image_ids": names}, {"votes": Shares("run", names, (shares / shares.sum(1, keepdim=True)).numpy())}


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
    told, args = votes_of(name, 6)
    objective = pickle.loads(pickle.dumps(resolve_objective(name, args, costs=COSTS)))  # as a trial gets it
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
            **told,
        )


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", OF_CLASSIFIERS)
def test_it_is_a_finite_scalar_with_a_gradient_for_all_weights(name, network, autocast):
    value = loss(name, network, autocast)
    assert value.shape == () and value.dtype == torch.float32 and torch.isfinite(value)
    value.backward()
    for parameter in network.parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0


@pytest.mark.parametrize("name", OF_CLASSIFIERS)
def test_the_same_generator_gives_the_same_loss(name, network):
    network.eval()
    assert loss(name, network).item() == loss(name, network).item()


@pytest.mark.parametrize("name", OF_CLASSIFIERS)
def test_batch_statistics_see_no_attack_and_modes_are_restored(name, network):
    loss(name, network)
    assert network[1].num_batches_tracked == PASSES.get(name, 1)
    assert network[4].num_batches_tracked == 0
    assert network.training and network[1].training and not network[4].training


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", sorted(OF_DENOISERS))
def test_one_of_denoisers_gives_gradients_to_them_alone_and_no_batch_statistics_to_what_is_behind(name, autocast):
    denoiser = DenoiserOptions("dncnn", args={"depth": 3, "channels": 4})
    made = load_base_classifier(ModelOptions("cifar_resnet8", 3, input_size=4, denoiser=denoiser))
    made.denoisers.requires_grad_(True).train()
    made.denoisers[0].network[-1].weight.data.add_(0.1)
    value = loss(name, made, autocast)
    assert value.shape == () and value.dtype == torch.float32 and torch.isfinite(value)
    value.backward()
    assert all(one.grad.isfinite().all() and one.grad.abs().max() > 0 for one in made.denoisers.parameters())
    assert all(one.grad is None for one in made.network.parameters())
    assert made.denoisers[0].network[3].num_batches_tracked == 1 and made.network.bn1.num_batches_tracked == 0
    assert made.denoisers.training and not made.network.training
    assert loss(name, made.eval()).item() == loss(name, made).item()


def reweighted_as_published(losses, labels, costs, weight, rest=0):
    sensitivity = costs.sum(dim=1)[labels]
    total = sensitivity.sum().clamp(min=torch.finfo(costs.dtype).tiny)
    return (losses + rest).sum() / len(losses) + weight * (sensitivity / total * losses).sum()


@pytest.mark.parametrize("costs", [[[0, 2, 0.5], [0, 0, 0], [1, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]])
@pytest.mark.parametrize("name", ["gaussian", "macer", "smoothadv", "consistency", "smoothmix", "cat_rs", "easy"])
def test_each_per_image_objective_has_one_whose_cross_entropy_is_reweighted(name, costs, network):
    network.eval()
    costs = torch.tensor(costs, dtype=torch.float32)
    images = torch.rand(13, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(13) % 3

    told, args = votes_of(name, 13)

    def loss_and_gradient(call, **more):
        network.zero_grad()
        made = call(
            network,
            images,
            labels,
            sigma=0.3,
            costs=costs,
            progress=0.5,
            generator=torch.Generator().manual_seed(2),
            **told,
            **args,
            **more,
        )
        made.backward()
        return [made.detach(), *(one.grad.clone() for one in network.parameters())]

    def by_hand(*batch, **options):
        losses = OBJECTIVES[name](*batch, reduction="none", **options)
        if name in ("gaussian", "smoothadv", "easy"):  # cross-entropy is all there is
            assert losses.shape == (13,)
            return reweighted_as_published(losses, labels, costs, 3.7)
        cross_entropy, rest = losses.unbind(dim=1)
        assert losses.shape == (13, 2)
        return reweighted_as_published(cross_entropy, labels, costs, 3.7, rest)

    found = loss_and_gradient(OBJECTIVES[f"{name}_cs"], weight=3.7)
    torch.testing.assert_close(found, loss_and_gradient(by_hand), rtol=1e-6, atol=1e-6)


def test_gaussian_cs_is_what_it_was_as_a_function_of_its_own_to_the_last_bit(network):
    """So are the other two: their losses of images are compared above."""
    images, labels = torch.rand(13, 3, 4, 4), torch.arange(13) % 3
    costs = torch.tensor([[0, 2, 0.5], [0, 0, 0], [1, 0, 0]])

    def as_it_was():
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
        ce = nn.functional.cross_entropy(network(images + 0.3 * noise).float(), labels, reduction="none")
        return reweighted_as_published(ce, labels, costs, 3.7)

    network.eval()
    found = OBJECTIVES["gaussian_cs"](
        network,
        images,
        labels,
        sigma=0.3,
        costs=costs,
        progress=0.5,
        generator=torch.Generator().manual_seed(2),
        weight=3.7,
    )
    assert found.item() == as_it_was().item()
    ours = torch.autograd.grad(found, list(network.parameters()))
    torch.testing.assert_close(ours, torch.autograd.grad(as_it_was(), list(network.parameters())), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["gaussian", "macer", "smoothadv", "consistency", "smoothmix", "cat_rs", "easy"])
def test_a_reweighted_objective_has_the_options_and_defaults_of_the_plain_one_and_a_weight(name):
    def options(objective):
        parameters = inspect.signature(objective).parameters.values()
        return {one.name: (one.annotation, one.default) for one in parameters}

    plain = options(OBJECTIVES[name])
    del plain["reduction"]
    assert options(OBJECTIVES[f"{name}_cs"]) == plain | {"weight": (float, 0.1)}


def test_an_objective_whose_costs_are_its_own_has_no_reweighted_one():
    assert "margin_cs_cs" not in OBJECTIVES and "margin_cs" in OBJECTIVES
