"""Fixtures of the sources: one opened in a call, and small data for each kind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycsr.data.options import DataOptions
from raycsr.data.sources import Source, open_source


@pytest.fixture
def source() -> Callable[..., Source]:
    """`source(kind, path, **options)` opens a source."""

    def open_(kind: str, path: object = None, **options: Any) -> Source:
        return open_source(DataOptions(source=kind, path=None if path is None else str(path), **options))

    return open_


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    """`write_parquet(path, labels, names)` writes a file as the hub's writers leave it."""

    def write(path: Path, labels: list[int], names: list[str] | None = None, row_group_size: int = 4) -> Path:
        images = [{"bytes": f"{path.stem} {row}".encode(), "path": f"{row}.jpg"} for row in range(len(labels))]
        type_ = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(images, type_), "label": pa.array(labels, pa.int64())})
        if names is not None:
            features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
            metadata = {"huggingface": json.dumps({"info": {"features": features}})}
            table = table.replace_schema_metadata(metadata)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=row_group_size)
        return path

    return write


@pytest.fixture
def cifar_classes() -> list[str]:
    return ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    files = [
        "dog/2.JPEG",
        "dog/10.jpg",
        "dog/notes.txt",
        "cat/a.png",
        "cat/.hidden.png",
        "ant/x.webp",
        "readme.png",
    ]
    for file in files:
        path = tmp_path / "animals" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"bytes of {file}".encode())
    return tmp_path / "animals"


@pytest.fixture
def hub(write_parquet: Callable[..., Path], tmp_path: Path) -> Path:
    """Ten images of three classes in two test files, and one train file."""
    folder = tmp_path / "hub"
    names = ["ant", "cat", "dog"]
    write_parquet(folder / "data" / "test-00000-of-00002.parquet", [0, 1, 2, 0, 1, 2, 0], names)
    write_parquet(folder / "data" / "test-00001-of-00002.parquet", [2, 2, 1], names)
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", [0], names)
    return folder
