"""`raycsr train`: from options to a checkpoint, resumed by the same command."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from raycsr.cli import main
from raycsr.data.memory import read_pixels
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source
from raycsr.distributed.options import ObjectiveOptions, SearchOptions
from raycsr.distributed.search.job import check_sweep
from raycsr.distributed.training import fit as module
from raycsr.distributed.training import plan as planning
from raycsr.distributed.training import streamed_batches as streaming
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.distributed.training.plan import prepare
from raycsr.distributed.training.streamed_batches import StreamedBatches
from raycsr.errors import UserError
from raycsr.models.checkpoints import load_training_state, save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.rules import Offset
from raycsr.models.spec import ModelOptions
from raycsr.results import ImageSet, Ownership, own_checkpoint
from raycsr.training import batches as in_batches
from raycsr.training.augmentation import Augmentation
from raycsr.training.batches import InMemoryBatches
from raycsr.training.loop import Trainer
from raycsr.training.options import AugmentationOptions, TrainingOptions, ValidationOptions
from raycsr.verbs.train import train


@pytest.fixture
def options(tmp_path):
    return {
        "data": DataOptions(source="digits", split="train"),
        "model": ModelOptions("cifar_resnet8", input_size=8),
        "sigma": 0.25,
        "results": str(tmp_path / "results"),
        "costs": "seed:4",
        "training": TrainingOptions(epochs=3, batch_size=64, lr=0.05),
        "augmentation": AugmentationOptions(crop_padding=1),
        "validation": ValidationOptions(every=2, images=20, sensitive=10, n0=8, n=64),
        "threads": 1,
    }


def test_trains_a_checkpoint_that_knows_what_it_is(options, capsys):
    trained = train(**options, name="plain")
    assert trained.checkpoint.endswith("results/default/checkpoints/plain.pt")
    model = load_base_classifier(trained.checkpoint)
    info = model.training_info
    assert model.training_sigma == 0.25 and info["objective"] == "gaussian" and info["costs"] == "seed:4"
    assert info["data"]["source"] == "digits" and info["data"]["split"] == "train"
    assert model.class_names == tuple("0123456789")
    history = info["history"]
    assert [epoch["number"] for epoch in history] == [1, 2, 3]
    assert [epoch["metrics"] is not None for epoch in history] == [False, True, True]  # every second, and the last
    assert history[2]["loss"] < history[0]["loss"] and history[2]["metrics"] == trained.metrics
    assert load_training_state(trained.checkpoint) is None  # nothing is left to do
    beside = json.loads(Path(trained.checkpoint).with_suffix(".json").read_text())
    assert beside["history"] == history and beside["config"]["training"]["lr"] == 0.05
    assert "epoch   3: loss" in capsys.readouterr().out
    assert train(**options, name="plain") == trained
    assert "finished before" in capsys.readouterr().out


def test_a_training_that_was_killed_goes_on_to_the_same_weights(options, monkeypatch):
    class Killed(Exception):
        pass

    def save_twice(plan, model, state, history, path):
        save(plan, model, state, history, path)
        if len(history) == 2:
            raise Killed  # before the .json beside it was written

    save = module.save
    whole = train(**options, name="whole")
    monkeypatch.setattr(module, "save", save_twice)
    with pytest.raises(Killed):
        train(**options, name="killed")
    monkeypatch.setattr(module, "save", save)
    checkpoint = whole.checkpoint.replace("whole", "killed")
    assert load_training_state(checkpoint)["epoch"] == 2
    again = train(**options, name="killed")
    assert load_base_classifier(checkpoint).components == load_base_classifier(whole.checkpoint).components
    one, other = (module.load_history(path) for path in (checkpoint, whole.checkpoint))
    assert [epoch["loss"] for epoch in one] == [epoch["loss"] for epoch in other] and again.metrics == whole.metrics


def owner_of(results, name, number=1):
    folder = Path(results, "default/checkpoints/owners-of", name, "owners")
    return json.loads((folder / f"{number:04d}.json").read_text())


def test_a_name_that_is_being_trained_is_refused_until_it_is_released(options):
    checkpoint = f"{options['results']}/default/checkpoints/one.pt"
    with (
        own_checkpoint(checkpoint),
        pytest.raises(UserError, match=rf"{checkpoint} is held by process {os.getpid()} on"),
    ):
        train(**options, name="one")
    assert not Path(checkpoint).exists()
    train(**options, name="one")
    assert owner_of(options["results"], "one", 2)["released"]


def test_options_that_are_damaged_are_named_and_can_be_deleted(options):
    options["training"] = TrainingOptions(epochs=1, batch_size=64)
    trained = train(**options, name="one")
    beside = Path(trained.checkpoint).with_suffix(".json")
    for damaged in (b"", b"[]", b"{}", b'{"config": 1}', b'{"config": [1]}', b"\xff", b"[" * 100_000):
        beside.write_bytes(damaged)
        with pytest.raises(UserError, match="one.json is damaged; delete it") as caught:
            train(**options, name="one")
        assert "\n" not in str(caught.value)
    beside.unlink()
    assert train(**options, name="one") == trained


def test_a_training_that_is_stopped_releases_its_name(options, monkeypatch):
    monkeypatch.setattr(module, "save", functools.partial(save_and_die, module.save, after=1))
    with pytest.raises(KeyboardInterrupt):
        train(**options, name="stopped")
    assert owner_of(options["results"], "stopped")["released"]


def test_a_training_that_was_replaced_writes_nothing_more(options, monkeypatch):
    def replaced(owner):
        raise UserError("taken over by owner 2; this driver stops")

    monkeypatch.setattr(Ownership, "check", replaced)
    with pytest.raises(UserError, match="taken over by owner 2"):
        train(**options, name="replaced")
    assert not Path(options["results"], "default/checkpoints/replaced.pt").exists()


def test_of_two_commands_one_trains_and_where_it_is_killed_the_next_goes_on(tmp_path, capsys, monkeypatch):
    command = ["train", "--data.source", "digits", "--model.name", "cifar_resnet8", "--model.input_size", "8"]
    command += ["--sigma", "0.25", "--results", str(tmp_path), "--name", "one", "--training.epochs", "1000"]
    command += ["--validation.images", "10", "--validation.sensitive", "0", "--threads", "1"]
    checkpoint = tmp_path / "default/checkpoints/one.pt"
    words = [sys.executable, "-m", "raycsr.cli", *command]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
        deadline = time.monotonic() + 300
        while not checkpoint.exists():
            assert first.poll() is None and time.monotonic() < deadline, first.stdout.read()
            time.sleep(0.1)
        assert main(command) == 2
        assert f"one.pt is held by process {first.pid} on " in capsys.readouterr().err.splitlines()[-1]
        first.send_signal(signal.SIGKILL)
    epochs = len(module.load_history(str(checkpoint)))

    def save_and_stop(*arguments):
        save(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    save = module.save
    monkeypatch.setattr(module, "save", save_and_stop)
    assert main(command) == 143
    assert not owner_of(tmp_path, "one", 1)["released"] and owner_of(tmp_path, "one", 2)["released"]
    assert [one["number"] for one in module.load_history(str(checkpoint))] == [*range(1, epochs + 2)]


@pytest.fixture
def cpu(monkeypatch):
    """`cpu(True)` makes this machine's CPU one with bf16 arithmetic, `cpu(False)` one without."""

    def make(bf16):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bf16})

    return make


