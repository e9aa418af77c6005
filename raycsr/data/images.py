"""What every kind of source hands over: the rows of a listing, and each image as it was read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

Image = bytes | np.ndarray | Exception  # one image as it was read, or why it could not be
Images = list[Image]

MAX_BYTES = 2**28  # of an encoded image: a larger one is an error of its row, and is not read


def frame(image_id: Sequence[str], label: Any, size: Any, version: Any, group: Any = None) -> pd.DataFrame:
    """The rows of a listing: its columns, or one value for all rows; without groups there is no column of them."""
    columns = {"image_id": image_id, "label": label, "size": size, "version": version}
    rows = pd.DataFrame(columns if group is None else {**columns, "group": group})
    return rows.astype({"label": "int32", "size": "int64"})


def too_large(size: int) -> ValueError:
    """What stands for an image of more than `MAX_BYTES` bytes."""
    return ValueError(f"the image has {size:,} bytes, more than {MAX_BYTES:,}")
