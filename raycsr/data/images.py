"""What every kind of source hands over: the rows of a listing, and each image as it was read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

Image = bytes | np.ndarray | Exception  # one image as it was read, or why it could not be
Images = list[Image]


def frame(image_id: Sequence[str], label: Any, size: Any, version: Any) -> pd.DataFrame:
    """The rows of a listing: its columns, or one value for all rows."""
    rows = pd.DataFrame({"image_id": image_id, "label": label, "size": size, "version": version})
    return rows.astype({"label": "int32", "size": "int64"})
