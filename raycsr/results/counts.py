"""How far a run is: which of its images are done, missing or errored, by the rows that stand."""

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

from raycsr.results.merging import missing_images, whole


class ImageCounts(NamedTuple):
    """How far a run is: each listed image is done, missing or errored.

    Attributes:
        images: Number of listed images.
        done: Number of images that have votes under every rule.
        missing: Number of images that lack a row of some rule, which `raycsr sample` draws.
        errored: Number of images that lack no row, but have an error instead of votes under some rule.
    """

    images: int
    done: int
    missing: int
    errored: int

    @classmethod
    def of(cls, listing: pd.DataFrame, committed: pa.Table, rules: Iterable[str]) -> "ImageCounts":
        """Counts the images of a listing.

        Args:
            listing: The listing.
            committed: All committed rows, as `whole` takes them.
            rules: Ids of the rules that each image is to have a row of.
        """
        rows, wanted = whole(committed), list(rules)
        missing = len(missing_images(listing, rows, wanted))
        without_votes = len(missing_images(listing, rows.filter(rows["error"].is_null()), wanted))
        return cls(len(listing), len(listing) - without_votes, missing, without_votes - missing)
