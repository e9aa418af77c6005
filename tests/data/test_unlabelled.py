"""Images that nobody has labelled: each source lists and reads them, and one that wants labels still refuses them."""

import io
import tarfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raycsr import UserError
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source

NAMES = ["a1.png", "a2.png", "a10.png"]


def encoded(grey):
    data = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), grey, np.uint8)).save(data, "PNG")
    return data.getvalue()


def write_folder(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(NAMES):
        (folder / name).write_bytes(encoded(i))
    return folder


def flat(tmp_path):
    write_folder(tmp_path / "photos")
    (tmp_path / "photos" / "notes.txt").write_text("none")
    return DataOptions("imagefolder", path=str(tmp_path / "photos")), NAMES


def nested(tmp_path):
    write_folder(tmp_path / "photos" / "2026" / "may")
    return DataOptions("imagefolder", path=str(tmp_path / "photos")), [f"2026/may/{name}" for name in NAMES]


def one_column(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "list.csv").write_text("\n".join(["file_name", *NAMES]))
    return DataOptions("csv", path=str(tmp_path / "list.csv")), NAMES


def names_alone(tmp_path):
    for name in NAMES:
        write_folder(tmp_path)
        (tmp_path / name).rename(tmp_path / f"my {name}")
    (tmp_path / "list.txt").write_text("\n".join(f"my {name}" for name in NAMES))
    return DataOptions("csv", path=str(tmp_path / "list.txt")), [f"my {name}" for name in NAMES]


def two_columns(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "list.csv").write_text("\n".join(["id,path", *(f"{i},{name}" for i, name in enumerate(NAMES))]))
    return DataOptions("csv", path=str(tmp_path / "list.csv")), NAMES


def parquet(tmp_path):
    pd.DataFrame({"image": [encoded(i) for i in range(3)]}).to_parquet(tmp_path / "images.parquet")
    return DataOptions("parquet", path=str(tmp_path)), [f"images.parquet#{i}" for i in range(3)]


def tar(tmp_path):
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for i, name in enumerate(NAMES):
            member = tarfile.TarInfo(name)
            member.size = len(encoded(i))
            archive.addfile(member, io.BytesIO(encoded(i)))
    return DataOptions("webdataset", path=str(tmp_path)), [f"images.tar#{name[:-4]}" for name in NAMES]


SOURCES = [flat, nested, one_column, names_alone, two_columns, parquet, tar]


@pytest.mark.parametrize("write", SOURCES)
def test_images_without_labels_are_listed_and_read(write, tmp_path):
    options, ids = write(tmp_path)
    source = open_source(options, labelled=False)
    listing = source.list()
    assert listing.images["image_id"].tolist() == ids and listing.class_names == []
    assert listing.images["label"].tolist() == [-1] * 3
    assert source.read(ids) == [encoded(i) for i in range(3)]


@pytest.mark.parametrize("write", SOURCES)
def test_what_wants_labels_refuses_them_in_a_line(write, tmp_path):
    options, _ = write(tmp_path)
    with pytest.raises(UserError):
        open_source(options).list()


def test_labels_that_are_there_are_passed_over():
    listing = open_source(DataOptions("digits", limit=5), labelled=False).list()
    assert listing.images["label"].tolist() == [-1] * 5
    assert listing.images["image_id"].tolist() == [f"test#{i}" for i in range(5)]


def test_tars_with_labels_are_listed_as_before_and_without(tmp_path):
    """The index of a tar, which is kept, serves both."""
    options, _ = tar(tmp_path)
    open_source(options, labelled=False).list()
    with pytest.raises(UserError, match="'a1' of 'images.tar' has no label"):
        open_source(options).list()


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (DataOptions("digits", classes=["3"]), "data.classes"),
        (DataOptions("csv", path="list.csv", label_column="dx"), "data.label_column"),
        (DataOptions("imagefolder", path="NOWHERE"), "NOWHERE"),
        (DataOptions("imagefolder", path="a1.png"), "is a file"),
        (DataOptions("imagefolder", path="empty"), "no images"),
    ],
)
def test_what_cannot_be_is_one_line(options, fact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=fact):
        open_source(options, labelled=False).list()
