"""The trainer: it learns, its schedules are what they say, and it goes on where it stopped."""

import math

import numpy as np
import pytest
import torch

from raycsr.errors import UserError
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.training.batches import InMemoryBatches
from raycsr.training.loop import Trainer, check_training
from raycsr.training.objectives import gaussian
from raycsr.training.options import TrainingOptions


def two_colours(count=64):
    """Red images and blue ones."""
    labels = np.arange(count) % 2
    images = np.zeros((count, 8, 8, 3), np.uint8)
    images[labels == 0, :, :, 0] = 200
    images[labels == 1, :, :, 2] = 200
    return images, labels


def trainer(objective=gaussian, count=64, **options):
    model = load_base_classifier(ModelOptions("cifar_resnet8", input_size=8), num_classes=2)
    images, labels = two_colours(count)
    batches = InMemoryBatches(images, labels, batch_size=16, generator=torch.Generator().manual_seed(1))
    options = {"epochs": 4, "lr": 0.05} | options
    made = Trainer(
        model,
        batches,
        objective=objective,
        sigma=0.25,
        generator=torch.Generator().manual_seed(2),
        options=TrainingOptions(**options),
    )
    return made, model


def seen_steps(count, **options):
    """The images of each step of a training, as it is given them, and its learning rates."""
    steps = []

    def objective(model, images, labels, *, sigma, costs, progress, generator, image_ids):
        steps.append((image_ids, labels.tolist(), progress))
        return gaussian(model, images, labels, sigma=sigma, costs=costs, progress=progress, generator=generator)

    made, _ = trainer(objective, count, epochs=2, **options)
    rates = []
    step = made.step
    made.step = lambda batch: (rates.append(made._schedule.get_last_lr()[0]), step(batch))[1]
    made.run()
    return steps, rates


def test_a_batch_may_be_taken_in_several_steps():
    """As a smaller batch size: the same order, parts, learning rates and progress."""
    split = seen_steps(64, split_batches=4, schedule="step", milestones=(1,))
    whole = seen_steps(64, schedule="step", milestones=(1,))
    assert len(split[0]) == 4 * len(whole[0]) == 32
    for i, (ids, labels, progress) in enumerate(whole[0]):
        parts = split[0][4 * i : 4 * i + 4]
        assert [len(part[0]) for part in parts] == [4] * 4
        assert [i for part in parts for i in part[0]] == list(ids)
        assert [label for part in parts for label in part[1]] == labels
        assert [part[2] for part in parts] == [pytest.approx(progress + j / 32) for j in range(4)]
    assert split[1] == [rate for rate in whole[1] for _ in range(4)]


def test_as_many_steps_are_taken_of_a_batch_that_is_too_small():
    steps, _ = seen_steps(3, split_batches=4)
    assert [len(ids) for ids, *_ in steps] == [1] * 8
    assert {i for ids, *_ in steps[:4] for i in ids} == {"0", "1", "2"}


def test_a_batch_that_cannot_be_split_is_refused():
    with pytest.raises(UserError, match="batch_size is 256.*split_batches, 3.*255"):
        check_training(TrainingOptions(split_batches=3))
    with pytest.raises(UserError, match="split_batches must be positive, got 0"):
        check_training(TrainingOptions(split_batches=0))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schedule": "cosine", "precision": "bf16", "clip_norm": 1.0},
        {"optimizer": "adamw", "lr": 5e-3, "warmup_epochs": 1},
        {"schedule": "step", "milestones": (3,), "warmup_epochs": 0.5},
        {"precision": "fp16"},
    ],
)
def test_learns_and_reports_each_epoch(options):
    made, model = trainer(**options)
    epochs = []
    made.run(lambda epoch: epochs.append((epoch, model.training)))
    assert [epoch.number for epoch, _ in epochs] == [1, 2, 3, 4]
    assert not any(training for _, training in epochs)
    assert epochs[-1][0].loss < epochs[0][0].loss
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    images, labels = two_colours()
    right = model(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).argmax(1) == torch.from_numpy(labels)
    assert right.float().mean() > 0.9


