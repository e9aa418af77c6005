"""Sources: what is listed, in which order, how it is read, and what a user's mistake says."""

import json
import os
import pickle
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from raycsr.data import DataOptions, Source, cifar10_arrays, digits_arrays, open_source
from raycsr.data import sources as sources_module
from raycsr.errors import UserError

CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_folder(root: Path, files: list[str]) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(f"bytes of {file}".encode())
    return root


def write_parquet(path: Path, labels: list[int], names: list[str] | None = None, row_group_size: int = 4) -> Path:
    """A file as the hub's writers leave it."""
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


def upload(s3: Any, folder: Path) -> str:
    bucket = s3.new_bucket()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            s3.client.upload_file(str(file), bucket, f"some prefix/{file.relative_to(folder).as_posix()}")
    return f"s3://{bucket}/some prefix"


def source(kind: str, path: object = None, **options: Any) -> Source:
    return open_source(DataOptions(source=kind, path=None if path is None else str(path), **options))


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
    return write_folder(tmp_path / "animals", files)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """Ten images of three classes in two test files, and one train file."""
    folder = tmp_path / "hub"
    names = ["ant", "cat", "dog"]
    write_parquet(folder / "data" / "test-00000-of-00002.parquet", [0, 1, 2, 0, 1, 2, 0], names)
    write_parquet(folder / "data" / "test-00001-of-00002.parquet", [2, 2, 1], names)
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", [0], names)
    return folder


class TestDigits:
    def test_splits_are_fixed_stratified_and_disjoint(self) -> None:
        train, train_labels = digits_arrays("train")
        test, test_labels = digits_arrays("test")
        assert train.shape == (1078, 8, 8, 3)
        assert test.shape == (719, 8, 8, 3)
        assert train.dtype == np.uint8
        assert train.max() == test.max() == 255
        assert test_labels[:10].tolist() == [0, 1, 4, 0, 1, 7, 1, 4, 5, 8]
        share = np.bincount(test_labels) / (np.bincount(train_labels) + np.bincount(test_labels))
        assert np.abs(share - 0.4).max() < 0.01

    def test_listing_and_reading_agree_with_the_arrays(self) -> None:
        images, labels = digits_arrays("test")
        digits = source("digits")
        listing = digits.list()
        assert listing.images.image_id.tolist() == [f"test#{i}" for i in range(719)]
        assert listing.images.label.tolist() == labels.tolist()
        assert [str(listing.images[c].dtype) for c in ("label", "size")] == ["int32", "int64"]
        assert listing.class_names == list("0123456789")
        first, second = digits.read(["test#700", "test#3"])
        assert (first == images[700]).all() and (second == images[3]).all()

    def test_a_source_is_cheap_to_send(self) -> None:
        sent = pickle.dumps(source("digits"))
        assert len(sent) < 1000
        assert len(pickle.loads(sent).read(["train#0"])) == 1


