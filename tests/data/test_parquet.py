"""The source parquet: what it lists, in which order, and how it reads."""

import errno
import itertools
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycsr.data import images, parquet
from raycsr.data.sources import Source
from raycsr.errors import UserError
from raycsr.store.files import LocalFiles


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

    def test_files_that_name_their_classes_in_another_order_are_refused(
        self, source: Callable[..., Source], write_parquet: Callable[..., Path], tmp_path: Path
    ) -> None:
        write_parquet(tmp_path / "a.parquet", [0, 1], ["cat", "dog"])
        write_parquet(tmp_path / "b.parquet", [0, 1], ["dog", "cat"])
        with pytest.raises(
            UserError, match=r"'a.parquet' and 'b.parquet' name their classes \['cat', 'dog'\] and \['dog'"
        ):
            source("parquet", tmp_path).list()

    @pytest.mark.parametrize("described", [b"{", b"[]", b'{"info": null}', b'{"info": {"features": {"label": 3}}}'])
    def test_a_description_that_says_no_names(
        self, source: Callable[..., Source], write_parquet: Callable[..., Path], tmp_path: Path, described: bytes
    ) -> None:
        path = write_parquet(tmp_path / "a.parquet", [0, 1])
        pq.write_table(pq.read_table(path).replace_schema_metadata({b"huggingface": described}), path)
        assert source("parquet", tmp_path).list().class_names == ["0", "1"]

    def test_what_is_left_out_is_said(self, source: Callable[..., Source], hub: Path) -> None:
        (hub / "README.md").write_text("about them")
        (note,) = source("parquet", hub).list().notes
        assert note == "left out: 2 files (.md 1, of other splits 1)"

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
        with pytest.raises(
            UserError, match=r"no column known to be the image: name one by data.image_column, of 'img'"
        ):
            source("parquet", tmp_path).list()
        with pytest.raises(UserError, match=r"needs columns label: struct.*or binary, .*has img: binary, label: int64"):
            source("parquet", tmp_path, image_column="label").list()

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
        real = pq.ParquetFile.iter_batches

        def counted(self: pq.ParquetFile, batch_size: int, **keywords: Any) -> Iterator[pa.RecordBatch]:
            groups.extend(keywords["row_groups"])
            return real(self, batch_size, **keywords)

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
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

    def test_too_large_an_image_is_an_error_of_its_row(
        self, source: Callable[..., Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        type_ = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
        cells = [b"small", bytes(1001), None, b"after"]
        table = pa.table({"image": pa.array([{"bytes": cell} for cell in cells], type_), "label": [0] * 4})
        pq.write_table(table, tmp_path / "0.parquet")
        for module in (parquet, images):
            monkeypatch.setattr(module, "MAX_BYTES", 1000)
        read = source("parquet", tmp_path).read([f"0.parquet#{row}" for row in (3, 2, 1, 0)])
        assert [read[0], read[3]] == [b"after", b"small"]
        assert [str(read[2]), str(read[1])] == [
            "the image has 1,001 bytes, more than 1,000",
            "the row holds no image bytes",
        ]

    def test_of_a_large_row_group_one_image_at_a_time_is_in_memory(
        self, write_parquet: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = pq.ParquetFile(write_parquet(tmp_path / "0.parquet", [0] * 4))
        group = file.metadata.row_group(0)
        assert parquet._at_once(group, "image.bytes") == 4
        monkeypatch.setattr(parquet, "MAX_BYTES", 10)
        assert parquet._at_once(group, "image.bytes") == 1
        assert [len(cells) for cells in parquet._image_columns(file, 0, "image.bytes", 1)] == [1, 1, 1, 1]


class TestDamaged:
    """A file with a damaged page is read as far as it goes; what is lost are errors of their rows, at once."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """Three row groups of 20 images, with a page for every 4 rows, and their checksums."""
        cells = [f"{row:04} ".encode() * 200 for row in range(60)]
        table = pa.table({"image": cells, "label": [row % 2 for row in range(60)]})
        pages = {"row_group_size": 20, "data_page_size": 1, "write_batch_size": 4, "use_dictionary": False}
        pq.write_table(table, tmp_path / "0.parquet", write_page_checksum=True, compression="none", **pages)
        return tmp_path / "0.parquet"

    def test_a_damaged_page_costs_its_rows_and_those_behind_it_in_their_row_group(
        self, source: Callable[..., Source], file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAYCSR_PATIENCE", "0")  # nobody waits for what stays as it is
        content = bytearray(file.read_bytes())
        content[content.index(b"0029 0029") + 1] ^= 1
        file.write_bytes(content)
        opened = source("parquet", file)
        ids = opened.list().images.image_id.tolist()
        read = opened.read(ids)
        lost = [row for row, image in enumerate(read) if isinstance(image, Exception)]
        assert lost == list(range(28, 40))
        assert [image[:4] for image in read[:28] + read[40:]] == [b"%04d" % row for row in range(60) if row not in lost]
        assert "its file is damaged: could not verify page integrity" in str(read[28])

    def test_a_file_that_was_cut_off_since_it_was_listed(self, source: Callable[..., Source], file: Path) -> None:
        opened = source("parquet", file)
        ids = opened.list().images.image_id.tolist()
        file.write_bytes(file.read_bytes()[:-100])
        assert {type(image) for image in opened.read(ids)} == {ValueError}
        with pytest.raises(UserError, match=r"cannot read '0.parquet' as Parquet"):
            opened.list()

    def test_a_device_that_fails_is_no_damage(
        self, source: Callable[..., Source], file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened, failing = source("parquet", file), iter([True, True])
        ids = opened.list().images.image_id.tolist()

        def read_range(*arguments: Any) -> bytes:
            if next(failing, False):
                raise OSError(errno.EIO, "Input/output error")
            return read(*arguments)

        read = LocalFiles.read_range
        monkeypatch.setattr(LocalFiles, "read_range", read_range)
        monkeypatch.setenv("RAYCSR_PATIENCE", "60")
        with pytest.warns(UserWarning, match="Input/output error; trying again"):
            assert all(isinstance(image, bytes) for image in opened.read(ids))
        failing = itertools.repeat(True)
        monkeypatch.setenv("RAYCSR_PATIENCE", "0")
        with pytest.raises(UserError, match="0.parquet: Input/output error"):
            opened.read(ids)

    def test_a_file_that_is_replaced_while_it_is_read_is_no_damage(
        self, source: Callable[..., Source], file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened, read = source("parquet", file), parquet._image_columns
        ids = opened.list().images.image_id.tolist()

        def image_columns(*arguments: Any) -> Iterator[pa.Array]:
            os.utime(file, ns=(1, 1))
            return read(*arguments)

        monkeypatch.setattr(parquet, "_image_columns", image_columns)
        with pytest.raises(UserError, match="0.parquet: it changed while it was read"):
            opened.read(ids)

    def test_more_rows_than_bytes_are_refused(self, source: Callable[..., Source], tmp_path: Path) -> None:
        with pq.ParquetWriter(tmp_path / "0.parquet", pa.schema({"image": pa.binary(), "label": pa.int32()})) as writer:
            rows = 10**6
            writer.write_table(
                pa.table([pa.nulls(rows, pa.binary()), pa.repeat(pa.scalar(3, pa.int32()), rows)], schema=writer.schema)
            )
        with pytest.raises(UserError, match=r"cannot read '0.parquet' as Parquet: [0-9,]+ bytes cannot .* 1,000,000"):
            source("parquet", tmp_path).list()


class TestColumns:
    """Columns by name, as other people call them."""

    @pytest.fixture
    def skin(self, tmp_path: Path) -> Path:
        """Plain bytes, diagnoses as text, lesions; the test file lacks a class that the train file has."""
        for name, labels in (("test", ["nv", "mel", "nv"]), ("train", ["akiec", "nv", "mel", "mel"])):
            cells = [f"{name} {row}".encode() for row in range(len(labels))]
            lesions = [f"{name} {row // 2}" for row in range(len(labels))]
            table = pa.table({"photo": pa.array(cells), "dx": labels, "lesion_id": lesions, "age": [1.5] * len(labels)})
            pq.write_table(table, tmp_path / f"{name}-00000-of-00001.parquet")
        return tmp_path

    def test_text_labels_have_the_same_class_in_all_splits(self, source: Callable[..., Source], skin: Path) -> None:
        opened = source("parquet", skin, image_column="photo", label_column="dx")
        listing = opened.list()
        assert listing.class_names == ["akiec", "mel", "nv"] and listing.images.label.tolist() == [2, 1, 2]
        assert listing.images.group.tolist() == ["test 0", "test 0", "test 1"]
        assert opened.read([listing.images.image_id[2]]) == [b"test 2"]
        train = source("parquet", skin, image_column="photo", label_column="dx", split="train").list()
        assert train.class_names == listing.class_names and train.images.label.tolist() == [0, 2, 1, 1]

    def test_text_may_be_a_dictionary_and_whole_numbers_are_indices(
        self, source: Callable[..., Source], tmp_path: Path
    ) -> None:
        labels = pa.array(["10", "2", "0"]).dictionary_encode()
        pq.write_table(pa.table({"image": [b"a", b"b", b"c"], "label": labels}), tmp_path / "0.parquet")
        listing = source("parquet", tmp_path).list()
        assert listing.images.label.tolist() == [10, 2, 0] and len(listing.class_names) == 11

    def test_groups_may_be_numbers_or_none(self, source: Callable[..., Source], tmp_path: Path) -> None:
        pq.write_table(
            pa.table({"image": [b"a"] * 3, "label": [0] * 3, "patient": [7, 7, None]}), tmp_path / "0.parquet"
        )
        assert source("parquet", tmp_path).list().images.group.tolist()[:2] == ["7", "7"]
        assert "group" not in source("parquet", tmp_path, group_column="none").list().images

    def test_class_names_of_the_hub_are_those_of_the_named_column(
        self, source: Callable[..., Source], tmp_path: Path
    ) -> None:
        features = {"fine_label": {"names": ["ant", "cat"]}, "label": {"names": ["x", "y"]}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = pa.table({"image": [b"a"], "label": [0], "fine_label": [1]}).replace_schema_metadata(metadata)
        pq.write_table(table, tmp_path / "0.parquet")
        assert source("parquet", tmp_path, label_column="fine_label").list().class_names == ["ant", "cat"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {},
                "no column known to be the image: name one by data.image_column, of 'photo', 'dx', 'lesion_id', 'age'",
            ),
            ({"image_column": "photo"}, "no column known to be the label: name one by data.label_column"),
            (
                {"image_column": "img", "label_column": "dx"},
                "no column 'img' for data.image_column: choose from 'photo'",
            ),
            (
                {"image_column": "dx", "label_column": "dx"},
                "needs columns dx: struct<bytes, path> or binary, dx: int or",
            ),
            ({"image_column": "photo", "label_column": "age"}, "age: int or text.*has photo: binary, dx: string"),
            ({"image_column": "photo", "label_column": "dx", "group_column": "photo"}, "and photo: int or text, has"),
        ],
    )
    def test_mistakes_name_the_columns_that_there_are(
        self, source: Callable[..., Source], skin: Path, options: dict[str, str], message: str
    ) -> None:
        with pytest.raises(UserError, match=message) as caught:
            source("parquet", skin, **options).list()
        assert "\n" not in str(caught.value)

    def test_a_row_without_a_label_and_a_mixture(self, source: Callable[..., Source], tmp_path: Path) -> None:
        pq.write_table(pa.table({"image": [b"a"] * 2, "label": ["cat", None]}), tmp_path / "0.parquet")
        with pytest.raises(UserError, match=r"1 labels are outside 0..0, the first is -1 of '0.parquet#1'"):
            source("parquet", tmp_path).list()
        pq.write_table(pa.table({"image": [b"a"], "label": ["3"]}), tmp_path / "1.parquet")
        with pytest.raises(UserError, match=r"whole numbers \('3' in 1.parquet#0\) and names \('cat' in 0.parquet#0\)"):
            source("parquet", tmp_path).list()


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


class TestUntrusted:
    """Ray registers Arrow types whose values, or parameters, may be pickles: none is ever unpickled."""

    @pytest.mark.parametrize("where", ["image", "image.bytes", "label", "another column"])
    def test_a_pickle_in_a_column(self, source: Callable[..., Source], tmp_path: Path, where: str) -> None:
        from ray.data._internal.object_extensions.arrow import ArrowPythonObjectArray

        planted = ArrowPythonObjectArray.from_objects([Planted(tmp_path / "planted")])
        encoded = planted if where == "image.bytes" else pa.array([b"jpg"])
        columns = {
            "image": planted if where == "image" else pa.StructArray.from_arrays([encoded], ["bytes"]),
            "label": planted if where == "label" else pa.array([0]),
            "more": planted if where == "another column" else pa.array([0]),
        }
        pq.write_table(pa.table(columns), tmp_path / "0.parquet")
        file = source("parquet", tmp_path / "0.parquet")
        if where == "another column":  # is never looked at
            assert file.read(file.list().images.image_id.tolist()) == [b"jpg"]
        else:
            with pytest.raises(UserError, match=r"needs columns image.*has image: .*arrow_pickled_object"):
                file.list()
            if where == "label":  # whoever reads images looks at no other column
                assert file.read(["0.parquet#0"]) == [b"jpg"]
            else:
                with pytest.raises(UserError, match="needs columns image"):  # it may have been replaced since then
                    file.read(["0.parquet#0"])
        assert not (tmp_path / "planted").exists()

    def test_a_pickle_in_a_type(self, source: Callable[..., Source], tmp_path: Path) -> None:
        from ray.data.extensions import ArrowTensorType

        described = {
            "ARROW:extension:name": ArrowTensorType((2,), pa.int64()).extension_name,
            "ARROW:extension:metadata": pickle.dumps(Planted(tmp_path / "planted"), protocol=0),
        }
        image = pa.field("image", pa.struct([("bytes", pa.binary())]))
        tensor = pa.field("more", pa.list_(pa.int64()), metadata=described)
        schema = pa.schema([image, pa.field("label", pa.int64()), tensor])
        pq.write_table(pa.table([[{"bytes": b"jpg"}], [0], [[1, 2]]], schema=schema), tmp_path / "0.parquet")
        with pytest.raises(UserError, match=r"cannot read '0.parquet' as Parquet"):
            source("parquet", tmp_path).list()
        assert not (tmp_path / "planted").exists()

    def test_a_label_beyond_int32_does_not_come_back_as_another_class(
        self, source: Callable[..., Source], write_parquet: Callable[..., Path], tmp_path: Path
    ) -> None:
        write_parquet(tmp_path / "0.parquet", [0, 2**32])
        with pytest.raises(UserError, match="Integer value 4294967296 not in range"):
            source("parquet", tmp_path).list()

    def test_a_label_that_is_no_index_is_not_counted_up_to(
        self, source: Callable[..., Source], write_parquet: Callable[..., Path], tmp_path: Path
    ) -> None:
        write_parquet(tmp_path / "0.parquet", [0, 2**31 - 1])
        with pytest.raises(UserError, match=r"label 2147483647 of '0.parquet#1' is no class index"):
            source("parquet", tmp_path).list()
