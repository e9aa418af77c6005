"""The loop and the batches in memory."""

import pytest
import torch

from raycsr.errors import UserError
from raycsr.models import ModelOptions, load_base_classifier
from raycsr.training import InMemoryBatches, TrainingOptions, train
from raycsr.training.objectives import gaussian


def batches(images, labels, **options):
    return InMemoryBatches(images, labels, generator=torch.Generator().manual_seed(1), **options)


def two_colours(count=64):
    """Red images and blue ones."""
    labels = torch.arange(count) % 2
    images = torch.zeros(count, 8, 8, 3, dtype=torch.uint8)
    images[labels == 0, :, :, 0] = 200
    images[labels == 1, :, :, 2] = 200
    return images, labels


def trained(**options):
    model = load_base_classifier(ModelOptions("cifar_resnet8", input_size=8), num_classes=2)
    images, labels = two_colours()
    epochs = []
    train(
        model,
        batches(images, labels, batch_size=16),
        objective=gaussian,
        sigma=0.25,
        generator=torch.Generator().manual_seed(2),
        options=TrainingOptions(epochs=4, **options),
        on_epoch=lambda epoch: epochs.append((epoch, model.training)),
    )
    return model, epochs


@pytest.mark.parametrize("options", [{"lr": 0.05}, {"lr": 0.05, "schedule": "cosine", "precision": "bf16"}])
def test_learns_and_reports_each_epoch(options):
    model, epochs = trained(**options)
    assert [epoch.number for epoch, _ in epochs] == [1, 2, 3, 4]
    assert not any(training for _, training in epochs)
    assert epochs[-1][0].loss < epochs[0][0].loss and epochs[-1][0].lr < 1e-3
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    images, labels = two_colours()
    assert (model(images.permute(0, 3, 1, 2) / 255).argmax(1) == labels).float().mean() > 0.9


def test_is_determined_by_its_seeds():
    assert trained()[0].components == trained()[0].components


def test_a_loss_that_is_not_finite_names_the_step():
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d\): lower the learning rate"):
        trained(lr=1e30)


def test_batches_cover_each_epoch_once_in_a_new_order():
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 4, 4)
    data = batches(images, torch.arange(10), batch_size=4)
    epochs = [list(data), list(data)]
    assert len(data) == 3 and [len(labels) for _, labels in epochs[0]] == [4, 4, 2]
    orders = [torch.cat([labels for _, labels in epoch]).tolist() for epoch in epochs]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) == list(range(10))
    for pixels, labels in epochs[0]:
        assert pixels.shape[1:] == (3, 4, 4) and torch.allclose(pixels[:, 0, 0, 0] * 255, labels.float())


def test_augmentation_shifts_and_mirrors():
    image = torch.arange(1, 17, dtype=torch.uint8).view(4, 4)
    images = image.view(1, 1, 4, 4).expand(200, 3, 4, 4)
    data = batches(images, torch.zeros(200, dtype=torch.long), batch_size=200, crop_padding=1, flip=True)
    ((pixels, _),) = data
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    shifts = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    allowed = {tuple(view.flatten().tolist()) for shift in shifts for view in (shift, shift.flip(1))}
    seen = {tuple(p[0].flatten().mul(255).round().int().tolist()) for p in pixels}
    assert seen == allowed  # all 18 of them
    assert image.flatten().tolist() == images[0, 0].flatten().tolist()


def test_images_of_another_type_or_number_are_refused():
    with pytest.raises(UserError, match=r"torch\.float32"):
        batches(torch.zeros(2, 8, 8, 3), torch.zeros(2), batch_size=1)
    with pytest.raises(UserError, match="2 images with 3 labels"):
        batches(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), torch.zeros(3), batch_size=1)
