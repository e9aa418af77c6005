"""What may be given as images, and what is refused in a line."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from raycsr import UserError
from raycsr.data.decode import decode_images
from raycsr.deployment.images import to_pixels
from raycsr.models.spec import Preprocessing

SQUARE = Preprocessing((8, 8), "bilinear", 1.0, "center")
PICTURE = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
TAKEN = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)


def test_pictures_of_every_kind_become_the_pixels_that_are_certified(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    encoded = (tmp_path / "a.png").read_bytes()
    wanted = decode_images([encoded], SQUARE)["image"].transpose(0, 3, 1, 2)
    for one in (str(tmp_path / "a.png"), tmp_path / "a.png", encoded, Image.fromarray(PICTURE), PICTURE):
        assert (to_pixels(one, SQUARE).numpy() == wanted).all()
    assert (to_pixels([PICTURE, encoded], SQUARE).numpy() == wanted).all()
    assert to_pixels(Image.fromarray(PICTURE).convert("L"), SQUARE).shape == (1, 3, 8, 8)  # grey becomes RGB


def test_a_picture_is_upright_as_its_exif_says():
    turned = Image.fromarray(PICTURE)
    exif = turned.getexif()
    exif[0x0112] = 6
    data = io.BytesIO()
    turned.save(data, "PNG", exif=exif)
    with Image.open(io.BytesIO(data.getvalue())) as opened:
        assert torch.equal(to_pixels(opened, SQUARE), to_pixels(data.getvalue(), SQUARE))


@pytest.mark.parametrize(
    "batch",
    [TAKEN, torch.from_numpy(TAKEN), TAKEN.transpose(0, 2, 3, 1), TAKEN / np.float32(255), TAKEN / 255, list(TAKEN)],
)
def test_batches_are_pixels_already(batch):
    assert (to_pixels(batch, SQUARE).numpy() == TAKEN).all()


def test_without_preprocessing_batches_alone_are_taken():
    assert to_pixels(torch.zeros((2, 1, 5, 4), dtype=torch.uint8), None).shape == (2, 1, 5, 4)
    with pytest.raises(UserError, match="image 0 is no array"):
        to_pixels(Image.fromarray(PICTURE), None)


@pytest.mark.parametrize(
    ("images", "facts"),
    [
        ([], ["no images"]),
        (TAKEN[:0], ["no images"]),
        (TAKEN[:, :, :4], ["(3, 4, 8)", "(3, 8, 8)"]),
        (TAKEN[:, :1], ["(1, 8, 8)"]),
        (TAKEN.astype(np.int64), ["int64", "uint8"]),
        (np.full((1, 3, 8, 8), np.nan), ["nan", "k / 255"]),
        (np.full((1, 3, 8, 8), 0.001), ["0.001", "k / 255"]),
        (np.full((1, 3, 8, 8), 2.0), ["2", "k / 255"]),
        (np.zeros((2, 2)), ["(2, 2)"]),
        ([PICTURE, 3], ["image 1 is a int"]),
        (b"no image", ["image 0", "UnidentifiedImageError"]),
        ("missing.png", ["no file 'missing.png'"]),
        (Image.new("F", (8, 8)), ["image 0", "floats"]),
    ],
)
def test_what_is_no_image_is_one_line(images, facts):
    with pytest.raises(UserError) as refused:
        to_pixels(images, SQUARE)
    assert all(fact in str(refused.value) for fact in facts), refused.value
    assert "\n" not in str(refused.value)
