"""The sources digits and cifar10: packaged data that fits in memory; an image is split#index."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from raycsr.data.files import reason
from raycsr.data.images import Found, Images, Room, frame
from raycsr.data.kinds import SourceKind
from raycsr.data.options import DataOptions
from raycsr.errors import UserError

if TYPE_CHECKING:
    from torchvision import datasets


def digits_arrays(split: str) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits: 1,078 images to train on and 719 to test on, always the same ones.

    Args:
        split: `train` or `test`.

    Returns:
        Images, uint8 (N, 8, 8, 3), the grey levels 0..16 stretched to 0..255, and labels, int64 (N,);
        image i is `<split>#i` of the source `digits`.
    """
    # Here, for scikit-learn is slow to import and only digits need it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    levels, labels = load_digits(return_X_y=True)
    parts = train_test_split(np.arange(len(labels)), test_size=0.4, stratify=labels, random_state=0)
    chosen = np.sort(parts[["train", "test"].index(split)])
    grey = np.round(levels[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return np.repeat(grey, 3, axis=3), labels[chosen].astype(np.int64)


def cifar10_arrays(path: str, split: str, download: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10 from the folder that torchvision keeps it in.

    Args:
        path: Local folder that holds `cifar-10-batches-py`.
        split: `train` or `test`.
        download: Download it where it is missing.

    Returns:
        Images, uint8 (N, 32, 32, 3), and labels, int64 (N,); image i is `<split>#i` of the source `cifar10`.

    Raises:
        UserError: It is missing or damaged and `download` is false.
    """
    dataset = _cifar10(path, split, download)
    return dataset.data, np.asarray(dataset.targets, dtype=np.int64)


@lru_cache(maxsize=2)
def _cifar10(path: str, split: str, download: bool) -> "datasets.CIFAR10":
    from torchvision import datasets  # here, for PyTorch is slow to import

    try:
        return datasets.CIFAR10(path, train=split == "train", download=download)
    except (RuntimeError, OSError) as error:
        raise UserError(f"no CIFAR-10 in {path!r} ({reason(error)}): set download, or mend the path") from None


def list_digits(options: DataOptions) -> Found:
    """All digits of the split, and the names of their classes."""
    images, labels = digits_arrays(str(options.split))
    found = frame(_indices(options, images), labels, images[0].size, "scikit-learn")
    return Found(found, list("0123456789"), Counter())


def list_cifar10(options: DataOptions) -> Found:
    """All images of the split, and the names of their classes."""
    dataset = _cifar10(str(options.path), str(options.split), options.download)
    ids = _indices(options, dataset.data)
    found = frame(ids, dataset.targets, dataset.data[0].size, dataset.tgz_md5)
    return Found(found, dataset.classes, Counter())


def _indices(options: DataOptions, images: np.ndarray) -> list[str]:
    return [f"{options.split}#{index}" for index in range(len(images))]


def read_digits(options: DataOptions, image_ids: Sequence[str], room: Room) -> Images:
    """The pixels of each digit."""
    return _at_indices(digits_arrays(str(options.split))[0], image_ids)


def read_cifar10(options: DataOptions, image_ids: Sequence[str], room: Room) -> Images:
    """The pixels of each image."""
    # Never downloads: many tasks of a node would write the same folder at once.
    return _at_indices(cifar10_arrays(str(options.path), str(options.split))[0], image_ids)


def _at_indices(images: np.ndarray, image_ids: Sequence[str]) -> Images:
    return [images[int(image_id.rsplit("#", 1)[1])] for image_id in image_ids]


DIGITS = SourceKind(list_digits, read_digits, "it comes with scikit-learn", ("train", "test"), has_path=False)
CIFAR10 = SourceKind(
    list_cifar10, read_cifar10, "the folder that torchvision keeps CIFAR-10 in", ("train", "test"), local=True
)
