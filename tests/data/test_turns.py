"""A task that decodes holds few encoded images at once, however large they are: they are read in turns."""

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raycsr.data import decode, images, sources
from raycsr.data.decode import read_decoded
from raycsr.data.sources import Source
from raycsr.models.spec import Preprocessing

CONTENTS = {f"{i}": b"%d" % i * size for i, size in enumerate(random.Random(0).choices(range(1, 40), k=30))}


def write_imagefolder(folder: Path, contents: dict[str, bytes]) -> dict[str, bytes]:
    (folder / "cat").mkdir()
    for key, content in contents.items():
        (folder / "cat" / f"{key}.png").write_bytes(content)
    return {f"cat/{key}.png": content for key, content in contents.items()}


def write_csv(folder: Path, contents: dict[str, bytes]) -> dict[str, bytes]:
    named = write_imagefolder(folder, contents)
    (folder / "table.csv").write_text("path,label\n" + "".join(f"{path},0\n" for path in named))
    return named


def write_tar(folder: Path, contents: dict[str, bytes]) -> dict[str, bytes]:
    with tarfile.open(folder / "0.tar", "w") as tar:
        for key, content in contents.items():
            for name, member in ((f"{key}.png", content), (f"{key}.cls", b"0")):
                info = tarfile.TarInfo(name)
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member))
    return {f"0.tar#{key}": content for key, content in contents.items()}


def write_parquet(folder: Path, contents: dict[str, bytes]) -> dict[str, bytes]:
    table = pa.table({"image": list(contents.values()), "label": [0] * len(contents)})
    pq.write_table(table.slice(0, 20), folder / "0.parquet", row_group_size=7)
    pq.write_table(table.slice(20), folder / "1.parquet", row_group_size=7)
    return {f"{i // 20}.parquet#{i % 20}": content for i, content in enumerate(contents.values())}


WRITERS = {
    "imagefolder": (write_imagefolder, ""),
    "csv": (write_csv, "table.csv"),
    "webdataset": (write_tar, ""),
    "parquet": (write_parquet, ""),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("most", [10**9, 100, 50, 10])
def test_turns_are_small_and_in_order(
    source: Callable[..., Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, most: int
) -> None:
    write, name = WRITERS[kind]
    contents = write(tmp_path, CONTENTS)
    opened = source(kind, tmp_path / name)
    ids = opened.list().images.image_id.tolist()
    random.Random(1).shuffle(ids)
    monkeypatch.setattr(sources, "MAX_HELD", most)
    turns = list(opened.read_in_turns(ids))
    assert [image for turn in turns for image in turn] == [contents[one] for one in ids]
    assert all(sum(map(len, turn)) <= most or len(turn) == 1 for turn in turns)
    assert opened.read(ids) == [contents[one] for one in ids]
    assert len(turns) == 1 or most < 10**9


def test_any_image_has_room() -> None:
    assert images.MAX_BYTES <= images.MAX_HELD


def test_a_turn_is_let_go_before_the_next(
    source: Callable[..., Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(picture, "png")
    contents = write_imagefolder(tmp_path, {f"{i}": picture.getvalue() for i in range(9)})
    opened = source("imagefolder", tmp_path)
    monkeypatch.setattr(sources, "MAX_HELD", 2 * len(picture.getvalue()))
    held: list[int] = []

    class Turn(list[Any]):
        """Counts itself while it lives."""

        def __del__(self) -> None:
            held.pop()

    def turns(self: Source, image_ids: list[str]) -> Any:
        for turn in read(self, image_ids):
            assert not held
            held.append(1)
            yield Turn(turn)
            del turn

    read = Source.read_in_turns
    monkeypatch.setattr(decode.Source, "read_in_turns", turns)
    decoded = read_decoded(opened, list(contents), Preprocessing((8, 8), "bilinear", 1.0, "center"))
    assert (decoded["image"] == 7).all() and decoded["image"].shape == (9, 8, 8, 3)
    assert decoded["error"].tolist() == [None] * 9 and not held
