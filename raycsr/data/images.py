"""What every kind of source hands over: the rows of a listing, and each image as it was read."""

import posixpath
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image as Pillow

Image = bytes | np.ndarray | Exception  # one image as it was read, or why it could not be
Images = list[Image]

MAX_BYTES = 2**28  # of an encoded image: a larger one is an error of its row, and is not read
MAX_HELD = 2**28  # bytes of encoded images that are in memory at once, in a process that decodes; one always fits

LATER = ValueError("the image was left for later: others take the memory")  # stands for it until it is read

# Formats that tell themselves by a signature, and that Pillow decodes by itself to one picture: none that runs a
# program (EPS), leaves decoding to others (HDF5, WMF), or holds numbers without a scale (FITS). TGA has no signature
# and is tried last.
_FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "BMP", "PPM", "GIF", "TIFF", "AVIF", "JPEG2000", "DDS", "DIB", "ICO", "MSP"),
    *("PCX", "PSD", "QOI", "SGI", "SUN", "XBM", "TGA"),
)
# by which Pillow registers them, where it was built with their decoder
EXTENSIONS = frozenset(ext for ext, format_ in Pillow.registered_extensions().items() if format_ in _FORMATS)
FORMATS = tuple(format_ for format_ in _FORMATS if format_ in Pillow.OPEN)  # all but MPO, which JPEG opens
PICTURES = ".jpg, .png, .tif or another that Pillow reads"  # what messages call EXTENSIONS


class Found(NamedTuple):
    """What is listed in a source.

    Attributes:
        images: One row an image, see `frame`.
        class_names: The source's own names of its classes in the order of the labels; None where it has none.
        left_out: Number of files that are no images of the source, by what they are: an extension, or words.
        all_splits: Whether nothing in the source says a split, so that all its images are listed.
    """

    images: pd.DataFrame
    class_names: list[str] | None
    left_out: Counter[str]
    all_splits: bool = False


class Room:
    """The bytes that images which are read together may take; once one finds no room, all that come after wait."""

    def __init__(self, most: float) -> None:
        """Nothing is taken yet."""
        self.full = False
        self._left, self._lock = most, threading.Lock()

    def take(self, size: int) -> bool:
        """Whether an image of so many bytes may be read now."""
        with self._lock:
            self.full = self.full or size > self._left
            self._left -= 0 if self.full else size
            return not self.full


def extension(path: str) -> str:
    """What a file's name ends with, in lower case, with its dot; or the words "no extension"."""
    return posixpath.splitext(path)[1].lower() or "no extension"


def frame(image_id: Sequence[str], label: Any, size: Any, version: Any, group: Any = None) -> pd.DataFrame:
    """The rows of a listing: its columns, or one value for all rows; without groups there is no column of them."""
    columns = {"image_id": image_id, "label": label, "size": size, "version": version}
    rows = pd.DataFrame(columns if group is None else {**columns, "group": group})
    return rows.astype({"label": "int32", "size": "int64"})


def too_large(size: int) -> ValueError:
    """What stands for an image of more than `MAX_BYTES` bytes."""
    return ValueError(f"the image has {size:,} bytes, more than {MAX_BYTES:,}")
