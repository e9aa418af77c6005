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
from raycsr.models.spec import Preprocessing
from raycsr.training.augmentation import Augmentation
from raycsr.training.batches import Batch, draw_epoch, whole_batch, without_gaps

_BLOCK = 256  # images a task


@dataclass(frozen=True)
class Augmented:
    """Reads, decodes and augments a block of images: a function for `Dataset.map_batches`.

    Attributes:
        source: Source that the images are read from.
        preprocessing: Preprocessing of the base classifier, whose input size is used.
        augmentation: Augmentation, which draws by each image's own seed.
        deaths: Deaths of the stream's processes; None in this process alone.
    """

    source: Source
    preprocessing: Preprocessing
    augmentation: Augmentation
    deaths: SharedDeaths | None = None

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds `image`, uint8 (N, H, W, 3), and `error` to a block that has `image_id`, `label` and `seed`."""
        return survive(self.deaths, "decoded", block, self._augmented, self._given_up)

    def _given_up(self, block: dict[str, np.ndarray], why: str) -> dict[str, np.ndarray]:
        black = np.zeros((1, *self.preprocessing.input_size, 3), np.uint8)
        return {**block, "image": black, "error": np.array([why], object)}

    def _augmented(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        images: list[torch.Tensor] = []  # (H, W, 3) each
        errors: list[str] = []
        for turn in self.source.read_in_turns([str(image_id) for image_id in block["image_id"]]):
            while turn:  # one by one: of encoded images and of those of their own size few are in memory
                image, error = self._decoded(turn.pop(0), int(block["seed"][len(images)]))
                images.append(image)
                errors.append(error or "")
        pixels = self.augmentation(torch.stack(images), torch.tensor(block["seed"])).contiguous().numpy()
        return {**block, "image": pixels, "error": np.array(errors, object)}

    def _decoded(self, encoded: Image, seed: int) -> tuple[torch.Tensor, str | None]:
        """An image of the input size, uint8 (H, W, 3), black where it cannot be decoded, and why."""
        if self.augmentation.options.random_resized_crop is None:  # resized and cropped as for evaluation
            decoded = decode_images([encoded], self.preprocessing)
            return torch.from_numpy(decoded["image"][0]), decoded["error"][0]
        try:
            whole = pil_to_tensor(rgb_image(encoded))  # of its own size
            return self.augmentation.resized_crop(whole, seed).permute(1, 2, 0), None
        except Exception as problem:  # any decoder's error concerns this image alone
            black = torch.zeros((*self.preprocessing.input_size, 3), dtype=torch.uint8)
            return black, without_credentials(f"{type(problem).__name__}: {problem}")


class StreamedBatches:
    """Shuffled batches of images that are read anew each epoch; each iteration is an epoch (`draw_epoch`).

    Ray Data works ahead of the training, and keeps the order. Each worker reads its shard of every batch. Images that
    cannot be decoded are left out, with a warning.
    """

    def __init__(
        self,
        source: Source,
        images: pd.DataFrame,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        generator: torch.Generator,
        augmentation: Augmentation,
    ) -> None:
        """Reads nothing yet.

        Args:
            source: Source of the images.
            images: Rows of its listing: image_id, label.
            preprocessing: Preprocessing of the base classifier.
            batch_size: Number of images of a batch, over all workers.
            generator: Generator of the order and the augmentation.
            augmentation: Augmentation of the images.
        """
        self.generator = generator
        self._source, self._preprocessing, self._augmentation = source, preprocessing, augmentation
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

        Raises:
            UserError: None of the first batch's images can be decoded.
        """
        epoch = draw_epoch(len(self._images), self._batch_size, self.generator)
        positions, seeds = (torch.cat(parts).numpy() for parts in zip(*epoch, strict=True))
        mine = self._images.iloc[positions].assign(seed=seeds)
        blocks = [
            pa.Table.from_pandas(mine.iloc[start : start + _BLOCK], preserve_index=False)
            for start in range(0, len(mine), _BLOCK)
        ]
        augmented = Augmented(self._source, self._preprocessing, self._augmentation, self._deaths)
        dataset = ray.data.from_arrow(blocks).map_batches(augmented, batch_size=None, num_cpus=1)
        dataset.context.execution_options.preserve_order = True  # else blocks come as they are ready
        failed: dict[str, str] = {}
        read = dataset.iter_batches(batch_size=len(epoch[0][0]), batch_format="numpy")
        yield from without_gaps((_batch(block, failed) for block in read), failed)
        if failed:
            first, why = next(iter(failed.items()))
            warnings.warn(
                f"{len(failed)} images cannot be decoded, the first {first!r}: {why}; they are left out", stacklevel=2
            )


def _batch(block: dict[str, np.ndarray], failed: dict[str, str]) -> Batch:
    """The images of a block that could be decoded; the others go to `failed`, id -> why."""
    good, bad = np.flatnonzero(block["error"] == ""), np.flatnonzero(block["error"] != "")
    failed.update(zip(block["image_id"][bad], block["error"][bad], strict=True))
    pixels = torch.from_numpy(block["image"][good]).permute(0, 3, 1, 2)  # (B, 3, H, W)
    labels = torch.from_numpy(block["label"][good].astype(np.int64))
    return Batch(pixels, labels, block["image_id"][good].tolist())
