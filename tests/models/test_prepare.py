"""Preparing for inference: the same logits, in less time."""

import copy
import pickle

import pytest
import torch
from torch import nn

from raycsr.errors import UserError
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference, resolve_precision
from raycsr.models.spec import ModelOptions

MODELS = {  # batch norms: before folding, after
    "cifar_resnet8": (9, 0),
    "resnet18": (20, 0),
    "mobilenetv3_small_050": (34, 0),  # BatchNormAct2d
    "resnetv2_18": (17, 9),  # some of its convolutions have two readers
    "convnext_atto": (0, 0),
    "vit_tiny_patch16_224": (0, 0),
}


def randomised(name):
    """A small model whose batch norms are not the identity."""
    model = load_base_classifier(ModelOptions(name, input_size=32), num_classes=5)
    generator = torch.Generator().manual_seed(0)
    for norm in batch_norms(model):
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            values.copy_(0.5 + torch.rand(values.shape, generator=generator))
    return model


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_logits_stay_and_bf16_is_close(name, pixels):
    model = randomised(name)
    before, after = MODELS[name]
    exact = prepare_for_inference(model, precision="fp32", device="cpu")
    rough = prepare_for_inference(model, precision="bf16", device="cpu")
    assert (len(batch_norms(model)), len(batch_norms(exact))) == (before, after)
    logits = model(pixels)
    largest = logits.abs().max()
    assert (exact(pixels) - logits).abs().max() < 1e-4 * largest
    assert (rough(pixels) - logits).abs().max() < 0.05 * largest
    assert rough(pixels).dtype == torch.bfloat16 and rough.num_classes == 5
    assert pickle.loads(pickle.dumps(exact)).num_classes == 5


@torch.no_grad()
def test_normalisation_stays_in_fp32(pixels):
    model = prepare_for_inference(randomised("cifar_resnet8"), precision="bf16", device="cpu")
    seen = []
    model.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(pixels)
    expected = torch.addcmul(model.shift, pixels, model.scale)
    assert model.scale.dtype == torch.float32
    assert torch.equal(seen[0], expected.bfloat16())


class Untraceable(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x if torch.isfinite(x).all() else -x)


class ReadsItsWeights(nn.Module):
    """Depends on a convolution's weights, which folding changes, and not through its output alone."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x) + self.network.conv1.weight.norm()


@pytest.mark.parametrize("wrapper", [Untraceable, ReadsItsWeights])
@torch.no_grad()
def test_what_cannot_be_folded_stays(wrapper, pixels):
    model = randomised("cifar_resnet8")
    model.network = wrapper(model.network)
    prepared = prepare_for_inference(model, precision="fp32", device="cpu")
    assert len(batch_norms(prepared)) == 9
    torch.testing.assert_close(prepared(pixels), model(pixels))


@torch.no_grad()
def test_the_original_is_left_alone(pixels):
    model = randomised("cifar_resnet8")
    identity, original = model.components, copy.deepcopy(model)
    prepare_for_inference(model, precision="bf16", device="cpu")
    assert model.components == identity and torch.equal(model(pixels), original(pixels))


def test_resolve_precision():
    assert resolve_precision("auto", "cpu") in ("fp32", "bf16")
    assert resolve_precision("fp16", "cpu") == "fp16"
    with pytest.raises(UserError, match="'int8'"):
        resolve_precision("int8", "cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_norm_that_never_leaves_training_is_refused(precision):
    """Its statistics are those of the batch: equal for every permutation of it, and other for other company."""
    model = randomised("cifar_resnet8")
    for norm in batch_norms(model):
        norm.training, norm.train = True, lambda mode=True, norm=norm: norm
    with pytest.raises(UserError, match="rest of its batch"):
        prepare_for_inference(model, precision=precision, device="cpu")
