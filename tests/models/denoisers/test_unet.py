"""The U-Net of improved-diffusion and guided-diffusion, against the published code."""

import pytest
import torch
from published import numbered, tensors, waves

from raycsr.errors import UserError
from raycsr.models.denoisers.unet import UNet, UNetShape

CIFAR10 = UNetShape(32, 128, 3)
IMAGENET256 = UNetShape(256, 256, 2, (32, 16, 8), num_head_channels=64, resblock_updown=True)
IMAGENET512 = UNetShape(512, 256, 2, (32, 16, 8), num_head_channels=64, resblock_updown=True)
LSUN = UNetShape(256, 128, 2, (16,), num_heads=1, use_scale_shift_norm=False)
IMPROVED = UNetShape(16, 32, 1, (8,), channel_mult=(1, 2))
GUIDED = UNetShape(
    *(16, 32, 1, (16, 8), (1, 2)), num_head_channels=16, resblock_updown=True, use_new_attention_order=True
)
PLAIN = UNetShape(16, 32, 2, (16, 8), (1, 2), num_heads=2, learn_sigma=False, use_scale_shift_norm=False)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (CIFAR10, (446, 52_546_438, "001b621871f3fa9d")),
        (IMAGENET256, (566, 552_814_086, "b9c90be1570d1541")),
        (IMAGENET512, (644, 557_973_638, "cb6c1e5b4e458a6d")),
        (LSUN, (426, 113_676_678, "0313288a27e5d1d5")),
    ],
    ids=["CIFAR-10", "ImageNet 256", "ImageNet 512", "LSUN"],
)
def test_names_and_shapes_are_those_of_the_published_networks(shape, expected):
    with torch.device("meta"):
        assert tensors(UNet(shape)) == expected


@pytest.mark.parametrize(
    ("shape", "pixel", "total"),
    [
        (IMPROVED, [-0.05643, -0.14222, 0.11052], -253.2362),
        (GUIDED, [-0.08926, 0.0874, -0.00101], -38.9055),
        (PLAIN, [-0.10949, -0.02337, 0.02252], -25.0882),
    ],
    ids=["improved", "guided", "plain"],
)
def test_answers_are_those_of_the_published_code(shape, pixel, total):
    answer = numbered(UNet(shape), 0.1)(waves(2, 16), 37.25).detach()
    assert answer.shape == (2, 6 if shape.learn_sigma else 3, 16, 16)
    assert answer[1, :3, 5, 7].tolist() == pytest.approx(pixel, abs=2e-5)
    assert float(answer.double().sum()) == pytest.approx(total, abs=5e-3)


def test_an_image_is_answered_by_itself():
    network = numbered(UNet(GUIDED), 0.1)
    together, alone = network(waves(3, 16), 37.25)[1:2], network(waves(3, 16)[1:2], 37.25)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_only_convolutions_inside_are_cast(dtype):
    network, reference = numbered(UNet(GUIDED), 0.1), numbered(UNet(GUIDED), 0.1)
    network.cast(dtype)
    assert network.dtype == dtype
    kept = {name.split(".")[0] for name, tensor in network.named_parameters() if tensor.dtype == torch.float32}
    assert kept == {"time_embed", "input_blocks", "middle_block", "output_blocks", "out"}
    cast = {name for name, tensor in network.named_parameters() if tensor.dtype == dtype}
    assert {"input_blocks.0.0.weight", "middle_block.1.qkv.weight", "output_blocks.0.0.out_layers.3.bias"} <= cast
    assert not any("norm" in name or "emb" in name or name.endswith("_layers.0.weight") for name in cast)
    answer = network(waves(2, 16), 37.25)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, reference(waves(2, 16), 37.25), rtol=0, atol=0.02)


def test_a_larger_image_than_it_was_made_for():
    assert numbered(UNet(IMPROVED), 0.1)(waves(1, 32), 0.0).shape == (1, 6, 32, 32)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"image_size": 48, "num_channels": 32}, "image_size is 48: give channel_mult"),
        ({"image_size": 32, "num_channels": 48}, r"\[48, 96, 96, 96\] channels: give multiples of 32"),
        ({"image_size": 32, "num_channels": 32, "num_heads": 5}, "64 channels do not make 5 attention heads"),
        ({"image_size": 32, "num_channels": 32, "attention_resolutions": "16,8"}, "'16,8': give a list"),
        ({"image_size": 32, "num_channels": 32, "channel_mult": 2}, "channel_mult is 2: give a list"),
        ({"image_size": 36, "num_channels": 32, "channel_mult": (1, 1, 1, 1)}, "cannot be halved 3 times"),
    ],
)
def test_parts_that_do_not_fit_together_are_one_line(args, words):
    with torch.device("meta"), pytest.raises(UserError, match=words):
        UNet(UNetShape(num_res_blocks=1, **args))
