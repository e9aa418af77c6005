"""Decoding: every kind of image becomes upright RGB of one size, and a bad one becomes its own error."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raycsr.data import decode
from raycsr.data.decode import Decode, decode_images, rgb_image
from raycsr.data.images import FORMATS
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source
from raycsr.errors import UserError
from raycsr.models.spec import Preprocessing

SIZE = Preprocessing(input_size=(16, 16), interpolation="bilinear", crop_pct=1.0, crop_mode="center")
IMAGENET = Preprocessing(input_size=(224, 224), interpolation="bicubic", crop_pct=0.875, crop_mode="center")


def encode(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def decode_one(encoded: bytes | np.ndarray, preprocessing: Preprocessing = SIZE) -> np.ndarray:
    decoded = decode_images([encoded], preprocessing)
    assert decoded["error"].tolist() == [None]
    return decoded["image"][0]


def decode_error(encoded: bytes | np.ndarray | Exception) -> str:
    decoded = decode_images([encoded], SIZE)
    assert not decoded["image"].any()
    assert decoded["image_sha"].tolist() == [None]
    error = decoded["error"][0]
    assert "\n" not in error and "0x" not in error
    return error


def tiff_of_bits(bits: int, pixels: bytes, width: int) -> bytes:
    """A grey TIFF of one row, written by hand: Pillow writes no 12 bits."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(pixels)}
    padded = pixels + bytes(len(pixels) % 2)
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (
        struct.pack("<2sHI", b"II", 42, 8 + len(padded)) + padded + struct.pack("<H", len(tags)) + directory + bytes(4)
    )


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


class TestModes:
    def test_rgb_of_the_right_size_is_untouched(self, rgb: np.ndarray) -> None:
        assert (decode_one(encode(Image.fromarray(rgb))) == rgb).all()

    def test_greyscale(self, rgb: np.ndarray) -> None:
        grey = rgb[:, :, 0]
        assert (decode_one(encode(Image.fromarray(grey))) == grey[:, :, None]).all()

    def test_sixteen_bit_grey_is_scaled_not_clipped(self) -> None:
        levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
        decoded = decode_one(encode(Image.fromarray(levels)))
        assert (decoded == np.arange(256).reshape(16, 16, 1)).all()

    @pytest.mark.parametrize(("format_", "options"), [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})])
    def test_a_sixteen_bit_tiff(self, format_: str, options: dict[str, Any]) -> None:
        levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
        decoded = decode_one(encode(Image.fromarray(levels), format_, **options))
        assert (decoded == np.arange(256).reshape(16, 16, 1)).all()

    def test_a_sixteen_bit_tiff_whose_zero_is_white(self) -> None:
        levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
        decoded = decode_one(encode(Image.fromarray(levels), "TIFF", tiffinfo={262: 0}))
        assert (decoded == 255 - np.arange(256).reshape(16, 16, 1)).all()

    def test_a_twelve_bit_tiff(self) -> None:
        # two pixels in three bytes: 0xfff is white, 0x800 half of it
        decoded = rgb_image(tiff_of_bits(12, bytes([0xFF, 0xF8, 0x00]), width=2))
        assert np.asarray(decoded)[0, :, 0].tolist() == [255, 128]

    @pytest.mark.parametrize(
        "magic", [b"P5\n4 1\n1023\n" + bytes([0, 0, 1, 255, 3, 255, 1, 0]), b"P2 4 1 1023 0 511 1023 256 "]
    )
    def test_a_ten_bit_pgm(self, magic: bytes) -> None:
        assert np.asarray(rgb_image(magic))[0, :, 0].tolist() == [0, 127, 255, 64]

    @pytest.mark.parametrize("dtype", [np.int32, np.float32])
    def test_numbers_without_a_known_white_are_an_error(self, dtype: type) -> None:
        levels = np.full((16, 16), 200, dtype)
        assert "have no known white: write it with 8 or 16 bits" in decode_error(
            encode(Image.fromarray(levels), "TIFF")
        )
        assert "floats" in decode_error(b"Pf\n1 1\n-1.0\n" + np.array([0.5], "<f4").tobytes())

    @pytest.mark.parametrize("format_", ["GIF", "TIFF", "PNG", "WEBP"])
    def test_of_several_frames_the_first(self, format_: str) -> None:
        frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
        decoded = decode_one(encode(frames[0], format_, save_all=True, append_images=frames[1:]))
        assert np.abs(decoded.astype(int) - [255, 0, 0]).max() <= 2

    @pytest.mark.parametrize("format_", FORMATS)
    def test_every_format_that_is_listed_is_decoded(self, format_: str) -> None:
        picture = Image.new("RGB", (16, 16), (200, 30, 40))
        picture.paste((255, 255, 255), (0, 0, 16, 8))
        if format_ in ("MSP", "XBM"):
            picture = picture.convert("1")
        try:
            encoded = encode(picture, format_)
        except KeyError:
            pytest.skip(f"Pillow writes no {format_}")
        assert np.abs(decode_one(encoded).astype(int) - np.asarray(picture.convert("RGB"))).max() <= 60

    def test_cmyk_jpeg(self) -> None:
        red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
        assert np.abs(decode_one(encode(red, "JPEG")).astype(int) - [255, 0, 0]).max() <= 3

    def test_palette_with_transparency_keeps_its_colours(self) -> None:
        image = Image.new("P", (16, 16), 1)
        image.putpalette([0, 0, 0, 10, 200, 30])
        assert (decode_one(encode(image, transparency=bytes([255, 0]))) == [10, 200, 30]).all()

    def test_alpha_is_dropped(self, rgb: np.ndarray) -> None:
        rgba = np.dstack([rgb, np.full((16, 16), 7, np.uint8)])
        assert (decode_one(encode(Image.fromarray(rgba))) == rgb).all()

    def test_one_bit(self) -> None:
        assert (decode_one(encode(Image.new("1", (16, 16), 1))) == 255).all()

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, orientation: int) -> None:
        upright = np.zeros((16, 16, 3), np.uint8)
        upright[:8, :8] = 255  # only the top left corner is white
        upright[:8, 8:] = 128
        inverse = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }
        stored = Image.fromarray(upright)
        if orientation in inverse:
            stored = stored.transpose(inverse[orientation])
        exif = Image.Exif()
        exif[0x0112] = orientation
        decoded = decode_one(encode(stored, "JPEG", exif=exif, quality=100))
        assert np.abs(decoded.astype(int) - upright).max() < 10

    @pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
    def test_the_orientation_of_a_tiff_is_applied_once(self, options: dict[str, Any]) -> None:
        upright = np.zeros((16, 16, 3), np.uint8)
        upright[:8, :8] = 255
        exif = Image.Exif()
        exif[0x0112] = 6
        stored = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
        assert (decode_one(encode(stored, "TIFF", exif=exif, **options)) == upright).all()


