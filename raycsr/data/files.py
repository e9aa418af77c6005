"""Files, local and on S3: what is below a root, access to it, and what goes wrong on the way."""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import boto3
import pyarrow.fs as pafs
from botocore import exceptions
from botocore.config import Config

from raycsr.errors import UserError

_OF_FILE_MANAGERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
READ_THREADS = 16  # an object store answers in tens of milliseconds: read many at once
RETRY_DELAYS = (0.5, 2.0, 8.0, 30.0, 60.0)  # seconds before each further attempt: a store may restart

T = TypeVar("T")


class File(NamedTuple):
    """A file or a folder below a root, as it was listed."""

    path: str  # relative to the root; a folder ends with a slash
    size: int
    version: str


def walk(root: str, left_out: Counter[str]) -> Iterator[File]:
    """All files below a root, or the root itself where it is a file, but hidden ones and those of file managers.

    Args:
        root: local or s3://.
        left_out: counts the files that are not yielded, by what they are.

    Raises:
        UserError: the root cannot be listed, or a name below it is not UTF-8.
    """
    for file in _walk_s3(root) if root.startswith("s3://") else _walk_local(root):
        why = not_data(file.path)
        if why is None:
            yield _named(file, root)
        elif not file.path.endswith("/"):
            left_out[why] += 1


def not_data(path: str) -> str | None:
    """What a file is that nobody put there as data: `hidden`, or the folder it is in; None for all others."""
    for part in path.split("/"):
        if part in _OF_FILE_MANAGERS:
            return f"in {part}"
        if part.startswith(".") and part != ".":
            return "hidden"
    return None


def _named(file: File, root: str) -> File:
    """The file; its name becomes an id, which is stored as UTF-8."""
    try:
        file.path.encode()
    except UnicodeEncodeError:
        raise UserError(f"{file.path!r} below {root!r} has a name that is not UTF-8: rename it") from None
    return file


def _walk_local(root: str) -> Iterator[File]:
    try:
        if os.path.isfile(root):
            yield _file(os.path.basename(root), os.stat(root))
        else:
            yield from _scan(root, "")
    except FileNotFoundError:
        raise UserError(f"there is no {root!r}: check the path") from None
    except (OSError, ValueError) as error:  # a null byte is no OSError
        raise UserError(f"cannot list {root!r}: {reason(error)}") from None


def _scan(folder: str, prefix: str) -> Iterator[File]:
    with os.scandir(folder) as entries:
        for entry in entries:
            relative = prefix + entry.name
            if entry.is_dir():
                yield File(relative + "/", 0, "")
                yield from _scan(entry.path, relative + "/")
            else:
                # A dangling link stays in the listing: its image counts, as one that cannot be read.
                yield _file(relative, entry.stat(follow_symlinks=entry.is_file()))


def _file(path: str, stat: os.stat_result) -> File:
    return File(path, stat.st_size, str(stat.st_mtime_ns))


def _walk_s3(root: str) -> Iterator[File]:
    bucket, _, key = root.removeprefix("s3://").partition("/")
    prefix = f"{key}/" if key else ""
    with _s3_errors(root, bucket):
        # A session of its own: the default one would keep credentials that the user has mended since.
        client = boto3.Session().client("s3", config=Config(connect_timeout=10))
        # The key itself sorts before all longer ones.
        first = client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
        if key and first and first[0]["Key"] == key:
            yield _object(os.path.basename(key), first[0])
            return
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                if item["Key"] != prefix:
                    yield _object(item["Key"][len(prefix) :], item)


def _object(path: str, item: dict[str, Any]) -> File:
    return File(path, item["Size"], item["ETag"].strip('"'))


@contextmanager
def _s3_errors(root: str, bucket: str) -> Iterator[None]:
    """Turns boto's errors into the user's, by their codes alone: their texts may repeat an access key."""
    try:
        yield
    except exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        if code == "NoSuchBucket":
            raise UserError(f"there is no bucket {bucket!r}: check path {root!r} and the endpoint") from None
        raise UserError(f"S3 refused to list {root!r} ({code}): check the AWS keys and their rights") from None
    except exceptions.NoCredentialsError:
        raise UserError(f"no AWS credentials to list {root!r}: set AWS_ACCESS_KEY_ID or AWS_PROFILE") from None
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        host = urlsplit(os.environ.get("AWS_ENDPOINT_URL", "")).hostname or "AWS"
        raise UserError(
            f"cannot reach S3 at {host} for {root!r} ({type(error).__name__}): check AWS_ENDPOINT_URL and the network"
        ) from None
    except exceptions.BotoCoreError as error:
        raise UserError(
            f"cannot list {root!r} ({type(error).__name__}): check the bucket's name and the AWS settings"
        ) from None


def open_filesystem(root: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a root, and the root's path in it."""
    if not root.startswith("s3://"):
        return pafs.LocalFileSystem(), root
    path = root.removeprefix("s3://")  # only its bucket goes into a URI, where a key would need escapes
    return pafs.FileSystem.from_uri(f"s3://{path.split('/')[0]}")[0], path


def folder_of(root: str) -> str:
    """The folder that ids are relative to: the root, or where the root is one file, the file's folder."""
    filesystem, path = open_filesystem(root)
    return os.path.dirname(root) if filesystem.get_file_info(path).is_file else root


def retried(operation: Callable[[], T]) -> T:
    """Tries again after transient I/O errors; a file that is missing or forbidden will stay so."""
    for delay in RETRY_DELAYS:
        try:
            return operation()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            time.sleep(delay)
    return operation()


def one_image_failed(error: OSError, filesystem: pafs.FileSystem, root: str) -> Exception:
    """What stands for an image whose file is missing or forbidden, unless the whole source is."""
    if retried(lambda: filesystem.get_file_info(root)).type == pafs.FileType.NotFound:
        raise UserError(f"there is no {root!r} on this node: use a path all nodes share, or s3://")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError("the file vanished after it was listed")
    return PermissionError("access to the file is denied")


def natural(path: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key under which a2 comes before a10; the path itself decides between a2 and a02."""
    parts = re.split(r"([0-9]+)", path)  # text and digits in turn; a number may be longer than Python converts
    digits = [part.lstrip("0") for part in parts[1::2]]
    parts[1::2] = digits
    return [(len(part) if i % 2 else 0, part) for i, part in enumerate(parts)], path


def reason(error: Exception) -> str:
    """The first line of an error's text; of one of the system, without its number and its path."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__