def test_auto_is_fp32_on_a_cpu_without_bf16_arithmetic_and_bf16_on_one_with_it(options, cpu, capsys):
    options["training"] = TrainingOptions(epochs=1, batch_size=64)
    for bf16, precision in ((False, "fp32"), (True, "bf16")):
        cpu(bf16)
        trained = train(**options, name=precision)
        out = capsys.readouterr().out
        assert f"8 x 8 px, {precision} on cpu" in out and f"images/s in {precision}" in out
        assert [epoch["precision"] for epoch in module.load_history(trained.checkpoint)] == [precision]


def test_a_training_keeps_the_precision_that_it_began_in(options, cpu, capsys, monkeypatch):
    """Killed on a CPU with bf16 arithmetic and gone on with on one without: the weights are those of one go."""
    cpu(True)
    whole = train(**options, name="whole")
    with monkeypatch.context() as killed:
        killed.setattr(module, "save", functools.partial(save_and_die, module.save, after=2))
        with pytest.raises(KeyboardInterrupt):
            train(**options, name="moved")
    cpu(False)
    capsys.readouterr()
    moved = train(**options, name="moved")
    assert "px, bf16 on cpu" in capsys.readouterr().out
    assert [epoch["precision"] for epoch in module.load_history(moved.checkpoint)] == ["bf16"] * 3
    assert load_base_classifier(moved.checkpoint).components == load_base_classifier(whole.checkpoint).components


