"""The source webdataset: .tar files of key.jpg with key.cls or key.json beside it; an image is tar#key.

A tar has no table of contents. Its headers are walked once a process, with ranged reads that skip the images, and
kept as an index; an image is then one ranged read. Nothing is extracted to disk.
"""

import io
import json
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from raycsr.data.files import READ_THREADS, folder_of, instead, natural, not_data, reason, walk
from raycsr.data.images import (
    EXTENSIONS,
    LATER,
    MAX_BYTES,
    PICTURES,
    Found,
    Image,
    Images,
    Room,
    extension,
    frame,
    too_large,
)
from raycsr.data.kinds import SourceKind
from raycsr.data.options import DataOptions
from raycsr.errors import UserError
from raycsr.store import AccessDenied, File, FileMissing, SeekableFile, Store

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_HEADERS = 2**15  # bytes fetched at once while headers are walked: a label and the next headers, but few of an image
_MAX_SMALL = 2**20  # bytes of a label, or of a header that holds a long name


@dataclass(frozen=True)
class _Sample:
    """An image in a tar."""

    offset: int  # of its content
    size: int
    label: int | None  # None where nothing beside it says one


@dataclass(frozen=True)
class _Index:
    """What a tar holds: its images by their keys, and how many other files, by what they are."""

    images: dict[str, _Sample]
    left_out: Counter[str]


def list_webdataset(options: DataOptions) -> Found:
    """All images, tar by tar in natural order of their keys; tars hold no names of classes."""
    return _list(options, labelled=True)


def list_webdataset_of_images(options: DataOptions) -> Found:
    """All images, tar by tar in natural order of their keys; a key needs no label."""
    return _list(options, labelled=False)


def _list(options: DataOptions, labelled: bool) -> Found:
    root = str(options.path)
    left_out: Counter[str] = Counter()
    tars = []
    for file in walk(root, left_out):
        if file.path.endswith(_COMPRESSED):
            raise UserError(f"{file.path!r} is compressed, and an image within cannot be read alone: unpack it to .tar")
        if file.path.endswith(".tar"):
            tars.append(file)
        elif not file.path.endswith("/"):
            left_out[extension(file.path)] += 1
    tars.sort(key=lambda file: natural(file.path))
    folder = folder_of(root)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        indices = list(pool.map(lambda file: _index(folder, file), tars))
    parts = [_listed(file, index.images, labelled) for file, index in zip(tars, indices, strict=True)]
    for index in indices:
        left_out.update(index.left_out)
    return Found(pd.concat([frame([], [], [], []), *parts], ignore_index=True), None, left_out)


def _listed(file: File, images: dict[str, _Sample], labelled: bool) -> pd.DataFrame:
    keys = sorted(images, key=natural)
    samples = [images[key] for key in keys]
    ids = [f"{file.path}#{key}" for key in keys]
    unlabelled = [key for key, sample in zip(keys, samples, strict=True) if sample.label is None]
    if labelled and unlabelled:
        key, tar = unlabelled[0], posixpath.basename(file.path)
        raise UserError(f"image {key!r} of {tar!r} has no label: add {key}.cls, or {key}.json with a label")
    labels = [sample.label if labelled else -1 for sample in samples]
    return frame(ids, labels, [sample.size for sample in samples], file.version)


def read_webdataset(options: DataOptions, image_ids: Sequence[str], room: Room) -> Images:
    """Each image's member, or why it cannot be read; opens each tar once."""
    root = str(options.path)
    folder = folder_of(root)
    places = pd.DataFrame([i.partition(".tar#")[::2] for i in image_ids], columns=["tar", "key"])
    images: dict[int, Image] = {}
    for tar, keys in places.groupby("tar").key:
        try:
            read = _read_members(folder, f"{tar}.tar", keys.tolist(), room)
        except (FileMissing, AccessDenied) as error:
            read = [instead(error, Store(root))] * len(keys)
        images.update(zip(keys.index, read, strict=True))
    return [images[position] for position in range(len(image_ids))]


def _read_members(folder: Store, tar: str, keys: list[str], room: Room) -> Images:
    with folder.open(tar) as file, ThreadPoolExecutor(READ_THREADS) as pool:
        index = _index(folder, file.file).images
        return list(pool.map(lambda key: _read_member(folder, file.file, index.get(key), room), keys))


def _read_member(folder: Store, tar: File, sample: _Sample | None, room: Room) -> Image:
    if sample is None:
        return FileNotFoundError("the image vanished after it was listed")
    if sample.size > MAX_BYTES:
        return too_large(sample.size)
    return folder.read_range(tar, sample.offset, sample.size) if room.take(sample.size) else LATER


