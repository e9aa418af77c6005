"""A network in fp8, on a GPU if there is one: what it computes, that an image's logits are its own, what is refused."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional

from raycsr.errors import UserError
from raycsr.models import fp8
from raycsr.models.fp8 import Fp8Linear, layers, rounded, to_fp8
from raycsr.models.loading import load_base_classifier
from raycsr.models.memory import memory_of
from raycsr.models.prepare import prepare_for_inference, resolve_precision
from raycsr.models.spec import ModelOptions

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
try:
    fp8.refuse_device(DEVICE)
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)

SMALL = {"patch_size": 4, "embed_dim": 64, "depth": 3, "num_heads": 4}


@pytest.fixture(scope="module")
def model():
    return load_base_classifier(ModelOptions("vit_tiny_patch16_224", 10, input_size=16, args=SMALL))


@pytest.fixture
def pixels():
    return torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def linear(weight):
    made = nn.Linear(16, 16, device=DEVICE, dtype=torch.bfloat16)
    with torch.no_grad():
        made.weight[:], made.bias[:] = weight, torch.arange(16)
    return made.requires_grad_(False)


def test_it_computes_what_its_numbers_say():
    """By hand: the largest of a row is 448, and between 16 and 32 the numbers that there are lie 2 apart."""
    row = torch.zeros(16, dtype=torch.bfloat16)
    row[:4] = torch.tensor([448.0, 17.5, -19.0, 0.0])
    weight = torch.eye(16).bfloat16()
    weight[3, :3] = torch.tensor([1.0, 2.0, 448.0])
    found = Fp8Linear(linear(weight))(torch.stack([row, row / 4, 0 * row]).to(DEVICE))
    expected = torch.arange(16.0).repeat(3, 1)  # the bias
    expected[0, :3] += torch.tensor([448.0, 18.0, -20.0])  # -19 lies between -18 and -20, of which -20 is even
    expected[1, :3] += torch.tensor([448.0, 18.0, -20.0]) / 4
    dot = 448.0 * 1 + 18 * 2 - 20 * 448
    expected[0, 3] += dot
    expected[1, 3] += dot / 4
    assert torch.equal(found.cpu(), expected.bfloat16())


def test_a_row_loses_a_sixteenth_at_most():
    rows = torch.randn(200, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    values, scale = rounded(rows)
    again = values.float() * scale
    assert torch.equal(values.float().abs().amax(dim=1), torch.full((200,), 448.0))
    small = rows.abs() < rows.abs().amax(dim=1, keepdim=True) / 448 / 64  # below 2^-6 they are 2^-9 apart
    assert ((again - rows).abs() <= rows.abs() / 16 + scale * small * 2**-10).all()


@torch.inference_mode()
def test_logits_of_an_image_do_not_depend_on_its_company(model, pixels):
    network = prepare_for_inference(model, precision="fp8", device=DEVICE)
    logits = network(pixels)
    assert logits.dtype == torch.bfloat16 and logits.unique().numel() > 60
    loud = torch.cat([pixels[:1], 1000 * pixels[1:]])
    assert torch.equal(network(loud)[:1], logits[:1]), "no scale is that of a batch"
    torch.testing.assert_close(network(pixels.flip(0)).flip(0), logits, atol=0, rtol=0.02)


@torch.inference_mode()
def test_logits_are_near_those_of_fp32(model, pixels):
    exact, rough, half = (
        prepare_for_inference(model, precision=one, device=DEVICE)(pixels).float() for one in ("fp32", "fp8", "bf16")
    )
    error, of_bf16 = (rough - exact).abs().max(), (half - exact).abs().max()
    assert 2 * of_bf16 < error < 0.1 * exact.abs().max()


@torch.inference_mode()
def test_what_is_not_finite_is_no_vote(model, pixels):
    pixels[0, 0, 0, 0], pixels[1, 1, 3, 3] = torch.inf, torch.nan
    finite = prepare_for_inference(model, precision="fp8", device=DEVICE)(pixels).isfinite().all(dim=1)
    assert finite.tolist() == [False, False] + [True] * 10


@torch.inference_mode()
def test_the_original_is_left_alone_and_what_is_prepared_stays(model, pixels):
    identity, original = model.components, copy.deepcopy(model)
    once = prepare_for_inference(model, precision="fp8", device=DEVICE)
    assert model.components == identity and torch.equal(model(pixels.cpu()), original(pixels.cpu()))
    assert torch.equal(prepare_for_inference(once, precision="fp8", device=DEVICE)(pixels), once(pixels))


def test_all_linear_layers_but_the_head_are_in_fp8(model):
    assert layers(model.network) == [
        f"blocks.{i}.{name}" for i in range(3) for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    ]
    odd = nn.Sequential(nn.Linear(16, 24), nn.Linear(24, 32), nn.Linear(32, 48), nn.Linear(48, 10))
    assert layers(odd) == ["2"], "fp8 is there for multiples of 16"


@torch.inference_mode()
def test_weights_that_are_taken_without_their_layer_stay_in_bf16():
    class Takes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = linear(torch.eye(16)), nn.Linear(16, 2)

        def forward(self, x):
            return functional.linear(x, self.first.weight)

    network, rows = Takes(), torch.linspace(0, 1, 16, device=DEVICE).bfloat16()[None]
    to_fp8(network)
    assert type(network.first) is Fp8Linear and torch.equal(network(rows), rows)


def test_networks_and_devices_without_it_are_refused(model, monkeypatch):
    assert resolve_precision("fp8", DEVICE, model) == "fp8"
    with pytest.raises(UserError, match=r"fp8.*cifar_resnet8.*bf16"):
        resolve_precision("fp8", DEVICE, load_base_classifier(ModelOptions("cifar_resnet8", 10)))

    def scaled_mm(*_, **__):
        raise RuntimeError("scaled_mm needs a compute capability of 8.9 or more")

    monkeypatch.setattr(fp8, "scaled_mm", scaled_mm)
    with pytest.raises(UserError, match=f"fp8.*{DEVICE}.*bf16"):
        resolve_precision("fp8", DEVICE, model)


def test_asking_a_device_draws_no_random_number(model):
    before = torch.get_rng_state()
    resolve_precision("fp8", DEVICE, model)
    assert torch.equal(torch.get_rng_state(), before)


def test_its_memory_is_planned(model):
    whole, half, eight = (memory_of(model, precision) for precision in ("fp32", "bf16", "fp8"))
    prepared = prepare_for_inference(model, precision="fp8", device=DEVICE).network
    assert eight.weights == pytest.approx(sum(one.nbytes for one in prepared.state_dict().values()), rel=0.01)
    assert half.weights < eight.weights < whole.weights


@pytest.mark.long
@torch.inference_mode()
def test_compiled_it_is_one_graph_of_logits_as_near(model, pixels):
    counters.clear()
    compiled = prepare_for_inference(model, precision="fp8", device=DEVICE, compile=True)
    exact = prepare_for_inference(model, precision="fp32", device=DEVICE)(pixels)
    assert 0 < (compiled(pixels).float() - exact).abs().max() < 0.1 * exact.abs().max()
    assert counters["stats"]["unique_graphs"] > 0 and not counters["graph_break"]
