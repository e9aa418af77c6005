"""A denoiser that is told several noise levels: each answer is classified, and the mean of the logits counts."""

import pickle
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from published import numbered
from scipy.stats import binom, norm
from torch import nn

from raycsr import count_votes
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.denoisers import Denoiser
from raycsr.models.loading import load_base_classifier
from raycsr.models.memory import memory_of
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.spec import DenoiserOptions, ModelOptions, Preprocessing

PIXELS = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TINY = {
    "drunet": {"channels": [4, 4, 4, 4], "blocks": 1},
    "improved_diffusion": {
        **{"image_size": 16, "num_channels": 32, "num_res_blocks": 1},
        **{"attention_resolutions": [8], "channel_mult": [1, 2]},
    },
}
LEVELS = [0.2, 0.25, 0.3]


def composition(arch="drunet", sigma=0.25, **options):
    """A small classifier behind a small denoiser that does something."""
    asked = DenoiserOptions(**{"name": arch, "args": TINY.get(arch, {}), "sigma": sigma, **options})
    made = load_base_classifier(ModelOptions("cifar_resnet8", input_size=16, denoiser=asked), num_classes=5)
    numbered(made.denoisers[0].network, 0.1)
    return made


@pytest.mark.parametrize("arch", TINY)
def test_logits_are_the_mean_of_those_behind_each_answer(arch):
    expected = torch.stack([composition(arch, sigma=level)(PIXELS) for level in LEVELS])
    several = composition(arch, levels=LEVELS)
    torch.testing.assert_close(several(PIXELS), expected.mean(dim=0))
    assert not torch.allclose(expected[0], expected[2])  # the level matters at all
    torch.testing.assert_close(composition(arch, levels=[0.3])(PIXELS), expected[2])
    assert (several.num_passes, several.training_sigma) == (3, 0.25)


def test_those_of_a_list_multiply():
    two = [DenoiserOptions("drunet", args=TINY["drunet"], sigma=0.25, levels=one) for one in ([0.2, 0.3], LEVELS)]
    several = load_base_classifier(ModelOptions("cifar_resnet8", input_size=16, denoiser=two), num_classes=5)
    first, second = (numbered(one, 0.1) for one in several.denoisers)
    logits = [several(second(first(PIXELS, i), j), part="classifier") for i in range(2) for j in range(3)]
    torch.testing.assert_close(several(PIXELS), torch.stack(logits).mean(dim=0))
    assert several.num_passes == 6


class Shrink(Denoiser):
    """Pixels towards grey, the more the higher the level is; linear, so that radii behind it are known."""

    archs: ClassVar = {"shrink": {}}
    takes_levels = True

    @classmethod
    def build(cls):
        return nn.Linear(1, 1)

    def forward(self, pixels, level=0):
        return pixels / (1 + self.levels[level])


class Dithers(Shrink):
    """Adds noise of its own, which no key makes again."""

    def forward(self, pixels, level=0):
        return pixels + 0.1 * torch.randn_like(pixels)


def test_a_denoiser_that_draws_noise_of_its_own_is_refused_before_it_votes():
    made = composition()
    made.denoisers[0] = Dithers("shrink", sigma=0.25)
    made.denoisers[0].make_for(0.25, LEVELS)
    with pytest.raises(UserError, match="change by .* with the rest of its batch, or by chance"):
        prepare_for_inference(made, precision="fp32", device="cpu")


