"""Images that fit in memory: a listing -> one array of pixels, for training and for tuning."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from raycsr.data.decode import read_decoded
from raycsr.data.sources import Source
from raycsr.errors import UserError
from raycsr.models.spec import Preprocessing
from raycsr.progress import Progress

_BLOCK = 512  # images read at once


@dataclass(frozen=True)
class Pixels:
    """Decoded images.

    Attributes:
        images: Images; uint8 (N, H, W, 3).
        labels: Classes of the images; int64 (N,).
        image_ids: N ids of the listing.
    """

    images: np.ndarray
    labels: np.ndarray
    image_ids: list[str]

    def __len__(self) -> int:
        """Returns N."""
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Pixels":
        """Some of the images, copied."""
        return Pixels(self.images[indices], self.labels[indices], [self.image_ids[i] for i in indices])


def num_bytes(num_images: int, preprocessing: Preprocessing) -> int:
    """What that many decoded images take in memory."""
    height, width = preprocessing.input_size
    return num_images * height * width * 3


def read_pixels(source: Source, images: pd.DataFrame, preprocessing: Preprocessing) -> Pixels:
    """Reads and decodes images as they are certified: resized and cropped for evaluation.

    Images that cannot be decoded are left out, with a warning that names the first.

    Args:
        source: Source of the images.
        images: Rows of its listing: image_id, label.
        preprocessing: The base classifier's.

    Raises:
        UserError: None of them can be decoded.
    """
    starts = range(0, len(images), _BLOCK)
    pixels = np.zeros((len(images), *preprocessing.input_size, 3), np.uint8)
    errors: list[str | None] = [None] * len(images)

    def read(start: int) -> None:
        block = slice(start, start + _BLOCK)
        decoded = read_decoded(source, images["image_id"].iloc[block].tolist(), preprocessing)
        pixels[block] = decoded["image"]
        errors[block] = decoded["error"]

    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(len(images), "decode", "images") as progress:
        for start, _ in zip(starts, pool.map(read, starts), strict=True):
            progress.update(min(_BLOCK, len(images) - start))
    labels, image_ids = images["label"].to_numpy(np.int64), images["image_id"].tolist()
    good = np.flatnonzero([error is None for error in errors])
    if len(good) == len(images):
        return Pixels(pixels, labels, image_ids)
    first = next(i for i, error in enumerate(errors) if error is not None)
    message = f"of {len(images)} images cannot be decoded, the first {image_ids[first]!r}: {errors[first]}"
    if not len(good):
        raise UserError(f"{len(images)} {message}")
    warnings.warn(f"{len(images) - len(good)} {message}; they are left out", stacklevel=2)
    return Pixels(pixels, labels, image_ids).take(good)
