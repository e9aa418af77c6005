"""What is named test, val or validation is not for training and tuning; the split where none is named."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from raycsr.data.options import DataOptions
from raycsr.data.sources import Listing, Source, open_source, stored_options, with_split
from raycsr.data.split_names import words
from raycsr.data.splits import refuse_test_images
from raycsr.errors import UserError

CLASSES = ["cat", "dog", "blood test"]


def check(path, ids=("cat/1.png",), split=None, source="imagefolder", allowed=False):
    images = pd.DataFrame({"image_id": list(ids)})
    options = DataOptions(source, path, split=split)
    refuse_test_images(options, Listing(images, CLASSES, {}), allowed=allowed)


@pytest.mark.parametrize(
    "path",
    [
        "/data/imagenet/train",
        "/data/test/cifar/train",  # the last one says what they are
        "/data/latest/photos",
        "/mnt/testbed/train",
        "/mnt/testbed",
        "/mnt/contest/interval-valley",
        "/mnt/tests/photos",
        "/tmp/pytest-of-me/test_of_something0/photos",
        "/data/test/a/b",  # a project on some test disk
        "/data/trainval",
        "/data/train_val",  # both: it says nothing
        "s3://test/photos",  # a bucket
        "s3://test",
    ],
)
def test_paths_of_training_images_pass(path):
    check(path)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/data/imagenet/val", "val"),
        ("/data/imagenet/Validation", "validation"),
        ("/data/ISIC2018_Task3_Test_Input", "test"),
        ("/data/mnist/testSet", "test"),
        ("/data/coco/val2017/images", "val"),
        ("/data/train/valid", "valid"),
        ("/data/shards/imagenet-val-000.tar", "val"),
        ("/data/test-00000-of-00001.parquet", "test"),
        ("/data/labels_test.csv", "test"),
        ("s3://bucket/imagenet/val", "val"),
    ],
)
def test_paths_of_test_images_are_refused_by_name_unless_told_otherwise(path, word):
    with pytest.raises(
        UserError, match=rf"data.path '{path}' is named '{word}', .* --allow_test_images true"
    ) as caught:
        check(path)
    assert "\n" not in str(caught.value)
    check(path, allowed=True)


@pytest.mark.parametrize(
    ("ids", "part"),
    [
        (["train-000.tar#1", "val-000.tar#1"], "val-000.tar"),
        (["default/train/0.parquet#1", "default/test/0.parquet#1"], "test"),
        (["images/ISIC_Test/1.jpg"], "ISIC_Test"),
        (["shard.tar#val/0001"], "val"),
    ],
)
def test_shards_and_folders_below_the_path_are_asked_too(ids, part):
    with pytest.raises(UserError, match=rf"data.path '/data/all' has '{part}', which is named '(val|test)'"):
        check("/data/all", ids)


def test_classes_and_single_images_may_have_any_name():
    check("/data/train", ["blood test/1.png", "cat/ILSVRC2012_val_00000293.JPEG"])
    check("/data/val/all", ["train-000.tar#1"])


def test_folders_that_a_table_has_its_images_in_are_asked_too():
    options = DataOptions("csv", "/data/labels.csv", split="train", image_roots=["/data/train", "/data/ILSVRC/val"])
    with pytest.raises(UserError, match="data.image_roots '/data/ILSVRC/val' is named 'val'"):
        refuse_test_images(options, Listing(pd.DataFrame({"image_id": ["1.png"]}), CLASSES, {}), allowed=False)


@pytest.mark.parametrize("split", ["test", "val", "validation", "test_clean"])
def test_splits_to_test_on_are_refused(split):
    with pytest.raises(UserError, match=f"data.split is '{split}', "):
        check("/data/all", ["part.parquet#1"], split, "parquet")


def test_words_are_whole_and_know_camel_case():
    assert words("testSet_2017-VAL.tar") == ["test", "set", "val", "tar"]
    assert words("latest-contest interval") == ["latest", "contest", "interval"]


class TestWhereNoSplitIsNamed:
    def test_it_is_test_to_sample_and_train_to_train_on(self) -> None:
        options = DataOptions("digits")
        assert open_source(options).options.split == "test"
        assert open_source(with_split(options, "train")).options.split == "train"
        assert with_split(DataOptions("digits", split="test"), "train").split == "test"

    def test_runs_keep_their_identity(self) -> None:
        """A digest of earlier versions, which is part of the ids of runs."""
        identity = open_source(DataOptions("digits")).list().identity
        assert identity == open_source(DataOptions("digits", split="test")).list().identity
        assert identity["images"].startswith("30ea037b323ee071")

    def test_sources_without_splits_have_none(self, animals: Path) -> None:
        options = DataOptions("imagefolder", str(animals))
        assert with_split(options, "train").split is None and open_source(options).options.split is None
        with pytest.raises(UserError, match=r"animals' has no splits \(data.split is 'train'\): leave data.split out"):
            open_source(DataOptions("imagefolder", str(animals), split="train"))

    def test_what_earlier_versions_stored_is_read(self, animals: Path) -> None:
        stored = {"source": "imagefolder", "path": str(animals), "split": "test"}
        assert len(open_source(stored_options(stored)).list().images) == 4
        assert stored_options({"source": "digits", "split": "train"}).split == "train"

    def test_a_source_says_its_split(self, source: Callable[..., Source], animals: Path) -> None:
        assert str(source("digits")) == "digits, split test"
        assert str(source("imagefolder", animals)) == f"imagefolder '{animals}'"


class TestParquet:
    @pytest.fixture
    def named(self, write_parquet: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
        """`named(a, b)` is a folder of two files of those names."""

        def write(*names: str) -> Path:
            for name in names:
                write_parquet(tmp_path / "files" / name, [0, 1])
            return tmp_path / "files"

        return write

    @pytest.mark.parametrize("names", [("train.parquet", "test.parquet"), ("a/train/0.parquet", "a/test/0.parquet")])
    def test_files_and_folders_of_a_splits_name_are_that_split(
        self, source: Callable[..., Source], named: Callable[..., Path], names: tuple[str, str]
    ) -> None:
        """Both were taken, whichever was asked for."""
        folder = named(*names)
        for split, name in zip(("train", "test"), names, strict=True):
            images = source("parquet", folder, split=split).list().images
            assert images.image_id.tolist() == [f"{name}#0", f"{name}#1"]
        with pytest.raises(UserError, match="unknown split 'val': the files are of test, train"):
            source("parquet", folder, split="val").list()

    def test_a_split_of_files_that_no_split_names_is_refused(
        self, source: Callable[..., Source], named: Callable[..., Path]
    ) -> None:
        """All were taken, and the report said that they are of the split."""
        folder = named("0.parquet", "1.parquet")
        listing = source("parquet", folder).list()
        assert len(listing.images) == 4 and listing.split is None
        assert "split     none is said by the source: all images are taken" in listing.notes
        for split in ("val", "test"):
            with pytest.raises(
                UserError, match=f"unknown split '{split}': nothing in .* says a split; leave data.split out"
            ):
                source("parquet", folder, split=split).list()

    def test_one_file_has_no_split(self, source: Callable[..., Source], named: Callable[..., Path]) -> None:
        file = named("train-00000-of-00001.parquet") / "train-00000-of-00001.parquet"
        assert source("parquet", file).options.split is None
        assert len(source("parquet", file).list().images) == 2
        with pytest.raises(UserError, match="has no splits"):
            source("parquet", file, split="test")
