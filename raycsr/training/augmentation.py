"""Augmentation by torchvision's v2 transforms, image by image."""

from torch import nn
from torchvision.transforms import v2

from raycsr.errors import UserError
from raycsr.training.options import AugmentationOptions


def augmentation(options: AugmentationOptions, input_size: tuple[int, int]) -> nn.Module | None:
    """The transform that the options describe: uint8 (3, H, W) in, uint8 (3, *input_size) out; None for none.

    Raises:
        UserError: An option is out of its range.
    """
    share = options.random_resized_crop
    if share is not None and not 0 < share <= 1:
        raise UserError(f"augmentation.random_resized_crop is {share}: give the least share of the area, in (0, 1]")
    if options.crop_padding < 0 or options.color_jitter < 0 or not 0 <= (options.rand_augment or 0) <= 30:
        raise UserError(f"{options} is out of range: crop_padding and color_jitter >= 0, rand_augment 0 to 30")
    steps: list[nn.Module] = []
    if share is not None:
        steps.append(v2.RandomResizedCrop(input_size, scale=(share, 1.0), antialias=True))
    if options.crop_padding:
        steps.append(v2.RandomCrop(input_size, padding=options.crop_padding))
    if options.flip:
        steps.append(v2.RandomHorizontalFlip())
    if options.rand_augment is not None:
        steps.append(v2.RandAugment(magnitude=options.rand_augment))
    if options.color_jitter:
        steps.append(v2.ColorJitter(*[options.color_jitter] * 3))
    return v2.Compose(steps) if steps else None
