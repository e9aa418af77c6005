"""A diffusion model in a folder of Hugging Face's diffusers, as a denoiser that is asked once.

The library itself builds the network, from the folder's configuration (`pip install 'raycsr[diffusers]'`). A folder is
what `DDPMPipeline.save_pretrained` writes, or holds the files of its `unet` and `scheduler` side by side.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from raycsr.errors import UserError
from raycsr.models.denoisers.denoiser import Denoiser, DenoiserContents
from raycsr.models.denoisers.schedules import Step, steps_for
from raycsr.models.weights import Weights, read_file, weights_in
from raycsr.store import FileMissing, Store

_CONFIGS = ("unet/config.json", "config.json")
_SCHEDULES = ("scheduler/scheduler_config.json", "scheduler_config.json")
_WEIGHTS = tuple(
    f"{folder}diffusion_pytorch_model.{ending}" for folder in ("unet/", "") for ending in ("safetensors", "bin")
)
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_PREDICTIONS = ("epsilon", "sample", "v_prediction")  # of the noise, of the image, and of a mixture of both


class DiffusersModel(Denoiser):
    """Diffusion model of Hugging Face's diffusers, asked once: its name is its folder, local or s3://."""

    archs: ClassVar[Mapping[str, Mapping[str, Any]]] = {"diffusers": {"unet": {}, "scheduler": {}}}
    needs_sigma = True
    takes_levels = True
    t: torch.Tensor  # (levels,)
    steps: list[Step]  # of the levels

    def __init__(
        self,
        arch: str,
        args: Mapping[str, Any] | None = None,
        *,
        sigma: float | None = None,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        """Creates one with random weights; `args` are the configurations in its folder."""
        super().__init__(arch, args, sigma=sigma, input_size=input_size)
        config: Any = self.network.config
        if self.input_size is None:
            size = config["sample_size"]
            self.input_size = (size, size) if isinstance(size, int) else tuple(size)
        self.prediction = self._schedule().config["prediction_type"]
        if self.prediction not in _PREDICTIONS:
            raise ValueError(f"its prediction_type is {self.prediction!r}, none of {', '.join(_PREDICTIONS)}")
        if config["in_channels"] != 3 or config["out_channels"] not in (3, 6):
            raise ValueError(f"it takes images of {config['in_channels']} channels, 3 are needed")
        if config["num_class_embeds"] is not None or config["class_embed_type"] is not None:
            raise ValueError("it wants to be told the class of an image")

    def make_for(self, sigma: float, levels: Sequence[float] = ()) -> None:
        """Also finds the step of each level."""
        super().make_for(sigma, levels)
        schedule = self._schedule().alphas_cumprod.double().numpy()
        self.steps = steps_for(self.levels, schedule)
        # On the device: a number of the host would have to wait for it, which no CUDA graph can hold.
        self.register_buffer("t", torch.tensor([step.t for step in self.steps]), persistent=False)

    def _schedule(self) -> Any:
        return _diffusers().DDPMScheduler.from_config(self.args["scheduler"])

    @classmethod
    def build(cls, unet: Mapping[str, Any], scheduler: Mapping[str, Any]) -> nn.Module:
        """Returns the network of a configuration."""
        if unet.get("_class_name") != "UNet2DModel":
            raise ValueError(
                f"its network is a {unet.get('_class_name')}, and UNet2DModel alone is of pixels: give its folder as "
                "model.denoiser.name"
            )
        return _diffusers().UNet2DModel.from_config(dict(unet))

    def forward(self, pixels: torch.Tensor, level: int = 0) -> torch.Tensor:
        """Maps noisy pixels to pixels in [0, 1], float32 (N, 3, H, W), by the step of one of its levels."""
        noisy, step = 2 * pixels - 1, self.steps[level]
        given = step.alpha_bar**0.5 * noisy
        answer = self.network(self.in_its_dtype(given), self.t[level]).sample[:, :3].float()
        if self.prediction == "epsilon":
            image = noisy - step.noise * answer
        elif self.prediction == "v_prediction":
            image = step.alpha_bar**0.5 * given - (1 - step.alpha_bar) ** 0.5 * answer
        else:
            image = answer
        return (image.clamp(-1, 1) + 1) / 2

    def cast(self, dtype: torch.dtype) -> None:
        """Has the network compute in another dtype, past its library's `to`, which warns where there is no need."""
        nn.Module.to(self.network, dtype)


def diffusers_in(folder: str) -> DenoiserContents | None:
    """What a folder of diffusers says of a denoiser.

    Args:
        folder: Local path or s3:// URI.

    Returns:
        What it says; None where it has no configuration of a network.

    Raises:
        UserError: It lacks another file, or one of them is damaged.
    """
    store = Store(folder)
    config = _json(store, _CONFIGS)
    if config is None:
        return None
    scheduler = _json(store, _SCHEDULES) or {}
    if not {"num_train_timesteps", "beta_schedule"} <= scheduler.keys():
        raise UserError(f"{folder} lacks {_SCHEDULES[0]} with a beta_schedule, hence no step is known of its noise.")
    there = [name for name in _WEIGHTS if store.exists(name)]
    if not there:
        raise UserError(f"{folder} lacks {_WEIGHTS[0]}, the weights of its network: copy the whole folder.")
    path = f"{folder.rstrip('/')}/{there[0]}"
    weights = weights_in(path, read_file(path), ema=False)
    return DenoiserContents(path, "diffusers", _renamed(weights), {"unet": config, "scheduler": scheduler})


def _renamed(weights: Weights) -> Weights:
    """The weights with the present names of attention; files of before 2023 have older ones."""
    renamed = {}
    for name, tensor in weights.items():
        *start, layer, kind = ("", *name.split("."))
        renamed[".".join([*start, _ATTENTION.get(layer, layer), kind]).removeprefix(".")] = tensor
    return renamed


def _json(store: Store, names: tuple[str, ...]) -> dict[str, Any] | None:
    """The first of these files that is there; None where none is."""
    for name in names:
        try:
            content = json.loads(store.read(name))
        except FileMissing:
            continue
        except ValueError as error:
            raise UserError(f"{name} in {store.location} is no JSON ({error}): copy the folder again.") from error
        if not isinstance(content, dict):
            raise UserError(f"{name} in {store.location} is no configuration of diffusers: copy the folder again.")
        return content
    return None


def _diffusers() -> Any:
    """The library, which is imported where a folder of it is read, and not before."""
    try:
        import diffusers
    except ImportError as error:
        raise UserError(
            "a folder of diffusers is read by that library, which is not installed: pip install 'raycsr[diffusers]'."
        ) from error
    return diffusers