class TestSize:
    def test_is_timms_evaluation_transform(self) -> None:
        from timm.data import create_transform

        photo = np.random.default_rng(1).integers(0, 256, (300, 500, 3), dtype=np.uint8)
        timms = create_transform((3, 224, 224), interpolation="bicubic", crop_pct=0.875, normalize=False)
        expected = timms(Image.fromarray(photo)).permute(1, 2, 0).numpy()
        assert (decode_one(encode(Image.fromarray(photo)), IMAGENET) == expected).all()
        assert (decode_one(photo, IMAGENET) == expected).all()

    @pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
    def test_any_shape_becomes_the_input_size(self, crop_mode: str) -> None:
        oblong = Preprocessing(input_size=(24, 40), interpolation="bicubic", crop_pct=0.9, crop_mode=crop_mode)
        for size in [(1, 1), (300, 20), (20, 300)]:
            assert decode_one(encode(Image.new("RGB", size)), oblong).shape == (24, 40, 3)

    def test_pixels_of_the_right_size_pass_untouched(self, rgb: np.ndarray) -> None:
        cropping = Preprocessing(input_size=(16, 16), interpolation="bicubic", crop_pct=0.875, crop_mode="center")
        assert (decode_one(rgb, cropping) == rgb).all()
        assert (decode_one(rgb[:, :, 0], cropping) == rgb[:, :, :1]).all()
        assert decode_one(rgb[:, :8], cropping).shape == (16, 16, 3)


