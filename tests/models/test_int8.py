"""A network in int8: what it computes, that an image's logits are its own, and what is refused."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from raycsr.errors import UserError
from raycsr.models import int8
from raycsr.models.calibration import calibrated
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.int8 import Calibration, observed, quantised, refuse_device
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference, resolve_precision
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.votes import count_votes

if "x86" not in torch.backends.quantized.supported_engines:
    pytest.skip("int8 is for x86 CPUs", allow_module_level=True)


def images(n=64, size=16, seed=0):
    """uint8 (n, size, size, 3)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, size, size, 3), dtype=torch.uint8, generator=generator).numpy()


@pytest.fixture(scope="module")
def model():
    made = load_base_classifier(ModelOptions("cifar_resnet8", num_classes=10, input_size=16))
    return calibrated(made, images(), sigma=0.5)


def test_it_computes_what_its_numbers_say():
    """One convolution of one weight, by hand: pixels and products rounded to the scales, and no other step."""
    network = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.Flatten(), nn.Linear(1, 1))
    with torch.no_grad():
        network[0].weight[:] = torch.tensor([1.0, 0.5, -0.25]).view(1, 3, 1, 1)
        network[2].weight[:], network[2].bias[:] = 1.0, 0.0  # the head, in float32
    _, places = observed(network.eval(), (1, 1))
    names = sorted(places)  # of the pixels, and of what comes out
    scales = dict(zip(names, [(0.1, 20), (0.05, 50)], strict=True))
    pixels = torch.tensor([[0.33, 0.98, 0.04], [5.0, -9.0, 0.0], [99.0, 99.0, 0.0]]).view(3, 3, 1, 1)
    found = quantised(network, Calibration(0.5, scales), (1, 1))(pixels)
    # whole numbers of 0 to 255, less 20, in tenths: -9 is -2, and 99 is 23.5; weights in 1/127
    weights = torch.tensor([127, 64, -32]) / 127.0
    rounded = torch.tensor([[0.3, 1.0, 0.0], [5.0, -2.0, 0.0], [23.5, 23.5, 0.0]])
    exact = (rounded * weights).sum(1)
    expected = (exact / 0.05).round().clamp(-50, 205) * 0.05  # the same of what comes out
    torch.testing.assert_close(found.flatten(), expected, atol=1e-6, rtol=0)


@torch.inference_mode()
def test_logits_of_an_image_depend_neither_on_its_company_nor_on_threads(model):
    network = prepare_for_inference(model, precision="int8", device="cpu")
    pixels = torch.from_numpy(images(seed=1)).permute(0, 3, 1, 2) / 255
    pixels = pixels + 0.5 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    seen = []
    network.network.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = network(pixels)
    assert logits.dtype == torch.float32 and logits.unique().numel() > 200, "the head is in float32"
    for rows in (1, 7, 64):
        torch.testing.assert_close(network(pixels[:rows]), logits[:rows], atol=1e-6, rtol=0)
        assert torch.equal(seen[-1], seen[0][:rows]), "all before the head is exact"
    loud = torch.cat([pixels[:1], 1000 * pixels[1:]])
    assert torch.equal(network(loud)[:1], logits[:1]), "no scale is that of a batch"
    threads = torch.get_num_threads()
    try:
        for torch_threads in (1, 3):
            torch.set_num_threads(torch_threads)
            assert torch.equal(network(pixels), logits)
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
@pytest.mark.parametrize("arch", ["cifar_resnet8", "resnet10t", "regnety_002"])
def test_it_says_about_what_float32_says(arch):
    made = load_base_classifier(ModelOptions(arch, num_classes=5, input_size=32))
    pixels = torch.from_numpy(images(4, 32)).permute(0, 3, 1, 2) / 255
    rough = prepare_for_inference(calibrated(made, images(4, 32), sigma=0.01), precision="int8", device="cpu")
    exact = made(pixels)
    assert (rough(pixels) - exact).norm() < 0.15 * exact.norm()
    quantised_kinds = {type(module).__module__ for module in rough.network.modules()}
    assert any("quantized" in kind for kind in quantised_kinds)


def test_a_network_and_its_calibration_are_one_classifier(model):
    """The same numbers give the same logits and the same components, wherever; others, others."""
    again = copy.deepcopy(model)
    again.calibration = Calibration.from_dict(model.calibration.to_dict())
    assert again.components == model.components and again.calibration == model.calibration
    place, (scale, zero_point) = next(iter(model.calibration.places.items()))
    again.calibration = Calibration(0.5, {**model.calibration.places, place: (scale * 1.001, zero_point)})
    assert again.components != model.components
    assert [one["sha256"] for one in again.components] == [one["sha256"] for one in model.components]
    pixels = torch.from_numpy(images(4)).permute(0, 3, 1, 2) / 255
    one, two = (prepare_for_inference(copy.deepcopy(model), precision="int8", device="cpu") for _ in range(2))
    assert torch.equal(one(pixels), two(pixels))


