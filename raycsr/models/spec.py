"""What a user says about a model (`ModelOptions`) and what a model says about its input (`Preprocessing`)."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelOptions:
    """Which base classifier to load or create.

    Attributes:
        name: A timm model name (the CIFAR ResNets of raycsr are among them), or the path or s3:// URI of a
            checkpoint written by raycsr or by the code of locuslab/smoothing, SmoothAdv, MACER, Consistency or
            SmoothMix.
        num_classes: Number of classes of the head; by default what the data or the pretrained weights have.
            With `pretrained` and another number than the weights have, the head is new and untrained.
        pretrained: Load timm's pretrained weights; or the path of a local file of them.
        args: Further keyword arguments for the architecture, as in `timm.create_model`.
        init_seed: Seed of the random initialisation; weights that are loaded do not depend on it.
        input_size: Height and width of the input in pixels; by default what the model was made for.
    """

    name: str
    num_classes: int | None = None
    pretrained: bool | str = False
    args: dict[str, Any] = field(default_factory=dict)
    init_seed: int = 0
    input_size: int | None = None


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the pixels a base classifier takes.

    The image is resized to `input_size / crop_pct` with `interpolation`, then cropped to `input_size`.

    Attributes:
        input_size: Height and width after the crop, in pixels.
        interpolation: "bilinear", "bicubic" or "nearest".
        crop_pct: Share of the resized image's side that the crop keeps, in (0, 1].
        crop_mode: timm's crop mode: "center", "squash" or "border".
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
