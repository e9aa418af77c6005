"""Measuring what flows through a network: under noise, behind its denoisers, of the images that are given."""

import numpy as np
import pytest
import torch

from raycsr.errors import UserError
from raycsr.models.calibration import agreement, calibrated
from raycsr.models.checkpoints import load_checkpoint, save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.smoothing.votes import count_votes

if "x86" not in torch.backends.quantized.supported_engines:
    pytest.skip("int8 is for x86 CPUs", allow_module_level=True)

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def model():
    return load_base_classifier(ModelOptions("cifar_resnet8", num_classes=10, input_size=8))


def first_range(made):
    """The scale of the network's pixels."""
    return made.calibration.places["activation_post_process_0"][0]


def test_scales_are_those_of_noisy_images(model):
    narrow, wide = (calibrated(model, IMAGES, sigma=sigma) for sigma in (0.25, 1.0))
    assert first_range(wide) > 1.8 * first_range(narrow)
    assert (narrow.calibration.sigma, wide.calibration.sigma) == (0.25, 1.0)
    assert model.calibration is None, "it is left as it is"


def test_the_same_images_and_seed_give_the_same_classifier_and_others_another(model):
    made = calibrated(model, IMAGES, sigma=0.5, seed=1)
    assert calibrated(model, IMAGES, sigma=0.5, seed=1).components == made.components
    assert calibrated(model, IMAGES, sigma=0.5, seed=2).components != made.components
    assert calibrated(model, IMAGES[:20], sigma=0.5, seed=1).components != made.components


def test_behind_a_denoiser_it_is_measured_on_what_the_network_sees(model, tmp_path):
    """This denoiser takes all noise away, and the picture with it; it stays in float32, in the checkpoint too."""
    denoiser = DenoiserOptions("dncnn", args={"depth": 3, "channels": 4}, sigma=1.0)
    options = ModelOptions("cifar_resnet8", num_classes=10, input_size=8, denoiser=denoiser)
    behind = load_base_classifier(options)
    behind.in_front[0].forward = lambda pixels: 0 * pixels + 0.5
    assert first_range(calibrated(behind, IMAGES, sigma=1.0)) < 0.2 * first_range(calibrated(model, IMAGES, sigma=1.0))
    made = calibrated(load_base_classifier(options), IMAGES, sigma=1.0)
    save_checkpoint(tmp_path / "both.pt", made)
    loaded = load_checkpoint(tmp_path / "both.pt")
    assert loaded.components == made.components and "int8" in loaded.components[1]
    prepared = prepare_for_inference(loaded, precision="int8", device="cpu")
    assert {one.dtype for one in prepared.in_front[0].parameters()} == {torch.float32}
    pixels = torch.rand(2, 3, 8, 8)
    ours = prepare_for_inference(made, precision="int8", device="cpu")
    assert torch.equal(prepared(pixels), ours(pixels))
    with pytest.raises(UserError, match="leave model.denoiser out"):
        save_checkpoint(tmp_path / "alone.pt", calibrated(model, IMAGES, sigma=1.0))
        load_base_classifier(ModelOptions(str(tmp_path / "alone.pt"), denoiser=denoiser))


def test_behind_several_denoisers_of_other_sizes_a_file_votes_the_same_in_any_batch(tmp_path):
    """One is told two levels, so that two answers go through the network, at twice its size."""
    small = {"image_size": 16, "num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 2]}
    small["attention_resolutions"] = [8]
    levels = DenoiserOptions("improved_diffusion", args=small, sigma=0.25, levels=[0.2, 0.25], input_size=16)
    plain = DenoiserOptions("dncnn", args={"depth": 3, "channels": 4}, sigma=0.25)
    options = ModelOptions("cifar_resnet8", num_classes=10, input_size=8, denoiser=[levels, plain])
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    made = calibrated(load_base_classifier(options), images, sigma=0.25)
    save_checkpoint(tmp_path / "three.pt", made)
    loaded = load_base_classifier(str(tmp_path / "three.pt"))
    assert loaded.components == made.components and loaded.num_passes == 2
    facts = {"sigma": 0.25, "n0": 8, "n": 64, "seed": 0, "image_ids": ["a", "b"]}
    pixels = torch.from_numpy(images[:2]).permute(0, 3, 1, 2)
    counts = [count_votes(one, pixels, batch_size=size, **facts).counts for one, size in ((made, 64), (loaded, 4))]
    assert (counts[0] == counts[1]).all()


def test_agreement_is_the_share_of_equal_answers(model):
    made = calibrated(model, IMAGES, sigma=0.5)
    assert agreement(made, IMAGES, sigma=0.5, seed=3) > 0.8
    with torch.no_grad():
        made.network.fc.weight.zero_()
    assert agreement(made, IMAGES, sigma=0.5, seed=3) == 1.0, "of equal logits both say the first"


def test_what_is_in_int8_is_not_quantised_again(model):
    with pytest.raises(UserError, match="already"):
        calibrated(calibrated(model, IMAGES, sigma=0.5), IMAGES, sigma=0.5)


def test_a_network_that_gives_no_numbers_is_refused(model):
    with torch.no_grad():
        model.network.conv1.weight[0] = torch.nan
    with pytest.raises(UserError, match="cannot be quantised"):
        calibrated(model, IMAGES, sigma=0.5)
