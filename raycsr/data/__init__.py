"""What to certify: sources of images, and their decoding to pixels of one size."""

from raycsr.data.decode import OTHER_PIXELS, Decode, decode_images, rgb_image
from raycsr.data.images import Image
from raycsr.data.memory import Pixels, num_bytes, read_pixels
from raycsr.data.options import DataOptions
from raycsr.data.packaged import cifar10_arrays, digits_arrays
from raycsr.data.sources import Listing, Source, open_source, stored_options, with_split
from raycsr.data.splits import refuse_test_images

__all__ = [
    "OTHER_PIXELS",
    "DataOptions",
    "Decode",
    "Image",
    "Listing",
    "Pixels",
    "Source",
    "cifar10_arrays",
    "decode_images",
    "digits_arrays",
    "num_bytes",
    "open_source",
    "read_pixels",
    "refuse_test_images",
    "rgb_image",
    "stored_options",
    "with_split",
]
