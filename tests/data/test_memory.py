import numpy as np
import pytest

from raycsr.data.memory import num_bytes, read_pixels
from raycsr.data.options import DataOptions
from raycsr.data.packaged import digits_arrays
from raycsr.data.sources import open_source
from raycsr.errors import UserError
from raycsr.models.spec import Preprocessing

EIGHT = Preprocessing((8, 8), "bilinear", 1.0, "center")


def test_all_digits_in_the_order_of_the_listing():
    source = open_source(DataOptions(source="digits", split="train"))
    pixels = read_pixels(source, source.list().images, EIGHT)
    images, labels = digits_arrays("train")
    assert np.array_equal(pixels.images, images) and np.array_equal(pixels.labels, labels)
    assert len(pixels) == 1078 and pixels.image_ids[700] == "train#700"  # beyond the first block
    some = pixels.take(np.array([3, 1]))
    assert np.array_equal(some.images, images[[3, 1]]) and some.image_ids == ["train#3", "train#1"]
    assert num_bytes(1078, EIGHT) == pixels.images.nbytes


def test_images_that_cannot_be_decoded_are_left_out_with_a_warning(photographs):
    source = open_source(photographs["data"])
    with pytest.warns(UserWarning, match=r"1 of 6 images cannot be decoded, the first 'dog/1.png': Unidentified"):
        pixels = read_pixels(source, source.list().images, EIGHT)
    assert pixels.labels.tolist() == [0, 0, 0, 1, 1] and "dog/1.png" not in pixels.image_ids
    assert pixels.images.shape == (5, 8, 8, 3)


def test_no_image_at_all_is_an_error(photographs):
    source = open_source(photographs["data"])
    images = source.list().images
    with pytest.raises(UserError, match="1 of 1 images cannot be decoded, the first 'dog/1.png'"):
        read_pixels(source, images[images.image_id == "dog/1.png"], EIGHT)
