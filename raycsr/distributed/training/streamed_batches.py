"""Training batches streamed through Ray Data: decoded and augmented on CPU tasks, for data beyond memory."""

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import torch
from torchvision.transforms.v2.functional import pil_to_tensor

from raycsr.credentials import without_credentials
from raycsr.data.decode import decode_images, rgb_image
from raycsr.data.images import Image
from raycsr.data.sources import Source
from raycsr.distributed.sampling.deaths import SharedDeaths, survive
from raycsr.errors import UserError
from raycsr.models.spec import Preprocessing
from raycsr.training.augmentation import augmentation
from raycsr.training.batches import Batch, whole_batch
from raycsr.training.options import AugmentationOptions
from raycsr.training.ranks import num_workers, shard

_BLOCK = 256  # images a task


@dataclass(frozen=True)
class Augmented:
    """Reads, decodes and augments a block of images: a function for `Dataset.map_batches`.

    Attributes:
        source: Source that the images are read from.
        preprocessing: Preprocessing of the base classifier, whose input size is used.
        options: Options of the augmentation.
        seed: Seed of this epoch; with a block's first image it determines the block's randomness.
        deaths: Deaths of the stream's processes; None in this process alone.
    """

    source: Source
    preprocessing: Preprocessing
    options: AugmentationOptions
    seed: int
    deaths: SharedDeaths | None = None

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds `image`, uint8 (N, H, W, 3), and `error` to a block that has `image_id`, `label` and `position`."""
        return survive(self.deaths, "decoded", block, self._augmented, self._given_up)

    def _given_up(self, block: dict[str, np.ndarray], why: str) -> dict[str, np.ndarray]:
        black = np.zeros((1, *self.preprocessing.input_size, 3), np.uint8)
        return {**block, "image": black, "error": np.array([why], object)}

    def _augmented(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        augment = augmentation(self.options, self.preprocessing.input_size)
        images: list[torch.Tensor] = []
        errors: list[str] = []
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed + int(block["position"][0]))
            for turn in self.source.read_in_turns([str(image_id) for image_id in block["image_id"]]):
                while turn:  # one by one: of encoded images and of those of their own size few are in memory
                    image, error = self._decoded(turn.pop(0))
                    images.append(image if augment is None else augment(image))
                    errors.append(error or "")
        pixels = torch.stack(images).permute(0, 2, 3, 1).contiguous().numpy()
        return {**block, "image": pixels, "error": np.array(errors, object)}

    def _decoded(self, encoded: Image) -> tuple[torch.Tensor, str | None]:
        """An image, uint8 (3, H, W), black where it cannot be decoded, and why."""
        if self.options.random_resized_crop is None:  # resized and cropped as for evaluation
            decoded = decode_images([encoded], self.preprocessing)
            return torch.from_numpy(decoded["image"][0]).permute(2, 0, 1), decoded["error"][0]
        try:
            return pil_to_tensor(rgb_image(encoded)), None  # of its own size, which is cropped from
        except Exception as problem:  # any decoder's error concerns this image alone
            black = torch.zeros((3, *self.preprocessing.input_size), dtype=torch.uint8)
            return black, without_credentials(f"{type(problem).__name__}: {problem}")


class StreamedBatches:
    """Shuffled batches of images that are read anew each epoch; Ray Data works ahead of the training.

    Each worker reads its shard of every batch. Images that cannot be decoded are left out, with a warning.
    """

    def __init__(
        self,
        source: Source,
        images: pd.DataFrame,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        generator: torch.Generator,
        options: AugmentationOptions,
    ) -> None:
        """Reads nothing yet.

        Args:
            source: Source of the images.
            images: Rows of its listing: image_id, label.
            preprocessing: Preprocessing of the base classifier.
            batch_size: Number of images of a batch, over all workers.
            generator: Generator of the order and the augmentation.
            options: Options of the augmentation.
        """
        self.generator = generator
        self._source, self._preprocessing, self._options = source, preprocessing, options
        self._images = images[["image_id", "label"]]
        self._batch_size = whole_batch(batch_size, len(images))

    @functools.cached_property
    def _deaths(self) -> SharedDeaths:
        return SharedDeaths()  # of all epochs: Ray is started by the time of the first

    def __len__(self) -> int:
        """Returns the number of batches of an epoch."""
        return len(self._images) // self._batch_size

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of one epoch.

        A batch of which no image can be decoded is the one before once more: all workers take as many steps.

        Raises:
            UserError: None of the first batch's images can be decoded.
        """
        order = torch.randperm(len(self._images), generator=self.generator).numpy()
        seed = int(torch.randint(2**62, (), generator=self.generator))
        whole = np.arange(len(self) * self._batch_size).reshape(len(self), self._batch_size)
        mine = whole[:, shard()].ravel()  # positions in the epoch's order
        shuffled = self._images.iloc[order[mine]].assign(position=mine)
        blocks = [
            pa.Table.from_pandas(shuffled.iloc[start : start + _BLOCK], preserve_index=False)
            for start in range(0, len(shuffled), _BLOCK)
        ]
        augmented = Augmented(self._source, self._preprocessing, self._options, seed, self._deaths)
        dataset = ray.data.from_arrow(blocks).map_batches(augmented, batch_size=None, num_cpus=1)
        failed: dict[str, str] = {}
        batch: Batch | None = None
        size = self._batch_size // num_workers()
        for block in dataset.iter_batches(batch_size=size, batch_format="numpy"):
            good = np.flatnonzero(block["error"] == "")
            bad = np.flatnonzero(block["error"] != "")
            failed.update(zip(block["image_id"][bad], block["error"][bad], strict=True))
            if len(good):
                pixels = torch.from_numpy(block["image"][good]).permute(0, 3, 1, 2)  # (B, 3, H, W)
                labels = torch.from_numpy(block["label"][good].astype(np.int64))
                batch = Batch(pixels, labels, block["image_id"][good].tolist())
            if batch is None:
                first, why = next(iter(failed.items()))
                raise UserError(f"none of the first {size} images can be decoded, as {first!r}: {why}; check the data")
            yield batch
        if failed:
            first, why = next(iter(failed.items()))
            warnings.warn(
                f"{len(failed)} images cannot be decoded, the first {first!r}: {why}; they are left out", stacklevel=2
            )
