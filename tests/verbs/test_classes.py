"""A model, its data and a run that goes on mean the same class by the same number. No Ray."""

import dataclasses

import pandas as pd
import pytest
import torch
from PIL import Image

from raycsr.cli import main
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source
from raycsr.distributed.options import PoolOptions, WorkerOptions
from raycsr.distributed.pool import Probe
from raycsr.distributed.sampling.arguments import SampleArguments
from raycsr.distributed.sampling.classes import check_classes
from raycsr.distributed.sampling.job import check, open_run, plan_of
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.distributed.training.job import plan_of as training_plan
from raycsr.distributed.training.plan import prepare
from raycsr.errors import UserError
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.options import SamplingOptions
from raycsr.training.options import ValidationOptions

TWO = pd.Series(["benign/0.tif", "malignant/0.tif"])
MODEL = ModelOptions("cifar_resnet8", num_classes=2, input_size=8)


@pytest.fixture
def lesions(tmp_path):
    for name in ("benign", "malignant"):
        (tmp_path / "lesions" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "lesions" / name / "0.tif")
    (tmp_path / "lesions" / "readme.txt").write_text("about them")
    return DataOptions("imagefolder", str(tmp_path / "lesions"))


def job_of(data, results, model=MODEL, **more):
    sampling = SamplingOptions(sigma=0.5, n0=32, n=128, precision="fp32", batch_size=64)
    pool = PoolOptions(actors=0)
    (job,) = check(SampleArguments(data=data, model=model, sampling=sampling, pool=pool, results=str(results), **more))
    return job


def test_costs_are_about_the_class_of_that_name(lesions, tmp_path):
    turned = dataclasses.replace(lesions, class_names=["malignant", "benign"])
    job = job_of(turned, tmp_path, costs=["seed:malignant"])
    labels = dict(zip(job.listing.images.image_id, job.listing.images.label, strict=True))
    assert job.costs["seed:malignant"].sensitive[labels["malignant/0.tif"]]
    assert not job.costs["seed:malignant"].sensitive[labels["benign/0.tif"]]


def test_the_plan_says_what_is_left_out_and_how_classes_are_numbered(lesions, tmp_path):
    turned = dataclasses.replace(lesions, class_names=["malignant", "benign"])
    plan = str(plan_of(job_of(turned, tmp_path), precision="fp32", device="cpu", to_sample=TWO)).splitlines()
    assert "left out: 1 file (.txt 1)" in plan
    assert any(line.startswith("classes   ") and "'benign' is 1, 'malignant' is 0" in line for line in plan)


def test_an_image_that_goes_on_and_begins_is_one_image(lesions, tmp_path):
    """A top-up with a further rule had more images to sample than there are."""
    plan = str(plan_of(job_of(lesions, tmp_path), precision="fp32", device="cpu", to_sample=pd.concat([TWO, TWO[:1]])))
    assert "images    2, of which 2 to sample" in plan and f"{3 * (32 + 128)} forward passes" in plan


def test_the_plan_lists_the_classes_of_a_model_that_names_none(lesions, tmp_path):
    """Its outputs were taken for the data's classes by position, without a word."""
    (line,) = [
        one
        for one in str(plan_of(job_of(lesions, tmp_path), precision="fp32", device="cpu", to_sample=TWO)).splitlines()
        if "classes   " in one
    ]
    assert "0 'benign', 1 'malignant': in this order, for the model names none" in line
    named = load_base_classifier(MODEL)
    named.class_names = ("benign", "malignant")
    save_checkpoint(str(tmp_path / "named.pt"), named)
    job = job_of(lesions, tmp_path, ModelOptions(str(tmp_path / "named.pt")))
    assert "classes   " not in str(plan_of(job, precision="fp32", device="cpu", to_sample=TWO))


