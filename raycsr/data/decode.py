"""Decoding: encoded images to upright RGB pixels of the one size that the base classifier takes."""

import functools
import hashlib
import io
import itertools
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from raycsr.credentials import without_credentials
from raycsr.data.images import FORMATS
from raycsr.data.resize import check, to_input_size
from raycsr.data.sources import Source
from raycsr.models.spec import Preprocessing

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF
OTHER_PIXELS = "the image's pixels changed since its votes were drawn"
MAX_PIXELS = 89_478_485  # where Pillow begins to suspect a decompression bomb


@dataclass(frozen=True)
class Decode:
    """Reads and decodes a batch: a function for `Dataset.map_batches`, run in plain Ray tasks.

    Attributes:
        source: Source that the images are read from.
        preprocessing: The size and the crop of the base classifier.
    """

    source: Source
    preprocessing: Preprocessing

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds `image`, uint8 (N, H, W, 3), `image_sha` and `error` to a batch that has `image_id`, (N,).

        A batch may have `sampled`, (N,), the digest of the pixels that an image's votes were drawn from before, or "":
        with other pixels than those it has an error.

        Raises:
            UserError: The whole source is missing on this node, changed while it was read, or its storage stays away.
        """
        decoded = read_decoded(self.source, [str(one) for one in batch["image_id"]], self.preprocessing)
        if "sampled" in batch:
            shas = zip(batch["sampled"], decoded["image_sha"], strict=True)
            for i, (before, now) in enumerate(shas):
                if before and decoded["error"][i] is None and now != before:
                    decoded["error"][i] = OTHER_PIXELS
        return {**batch, **decoded}


def read_decoded(source: Source, image_ids: Sequence[str], preprocessing: Preprocessing) -> dict[str, np.ndarray]:
    """Reads and decodes images as `decode_images` does, in turns: of encoded ones few are in memory at once."""
    turns = source.read_in_turns(image_ids)
    # mapped, for a loop would keep a turn while the next is read; the empty one is for no images at all
    decoded = list(map(functools.partial(decode_images, preprocessing=preprocessing), itertools.chain([[]], turns)))
    return {name: np.concatenate([turn[name] for turn in decoded]) for name in decoded[0]}


def decode_images(
    encoded: Sequence[bytes | np.ndarray | Image.Image | Exception], preprocessing: Preprocessing
) -> dict[str, np.ndarray]:
    """Decodes images and brings them to one size, as timm does for evaluation but without normalisation.

    Greyscale, palette, CMYK and 16-bit images become RGB, transparency is dropped, EXIF orientation is
    applied, and of several frames or pages the first is taken. Nothing that is wrong with an image raises: it
    becomes the image's error, as numbers do whose scale the file does not give (floats, 32-bit and signed integers).

    Args:
        encoded: For each image its file's bytes; or pixels, uint8 (H, W) or (H, W, 3), which stay as they are
            where they have the size of `preprocessing` already; or a PIL image; or the exception that reading it gave.
        preprocessing: Data configuration, by timm, of the base classifier.

    Returns:
        `image`: uint8 (N, H, W, 3), zeros where the image has an error.
        `image_sha`: (N,) first 16 hex digits of the sha256 of the image's pixels, None where it has an error.
        `error`: (N,) None, or one line: the kind of the error and its reason.

    Example:
        >>> grey = np.full((10, 10), 128, np.uint8)
        >>> decoded = decode_images([grey, b"no image"], Preprocessing((8, 8), "bilinear", 1.0, "center"))
        >>> decoded["image"].shape, decoded["image"][:, 0, 0].tolist()  # (images, height, width, RGB)
        ((2, 8, 8, 3), [[128, 128, 128], [0, 0, 0]])
        >>> decoded["error"][0] is None, decoded["error"][1] is None
        (True, False)
    """
    check(preprocessing)
    image = np.zeros((len(encoded), *preprocessing.input_size, 3), dtype=np.uint8)
    image_sha = np.full(len(encoded), None, dtype=object)
    error = np.full(len(encoded), None, dtype=object)
    for i, one in enumerate(encoded):
        try:
            image[i] = _pixels(one, preprocessing)
            image_sha[i] = hashlib.sha256(image[i]).hexdigest()[:16]
        except Exception as problem:  # any decoder's error concerns this image alone
            error[i] = _one_line(problem)
    return {"image": image, "image_sha": image_sha, "error": error}


def _pixels(encoded: bytes | np.ndarray | Image.Image | Exception, preprocessing: Preprocessing) -> np.ndarray:
    if isinstance(encoded, np.ndarray) and encoded.shape[:2] == preprocessing.input_size:
        return encoded if encoded.ndim == 3 else np.repeat(encoded[:, :, None], 3, axis=2)
    return np.asarray(to_input_size(rgb_image(encoded), preprocessing))  # (H, W, 3)


def rgb_image(encoded: bytes | np.ndarray | Image.Image | Exception) -> Image.Image:
    """One image as a source read it, upright and in RGB, of its own size.

    Raises:
        Exception: whatever is wrong with it; a decoder may raise anything.
    """
    if isinstance(encoded, Exception):
        raise encoded
    if isinstance(encoded, Image.Image):
        return _rgb(ImageOps.exif_transpose(encoded))
    return _rgb(_open(encoded) if isinstance(encoded, bytes) else Image.fromarray(encoded))


def _open(encoded: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bombs, which are refused here, and of odd EXIF, which is harmless
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = Image.fromarray(_grey(image))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _grey(image: Image.Image) -> np.ndarray:
    """Grey levels of more than 8 bits, uint8 (H, W): scaled, where Pillow would clip them at 255.

    Raises:
        ValueError: the file does not say which number is white.
    """
    levels, tags = np.asarray(image), getattr(image, "tag_v2", {})  # tags of a TIFF
    # Pillow stretches a PGM to 16 bits, in a wider type; a 16-bit PNG is one in older versions
    if image.mode in ("I", "F") and not (image.mode == "I" and image.format in ("PNG", "PPM")):
        kind = "floats" if image.mode == "F" else "signed or 32-bit integers"
        raise ValueError(f"its grey levels are {kind}, which have no known white: write it with 8 or 16 bits")
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    grey = (levels >> (bits - 8)).astype(np.uint8)
    return 255 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey


def _one_line(error: Exception) -> str:
    reason = re.sub(r"\s*<[^>]*>", "", str(error))  # Pillow names its buffer by its address in memory
    return without_credentials(f"{type(error).__name__}: {' '.join(reason.split())}")
