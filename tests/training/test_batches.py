import numpy as np
import pytest
import torch

from raycsr.errors import UserError
from raycsr.training.augmentation import augmentation
from raycsr.training.batches import InMemoryBatches
from raycsr.training.options import AugmentationOptions


def batches(images, labels, **options):
    return InMemoryBatches(images, labels, generator=torch.Generator().manual_seed(1), **options)


def numbered(count, side=4):
    images = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    return np.broadcast_to(images, (count, side, side, 3)), np.arange(count)


def test_an_epoch_holds_each_image_at_most_once_in_a_new_order():
    data = batches(*numbered(10), batch_size=4, image_ids=[f"i{k}" for k in range(10)])
    epochs = [list(data), list(data)]
    assert len(data) == 2 and [len(batch.labels) for batch in epochs[0]] == [4, 4]  # two wait for another epoch
    orders = [torch.cat([batch.labels for batch in epoch]).tolist() for epoch in epochs]
    assert orders[0] != orders[1] and all(len(set(order)) == 8 for order in orders)
    for pixels, labels, image_ids in epochs[0]:
        assert pixels.shape[1:] == (3, 4, 4) and torch.equal(pixels[:, 0, 0, 0], labels.byte())
        assert image_ids == [f"i{k}" for k in labels.tolist()]


def test_a_subset_keeps_its_names_and_labels():
    data = batches(*numbered(10), batch_size=2, subset=np.array([1, 5, 7, 9]))
    seen = [
        (int(image[0, 0, 0]), int(label), name) for batch in data for image, label, name in zip(*batch, strict=True)
    ]
    assert sorted(seen) == [(k, k, str(k)) for k in (1, 5, 7, 9)]


def test_fewer_images_than_a_batch_are_one_batch():
    assert [sorted(batch.labels.tolist()) for batch in batches(*numbered(3), batch_size=8)] == [[0, 1, 2]]


def test_augmentation_is_drawn_image_by_image_from_the_batches_own_generator():
    image = np.arange(1, 17, dtype=np.uint8).reshape(4, 4)
    images = np.broadcast_to(image[None, :, :, None], (200, 4, 4, 3))
    augment = augmentation(AugmentationOptions(crop_padding=1, flip=True), (4, 4))

    def drawn():
        ((pixels, _, _),) = batches(images, np.zeros(200), batch_size=200, augment=augment)
        return pixels

    torch.manual_seed(5)
    expected_next = torch.rand(3)
    torch.manual_seed(5)
    pixels = drawn()
    assert torch.equal(torch.rand(3), expected_next)  # torch's global generator is left as it was
    assert torch.equal(drawn(), pixels)
    padded = np.pad(image, 1)
    shifts = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    allowed = {tuple(view.flatten().tolist()) for shift in shifts for view in (shift, shift[:, ::-1])}
    assert {tuple(p[0].flatten().tolist()) for p in pixels} == allowed  # all 18 of them


def test_images_of_another_type_or_number_are_refused():
    with pytest.raises(UserError, match="float32"):
        batches(np.zeros((2, 8, 8, 3), np.float32), np.zeros(2), batch_size=1)
    with pytest.raises(UserError, match="2 images with 3 labels"):
        batches(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(3), batch_size=1)
