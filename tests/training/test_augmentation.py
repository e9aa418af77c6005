import numpy as np
import pytest
import torch

from raycsr.errors import UserError
from raycsr.training.augmentation import Augmentation
from raycsr.training.options import AugmentationOptions

IMAGES = torch.arange(5 * 12 * 16 * 3).remainder(251).to(torch.uint8).view(5, 12, 16, 3)
SEEDS = torch.randint(2**62, (5,), generator=torch.Generator().manual_seed(0))


def augmented(images, seeds, **options):
    return Augmentation(AugmentationOptions(**options), tuple(images.shape[1:3]))(images, seeds)


def test_no_option_changes_nothing():
    assert augmented(IMAGES, SEEDS) is IMAGES


@pytest.mark.parametrize("share", [0.08, 0.5])
def test_a_resized_crop_has_the_input_size_and_is_determined_by_its_seed(share):
    made = Augmentation(AugmentationOptions(random_resized_crop=share), (8, 8))
    whole = torch.arange(3 * 40 * 50, dtype=torch.uint8).view(3, 40, 50)
    one, other, again = (made.resized_crop(whole, seed) for seed in (7, 8, 7))
    assert one.dtype == torch.uint8 and one.shape == (3, 8, 8)
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_crops_and_flips_are_all_equally_likely_and_nothing_else():
    image = np.arange(1, 17, dtype=np.uint8).reshape(4, 4)
    images = torch.from_numpy(image)[None, :, :, None].expand(3600, 4, 4, 3)
    seeds = torch.randint(2**62, (3600,), generator=torch.Generator().manual_seed(1))
    drawn = augmented(images, seeds, crop_padding=1, flip=True)
    padded = np.pad(image, 1)
    shifts = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    allowed = {tuple(view.flatten().tolist()) for shift in shifts for view in (shift, shift[:, ::-1])}
    seen, counts = np.unique(drawn[..., 2].flatten(1).numpy(), axis=0, return_counts=True)
    assert {tuple(view) for view in seen.tolist()} == allowed  # 18 of them, 200 times each: four deviations are 55
    assert counts.min() > 145 and counts.max() < 255


def test_flip_alone_mirrors_and_keeps_every_pixel():
    drawn = augmented(IMAGES, SEEDS, flip=True)
    mirrored = [torch.equal(one, image.flip(1)) for one, image in zip(drawn, IMAGES, strict=True)]
    kept = [torch.equal(one, image) for one, image in zip(drawn, IMAGES, strict=True)]
    assert [m or k for m, k in zip(mirrored, kept, strict=True)] == [True] * 5


@pytest.mark.parametrize(
    "options",
    [{"crop_padding": 2, "flip": True}, {"rand_augment": 9}, {"color_jitter": 0.4, "flip": True, "crop_padding": 1}],
)
def test_an_image_is_augmented_by_its_own_seed_whatever_its_company(options):
    torch.manual_seed(5)
    expected_next = torch.rand(3)
    torch.manual_seed(5)
    together = augmented(IMAGES, SEEDS, **options)
    assert torch.equal(torch.rand(3), expected_next)  # torch's global generator is left as it was
    assert together.dtype == torch.uint8 and together.shape == IMAGES.shape
    order = [3, 0, 4]
    assert torch.equal(augmented(IMAGES[order], SEEDS[order], **options), together[order])
    assert not torch.equal(augmented(IMAGES, SEEDS + 12345, **options), together)


@pytest.mark.parametrize(
    "options", [{"random_resized_crop": 0.0}, {"crop_padding": -1}, {"rand_augment": 31}, {"color_jitter": -0.1}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        Augmentation(AugmentationOptions(**options), (8, 8))