class TestSubset:
    def test_classes_then_skip_then_limit(self) -> None:
        everything = source("digits").list().images
        chosen = source("digits", classes=[3, "5"], skip=4, limit=6).list().images
        expected = everything[everything.label.isin([3, 5])].iloc[::4].iloc[:6]
        assert chosen.image_id.tolist() == expected.image_id.tolist()

    def test_identity_ignores_the_subset_and_tells_splits_apart(self) -> None:
        identity = source("digits").list().identity
        assert source("digits", classes=[3], skip=2, limit=1).list().identity == identity
        assert source("digits", split="train").list().identity != identity

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"classes": ["tree"]}, "unknown class 'tree'"),
            ({"classes": [10]}, "unknown class 10: give a name or an index below 10"),
            (
                {"classes": [3], "class_names": ["zero"]},
                "class_names has 1 names, digits test has 10 classes",
            ),
            ({"classes": []}, "widen the subset"),
            ({"skip": 0}, "skip is 0"),
            ({"limit": 0}, "limit is 0"),
            ({"split": "val"}, "unknown split 'val' of digits: choose one of train, test"),
            ({"path": "somewhere"}, "has no path"),
        ],
    )
    def test_mistakes(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            open_source(DataOptions(source="digits", **wrong)).list()

    def test_unknown_kind_names_the_nearest(self) -> None:
        with pytest.raises(UserError, match=r"unknown source 'image_folder': did you mean imagefolder"):
            source("image_folder", "x")

    def test_other_stores_are_refused(self) -> None:
        with pytest.raises(UserError, match=r"unknown scheme of path 'gs://bucket/val'"):
            source("imagefolder", "gs://bucket/val")

    def test_path_is_asked_for(self) -> None:
        with pytest.raises(UserError, match=r"source imagefolder needs a path"):
            source("imagefolder")


class TestCifar10:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """torchvision's layout with five images a batch; its checksums are those of the real data."""
        monkeypatch.setattr("torchvision.datasets.CIFAR10._check_integrity", lambda self: True)
        monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: True)
        batches = tmp_path / "cifar-10-batches-py"
        batches.mkdir()
        generator = np.random.default_rng(0)
        for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
            pixels = generator.integers(0, 256, (5, 3072), dtype=np.uint8)
            (batches / name).write_bytes(pickle.dumps({"data": pixels, "labels": [3, 5, 0, 9, 3]}))
        (batches / "batches.meta").write_bytes(pickle.dumps({"label_names": CIFAR_CLASSES}))
        return tmp_path

    def test_list_and_read(self, folder: Path) -> None:
        images, labels = cifar10_arrays(str(folder), "test")
        assert images.shape == (5, 32, 32, 3)
        cifar = source("cifar10", folder, classes=["cat"])
        listing = cifar.list()
        assert listing.images.image_id.tolist() == ["test#0", "test#4"]
        assert listing.class_names == CIFAR_CLASSES
        assert labels.tolist() == [3, 5, 0, 9, 3]
        (read,) = cifar.read(["test#4"])
        assert isinstance(read, np.ndarray) and (read == images[4]).all()
        assert len(source("cifar10", folder, split="train").list().images) == 25

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no CIFAR-10 in .*set download"):
            source("cifar10", tmp_path).list()

    def test_s3_is_for_parquet(self) -> None:
        with pytest.raises(UserError, match=r"on S3 use source parquet"):
            source("cifar10", "s3://bucket/cifar")


