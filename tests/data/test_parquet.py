"""The source parquet: what it lists, in which order, and how it reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycsr.data import Source
from raycsr.errors import UserError


class TestList:
    def test_listing_of_a_split(self, source: Callable[..., Source], hub: Path) -> None:
        listing = source("parquet", hub).list()
        first = [f"data/test-00000-of-00002.parquet#{row}" for row in range(7)]
        second = [f"data/test-00001-of-00002.parquet#{row}" for row in range(3)]
        assert listing.images.image_id.tolist() == first + second
        assert listing.images.label.tolist() == [0, 1, 2, 0, 1, 2, 0, 2, 2, 1]
        assert listing.class_names == ["ant", "cat", "dog"]
        assert (listing.images["size"] > 0).all()
        assert listing.images.version.nunique() == 2
        assert source("parquet", hub, split="train").list().identity != listing.identity

    def test_one_file_has_the_ids_of_its_folder(self, source: Callable[..., Source], hub: Path) -> None:
        file = source("parquet", hub / "data" / "train-00000-of-00001.parquet").list()
        folder = source("parquet", hub / "data", split="train").list()
        assert file.images.equals(folder.images)
        assert file.identity == folder.identity

    def test_files_without_split_names_are_all_taken(
        self, source: Callable[..., Source], write_parquet: Callable[..., Path], tmp_path: Path
    ) -> None:
        for name in ("10.parquet", "9.parquet"):
            write_parquet(tmp_path / name, [0])
        assert source("parquet", tmp_path).list().images.image_id.tolist() == ["9.parquet#0", "10.parquet#0"]

    def test_class_names_are_the_indices_or_the_users(
        self, source: Callable[..., Source], write_parquet: Callable[..., Path], tmp_path: Path
    ) -> None:
        write_parquet(tmp_path / "0.parquet", [0, 2])
        assert source("parquet", tmp_path).list().class_names == ["0", "1", "2"]
        named = source("parquet", tmp_path, class_names=["a", "b", "c", "d"], classes=["c"]).list()
        assert named.images.image_id.tolist() == ["0.parquet#1"]

    def test_unknown_split(self, source: Callable[..., Source], hub: Path) -> None:
        with pytest.raises(UserError, match=r"unknown split 'val': the files are of test, train"):
            source("parquet", hub, split="val").list()

    def test_labels_outside_the_classes(
        self, source: Callable[..., Source], write_parquet: Callable[..., Path], tmp_path: Path
    ) -> None:
        unlabelled = write_parquet(tmp_path / "a.parquet", [0, -1, -1])
        with pytest.raises(UserError, match=r"2 labels are outside 0..0, the first is -1 of 'a.parquet#1'"):
            source("parquet", unlabelled).list()
        too_high = write_parquet(tmp_path / "b.parquet", [0, 2], names=["ant", "cat"])
        with pytest.raises(UserError, match=r"1 labels are outside 0..1, the first is 2"):
            source("parquet", too_high).list()

    def test_missing_columns(self, source: Callable[..., Source], tmp_path: Path) -> None:
        pq.write_table(pa.table({"img": [b"x"], "label": [0]}), tmp_path / "0.parquet")
        with pytest.raises(UserError, match=r"needs columns image.*has img: binary, label: int64"):
            source("parquet", tmp_path).list()

    def test_not_parquet_and_empty(self, source: Callable[..., Source], tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no images in"):
            source("parquet", tmp_path).list()
        (tmp_path / "0.parquet").write_bytes(b"not Parquet at all")
        with pytest.raises(UserError, match=r"cannot read '0.parquet' as Parquet") as caught:
            source("parquet", tmp_path).list()
        assert "\n" not in str(caught.value)

    def test_shared_cifar(self, source: Callable[..., Source], cifar_classes: list[str], shared_data: Path) -> None:
        options = {"class_names": cifar_classes, "classes": ["cat"]}
        test = source("parquet", shared_data / "cifar10", **options).list()
        everything = source("parquet", shared_data / "cifar10").list()
        assert len(everything.images) == 5000
        assert everything.images.label[:10].tolist() == [9, 3, 7, 0, 9, 7, 7, 9, 6, 5]
        assert test.identity == everything.identity
        rows = pq.read_table(shared_data / "cifar10" / "test-00000-of-00001.parquet").slice(0, 100).to_pylist()
        assert [cifar_classes[row["label"]] for row in rows] == [row["image"]["path"].split("/")[1] for row in rows]
        assert set(test.images.label) == {3}
        assert len(source("parquet", shared_data / "cifar10", split="train").list().images) == 50_000


class TestRead:
    def test_a_block_reads_each_row_group_once(
        self, source: Callable[..., Source], hub: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        groups: list[int] = []
        real = pq.ParquetFile.read_row_group

        def counted(self: pq.ParquetFile, i: int, **keywords: Any) -> pa.Table:
            groups.append(i)
            return real(self, i, **keywords)

        monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
        name = "data/test-0000{}-of-00002.parquet#{}"
        ids = [name.format(*place) for place in [(0, 6), (0, 1), (1, 2), (0, 0), (0, 4)]]
        expected = [
            f"test-0000{file}-of-00002 {row}".encode() for file, row in [(0, 6), (0, 1), (1, 2), (0, 0), (0, 4)]
        ]
        assert source("parquet", hub).read(ids) == expected
        assert sorted(groups) == [0, 0, 1]

    def test_rows_and_files_that_vanished(self, source: Callable[..., Source], hub: Path) -> None:
        (hub / "data" / "test-00001-of-00002.parquet").unlink()
        name = "data/test-0000{}-of-00002.parquet#{}"
        row, read, file = source("parquet", hub).read([name.format(0, 99), name.format(0, 2), name.format(1, 0)])
        assert isinstance(row, IndexError)
        assert read == b"test-00000-of-00002 2"
        assert isinstance(file, FileNotFoundError)

    def test_a_file_without_rows_and_a_block_without_ids(
        self, source: Callable[..., Source], write_parquet: Callable[..., Path], tmp_path: Path
    ) -> None:
        write_parquet(tmp_path / "0.parquet", [])
        write_parquet(tmp_path / "1.parquet", [0])
        folder = source("parquet", tmp_path)
        assert folder.list().images.image_id.tolist() == ["1.parquet#0"]
        assert folder.read([]) == []

    def test_a_row_without_bytes(self, source: Callable[..., Source], tmp_path: Path) -> None:
        type_ = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        images = pa.array([{"bytes": None, "path": "a.jpg"}, None], type_)
        pq.write_table(pa.table({"image": images, "label": [0, 0]}), tmp_path / "0.parquet")
        read = source("parquet", tmp_path).read(["0.parquet#0", "0.parquet#1"])
        assert [type(image) for image in read] == [ValueError, ValueError]
