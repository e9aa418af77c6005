"""Resize and crop by Pillow alone, to the very pixels of timm's evaluation transform: decoding needs no torch.

timm does it by torchvision, which does it by Pillow: what stands here is how large, and which part (timm 1.0,
`transforms_imagenet_eval`; torchvision, `Resize` and `CenterCrop`).
"""

import math

from PIL import Image

from raycsr.errors import UserError, nearest
from raycsr.models.spec import Preprocessing

_BLACK = (0, 0, 0)
_BORDER = (124, 116, 104)  # ImageNet's mean, which timm pads by in the mode `border`


def check(preprocessing: Preprocessing) -> None:
    """Refuses an interpolation that Pillow has not: that is no fault of an image.

    Raises:
        UserError: naming it.
    """
    known = [one.name.lower() for one in Image.Resampling]
    if preprocessing.interpolation not in known:
        name = preprocessing.interpolation
        raise UserError(f"unknown interpolation {name!r} of the model's input: {nearest(name, known)}")


def to_input_size(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Resizes an image by `interpolation` to `input_size / crop_pct`, and crops its middle.

    Args:
        image: Image of mode RGB and any size.
        preprocessing: Preprocessing of the base classifier.

    Returns:
        The image, of mode RGB and of `input_size`.
    """
    height, width = preprocessing.input_size
    resampling = Image.Resampling[preprocessing.interpolation.upper()]
    resized = image.resize(_resized(image.width, image.height, preprocessing), resampling)
    across, down = max(resized.width, width), max(resized.height, height)
    if (across, down) != resized.size:
        canvas = Image.new("RGB", (across, down), _BORDER if preprocessing.crop_mode == "border" else _BLACK)
        canvas.paste(resized, ((across - resized.width) // 2, (down - resized.height) // 2))
        resized = canvas
    left, top = round((across - width) / 2), round((down - height) / 2)
    return resized.crop((left, top, left + width, top + height))


def _resized(width: int, height: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Width and height before the crop."""
    down, across = (math.floor(side / preprocessing.crop_pct) for side in preprocessing.input_size)
    if preprocessing.crop_mode == "squash":
        return across, down
    if preprocessing.crop_mode == "border":
        ratio = max(height / down, width / across)
    elif down == across:  # torchvision's rule, which rounds the longer side down
        shorter, longer = min(width, height), int(down * max(width, height) / min(width, height))
        return (down, longer) if width == shorter else (longer, down)
    else:
        ratio = min(height / down, width / across)
    return round(width / ratio), round(height / ratio)
