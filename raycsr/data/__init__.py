"""What to certify: sources of images, and their decoding to pixels of one size."""

from raycsr.data.decode import OTHER_PIXELS, Decode, decode_images, rgb_image
from raycsr.data.images import Found, Image, Images, Room, frame
from raycsr.data.kinds import SourceKind
from raycsr.data.memory import Pixels, num_bytes, read_pixels
from raycsr.data.options import DataOptions
from raycsr.data.packaged import cifar10_arrays, digits_arrays
from raycsr.data.sources import Listing, Source, open_source, source_names, stored_options, with_split
from raycsr.data.splits import refuse_test_images

__all__ = [
    "OTHER_PIXELS",
    "DataOptions",
    "Decode",
    "Found",
    "Image",
    "Images",
    "Listing",
    "Pixels",
    "Room",
    "Source",
    "SourceKind",
    "cifar10_arrays",
    "decode_images",
    "digits_arrays",
    "frame",
    "num_bytes",
    "open_source",
    "read_pixels",
    "refuse_test_images",
    "rgb_image",
    "source_names",
    "stored_options",
    "with_split",
]
