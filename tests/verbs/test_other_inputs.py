"""A training or a sweep that goes on stands on the images and costs that it was begun with, whatever their names."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raycsr.data.options import DataOptions
from raycsr.distributed.options import SearchOptions
from raycsr.distributed.search.job import check_sweep, claim
from raycsr.distributed.training import fit as module
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.errors import UserError
from raycsr.models.spec import ModelOptions
from raycsr.store import Store
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.verbs.train import train


def photograph(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


@pytest.fixture
def options(tmp_path):
    for k, name in enumerate(("cat", "dog")):
        for i in range(8):
            photograph(tmp_path / "train" / name / f"{i}.png", 40 * k + i)
    (tmp_path / "costs.csv").write_text(",dog,cat\ncat,5,0\ndog,0,0\n")
    return {
        "data": DataOptions("imagefolder", path=str(tmp_path / "train")),
        "model": ModelOptions("cifar_resnet8", input_size=8),
        "sigma": 0.25,
        "costs": str(tmp_path / "costs.csv"),
        "training": TrainingOptions(epochs=2, batch_size=4, lr=0.01),
        "validation": ValidationOptions(images=4, sensitive=2, n0=8, n=64),
    }


def killed_after_an_epoch(options, monkeypatch):
    def save_and_die(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    save = module.save
    with monkeypatch.context() as patched:
        patched.setattr(module, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            train(**options)


def one_more(folder):
    photograph(folder / "train/cat/8.png", 8)


def another_name(folder):
    (folder / "train/cat/3.png").rename(folder / "train/cat/33.png")


def another_class(folder):
    (folder / "train/cat/3.png").rename(folder / "train/dog/3a.png")


def another_cost(folder):
    (folder / "costs.csv").write_text(",dog,cat\ncat,0,0\ndog,0,5\n")


CHANGES = [
    (one_more, r"other images: 16 then, 17 now; put them back to go on, or give another --name"),
    (another_name, r"other images: 16 then, as many of other names, labels, sizes or groups \(16\) now"),
    (another_class, r"other images: 16 then"),
    (another_cost, r"costs '.*costs.csv' were another matrix; put them back to go on, or give another --name"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_a_training_does_not_go_on_with_other_images_or_costs(options, tmp_path, monkeypatch, change, message):
    options |= {"results": str(tmp_path / "results"), "name": "one", "threads": 1}
    killed_after_an_epoch(options, monkeypatch)
    change(tmp_path)
    with pytest.raises(UserError, match=rf"one\.pt was begun (on|when) {message}"):
        train(**options)


def test_a_training_goes_on_where_names_of_columns_moved_and_where_nothing_was_noted(options, tmp_path, monkeypatch):
    options |= {"results": str(tmp_path / "results"), "name": "one", "threads": 1}
    killed_after_an_epoch(options, monkeypatch)
    (tmp_path / "costs.csv").write_text(",cat,dog\ndog,0,0\ncat,0,5\n")
    trained = train(**options)
    beside = Path(trained.checkpoint).with_suffix(".json")
    stored = json.loads(beside.read_text())
    assert stored.pop("inputs")["num_images"] == 16
    beside.write_text(json.dumps(stored))  # as it was written before
    one_more(tmp_path)
    assert train(**options) == trained
    beside.write_text(json.dumps({**stored, "inputs": {"images": 1}}))
    with pytest.raises(UserError, match="one.json is damaged"):
        train(**options)


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_a_sweep_does_not_go_on_with_other_images_or_costs(options, tmp_path, change, message):
    def begun():
        return check_sweep(TrainConfig(**options), {"costs": {"grid": [options["costs"], "seed:dog"]}}, SearchOptions())

    folder = Store(tmp_path / "sweep")
    prefix = claim(folder, begun())
    assert claim(folder, begun()) == prefix
    change(tmp_path)
    with pytest.raises(UserError, match=rf"sweep in .* was begun (on|when) {message}"):
        claim(folder, begun())
    old = json.loads(folder.read("sweep.json"))
    del old["inputs"]
    folder.write("sweep.json", json.dumps(old).encode())  # as it was written before
    assert claim(folder, begun()) == prefix
