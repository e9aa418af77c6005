"""Training batches from images that fit in memory; each worker gets its shard of every batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from raycsr.errors import UserError
from raycsr.training.ranks import num_workers, rank, shard

Augment = Callable[[torch.Tensor], torch.Tensor]


class Batch(NamedTuple):
    """Images to take one step on.

    Attributes:
        images: Images, which become float32 in [0, 1] on the device; uint8 (B, 3, H, W).
        labels: Classes of the images; int64 (B,).
        image_ids: B names, to say which images a step concerned.
    """

    images: torch.Tensor
    labels: torch.Tensor
    image_ids: Sequence[str]


def whole_batch(batch_size: int, num_images: int) -> int:
    """Returns the images of a batch over all workers, who get as many each: at most all there are."""
    largest = min(batch_size, num_images)
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


class InMemoryBatches:
    """Shuffled batches; each iteration is an epoch in a new order.

    What does not fill a last batch is left out of that epoch: batch norm has no statistics of a lone image.
    """

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
            subset: Indices of the images to use; by default all. The images may be shared with other processes.
            augment: Applied to each image, uint8 (3, H, W) in and out; may draw from torch's global generator,
                which is seeded from `generator` and left as it was.

        Raises:
            UserError: The images are of another type or shape, or there are not as many labels.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise UserError(f"images are {images.dtype} {images.shape}: give uint8 (N, H, W, 3).")
        if len(images) != len(labels) or not len(images):
            raise UserError(f"{len(images)} images with {len(labels)} labels: give one label an image.")
        self.images = images
        self.labels = torch.as_tensor(np.asarray(labels, np.int64))
        self.image_ids = image_ids
        self.subset = np.arange(len(images)) if subset is None else subset
        self.batch_size = whole_batch(batch_size, len(self.subset))
        self.generator = generator
        self.augment = augment

    def __len__(self) -> int:
        """Returns the number of batches of an epoch."""
        return len(self.subset) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of one epoch."""
        order = torch.randperm(len(self.subset), generator=self.generator)[: len(self) * self.batch_size]
        for batch in torch.from_numpy(self.subset)[order].split(self.batch_size):
            indices = batch[shard()]
            images = torch.from_numpy(self.images[indices.numpy()]).permute(0, 3, 1, 2)  # a copy, (B, 3, H, W)
            if self.augment is not None:
                images = self._augmented(images, self.augment)
            names = [str(i) if self.image_ids is None else self.image_ids[i] for i in indices.tolist()]
            yield Batch(images, self.labels[indices], names)

    def _augmented(self, images: torch.Tensor, augment: Augment) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=self.generator)) + rank())
            return torch.stack([augment(image) for image in images])
