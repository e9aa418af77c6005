"""Sources as one: their options, the subset, the classes, and what a user's mistake says."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raycsr.data.options import DataOptions
from raycsr.data.sources import Source, open_source
from raycsr.errors import UserError


class TestOpen:
    def test_a_source_is_cheap_to_send(self, source: Callable[..., Source]) -> None:
        sent = pickle.dumps(source("digits"))
        assert len(sent) < 1000
        assert len(pickle.loads(sent).read(["train#0"])) == 1

    def test_unknown_kind_names_the_nearest(self, source: Callable[..., Source]) -> None:
        with pytest.raises(UserError, match=r"unknown source 'image_folder': did you mean imagefolder"):
            source("image_folder", "x")

    def test_other_stores_are_refused(self, source: Callable[..., Source]) -> None:
        with pytest.raises(UserError, match=r"'gs://bucket/val' is neither a local path nor s3://"):
            source("imagefolder", "gs://bucket/val")

    def test_path_is_asked_for(self, source: Callable[..., Source]) -> None:
        with pytest.raises(UserError, match=r"source imagefolder needs a path"):
            source("imagefolder")

    def test_s3_is_for_parquet(self, source: Callable[..., Source]) -> None:
        with pytest.raises(UserError, match=r"on S3 use source parquet"):
            source("cifar10", "s3://bucket/cifar")

    def test_credentials_in_the_uri_are_refused_and_not_repeated(self, source: Callable[..., Source]) -> None:
        with pytest.raises(UserError, match=r"a location carries credentials") as caught:
            source("imagefolder", "s3://key:secret@bucket/val")
        assert "secret@" not in str(caught.value)

    def test_relative_paths_are_resolved_where_the_source_is_opened(
        self, source: Callable[..., Source], animals: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(animals.parent)
        folder = source("imagefolder", "animals")
        monkeypatch.chdir("/")
        assert len(folder.list().images) == 4


class TestSubset:
    def test_classes_then_skip_then_limit(self, source: Callable[..., Source]) -> None:
        everything = source("digits").list().images
        chosen = source("digits", classes=[3, "5"], skip=4, limit=6).list().images
        expected = everything[everything.label.isin([3, 5])].iloc[::4].iloc[:6]
        assert chosen.image_id.tolist() == expected.image_id.tolist()

    def test_identity_ignores_the_subset_and_tells_splits_apart(self, source: Callable[..., Source]) -> None:
        identity = source("digits").list().identity
        assert source("digits", classes=[3], skip=2, limit=1).list().identity == identity
        assert source("digits", split="train").list().identity != identity

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"classes": ["tree"]}, "unknown class 'tree'"),
            ({"classes": [10]}, "class 10 is not one of the 10 classes; use 0 to 9"),
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


class TestClassNames:
    def test_class_names_from_a_file(self, source: Callable[..., Source], animals: Path, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("Ant\nCat\nDog\n")
        listing = source("imagefolder", animals, class_names=str(tmp_path / "names.txt"), classes=["Dog"]).list()
        assert listing.images.label.tolist() == [2, 2]
        with pytest.raises(UserError, match=r"cannot read class_names '/nowhere.txt'"):
            source("imagefolder", animals, class_names="/nowhere.txt").list()

    def test_unknown_class_names_the_nearest(self, source: Callable[..., Source], animals: Path) -> None:
        with pytest.raises(UserError, match=r"unknown class 'dogs'; nearest names: dog"):
            source("imagefolder", animals, classes=["dogs"]).list()

    def test_a_folder_of_some_of_the_named_classes_has_their_labels(
        self, source: Callable[..., Source], animals: Path
    ) -> None:
        listing = source("imagefolder", animals, class_names=["dog", "bird", "cat", "ant"]).list()
        assert listing.class_names == ["dog", "bird", "cat", "ant"]
        labels = dict(zip(listing.images.image_id, listing.images.label, strict=True))
        assert labels == {"ant/x.webp": 3, "cat/a.png": 2, "dog/2.JPEG": 0, "dog/10.jpg": 0}
        with pytest.raises(
            UserError, match="class_names has 4 names, .*animals' has 3 classes, which are not all among"
        ):
            source("imagefolder", animals, class_names=["dog", "bird", "cat", "emu"]).list()
