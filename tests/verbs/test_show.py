"""`raycsr show`: images of one's own beside pictures as near as a radius, on one page, without torch."""

import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from raycsr import UserError
from raycsr.data.options import DataOptions
from raycsr.verbs.show import show


@pytest.fixture
def folder(tmp_path):
    """Three photographs of 300 x 260 px."""
    generator = np.random.default_rng(0)
    for i in range(3):
        path = tmp_path / "photographs" / "a" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (260, 300, 3)).astype(np.uint8)).save(path)
    return tmp_path / "photographs"


def test_pictures_stand_side_by_side_with_their_numbers(folder, tmp_path, capsys):
    data = DataOptions("imagefolder", str(folder))
    shown = show(data=data, radius=0.5, sigma=0.25, images=2, out=str(tmp_path / "out"))
    text = (tmp_path / "out" / "show.html").read_text()
    assert text.count("data:image/png;base64,") == 2 * 5 and "default-src 'none'" in text
    assert len(shown) == 2 * 3 and all(0.45 < one.norm <= 0.5 for one in shown if "noise" not in one.title)
    said = capsys.readouterr().out
    # random over 224 x 224 px: 20 log10(sqrt(3) 224 / .5) dB
    assert "a/0.png" in said and "a/2.png" in said and "a/1.png" not in said
    assert re.search(r"224 x 224 px .* random, all pixels .* L2 0\.\d+, PSNR 57\.8 dB", said)


def test_the_size_is_the_model_s_or_that_of_small_images(tmp_path):
    small = show(data=DataOptions("digits", limit=1), radius=0.5, sigma=0.5, images=1, out=str(tmp_path / "out"))
    assert small[0].pixels.shape == (8, 8, 3)
    large = show(
        data=DataOptions("digits", limit=1), radius=0.5, sigma=0.5, images=1, input_size=32, out=str(tmp_path / "out")
    )
    assert large[0].pixels.shape == (32, 32, 3) and large[1].psnr > small[1].psnr + 10


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"radius": -1.0}, "radius -1"),
        ({"sigma": 0.0}, "sigma is 0"),
        ({"sigma": 15.0}, "sigma is 15.*14 at most"),
        ({"images": 0}, "0 images"),
        ({"input_size": 0}, "0 px"),
    ],
)
def test_what_cannot_be_shown_is_refused(options, says, tmp_path):
    with pytest.raises(UserError, match=says):
        show(**{"data": DataOptions("digits"), "radius": 0.5, "sigma": 0.25, "out": str(tmp_path), **options})


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_shown(folder, tmp_path):
    """One broken file of a folder, and nothing was shown."""
    options = {"radius": 0.5, "sigma": 0.25, "out": str(tmp_path / "out")}
    (folder / "a" / "0.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="'a/0.png' cannot be shown"):
        assert len(show(data=DataOptions("imagefolder", str(folder)), **options)) == 2 * 3
    with pytest.raises(UserError, match="'a/0.png' cannot be shown"):
        show(data=DataOptions("imagefolder", str(folder), limit=1), **options)
    (folder / "a" / "1.png").write_bytes(b"no image")
    with pytest.warns(UserWarning), pytest.raises(UserError, match="none of 2 images .* --images"):
        show(data=DataOptions("imagefolder", str(folder), limit=2), **options)


def test_showing_loads_no_torch(folder, tmp_path):
    code = "import sys; from raycsr.cli import main; main(sys.argv[1:]); "
    code += "print(sorted({'torch', 'ray', 'torchvision', 'scipy.stats'} & set(sys.modules)))"
    words = ["show", "--data.source", "imagefolder", "--data.path", str(folder), "--radius", "0.5", "--sigma", "0.25"]
    done = subprocess.run([sys.executable, "-c", code, *words, "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_images_need_no_labels_and_may_have_them(folder, tmp_path):
    for data in (DataOptions("imagefolder", str(folder / "a")), DataOptions("imagefolder", str(folder), classes=["a"])):
        assert show(data=data, radius=0.5, sigma=0.25, images=1, input_size=8, out=str(tmp_path / "out"))