def test_radii_behind_several_linear_denoisers_are_those_of_the_mean_of_linear_classifiers():
    """Of f_l(z) = (0, w.z / (1 + l) - b) the mean is linear, so that P(f = 1) = Phi(distance / sigma)."""
    sigma, levels, n = 0.5, [0.25, 1.0], 8192
    weights = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).requires_grad_(False)
    network[1].weight.copy_(torch.stack([torch.zeros(12), weights.flatten()]))
    network[1].bias.copy_(torch.tensor([0.0, -0.1]))
    denoiser = Shrink("shrink", sigma=sigma)
    denoiser.make_for(sigma, levels)
    of_input = Preprocessing((2, 2), "bilinear", 1.0, "squash")
    looks = {"preprocessing": of_input, "mean": (0, 0, 0), "std": (1, 1, 1)}
    model = BaseClassifier(network, arch="linear", args={}, num_classes=2, denoisers=[denoiser], **looks).eval()
    image = torch.full((1, 3, 2, 2), 0.2, dtype=torch.float64).mul(255).round().to(torch.uint8)
    scale = np.mean([1 / (1 + level) for level in levels])
    distance = float((scale * (weights * image[0].double() / 255).sum() - 0.1) / (scale * weights.norm()))
    votes = count_votes(model, image, sigma=sigma, n0=64, n=n, seed=3, image_ids=["a"])
    expected = norm.cdf(distance / sigma)
    assert 0.2 < expected < 0.8
    low, high = binom.interval(1 - 1e-6, n, expected)
    assert low <= int(votes.counts[0, 0, 1]) <= high
    assert not low <= n * norm.cdf((distance + 0.05) / sigma) <= high  # what the interval can see


def test_its_identity_names_levels_and_how_they_are_combined_and_that_of_one_is_as_before():
    several, plain = composition(levels=LEVELS), composition()
    assert several.components[0] == {**plain.components[0], "levels": LEVELS}
    assert several.components[1] == {**plain.components[1], "combining": "mean of logits"}
    assert composition(levels=[0.25]).components == plain.components
    other = composition(levels=[0.3]).components
    assert other == [{**plain.components[0], "levels": [0.3]}, plain.components[1]]


@torch.no_grad()
@pytest.mark.parametrize("arch", TINY)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_made_fast_and_treats_each_image_alone(arch, precision):
    model = composition(arch, levels=LEVELS)
    prepared = prepare_for_inference(model, precision=precision, device="cpu")
    assert prepared(PIXELS).dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    atol = (1e-4 if precision == "fp32" else 0.05) * float(model(PIXELS).abs().max())
    torch.testing.assert_close(prepared(PIXELS).float(), model(PIXELS), rtol=0, atol=atol)
    assert torch.equal(pickle.loads(pickle.dumps(prepared))(PIXELS), prepared(PIXELS))


def test_a_plan_says_the_passes_and_a_copy_takes_hardly_more_memory():
    plain, several = composition("improved_diffusion"), composition("improved_diffusion", levels=LEVELS)
    assert "for sigma 0.25, told 0.2, 0.25, 0.3 (3 passes of it and of what is behind, mean of" in several.parts[0]
    assert "told" not in plain.parts[0] and "for sigma 0.25, told 0.3, 16 x 16" in composition(levels=[0.3]).parts[0]
    once, thrice = memory_of(plain, "fp32"), memory_of(several, "fp32")
    assert once.row <= thrice.row < 1.1 * once.row and once.weights == thrice.weights


def test_a_checkpoint_holds_them_for_its_own_and_for_another_classifier(tmp_path):
    path, model = str(tmp_path / "both.pt"), composition("improved_diffusion", levels=LEVELS)
    save_checkpoint(path, model)
    again = load_base_classifier(path)
    assert again.components == model.components and torch.equal(again(PIXELS), model(PIXELS))
    other = load_base_classifier(ModelOptions("cifar_resnet20", input_size=16, denoiser=DenoiserOptions(path)))
    assert other.components[0] == model.components[0]
    asked = ModelOptions("cifar_resnet20", denoiser=DenoiserOptions(path, sigma=0.5, levels=[0.4, 0.5]))
    assert load_base_classifier(asked).components[0]["levels"] == [0.4, 0.5]
    with pytest.raises(UserError, match=r"told noise levels \[0.2, 0.25, 0.3\] for sigma 0.25.*model.denoiser.lev"):
        load_base_classifier(ModelOptions("cifar_resnet20", denoiser=DenoiserOptions(path, sigma=0.5)))
    save_checkpoint(path, composition("improved_diffusion"))
    assert "levels" not in torch.load(path)["denoisers"][0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arch": "dncnn"}, "'dncnn' is not told the noise level: leave model.denoiser.levels out"),
        ({"levels": []}, r"levels is \[\]: give noise levels"),
        ({"levels": [0.25, 0.25]}, "each once"),
        ({"levels": [0.25, 0.0]}, "above 0"),
        ({"levels": [0.25, float("nan")]}, "above 0"),
        ({"sigma": None}, "give model.denoiser.sigma"),
        ({"levels": ["0.25"]}, r"levels is \['0.25'\]: give noise levels"),
        ({"levels": [True]}, r"levels is \[True\]: give noise levels"),
        ({"sigma": "0.25"}, "sigma is 0.25: give the noise level"),
        ({"arch": "improved_diffusion", "levels": [0.25, 1e-4]}, "no step of the 4000 .* sigma 0.0001"),
        ({"arch": "improved_diffusion", "levels": [0.3, 0.25, 0.2501]}, "0.25 and 0.2501 are the same step t"),
    ],
)
def test_levels_that_cannot_be_told_are_one_line(options, words):
    with pytest.raises(UserError, match=words) as raised:
        composition(**{"levels": LEVELS, **options})
    assert "\n" not in str(raised.value)


