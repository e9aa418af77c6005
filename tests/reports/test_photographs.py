"""The pictures behind certificates, read again from an ImageFolder."""

import io

import numpy as np
import pytest
from handmade import NEVER_B, PLAIN, write_photographs, write_run
from PIL import Image

from raycsr import UserError
from raycsr.reports.photographs import read_pictures, small_png


@pytest.fixture
def photographs(tmp_path):
    return write_photographs(tmp_path / "photographs")


def certificates(run):
    return run.certificates(*run.certificate_sets(), "argmax")


def test_pictures_come_in_the_order_of_the_certificates(tmp_path, photographs):
    run = write_run(tmp_path / "results", "m.pt", {"argmax": PLAIN}, photographs=photographs)
    pictures = read_pictures(run, certificates(run).iloc[[3, 0]])
    assert [picture.shape for picture in pictures] == [(8, 8, 3)] * 2
    assert [picture.max() for picture in pictures] == [120, 0]
    assert read_pictures(run, certificates(run).iloc[:0]) == []


def test_pictures_are_read_from_s3_too(s3, tmp_path, photographs):
    bucket = s3.new_bucket()
    for file in photographs.glob("*/*.png"):
        s3.client.put_object(Bucket=bucket, Key=f"photos/{file.relative_to(photographs)}", Body=file.read_bytes())
    there = {"data": {"source": "imagefolder", "path": f"s3://{bucket}/photos"}}
    run = write_run(f"s3://{bucket}/results", "m.pt", {"argmax": PLAIN}, photographs=photographs, config=there)
    assert [picture.max() for picture in read_pictures(run, certificates(run))] == [0, 40, 80, 120, 160, 200]


def test_an_image_that_is_away_broken_or_another_says_so(tmp_path, photographs):
    run = write_run(tmp_path / "results", "m.pt", {"argmax": PLAIN}, photographs=photographs)
    (photographs / "a/0.png").unlink()
    (photographs / "a/1.png").write_bytes(b"not an image")
    Image.new("RGB", (8, 8), "red").save(photographs / "b/0.png")
    gone, broken, another, same = read_pictures(run, certificates(run))[:4]
    assert gone == "FileNotFoundError: the file vanished after it was listed"
    assert broken.startswith("UnidentifiedImageError")
    assert another == "its pixels are not those that were sampled"
    assert same.max() == 120


def test_a_huge_image_is_refused_by_its_header(tmp_path, photographs):
    run = write_run(tmp_path / "results", "m.pt", {"argmax": PLAIN}, photographs=photographs)
    bomb = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
    (photographs / "a/0.png").write_bytes(bomb.getvalue())
    assert "are more than 89,478,485" in read_pictures(run, certificates(run))[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"data": {"source": "imagefolder", "path": "/nowhere/photos"}}, "there is no '/nowhere/photos'"),
        ({"data": {"source": "cifar10", "path": "/nowhere"}}, "no CIFAR-10 in '/nowhere'"),
        (
            {"data": {"source": "imagefolder", "path": "/nowhere", "shuffle": True}},
            "run 0{16} cannot be read: TypeError",
        ),
    ],
)
def test_a_source_that_is_away_is_named(tmp_path, config, message):
    run = write_run(tmp_path, "m.pt", {"argmax": NEVER_B}, config=config)
    with pytest.raises(UserError, match=message) as error:
        read_pictures(run, certificates(run))
    assert "\n" not in str(error.value)


def test_a_small_png_holds_nothing_but_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (320, 200, 3), dtype=np.uint8)
    small = Image.open(io.BytesIO(small_png(pixels)))
    assert (small.format, small.size, small.info) == ("PNG", (100, 160), {})
    same = np.asarray(Image.open(io.BytesIO(small_png(pixels[:8, :8]))))
    assert (same == pixels[:8, :8]).all()
