"""The source imagefolder: what it lists, in which order, and how it reads."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from raycsr.data import images
from raycsr.data.sources import Source
from raycsr.errors import UserError
from raycsr.store.files import LocalFiles


class TestList:
    def test_listing(self, source: Callable[..., Source], animals: Path) -> None:
        listing = source("imagefolder", animals).list()
        assert listing.images.image_id.tolist() == ["ant/x.webp", "cat/a.png", "dog/2.JPEG", "dog/10.jpg"]
        assert listing.images.label.tolist() == [0, 1, 2, 2]
        assert listing.images["size"].tolist() == [len(f"bytes of {i}") for i in listing.images.image_id]
        assert listing.images.version[0] == str((animals / "ant/x.webp").stat().st_mtime_ns)
        assert listing.class_names == ["ant", "cat", "dog"]

    def test_an_empty_class_keeps_its_index(self, source: Callable[..., Source], animals: Path) -> None:
        (animals / "bee").mkdir()
        listing = source("imagefolder", animals, classes=["dog"]).list()
        assert listing.images.label.tolist() == [3, 3]

    def test_identity_survives_a_move_and_sees_another_image(
        self, source: Callable[..., Source], animals: Path, tmp_path: Path
    ) -> None:
        before = source("imagefolder", animals).list().identity
        animals.rename(tmp_path / "moved")
        assert source("imagefolder", tmp_path / "moved").list().identity == before
        (tmp_path / "moved/cat/b.png").write_bytes(b"another")
        assert source("imagefolder", tmp_path / "moved").list().identity != before

    @pytest.mark.parametrize("extension", ["tif", "TIFF", "gif", "pgm", "bmp", "jfif", "jpe", "avif", "jp2", "tga"])
    def test_all_that_pillow_reads_is_listed(
        self, source: Callable[..., Source], animals: Path, extension: str
    ) -> None:
        if extension == "avif" and ".avif" not in images.EXTENSIONS:
            pytest.skip("this Pillow reads no AVIF")
        (animals / f"cat/b.{extension}").write_bytes(b"another")
        listing = source("imagefolder", animals).list()
        assert f"cat/b.{extension}" in listing.images.image_id.tolist()

    def test_what_is_left_out_is_said(self, source: Callable[..., Source], animals: Path) -> None:
        assert source("imagefolder", animals).list().notes == (
            "left out: 3 files (.txt 1, hidden 1, images beside the class folders 1)",
        )
        for path in ("__MACOSX/cat/._a.png", "__MACOSX/b.png", "cat/@eaDir/a.png/THUMB.jpg", "cat/._a.png", "cat/0001"):
            (animals / path).parent.mkdir(parents=True, exist_ok=True)
            (animals / path).write_bytes(b"litter")
        for name in ("program.eps", "document.pdf", "scan.dcm", "photo.heic"):
            (animals / "dog" / name).write_bytes(b"not for Pillow")
        listing = source("imagefolder", animals).list()
        assert listing.class_names == ["ant", "cat", "dog"] and len(listing.images) == 4
        (note,) = listing.notes
        assert note.startswith("left out: 12 files (") and "in __MACOSX 2" in note and "hidden 2" in note
        assert note.endswith("and 4 other kinds)")

    def test_a_flat_folder_says_what_is_in_it(self, source: Callable[..., Source], tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"an image")
        with pytest.raises(UserError, match=r"no images in .*left out: 1 file \(images beside the class folders 1\)"):
            source("imagefolder", tmp_path).list()

    def test_classes_without_an_image_are_named(self, source: Callable[..., Source], animals: Path) -> None:
        (animals / "bee").mkdir()
        assert "classes   without an image: 'bee'" in source("imagefolder", animals).list().notes

    def test_a_name_that_is_not_utf8_is_refused(self, source: Callable[..., Source], animals: Path) -> None:
        (animals / "cat" / os.fsdecode(b"\xe9.png")).write_bytes(b"an image")
        with pytest.raises(UserError, match=r"'cat/.udce9.png' below .* has a name that is not UTF-8: rename it"):
            source("imagefolder", animals).list()

    def test_the_folder_above_is_refused(self, source: Callable[..., Source], animals: Path) -> None:
        with pytest.raises(UserError, match=r"folders inside its class folders"):
            source("imagefolder", animals.parent).list()

    def test_missing_and_empty(self, source: Callable[..., Source], tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"there is no '.*nowhere'"):
            source("imagefolder", tmp_path / "nowhere").list()
        with pytest.raises(UserError, match=r"no images in .*<class>/<image>.jpg"):
            source("imagefolder", tmp_path).list()

    def test_shared_imagenet_sample(self, source: Callable[..., Source], shared_data: Path) -> None:
        folder = source("imagefolder", shared_data / "imagenet-sample" / "val")
        listing = folder.list()
        assert len(listing.images) == len(listing.class_names) == 1000
        assert listing.class_names[0] == "n01440764"
        assert listing.images.label.tolist() == list(range(1000))
        read = folder.read(listing.images.image_id[:20].tolist())
        assert [len(image) for image in read if isinstance(image, bytes)] == listing.images["size"][:20].tolist()


class TestRead:
    def test_read_in_the_order_asked_for(self, source: Callable[..., Source], animals: Path) -> None:
        read = source("imagefolder", animals).read(["dog/10.jpg", "ant/x.webp"])
        assert read == [b"bytes of dog/10.jpg", b"bytes of ant/x.webp"]

    def test_too_large_a_file_is_an_error_of_its_row(self, source: Callable[..., Source], animals: Path) -> None:
        with (animals / "cat/a.png").open("wb") as file:
            file.truncate(images.MAX_BYTES + 1)  # sparse: takes no space
        large, read = source("imagefolder", animals).read(["cat/a.png", "ant/x.webp"])
        assert str(large) == "the image has 268,435,457 bytes, more than 268,435,456"
        assert read == b"bytes of ant/x.webp"

    def test_a_vanished_file_is_an_error_of_its_row(self, source: Callable[..., Source], animals: Path) -> None:
        (animals / "cat/a.png").unlink()
        vanished, read = source("imagefolder", animals).read(["cat/a.png", "ant/x.webp"])
        assert isinstance(vanished, FileNotFoundError)
        assert read == b"bytes of ant/x.webp"

    def test_a_dangling_link_is_listed_and_cannot_be_read(self, source: Callable[..., Source], animals: Path) -> None:
        (animals / "cat/b.png").symlink_to(animals / "nowhere")
        folder = source("imagefolder", animals)
        assert "cat/b.png" in folder.list().images.image_id.tolist()
        assert isinstance(folder.read(["cat/b.png"])[0], FileNotFoundError)

    def test_a_source_that_is_not_on_the_node_raises(self, source: Callable[..., Source], tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"on this node"):
            source("imagefolder", tmp_path / "gone").read(["cat/a.png"])

    @pytest.mark.filterwarnings("ignore:.*trying again")
    def test_a_shared_folder_that_is_away_is_waited_for_and_then_raises(
        self, source: Callable[..., Source], animals: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failures = iter([True, True, False])
        read = LocalFiles.read

        def flaky(files: LocalFiles, name: str, fits: Callable[[int], bool]) -> bytes:
            if next(failures, True):
                raise OSError(errno.ESTALE, "Stale file handle")
            return read(files, name, fits)

        monkeypatch.setattr(LocalFiles, "read", flaky)
        monkeypatch.setenv("RAYCSR_PATIENCE", "60")
        folder = source("imagefolder", animals)
        assert folder.read(["cat/a.png"]) == [b"bytes of cat/a.png"]
        monkeypatch.setenv("RAYCSR_PATIENCE", "0")
        with pytest.raises(UserError, match=r"cat/a.png: Stale file handle"):
            folder.read(["cat/a.png"])