class TestImageFolder:
    def test_listing(self, animals: Path) -> None:
        listing = source("imagefolder", animals).list()
        assert listing.images.image_id.tolist() == ["ant/x.webp", "cat/a.png", "dog/2.JPEG", "dog/10.jpg"]
        assert listing.images.label.tolist() == [0, 1, 2, 2]
        assert listing.images["size"].tolist() == [len(f"bytes of {i}") for i in listing.images.image_id]
        assert listing.images.version[0] == str((animals / "ant/x.webp").stat().st_mtime_ns)
        assert listing.class_names == ["ant", "cat", "dog"]

    def test_an_empty_class_keeps_its_index(self, animals: Path) -> None:
        (animals / "bee").mkdir()
        listing = source("imagefolder", animals, classes=["dog"]).list()
        assert listing.images.label.tolist() == [3, 3]

    def test_identity_survives_a_move_and_sees_another_image(self, animals: Path, tmp_path: Path) -> None:
        before = source("imagefolder", animals).list().identity
        animals.rename(tmp_path / "moved")
        assert source("imagefolder", tmp_path / "moved").list().identity == before
        write_folder(tmp_path / "moved", ["cat/b.png"])
        assert source("imagefolder", tmp_path / "moved").list().identity != before

    def test_read_in_the_order_asked_for(self, animals: Path) -> None:
        read = source("imagefolder", animals).read(["dog/10.jpg", "ant/x.webp"])
        assert read == [b"bytes of dog/10.jpg", b"bytes of ant/x.webp"]

    def test_a_vanished_file_is_an_error_of_its_row(self, animals: Path) -> None:
        (animals / "cat/a.png").unlink()
        vanished, read = source("imagefolder", animals).read(["cat/a.png", "ant/x.webp"])
        assert isinstance(vanished, FileNotFoundError)
        assert read == b"bytes of ant/x.webp"

    def test_a_dangling_link_is_listed_and_cannot_be_read(self, animals: Path) -> None:
        (animals / "cat/b.png").symlink_to(animals / "nowhere")
        folder = source("imagefolder", animals)
        assert "cat/b.png" in folder.list().images.image_id.tolist()
        assert isinstance(folder.read(["cat/b.png"])[0], FileNotFoundError)

    def test_a_source_that_is_not_on_the_node_raises(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"on this node"):
            source("imagefolder", tmp_path / "gone").read(["cat/a.png"])

    def test_transient_errors_are_retried_then_raised(self, animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        failures = iter([True, True, False])

        class Flaky:
            def open_input_file(self, path: str) -> Any:
                if next(failures, True):
                    raise OSError("connection reset")
                return pafs.LocalFileSystem().open_input_file(path)

        monkeypatch.setattr(sources_module, "RETRY_DELAYS", (0.0, 0.0))
        monkeypatch.setattr(sources_module, "_filesystem", lambda root: (Flaky(), root))
        folder = source("imagefolder", animals)
        assert folder.read(["cat/a.png"]) == [b"bytes of cat/a.png"]
        with pytest.raises(OSError, match=r"connection reset"):
            folder.read(["cat/a.png"])

    def test_relative_paths_are_resolved_where_the_source_is_opened(
        self, animals: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(animals.parent)
        folder = source("imagefolder", "animals")
        monkeypatch.chdir("/")
        assert len(folder.list().images) == 4

    def test_class_names_from_a_file(self, animals: Path, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("Ant\nCat\nDog\n")
        listing = source("imagefolder", animals, class_names=str(tmp_path / "names.txt"), classes=["Dog"]).list()
        assert listing.images.label.tolist() == [2, 2]
        with pytest.raises(UserError, match=r"cannot read class_names '/nowhere.txt'"):
            source("imagefolder", animals, class_names="/nowhere.txt").list()

    def test_unknown_class_names_the_nearest(self, animals: Path) -> None:
        with pytest.raises(UserError, match=r"unknown class 'dogs': did you mean dog"):
            source("imagefolder", animals, classes=["dogs"]).list()

    def test_the_folder_above_is_refused(self, animals: Path) -> None:
        with pytest.raises(UserError, match=r"folders inside its class folders"):
            source("imagefolder", animals.parent).list()

    def test_missing_and_empty(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"there is no '.*nowhere'"):
            source("imagefolder", tmp_path / "nowhere").list()
        with pytest.raises(UserError, match=r"no images in .*<class>/<image>.jpg"):
            source("imagefolder", tmp_path).list()

    def test_shared_imagenet_sample(self, shared_data: Path) -> None:
        folder = source("imagefolder", shared_data / "imagenet-sample" / "val")
        listing = folder.list()
        assert len(listing.images) == len(listing.class_names) == 1000
        assert listing.class_names[0] == "n01440764"
        assert listing.images.label.tolist() == list(range(1000))
        read = folder.read(listing.images.image_id[:20].tolist())
        assert [len(image) for image in read if isinstance(image, bytes)] == listing.images["size"][:20].tolist()


class TestParquet:
    def test_listing_of_a_split(self, hub: Path) -> None:
        listing = source("parquet", hub).list()
        first = [f"data/test-00000-of-00002.parquet#{row}" for row in range(7)]
        second = [f"data/test-00001-of-00002.parquet#{row}" for row in range(3)]
        assert listing.images.image_id.tolist() == first + second
        assert listing.images.label.tolist() == [0, 1, 2, 0, 1, 2, 0, 2, 2, 1]
        assert listing.class_names == ["ant", "cat", "dog"]
        assert (listing.images["size"] > 0).all()
        assert listing.images.version.nunique() == 2
        assert source("parquet", hub, split="train").list().identity != listing.identity

    def test_one_file_has_the_ids_of_its_folder(self, hub: Path) -> None:
        file = source("parquet", hub / "data" / "train-00000-of-00001.parquet").list()
        folder = source("parquet", hub / "data", split="train").list()
        assert file.images.equals(folder.images)
        assert file.identity == folder.identity

    def test_files_without_split_names_are_all_taken(self, tmp_path: Path) -> None:
        for name in ("10.parquet", "9.parquet"):
            write_parquet(tmp_path / name, [0])
        assert source("parquet", tmp_path).list().images.image_id.tolist() == ["9.parquet#0", "10.parquet#0"]

    def test_class_names_are_the_indices_or_the_users(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "0.parquet", [0, 2])
        assert source("parquet", tmp_path).list().class_names == ["0", "1", "2"]
        named = source("parquet", tmp_path, class_names=["a", "b", "c", "d"], classes=["c"]).list()
        assert named.images.image_id.tolist() == ["0.parquet#1"]

    def test_a_block_reads_each_row_group_once(self, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

    def test_rows_and_files_that_vanished(self, hub: Path) -> None:
        (hub / "data" / "test-00001-of-00002.parquet").unlink()
        name = "data/test-0000{}-of-00002.parquet#{}"
        row, read, file = source("parquet", hub).read([name.format(0, 99), name.format(0, 2), name.format(1, 0)])
        assert isinstance(row, IndexError)
        assert read == b"test-00000-of-00002 2"
        assert isinstance(file, FileNotFoundError)

    def test_a_file_without_rows_and_a_block_without_ids(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "0.parquet", [])
        write_parquet(tmp_path / "1.parquet", [0])
        folder = source("parquet", tmp_path)
        assert folder.list().images.image_id.tolist() == ["1.parquet#0"]
        assert folder.read([]) == []

    def test_a_row_without_bytes(self, tmp_path: Path) -> None:
        type_ = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        images = pa.array([{"bytes": None, "path": "a.jpg"}, None], type_)
        pq.write_table(pa.table({"image": images, "label": [0, 0]}), tmp_path / "0.parquet")
        read = source("parquet", tmp_path).read(["0.parquet#0", "0.parquet#1"])
        assert [type(image) for image in read] == [ValueError, ValueError]

    def test_unknown_split(self, hub: Path) -> None:
        with pytest.raises(UserError, match=r"unknown split 'val': the files are of test, train"):
            source("parquet", hub, split="val").list()

    def test_labels_outside_the_classes(self, tmp_path: Path) -> None:
        unlabelled = write_parquet(tmp_path / "a.parquet", [0, -1, -1])
        with pytest.raises(UserError, match=r"2 labels are outside 0..0, the first is -1 of 'a.parquet#1'"):
            source("parquet", unlabelled).list()
        too_high = write_parquet(tmp_path / "b.parquet", [0, 2], names=["ant", "cat"])
        with pytest.raises(UserError, match=r"1 labels are outside 0..1, the first is 2"):
            source("parquet", too_high).list()

    def test_missing_columns(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"img": [b"x"], "label": [0]}), tmp_path / "0.parquet")
        with pytest.raises(UserError, match=r"needs columns image.*has img: binary, label: int64"):
            source("parquet", tmp_path).list()

    def test_not_parquet_and_empty(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no images in"):
            source("parquet", tmp_path).list()
        (tmp_path / "0.parquet").write_bytes(b"not Parquet at all")
        with pytest.raises(UserError, match=r"cannot read '0.parquet' as Parquet") as caught:
            source("parquet", tmp_path).list()
        assert "\n" not in str(caught.value)

    def test_shared_cifar(self, shared_data: Path) -> None:
        options = {"class_names": CIFAR_CLASSES, "classes": ["cat"]}
        test = source("parquet", shared_data / "cifar10", **options).list()
        everything = source("parquet", shared_data / "cifar10").list()
        assert len(everything.images) == 5000
        assert everything.images.label[:10].tolist() == [9, 3, 7, 0, 9, 7, 7, 9, 6, 5]
        assert test.identity == everything.identity
        rows = pq.read_table(shared_data / "cifar10" / "test-00000-of-00001.parquet").slice(0, 100).to_pylist()
        assert [CIFAR_CLASSES[row["label"]] for row in rows] == [row["image"]["path"].split("/")[1] for row in rows]
        assert set(test.images.label) == {3}
        assert len(source("parquet", shared_data / "cifar10", split="train").list().images) == 50_000


class TestS3:
    def test_imagefolder(self, s3: Any, animals: Path) -> None:
        local, remote = source("imagefolder", animals), source("imagefolder", upload(s3, animals))
        listing = remote.list()
        columns = ["image_id", "label", "size"]
        assert listing.images[columns].equals(local.list().images[columns])
        assert listing.identity == local.list().identity
        assert all(len(etag) == 32 for etag in listing.images.version)
        ids = listing.images.image_id.tolist()
        assert remote.read(ids) == local.read(ids)
        missing, present = remote.read(["cat/gone.png", "cat/a.png"])
        assert isinstance(missing, FileNotFoundError)
        assert present == b"bytes of cat/a.png"

    def test_parquet(self, s3: Any, hub: Path) -> None:
        uri = upload(s3, hub)
        local, remote = source("parquet", hub), source("parquet", uri)
        listing = remote.list()
        assert listing.identity == local.list().identity
        ids = listing.images.image_id.tolist()
        assert remote.read(ids) == local.read(ids)
        one = source("parquet", f"{uri}/data/test-00001-of-00002.parquet")
        assert one.list().images.image_id[2] == "test-00001-of-00002.parquet#2"
        assert one.read(["test-00001-of-00002.parquet#2"]) == [b"test-00001-of-00002 2"]

    def test_a_whole_bucket(self, s3: Any) -> None:
        bucket = s3.new_bucket()
        s3.client.put_object(Bucket=bucket, Key="cat/1.png", Body=b"x")
        whole = source("imagefolder", f"s3://{bucket}/")
        assert whole.list().images.image_id.tolist() == ["cat/1.png"]
        assert whole.read(["cat/1.png"]) == [b"x"]

    def test_missing_bucket_and_empty_prefix(self, s3: Any) -> None:
        with pytest.raises(UserError, match=r"there is no bucket 'no-such-bucket'"):
            source("imagefolder", "s3://no-such-bucket/val").list()
        with pytest.raises(UserError, match=r"no images in 's3://"):
            source("parquet", f"s3://{s3.new_bucket()}/nothing").list()

    @pytest.fixture
    def enforced_keys(self, s3: Any) -> Iterator[None]:
        """The server lets any key pass unless it is told otherwise."""

        def allow(requests: bytes) -> None:
            plain = {"Content-Type": "text/plain"}
            url = f"{s3.endpoint}/moto-api/reset-auth"
            urllib.request.urlopen(urllib.request.Request(url, requests, plain)).close()

        allow(b"0")
        yield
        allow(b"inf")

    def test_wrong_keys_are_refused_and_not_repeated(
        self, s3: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> None:
        bucket = s3.new_bucket()
        request.getfixturevalue("enforced_keys")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKWRONG")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
        with pytest.raises(UserError, match=r"S3 refused to list .*\(InvalidAccessKeyId\)") as caught:
            source("imagefolder", f"s3://{bucket}/val").list()
        assert "AKWRONG" not in str(caught.value)
        assert "wrong-secret" not in str(caught.value)

    def test_no_keys(self, s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, os.devnull)
        with pytest.raises(UserError, match=r"no AWS credentials"):
            source("imagefolder", "s3://bucket/val").list()

    def test_unreachable_endpoint(self, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(UserError, match=r"cannot reach S3 at 127.0.0.1 .*AWS_ENDPOINT_URL"):
            source("imagefolder", "s3://bucket/val").list()

    def test_credentials_in_the_uri_are_refused_and_not_repeated(self) -> None:
        with pytest.raises(UserError, match=r"path has credentials") as caught:
            source("imagefolder", "s3://key:secret@bucket/val")
        assert "secret@" not in str(caught.value)