def save_and_die(save, plan, model, state, history, path, *, after):
    save(plan, model, state, history, path)
    if len(history) == after:
        raise KeyboardInterrupt


def test_without_a_split_it_is_the_training_images(options, capsys):
    """It was the test split, and nothing said so."""
    one = TrainingOptions(epochs=1, batch_size=64)
    named, unnamed = (
        train(**{**options, "data": data, "training": one})
        for data in (DataOptions("digits", split="train"), DataOptions("digits"))
    )
    assert unnamed == named  # and its name is the same: what is meant is what it is a digest of
    assert load_base_classifier(unnamed.checkpoint).training_info["data"]["split"] == "train"
    assert "data      digits, split train\nimages    1," in capsys.readouterr().out


def test_test_images_are_refused_and_taken_only_where_they_are_allowed(options, tmp_path, capsys):
    test = {**options, "data": DataOptions("digits", split="test"), "training": TrainingOptions(epochs=1)}
    with pytest.raises(UserError, match="data.split is 'test', .* --allow_test_images true"):
        train(**test)
    train(**test, allow_test_images=True)
    assert "data      digits, split test" in capsys.readouterr().out
    with pytest.raises(UserError, match="data.split is 'test'"):
        check_sweep(TrainConfig(data=test["data"], model=options["model"], sigma=0.25), {}, SearchOptions())


def test_the_images_of_a_training_and_of_what_it_started_from_are_known(options):
    short = {**options, "training": TrainingOptions(epochs=1, batch_size=64)}
    first = train(**short, name="first").checkpoint
    other = DataOptions("digits", split="train", classes=[1, 4, 7])
    second = train(**{**short, "model": ModelOptions(first), "data": other}, name="second").checkpoint
    again = train(**{**short, "model": ModelOptions(second)}, name="again").checkpoint
    infos = [load_base_classifier(path).training_info["trained_on"] for path in (first, second, again)]
    (alone,), (earlier, ours) = infos[:2]
    assert alone == earlier and alone["num_images"] == 1078 and infos[2] == [ours, alone]  # each set once
    listing = open_source(other).list()
    assert ours == ImageSet.of(listing.images, listing.identity).to_dict()


def test_fine_tuning_starts_from_a_checkpoints_weights(options):
    first = train(**options, name="first")
    model = load_base_classifier(first.checkpoint)
    model.rules = (Offset((0.0, -1.0) + (0.0,) * 8),)
    save_checkpoint(first.checkpoint, model)
    tuned = {**options, "model": ModelOptions(first.checkpoint), "training": TrainingOptions(epochs=1, lr=1e-9)}
    second = train(**tuned, objective=ObjectiveOptions("margin_cs", {"k": 2}), name="second")
    a, b = load_base_classifier(first.checkpoint), load_base_classifier(second.checkpoint)
    weights = torch.nn.utils.parameters_to_vector
    assert torch.allclose(weights(a.parameters()), weights(b.parameters()), atol=1e-5)
    assert a.rules and not b.rules  # they were tuned for other weights
    assert b.training_info["objective"] == "margin_cs" and b.training_info["objective_args"] == {"k": 2}


def test_a_checkpoint_of_other_classes_gets_a_new_head_and_that_is_said(options, tmp_path):
    theirs = load_base_classifier(ModelOptions("cifar_resnet8", init_seed=7), num_classes=3)
    save_checkpoint(tmp_path / "three.pt", theirs, class_names=["cat", "dog", "owl"])
    config = {k: v for k, v in options.items() if k not in ("results", "threads")}
    with pytest.warns(UserWarning, match=r"of 3 classes, so that of 10 is new and untrained: fc\.weight, fc\.bias"):
        plan = prepare(TrainConfig(**{**config, "model": ModelOptions(str(tmp_path / "three.pt"), input_size=8)}))
    assert plan.model.num_classes == 10 and plan.model.class_names is None
    assert torch.equal(plan.model.network.conv1.weight, theirs.network.conv1.weight)


