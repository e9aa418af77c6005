"""Images that are not independent of each other: those of one patient, say, or of one lesion."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from raycsr.certification.bounds import IntArray
from raycsr.errors import UserError


def group_numbers(groups: ArrayLike) -> IntArray:
    """Names of groups -> their numbers.

    Args:
        groups: (N,) the group of each image: text or numbers; None or NaN for an image that stands alone.

    Returns:
        int (N,), from 0; an image without a group has a number of its own.

    Raises:
        UserError: names that are neither text nor numbers.

    Example:
        >>> group_numbers(["patient 7", "patient 9", None, "patient 7", None])
        array([0, 1, 2, 0, 3])
    """
    try:
        codes, names = pd.factorize(pd.Series(groups))
    except (TypeError, ValueError) as error:
        raise UserError(f"groups are no column of text or numbers ({error}); give each image one name") from error
    alone = codes < 0
    codes[alone] = len(names) + np.arange(np.count_nonzero(alone))
    return codes.astype(np.int64)


def group_column(images: pd.DataFrame) -> IntArray | None:
    """The numbers of the groups in the column `group` of images or certificates; None where there is no such column.

    Example:
        >>> group_column(pd.DataFrame({"group": ["a", "b", "a"]}))
        array([0, 1, 0])
    """
    return group_numbers(images["group"]) if "group" in images else None
