"""Files in a bucket, by boto3 alone: so endpoint, region, profile and credentials are resolved in one place."""

import os
import threading
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from io import BytesIO
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from raycsr.store.errors import FileTooLarge, code_of
from raycsr.store.files import File

_CONNECTIONS = 32  # at once: an object store answers in tens of milliseconds, so many are asked side by side
_MOST_AT_ONCE = 2**30  # bytes of one request; S3 takes up to 5 GiB
_lock = threading.Lock()

Settings = tuple[Any, ...]


class S3Files:
    """Objects below a prefix; every method may raise botocore's errors."""

    def __init__(self, bucket: str, prefix: str, anonymous: bool) -> None:
        """Takes the prefix without a trailing slash; `anonymous` sends no keys."""
        self._bucket, self._prefix, self._anonymous = bucket, prefix, anonymous

    @property
    def _client(self) -> Any:
        return client(self._anonymous)

    def _at(self, name: str) -> dict[str, str]:
        key = f"{self._prefix}/{name}" if self._prefix and name else self._prefix or name
        return {"Bucket": self._bucket, "Key": key}

    def find(self, name: str) -> File | None:
        """What there is to know of an object; None where there is none of this name."""
        if not self._at(name)["Key"]:
            return None
        try:
            head = self._client.head_object(**self._at(name))
        except ClientError as error:
            if code_of(error) == "404":
                return None
            raise
        return File(name, head["ContentLength"], head["ETag"].strip('"'))

    def names(self, folder: str) -> list[str]:
        """Names of what is below a folder, up to the next slash."""
        prefix = self._folder(folder)
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix, Delimiter="/"
        )
        found = []
        for page in pages:
            found += [one["Prefix"][len(prefix) :].rstrip("/") for one in page.get("CommonPrefixes", [])]
            found += [one["Key"][len(prefix) :] for one in page.get("Contents", [])]
        return [name for name in found if name]

    def page(self, token: str | None) -> tuple[list[File], str | None]:
        """Some of all objects below the prefix, or the prefix itself where it is an object; and how to go on."""
        if token is None and self._prefix:
            first = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
            for item in first.get("Contents", []):
                if item["Key"] == self._prefix:  # which sorts before all longer ones
                    return [_file(self._prefix.rsplit("/", 1)[-1], item)], None
        prefix = self._folder("")
        more = {"ContinuationToken": token} if token else {}
        page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **more)
        files = [_file(item["Key"][len(prefix) :], item) for item in page.get("Contents", []) if item["Key"] != prefix]
        return files, page.get("NextContinuationToken")

    def _folder(self, name: str) -> str:
        key = self._at(name)["Key"]
        return f"{key}/" if key else ""

    def read(self, name: str, fits: Callable[[int], bool]) -> bytes:
        """The bytes of an object.

        Raises:
            FileTooLarge: they do not fit.
        """
        answer = self._client.get_object(**self._at(name))
        with answer["Body"] as body:
            if not fits(answer["ContentLength"]):
                where = f"s3://{self._bucket}/{self._at(name)['Key']}"
                raise FileTooLarge(f"{where} has {answer['ContentLength']:,} bytes, too many", answer["ContentLength"])
            return body.read()

    def read_range(self, name: str, offset: int, size: int, version: str) -> bytes:
        """Bytes within an object that is still of a version."""
        answer = self._client.get_object(
            **self._at(name), Range=f"bytes={offset}-{offset + size - 1}", IfMatch=f'"{version}"'
        )
        with answer["Body"] as body:
            return body.read()

    def write(self, name: str, data: bytes) -> None:
        """Writes an object, in one request: where a writer dies nothing of it stays."""
        if len(data) <= _MOST_AT_ONCE:
            self._client.put_object(**self._at(name), Body=data)
        else:  # more than S3 takes at once; the parts become an object together
            self._client.upload_fileobj(BytesIO(data), self._bucket, self._at(name)["Key"], Config=TransferConfig())

    def create(self, name: str, data: bytes) -> bool:
        """Writes an object where there is none of this name; says whether it did."""
        try:
            self._client.put_object(**self._at(name), Body=data, IfNoneMatch="*")
        except ClientError as error:
            if code_of(error) == "PreconditionFailed":
                return False
            raise
        return True

    def remove(self, name: str) -> None:
        """Deletes an object, if it is there."""
        self._client.delete_object(**self._at(name))

    def age(self, name: str) -> float:
        """Seconds since an object was last written, by the clock of S3."""
        head = self._client.head_object(**self._at(name))
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        written: datetime = head["LastModified"]
        return (now - written).total_seconds()

    def try_to_write(self) -> Callable[[], object]:
        """Begins to write an object; returns what takes it back, which leaves nothing and needs no right to delete."""
        place = self._at(".raycsr-may-write")
        begun = self._client.create_multipart_upload(**place)
        return lambda: self._client.abort_multipart_upload(**place, UploadId=begun["UploadId"])


def _file(path: str, item: dict[str, Any]) -> File:
    return File(path, item["Size"], item["ETag"].strip('"'))


def client(anonymous: bool = False) -> Any:
    """The process's S3 client for the AWS settings as they are now.

    One client renews credentials that expire; settings that the user has mended since, by a variable or in a file, are
    taken up by a new one.
    """
    with _lock:
        return _client(anonymous, os.getpid(), _settings())


def forget_client() -> None:
    """Has credentials asked for anew, from where they are handed out."""
    with _lock:
        _client.cache_clear()


@lru_cache(maxsize=8)
def _client(anonymous: bool, process: int, settings: Settings) -> Any:
    config = Config(
        connect_timeout=10,
        read_timeout=30,
        max_pool_connections=_CONNECTIONS,
        retries={"total_max_attempts": 1, "mode": "standard"},  # the store itself asks again
        **({"signature_version": UNSIGNED} if anonymous else {}),
    )
    return boto3.Session().client("s3", config=config)


def _settings() -> Settings:
    """What boto3 looks at: the variables, and when the files of profiles were last written."""
    variables = tuple(sorted((key, value) for key, value in os.environ.items() if key.startswith("AWS_")))
    files = [
        os.path.expanduser(os.environ.get(variable, default))
        for variable, default in (
            ("AWS_CONFIG_FILE", "~/.aws/config"),
            ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        )
    ]
    return variables, *((file, os.stat(file).st_mtime_ns if os.path.exists(file) else 0) for file in files)