def learning_rates(**options):
    """The learning rate of each of the 16 steps of 4 epochs."""
    made, _ = trainer(**options)
    rates = []
    for _ in range(4):
        for batch in made._batches:
            rates.append(made._optimizer.param_groups[0]["lr"])
            made.step(batch)
    return rates


def test_step_schedule_drops_after_its_milestones():
    rates = learning_rates(lr=1e-2, schedule="step", milestones=(1, 3), step_factor=0.1)
    assert rates == pytest.approx([1e-2] * 4 + [1e-3] * 8 + [1e-4] * 4)


def test_warm_up_rises_and_is_part_of_the_epochs():
    rates = learning_rates(lr=1e-2, schedule="step", milestones=(2,), step_factor=0.1, warmup_epochs=1)
    assert rates[0] == pytest.approx(1e-5)
    assert rates[:5] == sorted(rates[:5])
    assert rates[4:8] == pytest.approx([1e-2] * 4) and rates[8:] == pytest.approx([1e-3] * 8)
    almost = learning_rates(lr=1e-2, schedule="step", milestones=(1,), warmup_epochs=0.99)  # to a step of four
    assert almost[4:] == pytest.approx([1e-3] * 12)


def test_cosine_starts_at_the_top_and_one_cycle_peaks_after_its_warm_up():
    cosine = learning_rates(lr=1e-2, schedule="cosine")
    assert cosine == pytest.approx([1e-2 * (1 + math.cos(math.pi * i / 16)) / 2 for i in range(16)])
    one_cycle = learning_rates(lr=1e-2, schedule="one_cycle", warmup_epochs=2)
    assert 6 <= int(np.argmax(one_cycle)) <= 8 and one_cycle[-1] < 1e-6
    assert learning_rates(lr=1e-2, schedule="constant") == [1e-2] * 16


@pytest.mark.parametrize(("optimizer", "key", "named"), [("sgd", "momentum", 0.9), ("adamw", "betas", (0.9, 0.999))])
def test_momentum_is_what_it_was_said_to_be_at_every_step_of_one_cycle(optimizer, key, named):
    made, _ = trainer(optimizer=optimizer, lr=1e-3, schedule="one_cycle")
    for batch in made._batches:
        made.step(batch)
        assert made._optimizer.param_groups[0][key] == named


def test_nesterov_is_switched_off_and_without_momentum_it_is_nothing():
    def weights(**options):
        made, model = trainer(schedule="constant", weight_decay=0.0, **options)
        for batch in [*made._batches][:2]:
            made.step(batch)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    nesterov, plain = weights(), weights(nesterov=False)
    assert not torch.equal(nesterov, plain)
    assert torch.equal(weights(momentum=0.0), weights(momentum=0.0, nesterov=False))


def test_clipping_bounds_the_step():
    plain, model = trainer(lr=1.0, momentum=0.0, weight_decay=0.0, schedule="constant", clip_norm=1e-3)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    plain.step(next(iter(plain._batches)))
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    "options", [{}, {"schedule": "cosine", "optimizer": "adamw", "warmup_epochs": 1.5}, {"ema": 0.8}]
)
def test_a_training_that_is_continued_is_the_undisturbed_one(options):
    whole, _ = trainer(**options)
    whole.run()

    class Stop(Exception):
        pass

    first, _ = trainer(**options)
    state = {}

    def stop(epoch):
        if epoch.number == 2:
            state.update(first.state_dict(), weights={k: v.clone() for k, v in first.model.state_dict().items()})
            raise Stop

    with pytest.raises(Stop):
        first.run(stop)
    second, again = trainer(**options)
    again.load_state_dict(state["weights"])
    second.load_state_dict(state)
    torch.rand(7)  # whatever else the process draws does not matter
    second.run()
    assert second.model.components == whole.model.components


