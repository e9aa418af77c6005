"""The sources digits and cifar10: their arrays, and the listing and reading that agree with them."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raycsr.data.packaged import cifar10_arrays, digits_arrays
from raycsr.data.sources import Source
from raycsr.errors import UserError


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

    def test_listing_and_reading_agree_with_the_arrays(self, source: Callable[..., Source]) -> None:
        images, labels = digits_arrays("test")
        digits = source("digits")
        listing = digits.list()
        assert listing.images.image_id.tolist() == [f"test#{i}" for i in range(719)]
        assert listing.images.label.tolist() == labels.tolist()
        assert [str(listing.images[c].dtype) for c in ("label", "size")] == ["int32", "int64"]
        assert listing.class_names == list("0123456789")
        first, second = digits.read(["test#700", "test#3"])
        assert (first == images[700]).all() and (second == images[3]).all()


class TestCifar10:
    @pytest.fixture
    def folder(self, cifar_classes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """torchvision's layout with five images a batch; its checksums are those of the real data."""
        monkeypatch.setattr("torchvision.datasets.CIFAR10._check_integrity", lambda self: True)
        monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: True)
        batches = tmp_path / "cifar-10-batches-py"
        batches.mkdir()
        generator = np.random.default_rng(0)
        for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
            pixels = generator.integers(0, 256, (5, 3072), dtype=np.uint8)
            (batches / name).write_bytes(pickle.dumps({"data": pixels, "labels": [3, 5, 0, 9, 3]}))
        (batches / "batches.meta").write_bytes(pickle.dumps({"label_names": cifar_classes}))
        return tmp_path

    def test_list_and_read(self, source: Callable[..., Source], cifar_classes: list[str], folder: Path) -> None:
        images, labels = cifar10_arrays(str(folder), "test")
        assert images.shape == (5, 32, 32, 3)
        cifar = source("cifar10", folder, classes=["cat"])
        listing = cifar.list()
        assert listing.images.image_id.tolist() == ["test#0", "test#4"]
        assert listing.class_names == cifar_classes
        assert labels.tolist() == [3, 5, 0, 9, 3]
        (read,) = cifar.read(["test#4"])
        assert isinstance(read, np.ndarray) and (read == images[4]).all()
        assert len(source("cifar10", folder, split="train").list().images) == 25

    def test_missing(self, source: Callable[..., Source], tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no CIFAR-10 in .*set download"):
            source("cifar10", tmp_path).list()