def _index(folder: Store, tar: File) -> _Index:
    """What a tar holds; kept while the tar stays as it is."""
    return _indexed(folder.location, tar)


@lru_cache(maxsize=64)
def _indexed(folder: str, file: File) -> _Index:
    tar = posixpath.basename(file.path)
    with SeekableFile(Store(folder), file) as raw, _SmallReads(raw, _HEADERS) as headers:
        try:
            return _walk_headers(headers, file.size, tar)
        except UserError:
            raise
        except Exception as error:  # on arbitrary bytes tarfile fails in any way
            raise _damaged(tar, reason(error)) from None


class _SmallReads(io.BufferedReader):
    """A tar of which headers and labels are read: one that claims gigabytes is not believed."""

    def read(self, size: int | None = -1) -> bytes:
        """Reads, as `io.BufferedReader` does.

        Raises:
            tarfile.ReadError: more is asked for than any header or label should take.
        """
        if size is None or not 0 <= size <= _MAX_SMALL:
            raise tarfile.ReadError(f"a header or label of {size} bytes")
        return super().read(size)


def _walk_headers(headers: _SmallReads, total: int, tar: str) -> _Index:
    """Walks a tar of `total` bytes; refuses one that is unsafe, damaged, or whose images lack a label."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[tuple[str, str], int | None] = {}
    left_out: Counter[str] = Counter()
    archive = tarfile.TarFile(fileobj=headers)
    for member in archive:
        _refuse_unsafe(member, tar)
        if member.size < 0 or member.offset_data + member.size > total:
            raise _damaged(tar, f"{member.name!r} reaches beyond its end")
        if member.isdir():
            continue
        name = posixpath.normpath(member.name)
        if why := not_data(name):
            left_out[why] += 1
            continue
        folder, base = posixpath.split(name)
        stem, _, field = base.partition(".")
        key, field = posixpath.join(folder, stem), f".{field.lower()}"
        if field in EXTENSIONS:
            if key in images:
                raise UserError(f"{tar!r} has two images of key {key!r}: give each image a key of its own")
            images[key] = member
        elif field in (".cls", ".json"):
            if (key, field) in labels:
                raise UserError(f"{tar!r} has {member.name!r} twice: give each image a key of its own")
            headers.seek(member.offset_data)
            labels[key, field] = _label(headers.read(member.size), member.name, tar)
        else:
            left_out[field if field != "." else "no extension"] += 1
    headers.seek(archive.offset)
    if headers.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # the mark of the end, which tarfile lets be absent
        raise _damaged(tar, "it is cut off, or a header is corrupt")
    for key, field in labels:
        if key not in images and field == ".cls":
            raise UserError(f"{tar!r} has {key + field!r} without an image: add {key}{PICTURES}")
        if key not in images:
            left_out[field] += 1
    samples = {key: _Sample(member.offset_data, member.size, _label_of(key, labels)) for key, member in images.items()}
    return _Index(samples, left_out)


def _refuse_unsafe(member: tarfile.TarInfo, tar: str) -> None:
    """Refuses what no image archive needs: who packs it may mean harm, and its images are not to be trusted."""
    parts = re.split(r"[/\\]", member.name)
    if parts[0] == "" or ".." in parts:
        problem = "points outside of the tar"
    elif not (member.isreg() or member.isdir()) or member.issparse():
        problem = "is a link, a device or a sparse file"
    elif not _is_unicode(member.name):
        problem = "has a name that is not UTF-8"
    else:
        return
    raise UserError(f"{tar!r} is refused: its member {member.name!r} {problem}; pack plain files under relative names")


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # tarfile's stand-ins for bytes that are not UTF-8
        return False
    return True


def _label(content: bytes, name: str, tar: str) -> int | None:
    """The label that a .cls or a .json gives; None where a .json has none."""
    try:
        value = int(content) if name.lower().endswith(".cls") else json.loads(content).get("label")
    except (ValueError, AttributeError, RecursionError):
        value = content
    if value is None or (type(value) is int and abs(value) < 2**31):  # a bool is an int too
        return value
    raise UserError(f"{name!r} of {tar!r} has no integer label: write the class's index")


def _label_of(key: str, labels: dict[tuple[str, str], int | None]) -> int | None:
    return labels.get((key, ".cls"), labels.get((key, ".json")))


def _damaged(tar: str, why: str) -> UserError:
    return UserError(f"cannot read {tar!r} as a tar ({why}): copy it again, or pack it anew without compression")


WEBDATASET = SourceKind(
    list_webdataset,
    read_webdataset,
    f"a .tar, or a folder of them, of <key>{PICTURES}, and <key>.cls",
    unlabelled=list_webdataset_of_images,
)