def test_a_checkpoint_whose_classes_have_another_order_is_not_trained_on_as_if_they_had_this(options, tmp_path):
    names = list("1023456789")
    save_checkpoint(tmp_path / "turned.pt", load_base_classifier(options["model"], num_classes=10), class_names=names)
    config = {k: v for k, v in options.items() if k not in ("results", "threads")}
    config["model"] = ModelOptions(str(tmp_path / "turned.pt"))
    with pytest.raises(UserError, match=r"class '0' is 0 of the data and 1 of model .*: '1', '0'"):
        prepare(TrainConfig(**config))
    prepare(TrainConfig(**{**config, "data": DataOptions("digits", class_names=names)}))


def test_a_training_whose_loss_is_another_by_now_goes_on_nowhere_but_counts_where_it_is_finished(options):
    options["objective"] = ObjectiveOptions("margin_cs", {"k": 2})
    trained = train(**options, name="before")
    content = torch.load(trained.checkpoint, weights_only=True)
    assert content["training"].pop("definition") == 2  # as what was begun before that was noted
    torch.save(content, trained.checkpoint)
    assert train(**options, name="before") == trained
    content["training"]["history"] = content["training"]["history"][:2]
    torch.save(content, trained.checkpoint)
    with pytest.raises(UserError, match="before.pt was begun when margin_cs was another loss .*another --name"):
        train(**options, name="before")


def test_a_training_goes_on_from_its_own_checkpoint_only(options, tmp_path):
    train(**options, name="taken")
    taken = tmp_path / "results" / "default" / "checkpoints" / "taken.pt"
    content = torch.load(taken, weights_only=True)
    content["training"]["history"] = content["training"]["history"][:2]
    torch.save({**content, "training_state": {"epoch": 2}}, taken)
    with pytest.raises(UserError, match="training state is not of this training .*begin anew under another --name"):
        train(**options, name="taken")
    save_checkpoint(taken, load_base_classifier("cifar_resnet8", num_classes=3), training_info={"history": [{}]})
    with pytest.raises(UserError, match="3 classes, 10 are needed"):
        train(**options, name="taken")
    save_checkpoint(taken, load_base_classifier("cifar_resnet8"))
    with pytest.raises(UserError, match=r"taken\.pt is there and none that `raycsr train` wrote; give another --name"):
        train(**options, name="taken")


def test_a_name_belongs_to_one_set_of_options(options):
    train(**options, name="taken")
    with pytest.raises(UserError, match=r"taken\.pt was trained with sigma = 0.25, now it is 0.5; .*another --name"):
        train(**{**options, "sigma": 0.5}, name="taken")


def test_options_that_were_added_since_a_training_began_had_their_defaults(options):
    trained = train(**options, name="taken")
    beside = Path(trained.checkpoint).with_suffix(".json")
    stored = json.loads(beside.read_text())
    del stored["config"]["training"]["nesterov"]
    beside.write_text(json.dumps(stored))
    assert train(**options, name="taken") == trained
    plain = TrainingOptions(epochs=3, batch_size=64, lr=0.05, nesterov=False)
    with pytest.raises(UserError, match="was trained with training.nesterov = True, now it is False"):
        train(**{**options, "training": plain}, name="taken")


def test_a_training_of_another_schema_is_refused_by_name(options, tmp_path, capsys):
    train(**options, name="taken")
    path = tmp_path / "results" / "default" / "checkpoints" / "taken.json"
    history = json.loads(path.read_text())
    version = history.pop("schema_version")
    path.write_text(json.dumps(history))  # of before versions were noted
    train(**options, name="taken")
    assert "finished before" in capsys.readouterr().out
    path.write_text(json.dumps({**history, "schema_version": version + 1}))
    with pytest.raises(UserError, match=r"taken\.json has schema_version 4, and this raycsr reads 3"):
        train(**options, name="taken")


