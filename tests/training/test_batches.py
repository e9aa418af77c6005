import numpy as np
import pytest
import torch

from raycsr.errors import UserError
from raycsr.training import batches as module
from raycsr.training.augmentation import Augmentation
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
    for pixels, labels, image_ids, _ in epochs[0]:
        assert pixels.shape[1:] == (3, 4, 4) and torch.equal(pixels[:, 0, 0, 0], labels.byte())
        assert image_ids == [f"i{k}" for k in labels.tolist()]


def test_a_subset_keeps_its_names_and_labels():
    data = batches(*numbered(10), batch_size=2, subset=np.array([1, 5, 7, 9]))
    seen = [
        (int(image[0, 0, 0]), int(label), name) for batch in data for image, label, name in zip(*batch[:3], strict=True)
    ]
    assert sorted(seen) == [(k, k, str(k)) for k in (1, 5, 7, 9)]


def test_fewer_images_than_a_batch_are_one_batch():
    assert [sorted(batch.labels.tolist()) for batch in batches(*numbered(3), batch_size=8)] == [[0, 1, 2]]


def bytes_of(epochs):
    """Id -> its bytes, an entry an epoch."""
    return [
        {
            name: image.numpy().tobytes()
            for batch in epoch
            for name, image in zip(batch.image_ids, batch.images, strict=True)
        }
        for epoch in epochs
    ]


def test_an_image_is_augmented_alike_in_any_batch_and_anew_each_epoch():
    images = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)
    augment = Augmentation(AugmentationOptions(crop_padding=2, flip=True), (8, 8))
    small, large = (batches(images, np.zeros(48), batch_size=size, augment=augment) for size in (4, 16))
    one, other = (bytes_of([list(data), list(data)]) for data in (small, large))
    assert one == other and len(one[0]) == 48
    changed = [one[0][name] != one[1][name] for name in one[0]]
    assert sum(changed) > 36


def test_two_workers_share_what_one_has(monkeypatch):
    images, labels = numbered(23)
    alone = batches(images, labels, batch_size=4)
    epochs = [list(alone), list(alone)]
    monkeypatch.setattr(module, "num_workers", lambda: 2)
    shares = []
    for number in range(2):
        monkeypatch.setattr(module, "shard", lambda number=number: slice(number, None, 2))
        data = batches(images, labels, batch_size=4)
        shares.append([list(data), list(data)])
    for epoch in range(2):
        assert len(epochs[epoch]) == len(shares[0][epoch]) == 5
        for whole, one, other in zip(epochs[epoch], shares[0][epoch], shares[1][epoch], strict=True):
            assert [*whole.image_ids[0::2], *whole.image_ids[1::2]] == [*one.image_ids, *other.image_ids]


def test_an_image_that_cannot_be_decoded_leaves_the_others_where_they_are():
    images, labels = numbered(12)
    whole = batches(images, labels, batch_size=4)
    subset = np.arange(12)
    subset[[2, 7]] = -1
    fewer = batches(images, labels, batch_size=4, subset=subset)
    for all_of_it, left in zip(whole, fewer, strict=True):
        assert left.image_ids == [name for name in all_of_it.image_ids if name not in ("2", "7")]
        assert not left.repeated


def test_a_batch_of_which_nothing_can_be_decoded_repeats_the_one_before_for_nothing():
    images, labels = numbered(4)
    first, second, third, fourth = (int(batch.labels) for batch in batches(images, labels, batch_size=1))
    subset = np.arange(4)
    subset[[second, third]] = -1
    seen = list(batches(images, labels, batch_size=1, subset=subset))
    assert [(int(batch.labels), batch.repeated) for batch in seen] == [
        (first, False),
        (first, True),
        (first, True),
        (fourth, False),
    ]
    subset[first] = -1
    with pytest.raises(UserError, match="none of the first batch's images can be decoded; check the data"):
        list(batches(images, labels, batch_size=1, subset=subset))


def test_more_workers_than_images_are_refused(monkeypatch):
    monkeypatch.setattr(module, "num_workers", lambda: 4)
    with pytest.raises(UserError, match="3 images to train on with 4 workers"):
        batches(*numbered(3), batch_size=8)


def test_images_of_another_type_or_number_are_refused():
    with pytest.raises(UserError, match="float32"):
        batches(np.zeros((2, 8, 8, 3), np.float32), np.zeros(2), batch_size=1)
    with pytest.raises(UserError, match="2 images with 3 labels"):
        batches(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(3), batch_size=1)
