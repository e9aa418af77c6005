"""Denoisers in front of a classifier: what they compute, what they are called, how they are loaded and kept."""

import copy
import hashlib
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from raycsr.errors import UserError
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.denoisers import KINDS, create_denoiser, denoiser_archs
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.spec import DenoiserOptions, ModelOptions

PIXELS = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SMALL = {"depth": 3, "channels": 4}


def stirred(module):
    """A module that does something: no tensor of it is 0 or the identity."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            fresh = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(0.5 + fresh if "running_var" in name else 0.3 * (fresh - 0.5))
    return module.eval()


def composition(*denoisers, input_size=16):
    """A small classifier behind small DnCNNs, with some of their options."""
    asked = [DenoiserOptions("dncnn", args=SMALL, **options) for options in denoisers]
    made = load_base_classifier(ModelOptions("cifar_resnet8", input_size=input_size, denoiser=asked), num_classes=5)
    for one in made.in_front:
        stirred(one.network)
    return made


def test_pixels_go_through_each_denoiser_and_then_the_classifier():
    model = composition({}, {})
    first, second = model.denoisers
    expected = model(second(first(PIXELS)), part="classifier")
    assert torch.equal(model(PIXELS), expected)
    assert torch.equal(model(PIXELS, part="denoisers"), second(first(PIXELS)))
    bare = load_base_classifier(ModelOptions("cifar_resnet8", input_size=16), num_classes=5)
    assert torch.equal(model(PIXELS, part="classifier"), bare(PIXELS))


def test_a_new_dncnn_is_the_identity_and_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    made = create_denoiser("cifar_dncnn", init_seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(made.eval()(PIXELS), PIXELS)
    assert sum(isinstance(one, nn.Conv2d) for one in made.modules()) == 17
    assert create_denoiser("cifar_dncnn", init_seed=1).component == made.component
    assert create_denoiser("cifar_dncnn", init_seed=2).component != made.component


def test_sizes_are_changed_in_between_with_gradients():
    model = composition({"input_size": 24}, {}, input_size=16)
    assert model.preprocessing.input_size == (24, 24) and model.sizes == [(24, 24), (16, 16), (16, 16)]
    pixels = torch.rand(2, 3, 24, 24, requires_grad=True)
    first, second = model.denoisers
    smaller = functional.interpolate(first(pixels), (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(model(pixels), model(second(smaller), part="classifier"))
    (gradient,) = torch.autograd.grad(model(pixels).sum(), pixels)
    assert gradient.abs().amax(dim=(1, 2, 3)).gt(0).all()


def test_components_name_denoisers_first_and_a_classifier_alone_has_its_old_entry():
    model = composition({"sigma": 0.25})
    denoiser, classifier = model.components
    assert denoiser == {**model.denoisers[0].component, "input_size": [16, 16]}
    assert (denoiser["kind"], denoiser["arch"], denoiser["args"], denoiser["sigma"]) == (
        "denoiser",
        "dncnn",
        SMALL,
        0.25,
    )
    (alone,) = load_base_classifier(ModelOptions("cifar_resnet8", input_size=16), num_classes=5).components
    assert alone == {key: classifier[key] for key in ("arch", "args", "sha256")}
    assert composition({}).components != model.components  # of another sigma
    assert composition({"sigma": 0.25}, input_size=8).components[-1] != classifier


def test_the_hash_of_a_classifier_is_that_of_before():
    """Run ids hang on it: names, dtypes, shapes and bytes, sorted by name."""
    model = load_base_classifier("cifar_resnet8")
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode() + tensor.numpy().tobytes())
    assert model.components == [{"arch": "cifar_resnet8", "args": {}, "sha256": digest.hexdigest()}]


@torch.no_grad()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_part_is_folded_and_cast_and_pixels_between_stay_float32(precision):
    model = composition({"input_size": 24}, {}, input_size=16)
    seen = []
    prepared = prepare_for_inference(model, precision=precision, device="cpu")
    for part in (*prepared.denoisers, prepared):
        assert not any(isinstance(one, nn.BatchNorm2d) for one in part.network.modules())
        assert {weights.dtype for weights in part.network.parameters()} == {prepared(PIXELS).dtype}
    assert pickle.loads(pickle.dumps(prepared)).sizes == model.sizes
    prepared.denoisers[1].register_forward_hook(lambda module, given, found: seen.extend([*given, found]))
    pixels = torch.rand(2, 3, 24, 24)
    logits = prepared(pixels).float()
    assert [one.dtype for one in seen] == [torch.float32] * 2
    largest = model(pixels).abs().max()
    assert (logits - model(pixels)).abs().max() < (1e-4 if precision == "fp32" else 0.05) * largest


def test_a_checkpoint_holds_all_parts(tmp_path):
    model = composition({"sigma": 0.25, "input_size": 24}, {})
    model.training_info["sigma"] = 0.1  # of the classifier, which sees what is denoised
    path = str(tmp_path / "both.pt")
    save_checkpoint(path, model)
    loaded = load_base_classifier(path, num_classes=5)
    assert loaded.components == model.components and loaded.preprocessing == model.preprocessing
    assert torch.equal(loaded(PIXELS), model(PIXELS)) and loaded.training_sigma == 0.25
    assert torch.load(path)["format"] == "raycsr/2"  # which a raycsr of before does not take for a classifier alone
    smaller = load_base_classifier(ModelOptions(path, input_size=8))
    assert smaller.sizes == [(24, 24), (8, 8), (8, 8)]


def test_denoisers_of_a_checkpoint_go_in_front_of_another_classifier(tmp_path):
    model = composition({"sigma": 0.25}, {})
    save_checkpoint(tmp_path / "both.pt", model, training_info={"trained_on": [{"digest": "theirs"}]})
    other = ModelOptions("cifar_resnet20", denoiser=DenoiserOptions(str(tmp_path / "both.pt")))
    loaded = load_base_classifier(other, num_classes=3)
    assert [one.component for one in loaded.denoisers] == [one.component for one in model.denoisers]
    assert loaded.arch == "cifar_resnet20" and loaded.training_info["trained_on"] == [{"digest": "theirs"}]
    assert other.label == "cifar_resnet20 (behind both.pt)"


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("arch", ["cifar_dncnn", "cifar_dncnn_wide", "imagenet_dncnn"])
def test_a_file_of_denoised_smoothing_loads(tmp_path, arch, prefix):
    """Its code keeps the layers in a Sequential called dncnn, those for ImageNet in a DataParallel."""
    made = stirred(create_denoiser(arch))
    state = {f"{prefix}dncnn.{name}": tensor for name, tensor in made.network.state_dict().items()}
    path = str(tmp_path / "checkpoint.pth.tar")
    torch.save({"epoch": 90, "arch": arch, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}, path)
    for asked in (
        DenoiserOptions(path, sigma=0.25),
        DenoiserOptions("dncnn", pretrained=path, args=dict(made.archs[arch])),
    ):
        loaded = load_base_classifier(ModelOptions("cifar_resnet8", denoiser=asked)).denoisers[0]
        torch.testing.assert_close(loaded(PIXELS), made(PIXELS), rtol=0, atol=0)
        assert loaded.sigma == asked.sigma


def test_memnet_and_drunet_have_the_names_and_shapes_of_the_published_files():
    """Read in archs/memnet.py of denoised-smoothing (6082675) and models/network_unet.py of DPIR (a57c10c)."""
    state = {name: tuple(one.shape) for name, one in create_denoiser("memnet").network.state_dict().items()}
    assert state["feature_extractor.bn.running_var"] == (3,)
    assert state["feature_extractor.conv.weight"] == (64, 3, 3, 3)
    assert state["dense_memory.2.recursive_unit.5.relu_conv2.bn.weight"] == (64,)
    assert state["dense_memory.2.gate_unit.conv.weight"] == (64, 9 * 64, 1, 1)
    assert state["reconstructor.conv.weight"] == (3, 64, 3, 3) and len(state) == 6 * (2 + 3 * 13)
    state = {name: tuple(one.shape) for name, one in create_denoiser("drunet", sigma=0.1).network.state_dict().items()}
    assert (state["m_head.weight"], state["m_tail.weight"]) == ((64, 4, 3, 3), (3, 64, 3, 3))
    assert state["m_down1.3.res.2.weight"] == (64, 64, 3, 3) and state["m_down1.4.weight"] == (128, 64, 2, 2)
    assert state["m_body.0.res.0.weight"] == (512, 512, 3, 3)
    assert state["m_up3.0.weight"] == (512, 256, 2, 2) and state["m_up3.4.res.2.weight"] == (256, 256, 3, 3)
    assert len(state) == 2 + 7 * 8 + 6


def test_drunet_is_told_the_noise_level_and_repeats_borders_up_to_a_multiple_of_8():
    asked = {"args": {"channels": [2, 2, 2, 2], "blocks": 1}}
    made, other = (stirred(create_denoiser("drunet", **asked, sigma=sigma)) for sigma in (0.25, 0.5))
    pixels = torch.rand(2, 3, 12, 20)
    padded = functional.pad(pixels, (0, 4, 0, 4), mode="replicate")
    expected = made.network(torch.cat([padded, torch.full((2, 1, 16, 24), 0.25)], dim=1))[..., :12, :20]
    torch.testing.assert_close(made(pixels), expected)
    assert not torch.allclose(other(pixels), expected)


def test_each_architecture_maps_pixels_to_pixels_with_gradients_image_by_image():
    of_any_size = {arch: kind for arch, kind in denoiser_archs().items() if not kind.needs_sigma}
    for arch, kind in of_any_size.items():
        made = stirred(create_denoiser(arch, sigma=0.25)).requires_grad_(False)
        pixels = torch.rand(2, 3, 12, 20, requires_grad=True)  # of no power of two, and not square
        found = made(pixels)
        assert found.shape == pixels.shape and found.dtype == torch.float32, arch
        (gradient,) = torch.autograd.grad(found[0].sum(), pixels)
        assert gradient[0].abs().sum() > 0 and not gradient[1].any(), arch
        assert kind in KINDS.values() and copy.deepcopy(made).component == made.component


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "cifar_dncn"}, ["'cifar_dncn'", "did you mean cifar_dncnn"]),
        ({"name": "no/such.pt"}, ["no/such.pt", "no such file"]),
        ({"name": "dncnn", "args": {"width": 2}}, ["dncnn", "width"]),
        ({"name": "dncnn", "args": {"depth": 1}}, ["depth 1"]),
        ({"name": "dncnn", "sigma": -1.0}, ["model.denoiser.sigma", "-1"]),
        ({"name": "dncnn", "input_size": 0}, ["model.denoiser.input_size", "0"]),
        ({"name": "dncnn", "pretrained": "absent.pth"}, ["absent.pth", "no such file"]),
        ({"name": "dncnn", "pretrained": "classifier.pt"}, ["classifier.pt", "model.denoiser.name classifier.pt"]),
        ({"name": "classifier.pt"}, ["classifier.pt", "model.name"]),
        ({"name": "locuslab.pth"}, ["locuslab.pth", "denoised-smoothing", "model.denoiser.pretrained"]),
        ({"name": "grey.pth"}, ["grey.pth", "(64, 1, 3, 3) where (64, 3, 3, 3)", "model.denoiser.pretrained"]),
        ({"name": "both.pt", "sigma": 0.5}, ["both.pt", "0.25", "0.5"]),
        ({"name": "both.pt", "args": {"depth": 3}}, ["both.pt", "model.denoiser.args"]),
        ({"name": "both.pt", "pretrained": "grey.pth"}, ["both.pt", "model.denoiser.pretrained"]),
    ],
)
def test_mistakes_are_told_in_one_line(options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint("classifier.pt", load_base_classifier("cifar_resnet8"))
    save_checkpoint("both.pt", composition({"sigma": 0.25}))
    state = create_denoiser("dncnn").network.state_dict()
    grey = {f"dncnn.{name}": tensor[:, :1] if name == "0.weight" else tensor for name, tensor in state.items()}
    torch.save({"epoch": 1, "arch": "cifar_dncnn", "state_dict": grey, "optimizer": {}}, "grey.pth")
    torch.save({"epoch": 1, "arch": "resnet50", "state_dict": grey, "optimizer": {}}, "locuslab.pth")
    with pytest.raises(UserError) as caught:
        load_base_classifier(ModelOptions("cifar_resnet8", denoiser=DenoiserOptions(**options)))
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("arch", [None, 3, "resnet", "a\nb", "x" * 999]),
        ("args", [None, [], {"a": 1}, {1: 2}, {"depth": 3.5, "channels": 4}, {"depth": 4, "channels": 4}]),
        ("sigma", ["", 0, -1.5, float("nan"), float("inf"), [0.5]]),
        ("input_size", [0, [16], [0, 16], [16, 16, 16], ["a", "b"], [16.0, 16.0]]),
        ("state_dict", [None, {}, {"0.weight": torch.zeros(4, 3, 3, 3)}, {"0.weight": 1}]),
        (None, [None, [], {}, 3]),
    ],
)
def test_a_denoiser_that_is_damaged_in_a_checkpoint_is_one_line_that_names_it(key, values, tmp_path):
    path = tmp_path / "both.pt"
    save_checkpoint(path, composition({"sigma": 0.25}))
    for value in values:
        content = torch.load(path, weights_only=True)
        content["denoisers"] = value if key is None else [{**content["denoisers"][0], key: value}]
        torch.save(content, tmp_path / "damaged.pt")
        with pytest.raises(UserError, match=r"damaged\.pt") as caught:
            load_base_classifier(str(tmp_path / "damaged.pt"))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500, value


def test_what_already_stands_behind_denoisers_takes_no_more(tmp_path):
    path = str(tmp_path / "both.pt")
    save_checkpoint(path, composition({}))
    with pytest.raises(UserError, match=r"both\.pt holds the denoisers .*: leave model\.denoiser out"):
        load_base_classifier(ModelOptions(path, denoiser=DenoiserOptions("dncnn")))


def test_a_denoiser_is_no_classifier(tmp_path):
    state = create_denoiser("dncnn").network.state_dict()
    torch.save({"epoch": 1, "arch": "cifar_dncnn", "state_dict": state, "optimizer": {}}, tmp_path / "d.pth")
    with pytest.raises(UserError, match=r"d\.pth .*denoiser.*model\.denoiser\.name"):
        load_base_classifier(str(tmp_path / "d.pth"))
