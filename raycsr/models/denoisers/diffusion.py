"""A diffusion model as a denoiser, asked what it takes the image for: at the step that has the run's noise, or at more.

Carlini, Tramer, Dvijotham, Rice, Sun & Kolter (ICLR 2023). The published networks of improved-diffusion and
guided-diffusion load, and any of their shape.

Between two steps: sigma decides the nearest step t, and t alone decides what the network is given and how its answer is
read. Noisy pixels x are scaled to y = 2x - 1, the network is given sqrt(abar_t) y, and the image is y - r_t e, where e
is the noise that it answers and r_t that of step t (`schedules`). A perfect model then does what is best for noise of
r_t / 2 in place of sigma. That is at most half a step away, .6 % of a sigma between .12 and 1 in the published
schedules; and the mean squared error grows by the square of the difference, hence by less than .01 %. A scale of
sigma's own, beside a network that is told t, would move even an image without noise.

Several steps: with `reverse_steps` S it is asked S times, at t, then at t (S - 1) / S and so on, and each image x0 that
it answers is given as much noise again as the step that follows has. In y = x_t / sqrt(abar_t), whose noise is r_t, the
posterior of a step s < t (Ho, Jain & Abbeel, NeurIPS 2020, equations 6 and 7) is

    y_s = x0 + q^2 (y_t - x0) + r_s sqrt(1 - q^2) N(0, I) with q = r_s / r_t,

and with `denoisings` R that is done R times, and the mean of the logits counts, near to the majority of DensePure (Xiao
et al., ICLR 2023). The noise is made of the noisy image (`own_noise`).
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from raycsr.errors import UserError
from raycsr.models.denoisers.denoiser import Denoiser, DenoiserContents
from raycsr.models.denoisers.own_noise import own_noise
from raycsr.models.denoisers.schedules import Step, alpha_bars, earlier_steps, steps_for
from raycsr.models.denoisers.unet import UNet, UNetShape
from raycsr.models.weights import is_state, without_wrappers

_OF_DIFFUSION = ("diffusion_steps", "noise_schedule", "rescale_timesteps", "reverse_steps", "denoisings")


class DiffusionModel(Denoiser):
    """Diffusion model asked at the step of its sigma: args are the published flags, reverse_steps and denoisings."""

    archs: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The flags of the published models: CIFAR-10 of 52.5 million parameters, and ImageNet of 552.8 million.
        "improved_diffusion": {
            "image_size": 32,
            "num_channels": 128,
            "num_res_blocks": 3,
            "attention_resolutions": [16, 8],
            "diffusion_steps": 4000,
            "noise_schedule": "cosine",
            "rescale_timesteps": True,
        },
        "guided_diffusion": {
            "image_size": 256,
            "num_channels": 256,
            "num_res_blocks": 2,
            "attention_resolutions": [32, 16, 8],
            "num_head_channels": 64,
            "resblock_updown": True,
            "diffusion_steps": 1000,
            "noise_schedule": "linear",
            "rescale_timesteps": False,
        },
    }
    needs_sigma = True
    takes_levels = True
    network: UNet
    steps: list[Step]  # of the levels
    ways: list[list[Step]]  # of each level all steps at which it is asked, one after another

    def __init__(
        self,
        arch: str,
        args: Mapping[str, Any] | None = None,
        *,
        sigma: float | None = None,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        """Creates one with random weights; `args` are flags of the published code, by their names there."""
        said = {**self.archs[arch], **(args or {})}
        size = said["image_size"]
        super().__init__(arch, args, sigma=sigma, input_size=input_size or (size, size))
        divisor = 2 ** (len(self.network.shape.channels) - 1)
        if any(side % divisor for side in self.input_size or ()):
            raise UserError(
                f"model.denoiser.input_size is {self.input_size}: the network halves it again and again: give a "
                f"multiple of {divisor}."
            )

    def make_for(self, sigma: float, levels: Sequence[float] = ()) -> None:
        """Also finds the step of each level."""
        super().make_for(sigma, levels)
        said = {**self.archs[self.arch], **self.args}
        schedule = alpha_bars(said["noise_schedule"], said["diffusion_steps"])
        self.reverse_steps, self.denoisings = (_count(said, name) for name in ("reverse_steps", "denoisings"))
        self.draws = self.reverse_steps > 1
        if self.denoisings > 1 and not self.draws:
            raise UserError("denoisings of one step are all the same: give reverse_steps of 2 or more, too.")
        self.steps = steps_for(self.levels, schedule)
        self.ways = [earlier_steps(step, self.reverse_steps, schedule) for step in self.steps]
        self.unit = 1000 / said["diffusion_steps"] if said["rescale_timesteps"] else 1  # of the t that it is told

    @classmethod
    def build(cls, **flags: Any) -> nn.Module:
        """Returns the U-Net of these flags; those of the diffusion are no part of it."""
        return UNet(UNetShape(**{name: flag for name, flag in flags.items() if name not in _OF_DIFFUSION}))

    @classmethod
    def of_file(cls, path: str, content: Any) -> DenoiserContents | None:
        """Recognises the published files, which do not say enough.

        Raises:
            UserError: It is one of them.
        """
        if not is_state(content) or not {"time_embed.0.weight", "out.2.weight"} <= without_wrappers(content).keys():
            return None
        raise UserError(
            f"{path} holds a diffusion model's weights, which do not say their schedule of noise: give "
            f"model.denoiser.name {' or '.join(cls.archs)} and model.denoiser.pretrained {path}."
        )

    def forward(self, pixels: torch.Tensor, level: int = 0, denoising: int = 0) -> torch.Tensor:
        """Maps noisy pixels to pixels in [0, 1], float32 (N, 3, H, W), by the steps of one of its levels."""
        first = (level * self.denoisings + denoising) * self.reverse_steps  # of the draws
        noisy = 2 * pixels - 1
        image = self._image(noisy, self.steps[level])
        for i, (before, step) in enumerate(itertools.pairwise(self.ways[level])):
            kept = (step.noise / before.noise) ** 2
            drawn = step.noise * (1 - kept) ** 0.5 * own_noise(pixels, first + i)
            noisy = image + kept * (noisy - image) + drawn
            image = self._image(noisy, step)
        return (image + 1) / 2

    def _image(self, noisy: torch.Tensor, step: Step) -> torch.Tensor:
        """What it takes x_t / sqrt(abar_t), (N, 3, H, W), for: an image in [-1, 1]."""
        noise = self.network(step.alpha_bar**0.5 * noisy, step.t * self.unit)[:, :3]
        return (noisy - step.noise * noise).clamp(-1, 1)

    def answers(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Each denoising at each level."""
        levels = range(len(self.levels))
        return [self(pixels, level, denoising) for level in levels for denoising in range(self.denoisings)]

    @property
    def num_answers(self) -> int:
        """Number of levels times that of denoisings."""
        return len(self.levels) * self.denoisings

    @property
    def more(self) -> str:
        """The steps of a denoising, where they are several."""
        return f", in {self.reverse_steps} steps" if self.draws else ""

    def cast(self, dtype: torch.dtype) -> None:
        """Has the convolutions of the network compute in another type, and the rest in float32."""
        self.network.cast(dtype)


def _count(flags: Mapping[str, Any], name: str) -> int:
    """A flag that says how often something is done, once by default."""
    number = flags.get(name, 1)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise UserError(f"{name} is {number!r}: give a whole number, 1 or more.")
    return number
