"""What a program may give as images -> uint8 pixels of the one size that the base classifier takes."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from raycsr.data.decode import decode_images
from raycsr.data.images import MAX_BYTES
from raycsr.errors import UserError
from raycsr.models.spec import Preprocessing
from raycsr.smoothing.noise import grey_levels
from raycsr.store import FileMissing, FileTooLarge, Store

Images = Any
"""One image or several: a file (a path, or s3://), a file's bytes, a PIL image, or an array; or a batch of arrays."""

_TAKEN = "give files, PIL images, uint8 (H, W, 3), or batches (N, 3, H, W)"


def to_pixels(images: Images, preprocessing: Preprocessing | None) -> torch.Tensor:
    """Brings images to the pixels that the base classifier takes, by its own preprocessing.

    Pictures (files, their bytes, PIL images, uint8 arrays of (H, W, 3) or (H, W)) are resized and cropped as those of
    `raycsr sample` are. Batches (N, 3, H, W) or (N, H, W, 3), single images (3, H, W), and floats are pixels already:
    of the size that the base classifier takes, in whole grey levels, uint8 or k / 255.

    Args:
        images: One image, a sequence of them, or a batch.
        preprocessing: Preprocessing of the base classifier; None where it has none, and takes batches alone.

    Returns:
        uint8 (N, 3, H, W).

    Raises:
        UserError: naming the first image that is none, and why; or there is no image at all.
    """
    if isinstance(images, torch.Tensor | np.ndarray) and images.ndim == 4:
        pixels = _channels_first(torch.as_tensor(images), preprocessing)
        if not len(pixels):
            raise UserError("there are no images: give one at least")
        return _levels(pixels, preprocessing, "the images")
    alone = isinstance(images, str | os.PathLike | bytes | Image.Image | torch.Tensor | np.ndarray)
    several: Sequence[Any] = [images] if alone else list(images)
    if not several:
        raise UserError("there are no images: give one at least")
    return torch.stack([_one(image, f"image {i}", preprocessing) for i, image in enumerate(several)])


def _one(image: Any, name: str, preprocessing: Preprocessing | None) -> torch.Tensor:
    """The pixels of one image, uint8 (3, H, W)."""
    is_array = isinstance(image, torch.Tensor | np.ndarray)
    if is_array and not (image.ndim == 2 or (image.ndim == 3 and 3 in (image.shape[0], image.shape[2]))):
        raise UserError(f"{name} is an array of shape {tuple(image.shape)}: {_TAKEN}")
    is_picture = not is_array or image.ndim == 2 or image.shape[2] == 3
    if is_array and (not is_picture or str(image.dtype).removeprefix("torch.") != "uint8" or preprocessing is None):
        pixels = _channels_first(torch.as_tensor(image)[None], preprocessing)
        return _levels(pixels, preprocessing, name)[0]
    if preprocessing is None:
        raise UserError(f"{name} is no array, and this network does not say how it takes pictures: give (N, 3, H, W)")
    decoded = decode_images([_readable(image, name)], preprocessing)
    if decoded["error"][0] is not None:
        what = repr(os.fspath(image)) if isinstance(image, str | os.PathLike) else name
        raise UserError(f"{what} is no image that can be read ({decoded['error'][0]}): {_TAKEN}")
    return torch.from_numpy(decoded["image"][0]).permute(2, 0, 1)


def _readable(image: Any, name: str) -> bytes | np.ndarray | Image.Image:
    """What `decode_images` takes."""
    if isinstance(image, str | os.PathLike):
        return read_file(image)
    if isinstance(image, torch.Tensor):
        return image.cpu().numpy()
    if isinstance(image, bytes | np.ndarray | Image.Image):
        return image
    raise UserError(f"{name} is a {type(image).__name__}: {_TAKEN}")


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image's file, local or s3://.

    Raises:
        UserError: there is none, or it is too large.
    """
    try:
        return Store(path).read("", lambda size: size <= MAX_BYTES)
    except FileMissing as error:
        raise UserError(f"there is no file {os.fspath(path)!r}: check the path") from error
    except FileTooLarge as error:
        raise UserError(f"{os.fspath(path)!r} has {error.size:,} bytes; an image has {MAX_BYTES:,} at most") from error


def _channels_first(pixels: torch.Tensor, preprocessing: Preprocessing | None) -> torch.Tensor:
    """(N, 3, H, W) of that or of (N, H, W, 3); where an image could be either, its size tells."""
    first, last = pixels.shape[1] == 3, pixels.shape[-1] == 3
    if first and last and preprocessing is not None:
        first = tuple(pixels.shape[2:]) == preprocessing.input_size
    return pixels.permute(0, 3, 1, 2) if last and not first else pixels


def _levels(pixels: torch.Tensor, preprocessing: Preprocessing | None, name: str) -> torch.Tensor:
    """Pixels (N, C, H, W) as whole grey levels, if they are what the base classifier takes."""
    has = tuple(pixels.shape[1:])
    if preprocessing is not None and has != (taken := (3, *preprocessing.input_size)):
        raise UserError(
            f"{name}: an array of {has} is none of the {taken} pixels that the model takes; give those, or files or "
            "PIL images, which are resized and cropped as the model has it"
        )
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise UserError(f"{name}: an array of {pixels.dtype} is no pixels; give uint8 in 0..255, or floats k / 255")
    return grey_levels(pixels)