@pytest.mark.parametrize(
    ("names", "apart"),
    [
        (["Benign", "malignant"], None),
        (["benign", "Melanom"], "1 'malignant' for the model's 'Melanom': by position alone"),
        (["Melanom", "Naevus"], "0 'benign' for the model's 'Melanom', 1 'malignant' for the model's 'Naevus': by"),
    ],
)
def test_plans_name_the_classes_that_the_model_calls_otherwise(lesions, tmp_path, names, apart):
    """A folder that was renamed, or is of another language, was the model's class of that number without a word."""
    model = load_base_classifier(MODEL)
    model.class_names = tuple(names)
    save_checkpoint(str(tmp_path / "named.pt"), model)
    named = ModelOptions(str(tmp_path / "named.pt"))
    sampling = plan_of(job_of(lesions, tmp_path, named), precision="fp32", device="cpu", to_sample=TWO)
    one = ValidationOptions(images=1, sensitive=0)
    config = TrainConfig(data=lesions, model=named, sigma=0.5, validation=one)
    training = training_plan(prepare(config), "to.pt", WorkerOptions())
    for plan in (str(sampling), str(training)):
        assert apart in plan if apart else "classes   " not in plan


def test_the_file_of_weights_is_what_a_run_is_of(lesions, tmp_path):
    """Plans and reports said the architecture alone, so two networks of a user's had one name."""
    torch.save({"state_dict": load_base_classifier(MODEL).network.state_dict()}, tmp_path / "mine.pth")
    model = dataclasses.replace(MODEL, pretrained=str(tmp_path / "mine.pth"))
    job = job_of(lesions, tmp_path, model)
    assert f"model     {tmp_path}/mine.pth (cifar_resnet8), 2 classes" in str(
        plan_of(job, precision="fp32", device="cpu", to_sample=TWO)
    )
    assert open_run(job, Probe("cpu", "fp32", 64, 100.0)).manifest()["model"] == f"{tmp_path}/mine.pth (cifar_resnet8)"


def test_validate_prints_it_and_refuses_a_name_twice(lesions, tmp_path, capsys):
    common = ["--model.name=cifar_resnet8", "--model.num_classes=2", "--model.input_size=8", "--sampling.sigma=0.5"]
    common += [f"--results={tmp_path}", "--data.source=imagefolder", f"--data.path={lesions.path}"]
    assert main(["validate", "sample", *common]) == 0
    assert "left out: 1 file (.txt 1)" in capsys.readouterr().out
    assert main(["validate", "sample", *common, "--data.class_names=[benign, benign]"]) == 2
    assert "data.class_names: classes 0 and 1 are both named 'benign'" in capsys.readouterr().err


def test_another_number_of_classes_is_refused_with_the_folders(lesions, tmp_path):
    (tmp_path / "lesions" / "logs").mkdir()
    with pytest.raises(UserError, match=r"has 3 \('benign', 'logs', 'malignant'\).*without an image: 'logs'"):
        job_of(lesions, tmp_path)


def test_a_run_goes_on_under_its_own_class_names_alone(write_parquet_of_numbers, tmp_path):
    first = dataclasses.replace(write_parquet_of_numbers, class_names=["benign", "malignant"])
    found = Probe("cpu", "fp32", 64, 100.0)
    run = open_run(job_of(first, tmp_path), found)
    assert open_run(job_of(first, tmp_path), found).run_id == run.run_id
    turned = dataclasses.replace(first, class_names=["malignant", "benign"])
    message = (
        r"begun with class_names 'benign', 'malignant' and this call has 'malignant', 'benign': class 0 is 'benign'"
    )
    with pytest.raises(UserError, match=message):
        open_run(job_of(turned, tmp_path), found)


@pytest.fixture
def write_parquet_of_numbers(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = pa.array([{"bytes": b"one"}, {"bytes": b"two"}], pa.struct([("bytes", pa.binary())]))
    pq.write_table(pa.table({"image": images, "label": [0, 1]}), tmp_path / "0.parquet")
    return DataOptions("parquet", str(tmp_path / "0.parquet"))


class TestTheModelsNames:
    @pytest.fixture
    def model(self, tmp_path):
        path = str(tmp_path / "model.pt")
        save_checkpoint(path, load_base_classifier(MODEL), training_info={}, class_names=["malignant", "benign"])
        return ModelOptions(path)

    def test_another_order_is_refused(self, lesions, model, tmp_path):
        with pytest.raises(
            UserError, match=r"class 'benign' is 0 of the data and 1 of model .*: 'malignant', 'benign'"
        ):
            job_of(lesions, tmp_path, model)
        job_of(dataclasses.replace(lesions, class_names=["Malignant", "Benign"]), tmp_path, model)

    def test_other_names_cannot_be_compared(self, lesions, model):
        listing = open_source(dataclasses.replace(lesions, class_names=["good", "bad"])).list()
        check_classes(listing, load_base_classifier(model), model.name)
