import pytest
import torch

from raycsr.errors import UserError
from raycsr.training.augmentation import augmentation
from raycsr.training.options import AugmentationOptions

IMAGE = torch.arange(3 * 12 * 16, dtype=torch.uint8).view(3, 12, 16)


def test_no_option_is_no_transform():
    assert augmentation(AugmentationOptions(), (8, 8)) is None


@pytest.mark.parametrize(
    "options",
    [
        {"random_resized_crop": 0.08, "flip": True},
        {"crop_padding": 4, "color_jitter": 0.4},
        {"random_resized_crop": 0.5, "rand_augment": 9},
    ],
)
def test_gives_bytes_of_the_input_size(options):
    torch.manual_seed(0)
    out = augmentation(AugmentationOptions(**options), (8, 8))(IMAGE)
    assert out.dtype == torch.uint8 and out.shape == (3, 8, 8)


def test_flip_mirrors_half_of_the_images():
    flip = augmentation(AugmentationOptions(flip=True), (12, 16))
    torch.manual_seed(0)
    flipped = [torch.equal(flip(IMAGE), IMAGE.flip(-1)) for _ in range(400)]
    assert 160 < sum(flipped) < 240


@pytest.mark.parametrize(
    "options", [{"random_resized_crop": 0.0}, {"crop_padding": -1}, {"rand_augment": 31}, {"color_jitter": -0.1}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        augmentation(AugmentationOptions(**options), (8, 8))
