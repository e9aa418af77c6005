"""What to certify: sources of images, and their decoding to pixels of one size."""

from raycsr.data.decode import Decode, decode_images
from raycsr.data.sources import (
    DataOptions,
    Listing,
    Source,
    cifar10_arrays,
    digits_arrays,
    open_source,
)

__all__ = [
    "DataOptions",
    "Decode",
    "Listing",
    "Source",
    "cifar10_arrays",
    "decode_images",
    "digits_arrays",
    "open_source",
]
