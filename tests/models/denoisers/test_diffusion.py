"""Diffusion models asked once: what they make of noise in closed form, and how they are loaded."""

import math

import pytest
import safetensors.torch
import torch
from published import numbered
from torch import nn

from raycsr.errors import UserError
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.denoisers import create_denoiser
from raycsr.models.denoisers.schedules import alpha_bars, step_for
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.spec import DenoiserOptions, ModelOptions

SMALL = {
    "image_size": 16,
    "num_channels": 32,
    "num_res_blocks": 1,
    "attention_resolutions": [8],
    "channel_mult": [1, 2],
}
PIXELS = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Perfect(nn.Module):
    """The best estimate of the noise in x_t where pixels in [-1, 1] are normal, with this mean and deviation."""

    def __init__(self, schedule, steps, mean, deviation):
        super().__init__()
        self.left, self.mean, self.variance = alpha_bars(schedule, steps), mean, deviation**2
        self.scale = 1000 / steps

    def forward(self, x, t):
        left = self.left[round(t / self.scale)]
        answer = math.sqrt(1 - left) * (x - math.sqrt(left) * self.mean) / (left * self.variance + 1 - left)
        return torch.cat([answer, 1e3 * torch.ones_like(answer)], dim=1)  # and variances, which nobody asked for


def perfect(sigma, schedule="linear", steps=1000, mean=0.1, deviation=0.05):
    made = create_denoiser(
        "improved_diffusion", {**SMALL, "noise_schedule": schedule, "diffusion_steps": steps}, sigma=sigma
    )
    made.network = Perfect(schedule, steps, mean, deviation)
    return made


@pytest.mark.parametrize(("schedule", "steps"), [("linear", 1000), ("cosine", 4000)])
@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5, 1.0])
def test_a_perfect_model_gives_the_posterior_mean_of_its_steps_noise(schedule, steps, sigma):
    """For a normal pixel with noise of r it is m + s^2 / (s^2 + r^2) (y - m), where y is the noisy pixel."""
    denoiser, noise = perfect(sigma, schedule, steps), step_for(sigma, alpha_bars(schedule, steps)).noise
    noisy = 2 * PIXELS - 1
    expected = 0.1 + 0.05**2 / (0.05**2 + noise**2) * (noisy - 0.1)
    torch.testing.assert_close(denoiser(PIXELS), (expected + 1) / 2, rtol=0, atol=2e-6)


def test_between_two_steps_little_is_lost():
    """The best share of what is seen is k = s^2 / (s^2 + 4 sigma^2): another one adds (k' - k)^2 (s^2 + 4 sigma^2)."""
    left = alpha_bars("linear", 1000)
    for variance in (0.01, 0.25):  # of images: of little contrast, and of about as much as photographs have
        for sigma in torch.linspace(0.1, 1, 901).tolist():
            noise, best = 4 * sigma**2, variance / (variance + 4 * sigma**2)
            given = variance / (variance + step_for(sigma, left).noise ** 2)
            added, least = (given - best) ** 2 * (variance + noise), variance * noise / (variance + noise)
            assert added < 1e-4 * least


def test_an_image_without_noise_is_not_moved():
    """A scale of sigma's own beside a model that is told t would move even the mean."""
    grey = torch.full((1, 3, 16, 16), 0.55)  # .1 in [-1, 1]
    torch.testing.assert_close(perfect(0.123)(grey), grey, rtol=0, atol=1e-6)


def test_what_it_takes_the_image_for_is_clipped():
    denoiser = perfect(0.25, mean=0.0, deviation=10.0)  # which leaves nearly all as it is
    assert denoiser(PIXELS * 4 - 2).aminmax() == (0, 1)


def composition(**denoiser):
    """A small classifier behind a small diffusion model."""
    asked = DenoiserOptions(**{"name": "improved_diffusion", "args": SMALL, "sigma": 0.25, **denoiser})
    return load_base_classifier(ModelOptions("cifar_resnet8", input_size=24, denoiser=asked), num_classes=5)


@pytest.fixture
def weights():
    """Weights of the small network, as a training of it writes them."""
    return numbered(create_denoiser("improved_diffusion", SMALL, sigma=0.25).network, 0.1).state_dict()