@pytest.mark.ray
def test_what_does_not_fit_in_memory_is_streamed_to_the_same_weights(options, cluster, monkeypatch, capsys):
    options["training"] = TrainingOptions(epochs=3, batch_size=64, lr=0.05, precision="fp32")
    options["augmentation"] = AugmentationOptions(crop_padding=1, flip=True, color_jitter=0.2)
    whole = train(**options, name="memory")
    assert "\nread      in memory: 0.197 MiB, of " in capsys.readouterr().out
    monkeypatch.setattr(planning, "_MEMORY_SHARE", 0.0)
    streamed = train(**options, name="streamed")
    assert "\nread      streamed: 0.197 MiB, of 0 MiB " in capsys.readouterr().out
    steps = []

    def step(trainer, batch):
        if len(steps) == 20:  # of 16 an epoch
            raise KeyboardInterrupt
        steps.append(batch)
        return original(trainer, batch)

    original = Trainer.step
    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train(**options, name="killed")
    monkeypatch.setattr(Trainer, "step", original)
    killed = train(**options, name="killed")
    weights = [load_base_classifier(one.checkpoint).components for one in (whole, streamed, killed)]
    assert weights[0] == weights[1] == weights[2]
    assert whole.metrics == streamed.metrics == killed.metrics


def streamed_and_in_memory(data, model, augmentation, batch_size):
    """The batches of one seed, read in two ways."""
    source, preprocessing = open_source(data), load_base_classifier(model).preprocessing
    images = source.list().images
    augment = Augmentation(augmentation, preprocessing.input_size)
    common = {"batch_size": batch_size}
    streamed = StreamedBatches(
        source, images, preprocessing, **common, generator=torch.Generator().manual_seed(0), augmentation=augment
    )
    pixels = read_pixels(source, images, preprocessing)
    where = {image_id: position for position, image_id in enumerate(pixels.image_ids)}
    in_memory = InMemoryBatches(
        pixels.images,
        pixels.labels,
        **common,
        subset=np.array([where.get(image_id, -1) for image_id in images["image_id"]]),
        generator=torch.Generator().manual_seed(0),
        image_ids=pixels.image_ids,
        augment=augment,
    )
    return streamed, in_memory


def contents(batches):
    return [(batch.images.numpy().tobytes(), batch.labels.tolist(), list(batch.image_ids)) for batch in batches]


@pytest.mark.ray
@pytest.mark.parametrize("number", [1, 2])
def test_streamed_batches_are_those_in_memory_to_the_byte_on_any_number_of_workers(cluster, monkeypatch, number):
    class Unsteady(streaming.Augmented):
        """Blocks that take more or less time, so that they overtake each other."""

        def __call__(self, block):
            time.sleep(int(block["seed"][0]) % 4 / 10)
            return super().__call__(block)

    monkeypatch.setattr(streaming, "_BLOCK", 16)
    monkeypatch.setattr(streaming, "Augmented", Unsteady)
    monkeypatch.setattr(in_batches, "num_workers", lambda: number)
    options = AugmentationOptions(crop_padding=1, flip=True, rand_augment=5)
    data = DataOptions("digits", split="train", limit=300)
    shares = []
    for rank in range(number):
        monkeypatch.setattr(in_batches, "shard", lambda rank=rank: slice(rank, None, number))
        streamed, in_memory = streamed_and_in_memory(data, ModelOptions("cifar_resnet8", input_size=8), options, 32)
        epochs = [contents(in_memory), contents(in_memory)]
        assert [contents(streamed), contents(streamed)] == epochs and epochs[0] != epochs[1]
        shares.append(epochs[1])
    monkeypatch.setattr(in_batches, "shard", lambda: slice(None))
    _, whole = streamed_and_in_memory(data, ModelOptions("cifar_resnet8", input_size=8), options, 32)
    list(whole)
    for batch, *parts in zip(contents(whole), *shares, strict=True):
        assert batch[2] == [name for names in zip(*(part[2] for part in parts), strict=True) for name in names]


@pytest.mark.ray
def test_an_image_that_cannot_be_decoded_is_left_out_of_the_same_batch_either_way(photographs, cluster):
    with pytest.warns(UserWarning, match="1 of 6 images cannot be decoded"):
        streamed, in_memory = streamed_and_in_memory(
            photographs["data"], photographs["model"], AugmentationOptions(flip=True), 2
        )
    with pytest.warns(UserWarning, match="1 images cannot be decoded, the first 'dog/1.png'"):
        epoch = contents(streamed)
    assert epoch == contents(in_memory) and sorted(len(batch[1]) for batch in epoch) == [1, 2, 2]


