"""What a user says about a model (`ModelOptions`) and what a model says about its input (`Preprocessing`)."""

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any


@dataclass(frozen=True)
class DenoiserOptions:
    """A denoiser in front of the classifier: pixels -> pixels, so that a classifier that never saw noise certifies.

    Attributes:
        name: Architecture, one of `raycsr ls denoisers`; or the path or s3:// URI of a checkpoint that says its own: of
            raycsr, whose denoisers are then taken, or of denoised-smoothing; or a folder of diffusers.
        pretrained: Path or s3:// URI of a file with weights of that architecture; by default they are random, which is
            for training one.
        args: Further keyword arguments of the architecture.
        sigma: Noise level that it is made for, in [0, 1] pixel units; by default what the checkpoint says. Some
            architectures take it as an input, and need it.
        input_size: Height and width that it takes, in pixels; by default what it was made for, or else those of what
            comes behind it. Pixels are resized in between.
        levels: Noise levels that a denoiser which takes one as an input is told one after another, in [0, 1] pixel
            units; those of a diffusion model decide its steps t, each another one. Each answer goes through what comes
            behind, and the mean of the logits counts. By default sigma alone.
    """

    name: str
    pretrained: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    sigma: float | None = None
    input_size: int | None = None
    levels: list[float] | None = None

    @property
    def label(self) -> str:
        """The denoiser in labels of models; without its folder, for tables cut paths."""
        told = f" at {'+'.join(f'{level:g}' for level in self.levels)}" if self.levels else ""
        return f"{PurePath(self.pretrained or self.name).name}{told}"


@dataclass(frozen=True)
class ModelOptions:
    """The base classifier to load or to create.

    Attributes:
        name: Name of a timm model, such as resnet50 or cifar_resnet20, or the path or s3:// URI of a checkpoint. A
            model with its own weights is hf-hub:OWNER/NAME or local-dir:FOLDER. Checkpoints that say which network
            they belong to are those of raycsr, locuslab/smoothing, SmoothAdv, MACER, Consistency, SmoothMix,
            pytorch/examples and timm's train.py.
        num_classes: Number of classes; by default that of the weights, or else that of the data.
        pretrained: Weights to load: true for timm's weights of that name, or the path or s3:// URI of a .pth or
            .safetensors file with weights of that architecture. Each tensor of the network must come from the file, or
            loading is refused; only train and sweep replace a head of another size.
        ema: Whether to take the moving average of the weights (state_dict_ema, model_ema) from a file that holds both
            it and the last weights.
        args: Further keyword arguments of the architecture, as in `timm.create_model`;
            {pretrained_cfg_overlay: {mean: [...], std: [...]}} sets the normalisation that the weights expect.
        init_seed: Seed of the random initialisation; loaded weights do not depend on it.
        input_size: Height and width of the input, in pixels; by default what the model was made for.
        denoiser: Denoiser in front of the classifier, or a list of them in their order.
    """

    name: str
    num_classes: int | None = None
    pretrained: bool | str = False
    ema: bool = False
    args: dict[str, Any] = field(default_factory=dict)
    init_seed: int = 0
    input_size: int | None = None
    denoiser: DenoiserOptions | list[DenoiserOptions] | None = None

    @property
    def denoisers(self) -> tuple[DenoiserOptions, ...]:
        """The denoisers that are asked for, in their order."""
        if self.denoiser is None:
            return ()
        return (self.denoiser,) if isinstance(self.denoiser, DenoiserOptions) else tuple(self.denoiser)

    @property
    def label(self) -> str:
        """The model's name in plans and reports: source of the weights, architecture, EMA if averaged, denoisers."""
        file = self.pretrained if isinstance(self.pretrained, str) else self.name
        more = [*([self.name] if file != self.name else []), *(["EMA"] if self.ema else [])]
        more += [f"behind {one.label}" for one in self.denoisers]
        return f"{file} ({', '.join(more)})" if more else file


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the pixels a base classifier takes.

    The image is resized to `input_size / crop_pct` with `interpolation`, then cropped to `input_size`.

    Attributes:
        input_size: Height and width after the crop, in pixels.
        interpolation: Interpolation by timm's name: "bilinear", "bicubic", "nearest", ...
        crop_pct: Share of the resized image's side that the crop keeps, in (0, 1].
        crop_mode: Crop mode by timm's name: "center", "squash" or "border".
    """

    input_size: tuple[int, int]
    interpolation: str
    crop_pct: float
    crop_mode: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON values, for a checkpoint or a run's identity."""
        return {
            "input_size": list(self.input_size),
            "interpolation": self.interpolation,
            "crop_pct": self.crop_pct,
            "crop_mode": self.crop_mode,
        }
