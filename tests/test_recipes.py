"""Each published recipe trains end to end, its own objective with its own arguments, on a few images."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from test_configs import CIFAR10, ROOT, config_of, parsed

from jobs.ham10k import table
from raycsr.data.options import DataOptions
from raycsr.distributed.search.space import at_point, corner_points
from raycsr.errors import UserError
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.training.options import ValidationOptions
from raycsr.verbs.train import train

CONFIGS = ROOT / "jobs" / "configs"
RECIPES = sorted(path.name for path in CONFIGS.glob("recipe-*.yaml"))


def pixels(label, i, size=8):
    return np.random.default_rng(i).integers(20 * label, 20 * label + 40, (size, size, 3), np.uint8)


def png(label, i, path):
    Image.fromarray(pixels(label, i)).save(path)
    return path


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    """CIFAR-10 of 40 images, as Parquet."""
    folder = tmp_path_factory.mktemp("cifar10")
    files = [png(i % 10, i, folder / f"{i}.png") for i in range(40)]
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    pq.write_table(pa.table({"image": images, "label": [i % 10 for i in range(40)]}), folder / "train-0.parquet")
    return DataOptions("parquet", path=str(folder), split="train", class_names=CIFAR10)


@pytest.fixture(scope="module")
def ham10k(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ham10k")
    metadata = pd.DataFrame(
        {
            "image_id": [f"ISIC_{i}" for i in range(60)],
            "lesion_id": [f"HAM_{i // 2}" for i in range(60)],
            "dx": ["nv", "nv", "mel", "mel", "akiec", "akiec"] * 10,
        }
    )
    for i, dx in enumerate(metadata["dx"]):
        png(int(dx == "mel"), i, folder / f"ISIC_{i}.jpg")
    table(metadata).to_csv(folder / "ham10k.csv", index=False)
    return folder / "ham10k.csv"


def trained(tmp_path, config, data, **changed):
    """One epoch of one or two steps; nothing that a recipe is about is changed, but for what the caller says."""
    training = replace(config.training, epochs=1, schedule="constant", milestones=(), batch_size=16, precision="fp32")
    small = ValidationOptions(images=4, sensitive=2, n0=2, n=64, radius=0.01)
    augmentation = replace(config.augmentation, random_resized_crop=None)  # crops of whole images need Ray
    config = replace(config, data=data, training=training, augmentation=augmentation, validation=small, **changed)
    config = replace(config, stream=False)
    options = {field.name: getattr(config, field.name) for field in fields(config)}
    return load_base_classifier(train(**options, results=str(tmp_path), name="made", threads=1).checkpoint)


def is_trained(made, objective):
    info = made.training_info
    assert (info["objective"], info["objective_args"]) == (objective.name, objective.args)
    assert np.isfinite(info["history"][0]["loss"]) and info["history"][0]["metrics"]["accuracy"] >= 0


@pytest.mark.parametrize("name", ["cohen-cifar10.yaml", "cohen-imagenet.yaml", *RECIPES])
def test_recipes_train(tmp_path, cifar10, name):
    config = config_of(parsed(CONFIGS / name))
    backbone = "resnet18" if "imagenet" in name else "cifar_resnet8"  # the recipes' take seconds a step
    model = ModelOptions(backbone, input_size=32 if "imagenet" in name else 8)
    is_trained(trained(tmp_path, config, cifar10, model=model), config.objective)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_of_several_copies_take_a_step_of_each(name):
    """As the papers' code does; MACER's and margin_cs's batches have 64 images from the start."""
    config = config_of(parsed(CONFIGS / name))
    k, parts = config.objective.args["k"], config.training.split_batches
    assert (config.training.batch_size, parts) == ((256, k) if "cs" not in name and "macer" not in name else (64, 1))
    assert not config.training.nesterov and config.model.name in ("cifar_resnet110", "cifar_resnet56")


@pytest.mark.parametrize("number", range(7))
def test_the_papers_grid_on_cifar10_trains(tmp_path, cifar10, number):
    options = parsed(CONFIGS / "paper-cifar10.yaml")
    points = [
        point for point in corner_points(options.space) if point["costs"].startswith("pair:cat/bird,cat/deer,cat/dog,")
    ]
    assert len(points) == 7
    config = at_point(config_of(options), points[number])
    is_trained(trained(tmp_path, config, cifar10, model=ModelOptions("cifar_resnet8", input_size=8)), config.objective)


def test_imagenette_trains_with_its_network(tmp_path, cifar10):
    options = parsed(CONFIGS / "paper-imagenette.yaml")
    config = at_point(config_of(options), corner_points(options.space)[-1])
    made = trained(tmp_path, config, cifar10, model=ModelOptions(config.model.name, input_size=16))
    is_trained(made, config.objective)


@pytest.mark.parametrize(("split", "group"), [("by_image", "none"), ("by_lesion", "lesion_id")])
def test_ham10k_trains_on_either_split(tmp_path, ham10k, split, group, monkeypatch):
    monkeypatch.chdir(ROOT)  # its costs are a file there
    options = parsed(CONFIGS / "paper-ham10k.yaml")
    config = at_point(config_of(options), corner_points(options.space)[-1])
    data = replace(config.data, path=str(ham10k), split_column=split, group_column=group)
    is_trained(trained(tmp_path, config, data, model=ModelOptions("cifar_resnet8", input_size=8)), config.objective)


def test_ham10k_is_split_by_image_and_by_lesion(ham10k):
    made = pd.read_csv(ham10k)
    for name in ("by_image", "by_lesion"):
        test = made[made[name] == "test"]
        assert len(test) == 12 and (test["label"] == "malignant").sum() == 4  # a fifth, of each label
    assert (made.groupby("lesion_id")["by_lesion"].nunique() == 1).all()
    assert (made.groupby("lesion_id")["by_image"].nunique() > 1).any()
    with pytest.raises(UserError, match="no column dx, lesion_id"):
        table(pd.DataFrame({"image_id": ["a"]}))


def test_the_network_of_larger_images_is_three_stages_of_nine_blocks_behind_the_stem():
    network = load_base_classifier("stem_resnet56", num_classes=2).network
    assert [len(stage) for stage in (network.layer1, network.layer2, network.layer3)] == [9, 9, 9]
    assert network.conv1.kernel_size == (7, 7) and network.fc.in_features == 256
    convolutions = [one for one in network.modules() if isinstance(one, torch.nn.Conv2d) and one.kernel_size != (1, 1)]
    assert len(convolutions) + 1 == 56


def test_sigma_of_ham10k_is_told_in_pixels():
    """.5 of normalised pixels, in pixels: by the mean of the channels' standard deviations."""
    sigmas = yaml.safe_load((CONFIGS / "paper-ham10k.yaml").read_text())["space"]["sigma"]["grid"]
    assert sigmas == [pytest.approx(0.5 * np.mean([0.229, 0.224, 0.225]), abs=5e-4), 0.5]
