"""Training batches from images that fit in memory."""

import math
from collections.abc import Iterator

import torch
from torch.nn import functional

from raycsr.errors import UserError


class InMemoryBatches:
    """Shuffled batches; each iteration is an epoch in a new order."""

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        batch_size: int,
        generator: torch.Generator,
        crop_padding: int = 0,
        flip: bool = False,
    ) -> None:
        """Keeps the images as they are, without a copy.

        Args:
            images: uint8 (N, H, W, 3) or (N, 3, H, W).
            labels: int64 (N,).
            batch_size: Images a batch; the last one of an epoch may be smaller.
            generator: CPU generator of the order and the augmentation.
            crop_padding: Pad by so many zeros on each side and crop back at random.
            flip: Mirror half of the images.

        Raises:
            UserError: The images are of another type or shape, or there are not as many labels.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or 3 not in (images.shape[1], images.shape[3]):
            raise UserError(
                f"images are {images.dtype} {tuple(images.shape)}: give uint8 (N, H, W, 3) or (N, 3, H, W)."
            )
        if len(images) != len(labels):
            raise UserError(f"{len(images)} images with {len(labels)} labels: give one label an image.")
        self.images = images.permute(0, 3, 1, 2) if images.shape[3] == 3 else images  # (N, 3, H, W)
        self.labels = labels
        self.batch_size = batch_size
        self.generator = generator
        self.crop_padding = crop_padding
        self.flip = flip

    def __len__(self) -> int:
        """Returns the number of batches of an epoch."""
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yields float32 pixels (B, 3, H, W) in [0,1] and labels (B,)."""
        order = torch.randperm(len(self.labels), generator=self.generator)
        for indices in order.split(self.batch_size):
            images = self.images[indices]
            if self.crop_padding:
                images = self._random_crop(images)
            if self.flip:
                mirrored = torch.rand(len(images), generator=self.generator) < 0.5
                images[mirrored] = images[mirrored].flip(-1)
            yield images.float() / 255, self.labels[indices]

    def _random_crop(self, images: torch.Tensor) -> torch.Tensor:
        size, height, width = len(images), images.shape[2], images.shape[3]
        padded = functional.pad(images, (self.crop_padding,) * 4)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: (B, 3, shifts, shifts, H, W)
        down, right = torch.randint(2 * self.crop_padding + 1, (2, size), generator=self.generator)
        return windows[torch.arange(size), :, down, right]  # (B, 3, H, W)
