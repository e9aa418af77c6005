"""Files on S3: the sources that keep them there, and what a user's mistake says."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raycsr.data.files import natural
from raycsr.data.sources import Source
from raycsr.errors import UserError


def upload(s3: Any, folder: Path) -> str:
    bucket = s3.new_bucket()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            s3.client.upload_file(str(file), bucket, f"some prefix/{file.relative_to(folder).as_posix()}")
    return f"s3://{bucket}/some prefix"


def test_the_natural_order_is_that_of_the_numbers_whatever_their_length() -> None:
    paths = ["a2", "a02", "a10", "a" + "9" * 5000, "b", "٣2", "0", "", "a1b2", "a1b10"]
    assert sorted(paths, key=natural) == ["", "0", "a1b2", "a1b10", "a02", "a2", "a10", "a" + "9" * 5000, "b", "٣2"]


class TestS3:
    def test_imagefolder(self, source: Callable[..., Source], s3: Any, animals: Path) -> None:
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

    def test_parquet(self, source: Callable[..., Source], s3: Any, hub: Path) -> None:
        uri = upload(s3, hub)
        local, remote = source("parquet", hub), source("parquet", uri)
        listing = remote.list()
        assert listing.identity == local.list().identity
        ids = listing.images.image_id.tolist()
        assert remote.read(ids) == local.read(ids)
        one = source("parquet", f"{uri}/data/test-00001-of-00002.parquet")
        assert one.list().images.image_id[2] == "test-00001-of-00002.parquet#2"
        assert one.read(["test-00001-of-00002.parquet#2"]) == [b"test-00001-of-00002 2"]

    def test_webdataset(self, source: Callable[..., Source], s3: Any, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "test 0.tar", "w") as tar:
            for name, content in {f"{i}.{field}": b"%d" % i for i in range(3) for field in ("jpg", "cls")}.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        uri = upload(s3, tmp_path)
        local, remote = source("webdataset", tmp_path), source("webdataset", uri)
        listing = remote.list()
        assert listing.images.image_id.tolist() == [f"test 0.tar#{i}" for i in range(3)]
        assert listing.identity == local.list().identity
        assert remote.read(["test 0.tar#2", "test 0.tar#0"]) == [b"2", b"0"]
        assert source("webdataset", f"{uri}/test 0.tar").list().identity == listing.identity
        missing, gone = remote.read(["test 0.tar#3", "1.tar#0"])
        assert isinstance(missing, FileNotFoundError) and isinstance(gone, FileNotFoundError)

    def test_a_whole_bucket(self, source: Callable[..., Source], s3: Any) -> None:
        bucket = s3.new_bucket()
        s3.client.put_object(Bucket=bucket, Key="cat/1.png", Body=b"x")
        whole = source("imagefolder", f"s3://{bucket}/")
        assert whole.list().images.image_id.tolist() == ["cat/1.png"]
        assert whole.read(["cat/1.png"]) == [b"x"]

    def test_missing_bucket_and_empty_prefix(self, source: Callable[..., Source], s3: Any) -> None:
        with pytest.raises(UserError, match=r"s3://no-such-bucket/val: there is no such bucket"):
            source("imagefolder", "s3://no-such-bucket/val").list()
        with pytest.raises(UserError, match=r"no images in 's3://"):
            source("parquet", f"s3://{s3.new_bucket()}/nothing").list()

    def test_wrong_keys_are_refused_and_not_repeated(
        self, source: Callable[..., Source], s3: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> None:
        bucket = s3.new_bucket()
        request.getfixturevalue("enforced_keys")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKWRONG")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
        with pytest.raises(UserError, match=r"the AWS access key is unknown there") as caught:
            source("imagefolder", f"s3://{bucket}/val").list()
        assert "AKWRONG" not in str(caught.value)
        assert "wrong-secret" not in str(caught.value)

    def test_no_keys(
        self, source: Callable[..., Source], s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, os.devnull)
        with pytest.raises(UserError, match=r"no AWS credentials"):
            source("imagefolder", "s3://bucket/val").list()

    def test_unreachable_endpoint(
        self, source: Callable[..., Source], s3: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(UserError, match=r"the S3 endpoint at 127.0.0.1 does not answer; check AWS_ENDPOINT_URL"):
            source("imagefolder", "s3://bucket/val").list()
