"""Loading: seeds, heads, normalisation inside, identity, mistakes."""

import pickle

import pytest
import torch

from raycsr.errors import UserError
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions

TINY = "cifar_resnet8"


def test_normalisation_is_inside():
    model = load_base_classifier(TINY)
    pixels = torch.rand(4, 3, 32, 32)
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
    std = torch.tensor([0.2023, 0.1994, 0.2010]).view(3, 1, 1)
    torch.testing.assert_close(model(pixels), model.network((pixels - mean) / std), rtol=1e-4, atol=1e-4)


def test_pixels_are_not_clipped():
    model = load_base_classifier(TINY)
    assert not torch.equal(model(torch.full((1, 3, 8, 8), 1.5)), model(torch.ones(1, 3, 8, 8)))


def test_is_ready_for_inference_at_any_input_size():
    model = load_base_classifier(ModelOptions(TINY, input_size=8), num_classes=7)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 7)
    assert (model.num_classes, model.preprocessing.input_size, model.training_sigma) == (7, (8, 8), None)
    assert model.preprocessing.to_dict() == {
        "input_size": [8, 8],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
    }


def test_a_transformer_is_built_for_the_input_size():
    model = load_base_classifier(ModelOptions("vit_tiny_patch16_224", input_size=32), num_classes=3)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 3)


def test_initialisation_follows_the_seed_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load_base_classifier(ModelOptions(TINY, init_seed=1)).components
    assert torch.equal(torch.rand(3), expected)
    assert load_base_classifier(ModelOptions(TINY, init_seed=1)).components == first
    assert load_base_classifier(ModelOptions(TINY, init_seed=2)).components != first


def test_components_name_arch_args_and_weights():
    model = load_base_classifier(ModelOptions("resnet18", args={"drop_rate": 0.1}, num_classes=2))
    (component,) = model.components
    assert (component["arch"], component["args"], len(component["sha256"])) == (
        "resnet18",
        {"drop_rate": 0.1},
        64,
    )
    model.network.to(memory_format=torch.channels_last)  # the same weights, laid out otherwise
    assert model.components == [component]
    model.network.fc.bias[0] += 1e-3
    assert model.components != [component]


def test_pickles():
    model = load_base_classifier(TINY)
    copy = pickle.loads(pickle.dumps(model))
    pixels = torch.rand(2, 3, 32, 32)
    assert torch.equal(copy(pixels), model(pixels))
    assert copy.components == model.components and copy.preprocessing == model.preprocessing


@pytest.mark.parametrize(
    ("options", "num_classes", "words"),
    [
        (ModelOptions("cifar_resnet21"), None, ["'cifar_resnet21'", "cifar_resnet20"]),
        (ModelOptions("resnet18.a1_in2k", input_size=64), None, ["'resnet18.a1_in2k'", "resnet18.a1_in1k"]),
        (ModelOptions(TINY, args={"width": 2}), None, [TINY, "width"]),
        (ModelOptions(TINY, pretrained=True), None, [TINY, "pretrained"]),
        (ModelOptions("test_resnet", pretrained="no.pth"), None, ["no.pth", "no such file"]),
        (ModelOptions("timm/resnet18"), None, ["timm/resnet18", "hf-hub:"]),
        (ModelOptions("ftp://host/model.pt"), None, ["ftp://host/model.pt"]),
        (ModelOptions(TINY, num_classes=10), 7, ["10 classes", "7"]),
        (ModelOptions(TINY, input_size=0), None, ["model.input_size", "(0, 0)"]),
        (ModelOptions("test_vit", args={"img_size": [32]}), None, ["img_size of model.args", "(32,)"]),
    ],
)
def test_mistakes_are_told_in_one_line(options, num_classes, words):
    with pytest.raises(UserError) as caught:
        load_base_classifier(options, num_classes=num_classes)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_a_name_of_both_a_model_and_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / TINY).write_bytes(b"")
    with pytest.raises(UserError, match=rf"'\./{TINY}' for the file, or rename"):
        load_base_classifier(TINY)