@pytest.mark.ray
def test_a_random_resized_crop_is_cut_from_whole_images_and_keyed_by_the_image(photographs, cluster):
    crops = []
    for batch_size in (2, 3):
        streamed, _ = streamed_and_in_memory(
            photographs["data"], photographs["model"], AugmentationOptions(random_resized_crop=0.5), batch_size
        )
        with pytest.warns(UserWarning, match="1 images cannot be decoded, the first 'dog/1.png'"):
            epoch = list(streamed)
        crops.append(
            {name: image for batch in epoch for name, image in zip(batch.image_ids, batch.images, strict=True)}
        )
    assert crops[0].keys() == crops[1].keys() and len(crops[0]) == 5
    for name, image in crops[0].items():
        assert image.shape == (3, 8, 8) and torch.equal(image, crops[1][name])


def test_the_crop_of_whole_images_is_the_same_on_every_machine(options, monkeypatch):
    config = {k: v for k, v in options.items() if k not in ("results", "threads")}
    config["augmentation"] = AugmentationOptions(random_resized_crop=0.5)
    for share in (0.0, 1e9):
        monkeypatch.setattr(planning, "_MEMORY_SHARE", share)
        plan = prepare(TrainConfig(**config))
        assert plan.stream and "random_resized_crop cuts from whole images" in plan.reading
    with pytest.raises(UserError, match="stream is false, and augmentation.random_resized_crop .* leave one"):
        prepare(TrainConfig(**config, stream=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": ObjectiveOptions("margin")}, "unknown objective 'margin'.*margin_cs"),
        ({"objective": ObjectiveOptions("margin_cs", {"lambda": 1})}, "no hyper-parameter 'lambda'"),
        ({"model": ModelOptions("cifar_resnet9")}, "cifar_resnet9.*cifar_resnet8"),
        ({"model": ModelOptions("vit_tiny_patch16_224", input_size=8)}, "cannot take images of 8 x 8"),
        ({"costs": "seed:11"}, "class 11"),
        ({"sigma": 0.0}, "sigma must be a positive number"),
        ({"validation": ValidationOptions(n=8)}, "validation.radius"),
        ({"results": "/proc/nothing"}, "cannot use /proc/nothing"),
    ],
)
def test_mistakes_are_named_before_training_starts(options, change, message):
    with pytest.raises(UserError, match=message) as caught:
        train(**{**options, **change})
    assert "\n" not in str(caught.value)


def test_a_validation_without_an_image_is_refused_before_an_epoch_is_paid_for(options):
    plan = prepare(
        TrainConfig(**{name: value for name, value in options.items() if name not in ("results", "threads")})
    )
    pixels = read_pixels(plan.source, plan.listing.images, plan.model.preprocessing)
    readable = pixels.take(np.setdiff1d(np.arange(len(pixels)), plan.held_out.random))
    with pytest.raises(UserError, match="none of the 20 images that are held out .* validation.images"):
        module.fit_shard(plan, readable, state=None, device=torch.device("cpu"), after_epoch=None, progress=False)


@pytest.mark.parametrize("name", ["margin_cs", "gaussian_cs"])
def test_an_objective_of_costs_is_refused_where_no_image_is_of_a_seed_class(options, name):
    """It would be another objective: no image has a costly mistake to learn from."""
    options |= {"data": DataOptions("digits", split="train", classes=[0, 1]), "objective": ObjectiveOptions(name)}
    with pytest.raises(UserError, match=f"{name} needs images of a seed class of the costs 'seed:4'.*data.classes"):
        train(**options)


def test_the_command_line(options, tmp_path, capsys):
    args = ["train", "--data.source", "digits", "--data.split", "train", "--model.name", "cifar_resnet8"]
    args += ["--model.input_size", "8", "--sigma", "0.25", "--results", str(tmp_path), "--training.epochs", "1"]
    args += ["--validation.images", "10", "--threads", "1", "--name", "cli", "--validation.sensitive", "0"]
    assert main(args) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path}/default/checkpoints/cli.pt"
    assert main([*args[:-4], "--sigmas", "1"]) == 2
