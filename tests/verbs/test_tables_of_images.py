"""A table of images in several folders, with lesions of several images, through every verb."""

import numpy as np
import pytest
from PIL import Image

from raycsr import CostMatrix, load_base_classifier, load_certificates, load_votes, summarize
from raycsr.certification import group_column
from raycsr.data.memory import read_pixels
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source
from raycsr.distributed.options import PoolOptions
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.distributed.training.plan import prepare
from raycsr.models.checkpoints import load_checkpoint
from raycsr.models.spec import ModelOptions
from raycsr.reports.photographs import read_pictures
from raycsr.smoothing.certify_images import certify_images
from raycsr.smoothing.options import Draws, SamplingOptions
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.verbs.evaluate import evaluate
from raycsr.verbs.train import train
from raycsr.verbs.tune_rule import tune_rule

NAMES = ["bkl", "mel", "nv"]
MODEL = ModelOptions("cifar_resnet8", input_size=8)


@pytest.fixture(scope="module")
def lesions(tmp_path_factory) -> DataOptions:
    """120 images of 40 lesions in two parts; a lesion's images differ little, lesions of a class by much."""
    folder = tmp_path_factory.mktemp("ham")
    generator = np.random.default_rng(0)
    lines = ["lesion_id,image_id,dx,split"]
    for lesion in range(40):
        dx, split = lesion % 3, "test" if lesion >= 32 else "train"
        look = 60 + 60 * dx + generator.normal(0, 25, (8, 8, 3))
        for i in range(3):
            image = f"ISIC_{3 * lesion + i:07d}"
            part = folder / f"part_{1 + i % 2}"
            part.mkdir(exist_ok=True)
            pixels = (look + generator.normal(0, 2, (8, 8, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(part / f"{image}.png")
            lines.append(f"HAM_{lesion:07d},{image},{NAMES[dx]},{split}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return DataOptions(
        "csv", str(folder / "metadata.csv"), split="train", image_roots=["part_1", "part_2"], class_names=NAMES
    )


@pytest.fixture(scope="module")
def trained(lesions, tmp_path_factory) -> str:
    options = {"training": TrainingOptions(epochs=4, batch_size=16, lr=0.05), "costs": "seed:mel", "threads": 1}
    options["validation"] = ValidationOptions(every=4, images=12, sensitive=9, n0=8, n=64)
    results = str(tmp_path_factory.mktemp("results"))
    return train(data=lesions, model=MODEL, sigma=0.25, results=results, name="lesions", **options).checkpoint


def test_no_lesion_is_both_trained_on_and_held_out(lesions, trained):
    options = ValidationOptions(every=4, images=12, sensitive=9, n0=8, n=64)
    plan = prepare(TrainConfig(data=lesions, model=MODEL, sigma=0.25, costs="seed:mel", validation=options))
    groups, held = plan.listing.images["group"], np.concatenate([plan.held_out.random, plan.held_out.seed_class])
    assert not set(groups.iloc[held]) & set(groups.iloc[plan.held_out.left])
    assert (groups.iloc[held].value_counts() == 3).all() and len(held) + len(plan.held_out.left) == 96
    model = load_base_classifier(trained)
    assert model.class_names == tuple(NAMES) and model.training_info["data"]["group_column"] is None


def test_a_rule_is_tuned_on_it(trained, capsys):
    tune_rule(model=trained, costs="seed:mel", images=30, n0=16, n=64)
    drawn = int(capsys.readouterr().out.split("images ")[1].split(",")[0])
    assert 30 <= drawn <= 36 and drawn % 3 == 0
    assert load_checkpoint(trained).class_names == tuple(NAMES)


def test_certificates_are_summed_up_by_lesion(lesions, trained):
    source = open_source(lesions)
    images = source.list().images
    model = load_base_classifier(trained)
    pixels = read_pixels(source, images, model.preprocessing)
    assert pixels.image_ids[:2] == ["ISIC_0000000.png", "ISIC_0000001.png"] and set(pixels.labels) == {0, 1, 2}
    costs = CostMatrix.from_spec("seed:mel", 3, NAMES)
    of_each = dict(zip(pixels.image_ids, pixels.images, strict=True))
    certificates = certify_images(model, of_each, pixels.labels, Draws(0.25, 16, 256), costs=costs)
    (alone,) = summarize(certificates, costs=costs, radii=[0.1]).to_dict("records")
    (grouped,) = summarize(certificates, costs=costs, radii=[0.1], groups=images["group"]).to_dict("records")
    assert (alone["num_groups"], grouped["num_groups"]) == (96, 32)
    assert grouped["accuracy"] == alone["accuracy"]
    for name in ("certified_accuracy", "acr", "rob_cs"):  # of accuracy, nearly 1, too few images say anything
        widths = [one[f"{name}_high"] - one[f"{name}_low"] for one in (alone, grouped)]
        assert widths[1] > 1.2 * widths[0], (name, widths)


@pytest.mark.ray
def test_sampled_reported_with_pictures_and_streamed(lesions, trained, cluster, tmp_path, capsys):
    test = DataOptions(**{**vars(lesions), "split": "test"})
    (outcome,) = evaluate(
        data=test,
        model=ModelOptions(trained),
        sampling=SamplingOptions(sigma=0.25, n0=16, n=64, precision="fp32", batch_size=64),
        pool=PoolOptions(actors=0, threads_per_actor=1),
        costs=["seed:mel"],
        results=str(tmp_path / "results"),
        out=str(tmp_path / "out"),
    ).outcomes
    said = capsys.readouterr().out
    assert "groups    8, whose images stay together" in said and "come in 8 groups" in said
    assert sorted(load_votes(outcome.run.location)["image_id"])[0] == "ISIC_0000096.png"
    certificates = load_certificates(outcome.run.location)
    assert len(certificates) == 24 and len(set(group_column(certificates))) == 8
    pictures = read_pictures(outcome.run, outcome.run.certificates(*outcome.run.certificate_sets()))
    assert all(isinstance(picture, np.ndarray) for picture in pictures)  # else the words why there is none
    assert "The images of lesions.pt" in (tmp_path / "out" / "report.html").read_text()
    options = {"training": TrainingOptions(epochs=1, batch_size=16), "stream": True, "threads": 1}
    options["validation"] = ValidationOptions(images=12, sensitive=0, n0=8, n=64)
    streamed = train(data=lesions, model=MODEL, sigma=0.25, results=str(tmp_path / "results"), **options)
    assert streamed.metrics["accuracy"] is not None
