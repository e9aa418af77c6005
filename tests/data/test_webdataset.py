"""The source webdataset: what it lists, how it reads, and the tars that it refuses."""

import gzip
import io
import os
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raycsr.data import images, webdataset
from raycsr.data.decode import Decode
from raycsr.data.sources import Source
from raycsr.errors import UserError
from raycsr.models.spec import Preprocessing
from raycsr.store.files import LocalFiles

Members = list[tuple[str | tarfile.TarInfo, bytes]]


def write_tar(path: Path, members: Members, format_: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format_) as tar:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def pair(key: str, label: int = 0) -> Members:
    return [(f"{key}.jpg", f"bytes of {key}".encode()), (f"{key}.cls", f"{label}\n".encode())]


def special(name: str, type_: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type_, target
    return info


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two tars of photographs with labels, in the layouts that writers of WebDatasets leave."""
    folder = tmp_path / "shards"
    write_tar(folder / "train" / "2.tar", [*pair("dog/10.a", 2), *pair("dog/9", 1)])
    first: Members = [
        (special("./", tarfile.DIRTYPE), b""),
        ("./7.cls", b"0"),
        ("./7.JPEG", b"seven"),
        ("./7.json", b'{"label": 5, "caption": "a cat"}'),
        ("./._7.jpg", b"what a Mac leaves"),
        ("./12.json", b'{"label": 2}'),
        ("./12.seg.png", b"a mask, no image"),
        ("./12.webp", b"twelve"),
        ("./dataset.json", b'{"written by": "someone"}'),
    ]
    write_tar(folder / "train" / "10.tar", first)
    (folder / "readme.txt").write_text("not a tar")
    return folder


class TestList:
    def test_listing(self, source: Callable[..., Source], shards: Path) -> None:
        listing = source("webdataset", shards).list()
        # the key ends at the first dot of the base name: "dog/10.a.jpg" is the field a.jpg of dog/10, no image
        assert listing.images.image_id.tolist() == ["train/2.tar#dog/9", "train/10.tar#7", "train/10.tar#12"]
        assert listing.images.label.tolist() == [1, 0, 2]  # .cls before .json
        assert listing.images["size"].tolist() == [len("bytes of dog/9"), 5, 6]
        assert listing.images.version[0] == str((shards / "train/2.tar").stat().st_mtime_ns)
        assert listing.class_names == ["0", "1", "2"]
        assert source("webdataset", shards, class_names=["a", "b", "c"], classes=["c"]).list().images.label[0] == 2

    def test_what_is_left_out_is_said(self, source: Callable[..., Source], shards: Path) -> None:
        (note,) = source("webdataset", shards).list().notes
        # dog/10.a.jpg and its label, a mask, a .json of no image, what a Mac leaves; and a file beside the tars
        assert note.startswith("left out: 6 files (")
        for what in (".a.jpg 1", ".a.cls 1", ".seg.png 1", ".json 1", "hidden 1", ".txt 1"):
            assert what in note

    def test_every_format(self, source: Callable[..., Source], tmp_path: Path) -> None:
        members: Members = [("__MACOSX/a.jpg", b"litter")]
        for label, extension in enumerate(["tif", "GIF", "pgm", "jfif", "jpe", "bmp"]):
            members += [(f"{label}.{extension}", b"an image"), (f"{label}.cls", str(label).encode())]
        write_tar(tmp_path / "0.tar", members)
        listing = source("webdataset", tmp_path).list()
        assert listing.images.label.tolist() == [0, 1, 2, 3, 4, 5]
        assert listing.notes == ("left out: 1 file (in __MACOSX 1)",)

    def test_one_tar_has_the_ids_of_its_folder(self, source: Callable[..., Source], shards: Path) -> None:
        one = source("webdataset", shards / "train" / "2.tar")
        assert one.list().images.image_id.tolist() == ["2.tar#dog/9"]
        assert one.read(["2.tar#dog/9"]) == [b"bytes of dog/9"]

    @pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    def test_long_names(self, source: Callable[..., Source], tmp_path: Path, format_: int) -> None:
        key = "/".join(["ärger" * 10] * 6)
        write_tar(tmp_path / "0.tar", pair(key, 1), format_)
        long = source("webdataset", tmp_path)
        assert long.list().images.image_id.tolist() == [f"0.tar#{key}"]
        assert long.read([f"0.tar#{key}"]) == [f"bytes of {key}".encode()]

    def test_listing_reads_headers_and_labels_but_no_images(
        self, source: Callable[..., Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tar = write_tar(tmp_path / "0.tar", [("a.jpg", bytes(10**7)), ("a.cls", b"0"), *pair("b")])
        fetched: list[int] = []

        def read_range(*arguments: Any) -> bytes:
            data = read(*arguments)
            fetched.append(len(data))
            return data

        read = LocalFiles.read_range
        monkeypatch.setattr(LocalFiles, "read_range", read_range)
        assert len(source("webdataset", tmp_path).list().images) == 2
        assert 0 < sum(fetched) <= 2 * 2**15 < 0.01 * tar.stat().st_size  # one buffer before the image, one behind


class TestRead:
    def test_in_the_order_asked_for(self, source: Callable[..., Source], shards: Path) -> None:
        ids = ["train/10.tar#12", "train/2.tar#dog/9", "train/10.tar#7"]
        assert source("webdataset", shards).read(ids) == [b"twelve", b"bytes of dog/9", b"seven"]
        assert source("webdataset", shards).read([]) == []

    def test_a_block_walks_each_tars_headers_once(
        self, source: Callable[..., Source], shards: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        walked: list[str] = []
        real = webdataset._walk_headers
        monkeypatch.setattr(
            webdataset, "_walk_headers", lambda headers, total, tar: walked.append(tar) or real(headers, total, tar)
        )
        for _ in range(2):
            source("webdataset", shards).read(["train/10.tar#12", "train/2.tar#dog/9", "train/10.tar#7"])
        assert sorted(walked) == ["10.tar", "2.tar"]

    def test_a_tar_that_changed_is_walked_again(self, source: Callable[..., Source], tmp_path: Path) -> None:
        tar = write_tar(tmp_path / "0.tar", [*pair("a"), *pair("b")])
        folder = source("webdataset", tmp_path)
        assert folder.read(["0.tar#b"]) == [b"bytes of b"]
        write_tar(tar, pair("b"))
        os.utime(tar, ns=(0, 0))
        vanished, read = folder.read(["0.tar#a", "0.tar#b"])
        assert isinstance(vanished, FileNotFoundError) and read == b"bytes of b"

    def test_tars_that_vanished(self, source: Callable[..., Source], shards: Path, tmp_path: Path) -> None:
        (shards / "train" / "2.tar").unlink()
        vanished, read = source("webdataset", shards).read(["train/2.tar#dog/9", "train/10.tar#7"])
        assert isinstance(vanished, FileNotFoundError) and read == b"seven"
        with pytest.raises(UserError, match="on this node"):
            source("webdataset", tmp_path / "gone").read(["0.tar#a"])

    def test_one_bad_image_is_one_errored_row(self, source: Callable[..., Source], tmp_path: Path) -> None:
        png = io.BytesIO()
        Image.new("RGB", (8, 8), (255, 0, 0)).save(png, "PNG")
        good = ("good.png", png.getvalue())
        labels: Members = [(f"{key}.cls", b"0") for key in ("good", "cut", "empty")]
        write_tar(tmp_path / "0.tar", [good, ("cut.png", png.getvalue()[:40]), ("empty.png", b""), *labels])
        folder = source("webdataset", tmp_path)
        ids = folder.list().images.image_id.to_numpy()
        size = Preprocessing((8, 8), "bilinear", 1.0, "center")
        batch = Decode(folder, size)({"image_id": ids})
        assert dict(zip(ids, [error is None for error in batch["error"]], strict=True)) == {
            "0.tar#cut": False,
            "0.tar#empty": False,
            "0.tar#good": True,
        }
        assert (batch["image"][ids == "0.tar#good"] == [255, 0, 0]).all()

    def test_too_large_an_image_is_an_error_of_its_row(
        self, source: Callable[..., Source], shards: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(webdataset, "MAX_BYTES", 5)
        monkeypatch.setattr(images, "MAX_BYTES", 5)
        large, read = source("webdataset", shards).read(["train/10.tar#12", "train/10.tar#7"])
        assert str(large) == "the image has 6 bytes, more than 5" and read == b"seven"


class TestRefused:
    @pytest.mark.parametrize(
        ("member", "message"),
        [
            ("/etc/a.jpg", "'/etc/a.jpg' points outside of the tar"),
            ("a/../../b.jpg", r"'a/../../b.jpg' points outside"),
            ("a\\..\\b.jpg", "points outside"),
            (special("a.jpg", tarfile.SYMTYPE, "/etc/passwd"), "'a.jpg' is a link, a device"),
            (special("a.jpg", tarfile.LNKTYPE, "b.jpg"), "'a.jpg' is a link, a device"),
            (special("a.jpg", tarfile.CHRTYPE), "'a.jpg' is a link, a device"),
            (special("a.jpg", tarfile.FIFOTYPE), "'a.jpg' is a link, a device"),
        ],
    )
    def test_unsafe_members(
        self, source: Callable[..., Source], tmp_path: Path, member: str | tarfile.TarInfo, message: str
    ) -> None:
        write_tar(tmp_path / "evil.tar", [*pair("good"), (member, b"")])
        with pytest.raises(UserError, match=f"'evil.tar' is refused: its member .*{message}".replace("\\", ".")):
            source("webdataset", tmp_path).list()
        with pytest.raises(UserError, match="is refused"):
            source("webdataset", tmp_path).read(["evil.tar#good"])

    def test_a_name_that_is_not_utf8(self, source: Callable[..., Source], tmp_path: Path) -> None:
        write_tar(tmp_path / "0.tar", [("caf\udce9.jpg", b""), ("caf\udce9.cls", b"0")], tarfile.GNU_FORMAT)
        with pytest.raises(UserError, match="has a name that is not UTF-8"):
            source("webdataset", tmp_path).list()

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ([("a.jpg", b"")], "image 'a' of '0.tar' has no label: add a.cls, or a.json with a label"),
            ([("a.jpg", b""), ("a.json", b'{"caption": "x"}')], "image 'a' of '0.tar' has no label"),
            ([("a.cls", b"0")], "'0.tar' has 'a.cls' without an image: add a.jpg"),
            ([("a.jpg", b""), ("a.cls", b"cat")], "'a.cls' of '0.tar' has no integer label"),
            ([("a.jpg", b""), ("a.cls", b"4294967296")], "'a.cls' of '0.tar' has no integer label"),
            ([("a.jpg", b""), ("a.json", b'{"label": 1.5}')], "'a.json' of '0.tar' has no integer label"),
            ([("a.jpg", b""), ("a.json", b'{"label": true}')], "'a.json' of '0.tar' has no integer label"),
            ([("a.jpg", b""), ("a.json", b"[")], "'a.json' of '0.tar' has no integer label"),
            ([("a.jpg", b""), ("a.json", b"[" * 10**5)], "'a.json' of '0.tar' has no integer label"),
            ([*pair("a"), *pair("a")], "'0.tar' has two images of key 'a'"),
            ([*pair("a"), ("a.png", b"")], "'0.tar' has two images of key 'a'"),
            ([*pair("a"), ("a.cls", b"1")], "'0.tar' has 'a.cls' twice"),
            ([*pair("a"), ("b.cls", b" " * (2**20 + 1))], "header or label of 1048577 bytes"),
            ([*pair("a", 99_999), *pair("b", 10**9)], "label 1000000000 of '0.tar#b' is no class index"),
            ([*pair("a", -1)], "labels are outside"),
        ],
    )
    def test_labels_and_keys(
        self, source: Callable[..., Source], tmp_path: Path, members: Members, message: str
    ) -> None:
        write_tar(tmp_path / "0.tar", members)
        with pytest.raises(UserError, match=message) as caught:
            source("webdataset", tmp_path).list()
        assert "\n" not in str(caught.value)

    def test_a_compressed_tar(self, source: Callable[..., Source], shards: Path) -> None:
        compressed = gzip.compress((shards / "train" / "2.tar").read_bytes())
        (shards / "train" / "3.tar").write_bytes(compressed)
        with pytest.raises(UserError, match=r"cannot read '3.tar' as a tar .*pack it anew without compression"):
            source("webdataset", shards).list()
        (shards / "train" / "3.tar").rename(shards / "train" / "3.tar.gz")
        with pytest.raises(UserError, match=r"'train/3.tar.gz' is compressed, .*: unpack it to .tar"):
            source("webdataset", shards).list()

    @pytest.mark.parametrize("kept", [0, 100, 512, 600, 1024, 1100, 1500, 2048])  # of header, content; twice
    def test_a_truncated_tar_loses_no_image_in_silence(
        self, source: Callable[..., Source], tmp_path: Path, kept: int
    ) -> None:
        tar = write_tar(tmp_path / "0.tar", pair("a"))
        tar.write_bytes(tar.read_bytes()[:kept])
        with pytest.raises(UserError, match=r"cannot read '0.tar' as a tar \(.+\): copy it again"):
            source("webdataset", tmp_path).list()

    def test_a_corrupt_header_loses_no_image_in_silence(self, source: Callable[..., Source], tmp_path: Path) -> None:
        tar = write_tar(tmp_path / "0.tar", [*pair("a"), *pair("b")])
        content = bytearray(tar.read_bytes())
        content[2048 + 150] ^= 1  # the checksum of the second image
        tar.write_bytes(content)
        with pytest.raises(UserError, match="it is cut off, or a header is corrupt"):
            source("webdataset", tmp_path).list()

    @pytest.mark.parametrize("size", [-1536, 2**40, 2**62])  # the first leads back to b.txt
    @pytest.mark.parametrize("type_", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
    def test_a_size_that_cannot_be(
        self, source: Callable[..., Source], tmp_path: Path, size: int, type_: bytes
    ) -> None:
        members = write_tar(tmp_path / "0.tar", [("a.txt", b"a"), ("b.txt", b"b")]).read_bytes()[:2048]
        header = bytearray(special("c.txt", type_).tobuf(tarfile.USTAR_FORMAT))
        header[124:136] = struct.pack(">Iq", 0x80000000 if size > 0 else 0xFFFFFFFF, size)  # base 256
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        (tmp_path / "0.tar").write_bytes(members + bytes(header) + bytes(1024))
        with pytest.raises(UserError, match=r"cannot read '0.tar' as a tar"):
            source("webdataset", tmp_path).list()

    def test_any_bytes_are_one_line(self, source: Callable[..., Source], tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        whole = write_tar(tmp_path / "0.tar", [*pair("a" * 200), *pair("b")]).read_bytes()
        for _ in range(200):
            damaged = bytearray(whole)
            for position in generator.integers(0, 6000, 4):
                damaged[position] = generator.integers(256)
            (tmp_path / "0.tar").write_bytes(damaged)
            webdataset._indexed.cache_clear()
            try:
                source("webdataset", tmp_path).list()
            except UserError as error:
                assert "\n" not in str(error)

    def test_no_tars(self, source: Callable[..., Source], tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no images in .*a .tar, or a folder of them, of <key>.jpg"):
            source("webdataset", tmp_path).list()
        write_tar(tmp_path / "0.tar", [])
        with pytest.raises(UserError, match=r"no images in"):
            source("webdataset", tmp_path).list()
        with pytest.raises(UserError, match=r"there is no"):
            source("webdataset", tmp_path / "nowhere").list()
