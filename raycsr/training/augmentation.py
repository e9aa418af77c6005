"""Augmentation of training images: each is drawn by a seed of its own, so that its company does not matter."""

from collections.abc import Callable

import torch
from torch.nn import functional
from torchvision.transforms import v2

from raycsr.errors import UserError
from raycsr.training.options import AugmentationOptions

Transform = Callable[[torch.Tensor], torch.Tensor]


class Augmentation:
    """The random augmentation that the options describe.

    Attributes:
        options: The options.
    """

    def __init__(self, options: AugmentationOptions, input_size: tuple[int, int]) -> None:
        """Checks the options.

        Args:
            options: The options.
            input_size: Height and width of the images that the network takes, in pixels.

        Raises:
            UserError: An option is out of its range.
        """
        share = options.random_resized_crop
        if share is not None and not 0 < share <= 1:
            raise UserError(f"augmentation.random_resized_crop is {share}: give the least share of the area, in (0, 1]")
        if options.crop_padding < 0 or options.color_jitter < 0 or not 0 <= (options.rand_augment or 0) <= 30:
            raise UserError(f"{options} is out of range: crop_padding and color_jitter >= 0, rand_augment 0 to 30")
        self.options = options
        scale = (1.0, 1.0) if share is None else (share, 1.0)
        self._resized_crop = v2.RandomResizedCrop(input_size, scale=scale, antialias=True)
        last: list[Transform] = []
        if options.rand_augment is not None:
            last.append(v2.RandAugment(magnitude=options.rand_augment))
        if options.color_jitter:
            last.append(v2.ColorJitter(*[options.color_jitter] * 3))
        self._last = last

    def resized_crop(self, image: torch.Tensor, seed: int) -> torch.Tensor:
        """The random resized crop of one whole image: uint8 (3, h, w) of any size -> uint8 (3, *input_size)."""
        with torch.random.fork_rng(devices=[]):
            return _drawn([self._resized_crop], image, seed)

    def __call__(self, images: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """What follows the resized crop, of a batch: crop, flip, and torchvision's own, image by image.

        Args:
            images: Images of the input size; uint8 (B, H, W, 3).
            seeds: Seeds of the images, in [0, 2**62); int64 (B,).

        Returns:
            uint8 (B, H, W, 3).
        """
        if self.options.crop_padding or self.options.flip:
            images = cropped_and_flipped(images, seeds, self.options.crop_padding, self.options.flip)
        if not self._last:
            return images
        with torch.random.fork_rng(devices=[]):
            drawn = [
                _drawn(self._last, image.permute(2, 0, 1), seed + 1)  # other draws than those of the resized crop
                for image, seed in zip(images, seeds.tolist(), strict=True)
            ]
        return torch.stack(drawn).permute(0, 2, 3, 1)


def cropped_and_flipped(images: torch.Tensor, seeds: torch.Tensor, padding: int, flip: bool) -> torch.Tensor:
    """Pads images with black, crops them to their size at random, and mirrors half of them; all at once.

    Args:
        images: Images; uint8 (B, H, W, 3).
        seeds: Seeds of the images, uniform in [0, 2**62); int64 (B,).
        padding: Number of black pixels on each side.
        flip: Whether to mirror half of the images.

    Returns:
        uint8 (B, H, W, 3).
    """
    places = 2 * padding + 1
    top, left = seeds % places, seeds // places % places  # (B,) each, uniform but for 2**-50 or so
    mirrored = (seeds // places**2 % 2 == 1) & flip  # (B,)
    _, height, width, _ = images.shape
    rows = top[:, None] + torch.arange(height)  # (B, H)
    columns = left[:, None] + torch.arange(width)  # (B, W)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = functional.pad(images, (0, 0, padding, padding, padding, padding))  # (B, H + 2 padding, W + 2 padding, 3)
    rows += torch.arange(len(images))[:, None] * padded.shape[1]  # of all images, one below the other
    pixels = rows[:, :, None] * padded.shape[2] + columns[:, None, :]  # (B, H, W)
    return padded.view(-1, 3).index_select(0, pixels.flatten()).view(images.shape)


def _drawn(transforms: list[Transform], image: torch.Tensor, seed: int) -> torch.Tensor:
    """The transforms of an image, whose draws from torch's global generator the seed alone determines."""
    torch.default_generator.manual_seed(seed)
    for transform in transforms:
        image = transform(image)
    return image
