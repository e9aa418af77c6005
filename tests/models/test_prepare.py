"""Preparing for inference: the same logits, in less time."""

import copy
import pickle

import pytest
import torch
from torch import nn

from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import arithmetic, prepare_for_inference, resolve_precision
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


@pytest.fixture
def said():
    """What PyTorch is told about float32, by both of its ways; as it was behind the test."""
    yield said_of_float32
    for backend in ("generic", "cuda", "mkldnn"):
        torch._C._set_fp32_precision_setter(backend, "all", "none")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for backend in ("cuda", "mkldnn"):
        torch._C._set_fp32_precision_setter(backend, "matmul", "none")


def said_of_float32():
    places = [("generic", "all"), ("cuda", "all"), ("cuda", "matmul"), ("cuda", "conv"), ("cuda", "rnn")]
    return {place: torch._C._get_fp32_precision_getter(*place) for place in [*places, ("mkldnn", "matmul")]}


@pytest.mark.parametrize(
    "by_the_user",
    [
        lambda: None,
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
        lambda: setattr(torch.backends, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends, "fp32_precision", "ieee"),
        lambda: setattr(torch.backends.cudnn, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    ],
    ids=["nothing", "high", "no TF32", "all TF32", "all IEEE", "cuDNN TF32", "products TF32", "convolutions IEEE"],
)
@pytest.mark.parametrize(("precision", "means"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "tf32")])
def test_a_precision_is_what_it_says_whatever_the_process_was_told_before_and_by_which_way(
    said, by_the_user, precision, means
):
    by_the_user()
    before = said()
    with arithmetic(precision, torch.device("cuda")):
        inside = said()
        assert {inside["cuda", what] for what in ("matmul", "conv", "rnn")} == {means}
        # torch.compile reads these, which PyTorch refuses where it was told two things
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == (means == "tf32")
        assert torch.get_float32_matmul_precision() == ("high" if means == "tf32" else "highest")
        assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert said() == before
    assert not torch.backends.cudnn.deterministic


def test_what_is_asked_to_be_compiled_is_compiled_however_many_networks_and_sizes_a_process_has(monkeypatch):
    ran = []

    def backend(graph, _, options):
        assert options["deterministic"]  # no kernel is chosen by a stopwatch
        return lambda *args: (ran.append(graph), graph(*args))[1]

    def compiled(self, **how):
        nn.Module.compile(self, backend=backend, **how)

    monkeypatch.setattr(BaseClassifier, "compile", compiled)
    base = load_base_classifier(ModelOptions("cifar_resnet8", input_size=8), num_classes=2)
    networks = [prepare_for_inference(base, precision="fp32", device="cpu", compile=True) for _ in range(3)]
    passes = [(network, rows) for network in networks for rows in (1, 2, 4)]
    with torch.inference_mode():
        for network, rows in passes:
            network(torch.zeros(rows, 3, 8, 8))
    assert len(set(map(id, ran))) == len(passes)
