"""Training batches from images that fit in memory; each worker gets its shard of every batch."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch

from raycsr.errors import UserError
from raycsr.training.ranks import num_workers, shard

Augment = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Share = tuple[torch.Tensor, torch.Tensor]


class Batch(NamedTuple):
    """Images to take one step on.

    Attributes:
        images: Images, which become float32 in [0, 1] on the device; uint8 (B, 3, H, W).
        labels: Classes of the images; int64 (B,).
        image_ids: B names, to say which images a step concerned.
        repeated: Whether it is the batch before once more, since none of its own images can be decoded: all workers
            take as many steps, and it counts for nothing.
    """

    images: torch.Tensor
    labels: torch.Tensor
    image_ids: Sequence[str]
    repeated: bool = False


def whole_batch(batch_size: int, num_images: int) -> int:
    """Returns the images of a batch over all workers, who get as many each: at most all there are.

    Raises:
        UserError: There are fewer images than workers.
    """
    largest = min(batch_size, num_images)
    if largest < num_workers():
        raise UserError(
            f"{num_images} images to train on with {num_workers()} workers: give no more workers than images"
        )
    return largest - largest % num_workers()


def parts_of(batch: Batch, number: int) -> Iterator[Batch]:
    """Yields so many parts of a batch, of equal size but for one image; where there are too few, some twice.

    All workers take as many steps, whatever images of theirs could not be decoded.
    """
    if number == 1:  # without a copy
        yield batch
        return
    size = len(batch.labels)
    for part in torch.arange(max(size, number)).tensor_split(number):
        chosen = part % size
        names = [batch.image_ids[i] for i in chosen.tolist()]
        yield batch._replace(images=batch.images[chosen], labels=batch.labels[chosen], image_ids=names)


def draw_epoch(num_images: int, batch_size: int, generator: torch.Generator) -> list[Share]:
    """Draws an epoch: the order of the images, and a seed for the augmentation of each, which is its own in any batch.

    Where and how the images are read does not matter, nor does the number of workers. What does not fill a last batch
    is left out of the epoch: batch norm has no statistics of a lone image.

    Args:
        num_images: Number of images, decodable or not.
        batch_size: Number of images of a batch, over all workers.
        generator: CPU generator, in the same state on all workers.

    Returns:
        For each batch this worker's shard: positions of its images, and their seeds in [0, 2**62); int64 (B,) each.
    """
    order = torch.randperm(num_images, generator=generator)
    seeds = torch.randint(2**62, (num_images,), generator=generator)
    shares = [batch[shard()] for batch in order.split(batch_size)[: num_images // batch_size]]
    return [(share, seeds[share]) for share in shares]


def without_gaps(batches: Iterable[Batch], failed: Mapping[str, str] = MappingProxyType({})) -> Iterator[Batch]:
    """Batches, with the one before in place of one without an image.

    Args:
        batches: The batches.
        failed: Why images could not be decoded, where it is known: it grows with the batches.

    Raises:
        UserError: The first has no image.
    """
    before: Batch | None = None
    for batch in batches:
        if len(batch.labels):
            before = batch
        elif before is None:
            why = next((f", as {image_id!r}: {why}" for image_id, why in failed.items()), "")
            raise UserError(f"none of the first batch's images can be decoded{why}; check the data")
        yield batch if len(batch.labels) else before._replace(repeated=True)


class InMemoryBatches:
    """Shuffled batches; each iteration is an epoch (`draw_epoch`)."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        batch_size: int,
        generator: torch.Generator,
        image_ids: Sequence[str] | None = None,
        subset: np.ndarray | None = None,
        augment: Augment | None = None,
    ) -> None:
        """Keeps the images as they are, without a copy.

        Args:
            images: Images; uint8 (N, H, W, 3).
            labels: Classes of the images; int (N,).
            batch_size: Images a batch, over all workers; fewer where N is smaller.
            generator: CPU generator of the order and the augmentation; its state is all there is to resume.
            image_ids: N names; by default the indices.
            subset: Indices of the images to use; by default all. -1 is an image that cannot be decoded, and is left out
                of its batch. The images may be shared with other processes.
            augment: Augmentation of a batch: uint8 (B, H, W, 3) and the images' seeds (B,) -> uint8 (B, H, W, 3).

        Raises:
            UserError: The images are of another type or shape, or there are not as many labels.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise UserError(f"images are {images.dtype} {images.shape}: give uint8 (N, H, W, 3).")
        if len(images) != len(labels) or not len(images):
            raise UserError(f"{len(images)} images with {len(labels)} labels: give one label an image.")
        self.images = images
        self.labels = torch.from_numpy(np.array(labels, np.int64))  # theirs may be shared, and not writable
        self.image_ids = image_ids
        self.subset = torch.arange(len(images)) if subset is None else torch.from_numpy(subset)
        self.batch_size = whole_batch(batch_size, len(self.subset))
        self.generator = generator
        self.augment = augment

    def __len__(self) -> int:
        """Returns the number of batches of an epoch."""
        return len(self.subset) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of one epoch.

        Raises:
            UserError: None of the first batch's images can be decoded.
        """
        return without_gaps(
            self._batch(*share) for share in draw_epoch(len(self.subset), self.batch_size, self.generator)
        )

    def _batch(self, positions: torch.Tensor, seeds: torch.Tensor) -> Batch:
        indices = self.subset[positions]
        readable = indices >= 0
        indices, seeds = indices[readable], seeds[readable]
        images = torch.from_numpy(self.images[indices.numpy()])  # a copy, (B, H, W, 3)
        if self.augment is not None and len(images):
            images = self.augment(images, seeds)
        names = [str(i) if self.image_ids is None else self.image_ids[i] for i in indices.tolist()]
        return Batch(images.permute(0, 3, 1, 2), self.labels[indices], names)
