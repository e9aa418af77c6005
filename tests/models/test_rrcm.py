"""Representation models of rRCM: the published networks by name and shape, and their fine-tuned files."""

import pytest
import timm
import torch
from published import numbered, tensors, waves

from raycsr.errors import UserError
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.rrcm import RepresentationModel
from raycsr.models.spec import ModelOptions

SMALL = {"patch_size": 8, "width": 32, "depth": 2, "heads": 4, "hidden": 32}


def loaded(path, sigma=0.25, **args):
    """A small network of CIFAR-10's kind with the weights of a file."""
    args = {"sigma": sigma, **SMALL, **args}
    return load_base_classifier(ModelOptions("rrcm_base_patch4_32", pretrained=str(path), args=args))


@pytest.fixture
def published_file(tmp_path):
    """A file of weights as rrcm_tune.py writes it on several GPUs, and its network."""
    network = numbered(RepresentationModel(sigma=0.25, layernorm=False, num_classes=5, image_size=32, **SMALL), 0.3)
    path = tmp_path / "n05.net"
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, path)
    return path, network


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rrcm_base_patch4_32", (153, 91_424_778, "3a46b25e383f8ce1")),
        ("rrcm_base_patch16_224", (153, 107_528_680, "5ed42ab4c7dbf094")),
        ("rrcm_small_patch16_224", (87, 25_690_088, "529c976a4e0805d1")),
    ],
)
def test_names_and_shapes_are_those_of_the_published_networks(name, expected):
    with torch.device("meta"):
        assert tensors(timm.create_model(name, sigma=0.25)) == expected


@pytest.mark.parametrize(
    ("sigma", "layernorm", "expected"),
    [
        (0.25, False, [3.9802022, 0.5854939, -1.6022019, 1.0406575, -0.0417682]),
        (0.5, False, [3.9886971, 0.6286939, -1.5137193, 0.9438416, -0.0045110]),
        (0.25, True, [1.0277513, -0.1627279, -0.0901762, 0.0898228, 0.0587961]),
        (0.5, True, [1.0218711, -0.1721545, -0.0838261, 0.0815881, 0.0604566]),
    ],
)
def test_logits_are_those_of_the_published_code(sigma, layernorm, expected):
    network = RepresentationModel(sigma=sigma, layernorm=layernorm, num_classes=5, image_size=32, **SMALL)
    logits = numbered(network, 0.3)(waves(1, 32))
    torch.testing.assert_close(logits, torch.tensor([expected]), rtol=1e-4, atol=1e-4)


def test_a_fine_tuned_file_gives_all_of_the_network(published_file):
    path, network = published_file
    model = loaded(path)
    assert (model.num_classes, model.training_sigma, model.preprocessing.input_size) == (5, 0.25, (32, 32))
    pixels = (waves(2, 32) + 1) / 2
    torch.testing.assert_close(model(pixels), network(2 * pixels - 1), rtol=1e-5, atol=1e-5)


def test_the_same_file_at_another_sigma_is_another_network(published_file):
    path, _ = published_file
    quarter, half = loaded(path), loaded(path, 0.5)
    assert quarter.components[0]["args"]["sigma"] == 0.25 and half.components[0]["args"]["sigma"] == 0.5
    assert (quarter.network.t, half.network.t) == pytest.approx((-176.96, -8.799), abs=1e-3)  # log 0.4927, log 0.9654
    pixels = (waves(1, 32) + 1) / 2
    assert not torch.allclose(quarter(pixels), half(pixels), atol=1e-2)


def test_it_casts_and_treats_each_image_alone(published_file):
    model = loaded(published_file[0])
    pixels = (waves(3, 32) + 1) / 2
    cast = prepare_for_inference(model, precision="bf16", device="cpu")(pixels)
    assert cast.dtype == torch.bfloat16
    torch.testing.assert_close(cast.float(), model(pixels), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"sigma": None}, r"model\.args \{sigma: SIGMA\}"),
        ({"sigma": 50.0}, r"50\.0 .* 0\.001 to 40"),
        ({"depth": 3}, "missing base_model.blocks.2"),
        ({"patch_size": 4}, "misshapen base_model.pos_embed"),
        ({"in_chans": 1}, "3 channels"),
    ],
)
def test_what_does_not_fit_is_one_line(published_file, args, words):
    with pytest.raises(UserError, match=words) as raised:
        loaded(published_file[0], **args)
    assert "\n" not in str(raised.value)


def test_a_pre_trained_file_without_a_head_is_refused(published_file):
    path, network = published_file
    torch.save(network.base_model.state_dict(), path)
    with pytest.raises(UserError, match="missing .*"):
        loaded(path)
