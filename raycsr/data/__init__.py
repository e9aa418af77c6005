"""What to certify: sources of images, and their decoding to pixels of one size."""

from raycsr.data.decode import Decode, decode_images
from raycsr.data.options import DataOptions
from raycsr.data.packaged import cifar10_arrays, digits_arrays
from raycsr.data.sources import Listing, Source, open_source

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