def test_the_average_of_the_weights_is_what_is_kept():
    made, model = trainer(ema=0.24, schedule="constant")
    assert made.model is not model
    model.train()
    weights = []
    for batch in made._batches:
        made.step(batch)
        weights.append(torch.cat([p.detach().flatten().clone() for p in model.parameters()]))
    average = weights[0]  # the first step's weights start it
    for one, decay in zip(weights[1:], (2 / 11, 0.24, 0.24), strict=True):  # (1 + n) / (10 + n), at most .24
        average = decay * average + (1 - decay) * one
    kept = torch.cat([p.detach().flatten() for p in made.model.parameters()])
    torch.testing.assert_close(kept, average)
    batch_norm = made.model.network.bn1
    assert batch_norm.running_var.ne(1).all() and not torch.equal(batch_norm.running_var, model.network.bn1.running_var)


def test_the_average_forgets_the_first_weights_in_a_short_training():
    """After 200 steps of .999, 82 % of what was judged were the first step's weights."""
    made, model = trainer(ema=0.999)
    with torch.no_grad():
        for number in range(200):
            for parameter in model.parameters():
                parameter.fill_(float(number == 0))
            made._update_average()
            made._step += 1
    assert all(p.max() < 1e-6 for p in made.model.parameters())


def test_a_gpus_state_is_refused_on_a_cpu_by_name():
    made, _ = trainer()
    state = made.state_dict()
    assert state["device"] == "cpu"
    with pytest.raises(UserError, match="began on cuda and would go on on cpu.*another --name"):
        made.load_state_dict({**state, "device": "cuda"})
    del state["device"]  # of an earlier commit
    made.load_state_dict(state)
    state["random"][0]["cuda"] = torch.zeros(16, dtype=torch.uint8)
    with pytest.raises(UserError, match="began on cuda and would go on on cpu"):
        made.load_state_dict(state)


def test_is_determined_by_its_seeds():
    (one, a), (two, b) = trainer(), trainer()
    one.run()
    two.run()
    assert a.components == b.components


def test_a_loss_that_is_not_finite_names_the_step_and_the_images():
    def breaks(model, images, labels, **_):
        value = gaussian(model, images, labels, **_)
        return value * float("nan") if breaks.calls.append(1) or len(breaks.calls) == 7 else value

    breaks.calls = []
    made, _ = trainer(objective=breaks)
    made._batches.image_ids = [f"photo{i}.png" for i in range(64)]
    with pytest.raises(UserError, match=r"the loss is nan at step 6 \(epoch 2\) on images photo\d+\.png, .* 11 more"):
        made.run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg': did you mean sgd"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin': did you mean cosine"),
        ({"epochs": 0}, "training.epochs must be positive, got 0"),
        ({"lr": float("nan")}, "training.lr must be positive, got nan"),
        ({"warmup_epochs": 4}, "warmup_epochs is 4: give less than epochs, 4"),
        ({"schedule": "step", "milestones": (2, 9)}, r"milestones \[2, 9\] must lie between 0 and 4"),
        ({"schedule": "step"}, r"schedule is step .* no training.milestones"),
        ({"milestones": (2,)}, r"milestones \[2\] .* training.schedule is one_cycle: .*step, or"),
        ({"schedule": "step", "milestones": (1, 3), "warmup_epochs": 1}, r"milestones \[1, 3\] .*warmup_epochs, 1"),
        ({"momentum": -0.1}, r"training.momentum must lie in \[0, 1\), got -0.1"),
        ({"momentum": 1.0}, r"training.momentum must lie in \[0, 1\), got 1.0"),
        ({"weight_decay": float("nan")}, "training.weight_decay must be 0 or more, got nan"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"),
        ({"ema": 1.0}, "training.ema must lie between 0 and 1, got 1.0; leave it out"),
    ],
)
def test_options_that_cannot_be_trained_with(options, message):
    with pytest.raises(UserError, match=message):
        trainer(**options)