@torch.inference_mode()
def test_what_is_not_finite_in_front_of_it_gives_no_logits(model):
    """As in float32: such an image has an error, and no votes by what a processor makes of NaN as a whole number."""
    network = prepare_for_inference(model, precision="int8", device="cpu")
    pixels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    broken = pixels.clone()
    broken[1, 0, 3, 3], broken[2, 2, 0, 0] = torch.nan, -torch.inf
    assert network(broken).isfinite().all(dim=1).tolist() == [True, False, False, True]
    assert torch.equal(network(broken)[[0, 3]], network(pixels)[[0, 3]])
    votes = count_votes(network, broken, sigma=0.5, n0=8, n=64, seed=0, image_ids=list("abcd"), noise="float32")
    assert [error is None for error in votes.errors] == [True, False, False, True]


def test_what_is_prepared_already_stays_so_and_is_no_checkpoint(model, tmp_path):
    once = prepare_for_inference(model, precision="int8", device="cpu")
    pixels = torch.from_numpy(images(4)).permute(0, 3, 1, 2) / 255
    assert torch.equal(prepare_for_inference(once, precision="int8", device="cpu")(pixels), once(pixels))
    with pytest.raises(UserError, match="save the one that was prepared"):
        save_checkpoint(tmp_path / "rounded.pt", once)
    assert not list(tmp_path.iterdir())


def test_the_head_stays_as_it_is_and_places_are_few_numbers(model):
    network = prepare_for_inference(model, precision="int8", device="cpu").network
    assert type(network.get_submodule("fc")) is nn.Linear
    assert len(model.calibration.places) < 20
    assert all(0 <= zero_point <= 127 for _, zero_point in model.calibration.places.values()), "7 bits"


def test_precision_is_int8_or_refused(model):
    float32 = load_base_classifier(ModelOptions("cifar_resnet8", num_classes=10, input_size=16))
    assert resolve_precision("auto", "cpu", model) == resolve_precision("int8", "cpu", model) == "int8"
    with pytest.raises(UserError, match="bf16.*quantised to int8"):
        resolve_precision("bf16", "cpu", model)
    with pytest.raises(UserError, match="fp32.*quantised to int8"):
        prepare_for_inference(model, precision="fp32", device="cpu")
    with pytest.raises(UserError, match="raycsr quantise"):
        prepare_for_inference(float32, precision="int8", device="cpu")
    with pytest.raises(UserError, match="compile is true"):
        prepare_for_inference(model, precision="int8", device="cpu", compile=True)


def test_devices_without_int8_are_refused_by_name(model, monkeypatch):
    with pytest.raises(UserError, match="device is cuda.*leave the device out"):
        resolve_precision("auto", "cuda", model)
    with pytest.raises(UserError, match="device is cuda"):
        prepare_for_inference(model, precision="int8", device="cuda")
    arm = SimpleNamespace(backends=SimpleNamespace(quantized=SimpleNamespace(supported_engines=["qnnpack"])))
    monkeypatch.setattr(int8, "torch", SimpleNamespace(device=torch.device, **vars(arm)))
    with pytest.raises(UserError, match="another CPU"):
        refuse_device("cpu")


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "convnext_atto", "efficientnet_b0", "mobilenetv3_small_050"])
def test_networks_that_gain_nothing_are_refused_by_what_they_have(arch):
    made = load_base_classifier(ModelOptions(arch, num_classes=5, input_size=32))
    with pytest.raises(UserError, match="has .*(LayerNorm|SiLU|Hardswish).*sample it as it is"):
        calibrated(made, images(2, 32), sigma=0.5)


def test_networks_that_cannot_be_traced_or_have_no_layer_are_refused():
    class LooksAtValues(nn.Module):
        def forward(self, pixels):
            return pixels if pixels.sum() > 0 else -pixels

    with pytest.raises(UserError, match="cannot be traced"):
        observed(LooksAtValues().eval(), (8, 8))
    with pytest.raises(UserError, match="no layer that int8 is known for"):
        observed(nn.Sequential(nn.Softplus()).eval(), (8, 8))


def test_what_was_measured_on_another_network_is_refused(model):
    other = load_base_classifier(ModelOptions("cifar_resnet20", num_classes=10, input_size=16))
    other.calibration = model.calibration
    with pytest.raises(UserError, match=f"at {len(model.calibration.places)} places.*raycsr quantise"):
        prepare_for_inference(other, precision="int8", device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"scheme": "x86/9"},
        {"scheme": None},
        {"sigma": "much"},
        {"sigma": -1.0},
        {"places": [1, 2]},
        {"places": {"a": [0.1]}},
        {"places": {"a": [math.nan, 0]}},
        {"places": {"a": [1e-300, 0]}},
        {"places": {"a": [0.1, 256]}},
        {"places": {"a": [0.1, 0.5]}},
    ],
)
def test_a_damaged_description_is_refused(change):
    good = Calibration(0.5, {"a": (0.1, 3)}).to_dict()
    assert Calibration.from_dict(good).places == {"a": (0.1, 3)}
    with pytest.raises(UserError, match="raycsr quantise"):
        Calibration.from_dict({**good, **change})