def test_of_a_list_those_are_told_that_are_asked_and_a_file_of_several_none(tmp_path):
    plain = DenoiserOptions("dncnn", args={"depth": 3, "channels": 4})
    both = [plain, DenoiserOptions("drunet", args=TINY["drunet"], sigma=0.25, levels=LEVELS)]
    model = load_base_classifier(ModelOptions("cifar_resnet8", input_size=16, denoiser=both), num_classes=5)
    first, second = (numbered(one, 0.1) for one in model.denoisers)
    logits = [model(second(first(PIXELS), level), part="classifier") for level in range(3)]
    torch.testing.assert_close(model(PIXELS), torch.stack(logits).mean(dim=0))
    assert model.num_passes == 3 and [one.get("levels") for one in model.components] == [None, LEVELS, None]
    save_checkpoint(tmp_path / "both.pt", model)
    asked = DenoiserOptions(f"{tmp_path}/both.pt", levels=[0.2])
    with pytest.raises(UserError, match=r"both\.pt holds 2 denoisers, with levels of their own: leave levels out"):
        load_base_classifier(ModelOptions("cifar_resnet20", denoiser=asked))
    one_too_many = [replace(plain, levels=LEVELS), both[1]]
    with pytest.raises(UserError, match="'dncnn' is not told the noise level: leave model.denoiser.levels out"):
        load_base_classifier(ModelOptions("cifar_resnet8", input_size=16, denoiser=one_too_many))


def test_levels_are_told_in_the_order_that_is_asked_and_whole_numbers_are_levels():
    model = composition(levels=[1, 0.25])
    assert model.components[0]["levels"] == [1.0, 0.25] and "told 1, 0.25 (2 passes" in model.parts[0]
    torch.testing.assert_close(model(PIXELS), composition(levels=[0.25, 1])(PIXELS))  # of which f is the mean
    assert model.components != composition(levels=[0.25, 1]).components  # to the last bit it is another


@pytest.mark.parametrize("value", [None, 3, "ab", ["a"], [None], [-0.25], [0.25, 0.25], [[0.25]]])
def test_levels_that_are_damaged_in_a_checkpoint_are_one_line_that_names_it(value, tmp_path):
    save_checkpoint(tmp_path / "both.pt", composition(levels=LEVELS))
    content = torch.load(tmp_path / "both.pt", weights_only=True)
    content["denoisers"][0]["levels"] = value
    torch.save(content, tmp_path / "damaged.pt")
    with pytest.raises(UserError, match=r"damaged\.pt") as caught:
        load_base_classifier(str(tmp_path / "damaged.pt"))
    assert "\n" not in str(caught.value)


def test_the_label_of_a_model_says_them():
    asked = DenoiserOptions("improved_diffusion", pretrained="folder/ema.pt", sigma=0.25, levels=LEVELS)
    assert ModelOptions("resnet50", denoiser=asked).label == "resnet50 (behind ema.pt at 0.2+0.25+0.3)"