def test_published_flags_are_the_defaults_and_sigma_decides_the_step():
    with torch.device("meta"):
        half = create_denoiser("guided_diffusion", sigma=0.5)
        quarter = create_denoiser("improved_diffusion", sigma=0.25)
    assert (half.input_size, half.steps[0].t, half.unit) == ((256, 256), 258, 1)
    assert (quarter.input_size, quarter.steps[0].t, quarter.unit) == ((32, 32), 1158, 0.25)  # thousandths of the steps
    assert half.network.shape.num_head_channels == 64 and quarter.network.shape.num_head_channels is None


@pytest.mark.parametrize("half", [False, True])
def test_a_file_of_weights_gives_all_of_the_network(tmp_path, weights, half):
    if half:
        weights = {name: tensor.half() for name, tensor in weights.items()}
    torch.save(weights, tmp_path / "ema_0.9999_500000.pt")
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    for file in ("ema_0.9999_500000.pt", "model.safetensors"):
        model = composition(pretrained=str(tmp_path / file))
        loaded = model.denoisers[0].network.state_dict()
        assert loaded.keys() == weights.keys()
        assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in weights.items())


def test_pixels_are_resized_before_and_behind_it(weights, tmp_path):
    torch.save(weights, tmp_path / "model.pt")
    model = composition(pretrained=str(tmp_path / "model.pt"))
    assert model.preprocessing.input_size == (16, 16) and model.network_size == (24, 24)
    pixels = PIXELS.clone().requires_grad_()
    logits = model(pixels)
    assert logits.shape == (3, 5)
    (gradient,) = torch.autograd.grad(logits.sum(), pixels)
    assert gradient.abs().amax(dim=(1, 2, 3)).gt(0).all()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_it_casts_and_treats_each_image_alone(tmp_path, weights, precision):
    torch.save(weights, tmp_path / "model.pt")
    model = composition(pretrained=str(tmp_path / "model.pt"))
    cast = prepare_for_inference(model, precision=precision, device="cpu")
    network = cast.denoisers[0].network
    assert network.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert network.time_embed[0].weight.dtype == network.out[2].weight.dtype == torch.float32
    torch.testing.assert_close(
        cast(PIXELS).float(), model(PIXELS), rtol=0, atol=0.05 * float(model(PIXELS).abs().max())
    )


def test_a_checkpoint_holds_it_with_its_step(tmp_path, weights):
    torch.save(weights, tmp_path / "model.pt")
    model = composition(pretrained=str(tmp_path / "model.pt"))
    save_checkpoint(tmp_path / "both.pt", model)
    again = load_base_classifier(str(tmp_path / "both.pt"))
    assert again.components == model.components
    assert again.denoisers[0].steps == model.denoisers[0].steps
    assert torch.equal(again(PIXELS), model(PIXELS))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sigma": None}, "give model.denoiser.sigma"),
        ({"sigma": 60_000.0}, "no step of the 4000 .* sigma 60000: .* to 4.058e"),
        ({"args": {**SMALL, "noise_schedule": "linaer"}}, "'linaer': choose from linear, cosine"),
        ({"args": {**SMALL, "class_cond": True}}, "class_cond"),
        ({"args": {**SMALL, "num_channels": 48}}, "multiples of 32"),
        ({"input_size": 17}, "17.* give a multiple of 2"),
    ],
)
def test_what_does_not_fit_is_one_line(options, words):
    with pytest.raises(UserError, match=words) as raised:
        composition(**options)
    assert "\n" not in str(raised.value)


def test_weights_of_another_shape_are_refused_by_name(tmp_path, weights):
    torch.save({**weights, "label_emb.weight": torch.zeros(1000, 128)}, tmp_path / "conditional.pt")
    with pytest.raises(UserError, match="unexpected label_emb.weight"):
        composition(pretrained=str(tmp_path / "conditional.pt"))


def test_a_published_file_alone_does_not_say_its_schedule(tmp_path, weights):
    torch.save(weights, tmp_path / "256x256_diffusion_uncond.pt")
    path = str(tmp_path / "256x256_diffusion_uncond.pt")
    with pytest.raises(UserError, match="name improved_diffusion or guided_diffusion and model.denoiser.pretrained"):
        composition(name=path, args={})