class TestErrors:
    def test_truncated(self, rgb: np.ndarray) -> None:
        jpeg = encode(Image.fromarray(rgb).resize((200, 200)), "JPEG")
        assert decode_error(jpeg[: len(jpeg) // 2]).startswith("OSError: image file is truncated")

    def test_not_an_image(self) -> None:
        assert decode_error(b"hello") == "UnidentifiedImageError: cannot identify image file"
        assert decode_error(b"").startswith("UnidentifiedImageError")

    def test_corrupt_png(self, rgb: np.ndarray) -> None:
        png = bytearray(encode(Image.fromarray(rgb)))
        png[60:80] = bytes(20)
        decode_error(bytes(png))

    def test_a_program_is_not_an_image(self) -> None:
        assert decode_error(encode(Image.new("RGB", (16, 16)), "EPS")).startswith("UnidentifiedImageError")

    @pytest.mark.parametrize("format_", ["TIFF", "GIF", "BMP", "PPM", "TGA", "SGI", "PCX"])
    def test_more_pixels_than_there_should_be_in_any_format(
        self, format_: str, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decode, "MAX_PIXELS", 255)
        assert decode_error(encode(Image.fromarray(rgb), format_)) == "ValueError: 16 x 16 pixels are more than 255"

    @pytest.mark.parametrize("seed", range(100))
    def test_a_damaged_image_is_no_other_image(self, seed: int) -> None:
        """A header that is overwritten is not taken for one of a format without a signature."""
        generator = np.random.default_rng(seed)
        damaged = bytearray(encode(Image.new("RGB", (16, 16)), "JPEG"))
        damaged[:20] = generator.bytes(20)
        decode_error(bytes(damaged))

    def test_decompression_bomb(self) -> None:
        assert "decompression bomb" in decode_error(encode(Image.new("1", (20_000, 10_000))))
        large = decode_error(encode(Image.new("1", (10_000, 9_000))))
        assert large == "ValueError: 10000 x 9000 pixels are more than 89,478,485"

    def test_a_preprocessing_that_cannot_be_is_no_error_of_an_image(self) -> None:
        impossible = Preprocessing(input_size=(16, 16), interpolation="cubist", crop_pct=1.0, crop_mode="center")
        with pytest.raises(UserError, match="bicubic"):
            decode_images([b"hello"], impossible)

    def test_what_reading_raised(self) -> None:
        assert decode_error(FileNotFoundError("the file\nvanished")) == "FileNotFoundError: the file vanished"

    def test_pixels_of_no_known_shape(self) -> None:
        decode_error(np.zeros((4, 4, 5), np.uint8))
        decode_error(np.zeros((16, 16, 5), np.uint8))

    def test_a_bad_image_leaves_its_neighbours_alone(self, rgb: np.ndarray) -> None:
        good = encode(Image.fromarray(rgb))
        decoded = decode_images([good, b"bad", good], SIZE)
        assert decoded["image"].shape == (3, 16, 16, 3)
        assert decoded["image"].dtype == np.uint8
        assert [error is None for error in decoded["error"]] == [True, False, True]
        assert decoded["image_sha"][0] == decoded["image_sha"][2]
        assert len(decoded["image_sha"][0]) == 16


def test_sha_is_of_the_pixels_not_of_the_encoding(rgb: np.ndarray) -> None:
    encodings = [encode(Image.fromarray(rgb)), encode(Image.fromarray(rgb), "BMP"), rgb, 255 - rgb]
    shas = decode_images(encodings, SIZE)["image_sha"].tolist()
    assert len(set(shas[:3])) == 1
    assert shas[3] != shas[0]


def test_decode_a_batch() -> None:
    digits = open_source(DataOptions(source="digits"))
    eight = Preprocessing(input_size=(8, 8), interpolation="bicubic", crop_pct=1.0, crop_mode="center")
    rows = digits.list().images[["image_id", "label"]].iloc[:5]
    batch = Decode(digits, eight)({name: rows[name].to_numpy() for name in rows})
    assert batch["label"].tolist() == rows.label.tolist()
    assert (batch["image"][2] == digits.read(["test#2"])[0]).all()
    assert batch["error"].tolist() == [None] * 5
    empty = Decode(digits, eight)({"image_id": np.array([], object)})
    assert empty["image"].shape == (0, 8, 8, 3)


def test_shared_imagenet_photographs(shared_data: Path) -> None:
    folder = open_source(DataOptions("imagefolder", str(shared_data / "imagenet-sample" / "val")))
    ids = folder.list().images.image_id.tolist()
    encoded = folder.read(ids)
    grey = [i for i, one in enumerate(encoded) if Image.open(io.BytesIO(one)).mode == "L"]  # type: ignore[arg-type]
    assert len(grey) == 23
    chosen = [*grey, *range(0, 1000, 20)]
    decoded = decode_images([encoded[i] for i in chosen], IMAGENET)
    assert decoded["error"].tolist() == [None] * len(chosen)
    channels = decoded["image"][: len(grey)]
    assert (channels == channels[..., :1]).all()


def test_shared_cifar_block(shared_data: Path) -> None:
    cifar = open_source(DataOptions("parquet", str(shared_data / "cifar10")))
    net = Preprocessing(input_size=(32, 32), interpolation="bilinear", crop_pct=1.0, crop_mode="center")
    encoded = cifar.read(cifar.list().images.image_id[:256].tolist())
    decoded = decode_images(encoded, net)
    assert decoded["error"].tolist() == [None] * 256
    first = np.asarray(Image.open(io.BytesIO(encoded[0])))  # type: ignore[arg-type]
    assert (decoded["image"][0] == first).all()
    assert len(set(decoded["image_sha"])) == 256
