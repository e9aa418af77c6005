"""Objectives that lean on a baseline's votes: from `sample` on the training split to a training, end to end."""

import warnings

import numpy as np
import pandas as pd
import pytest
from handmade import votes_of_labels, write_run

from raycsr.data.options import DataOptions
from raycsr.distributed.options import ObjectiveOptions, PoolOptions
from raycsr.distributed.training.shares import read_shares
from raycsr.errors import UserError
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.results import histograms, resolve_run, votes_table
from raycsr.results.schema import VOTES
from raycsr.smoothing.options import SamplingOptions
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.verbs.sample import sample
from raycsr.verbs.train import train

DATA = DataOptions("digits", split="train", limit=60)
MODEL = ModelOptions("cifar_resnet8", input_size=8, num_classes=10)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    (outcome,) = sample(
        data=DATA,
        model=MODEL,
        sampling=SamplingOptions(sigma=0.5, n0=2, n=16),
        pool=PoolOptions(actors=0),
        results=str(tmp_path_factory.mktemp("votes")),
    )
    return outcome.run.location


def trained(tmp_path, objective, **args):
    return train(
        data=DATA,
        model=MODEL,
        sigma=0.5,
        costs="seed:8",
        objective=ObjectiveOptions(objective, args),
        training=TrainingOptions(epochs=1, batch_size=16, precision="fp32"),
        validation=ValidationOptions(images=4, sensitive=1, n0=2, n=64, radius=0.01),
        results=str(tmp_path),
        name="made",
        threads=1,
    ).checkpoint


@pytest.mark.parametrize("objective", ["cat_rs", "easy", "cat_rs_cs", "easy_cs"])
def test_a_training_leans_on_a_runs_votes(tmp_path, run, objective):
    more = {"start": 0.0, "threshold": 0.0} if objective.startswith("easy") else {}
    made = load_base_classifier(trained(tmp_path, objective, votes=run, k=2, **more))
    assert made.training_info["objective_args"] == {"votes": run, "k": 2, **more}
    assert np.isfinite(made.training_info["history"][0]["loss"])


def test_votes_of_other_noise_than_that_of_the_training_are_said(run):
    images, names = resolve_run(run).images(), resolve_run(run).manifest()["class_names"]
    with pytest.warns(UserWarning, match="has votes at sigma 0.5, and the training is at 0.25"):
        read_shares(run, images, names, sigma=0.25)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_shares(run, images, names, sigma=0.5)


def test_shares_are_those_of_the_votes(run):
    votes = resolve_run(run).votes("argmax").to_pandas()
    names = resolve_run(run).manifest()["class_names"]
    shares = read_shares(run, resolve_run(run).images()[:3], names, sigma=0.5)
    for image_id, histogram in zip(votes["image_id"][:3], votes["estimation"][:3], strict=True):
        (row,) = shares.of([image_id], "cpu").numpy()
        assert {i: share for i, share in enumerate(row) if share} == {e["class"]: e["count"] / 16 for e in histogram}


def test_what_cannot_be_leant_on_is_refused_before_the_training(tmp_path, run):
    with pytest.raises(UserError, match=r"votes of cat_rs is None.*raycsr sample --data\.split train"):
        trained(tmp_path, "cat_rs")
    with pytest.raises(UserError, match="nowhere"):
        trained(tmp_path, "cat_rs", votes=str(tmp_path / "nowhere"))
    names, images = resolve_run(run).manifest()["class_names"], resolve_run(run).images()[:2]
    with pytest.raises(UserError, match=f"{run} has no votes of 1 of 2 training images, the first 'other.png'"):
        read_shares(run, images.replace({"image_id": {images["image_id"][0]: "other.png"}}), names, sigma=0.5)
    with pytest.raises(UserError, match=r"votes for the classes .* and the training has \['a', 'b'\]"):
        read_shares(run, images, ["a", "b"], sigma=0.5)


@pytest.mark.parametrize("column", ["label", "size"])
def test_a_run_of_other_images_by_the_same_names_is_refused(run, column):
    """As of the folder test, whose images are called cat/0.png, too."""
    images = resolve_run(run).images().copy()
    images.loc[1, column] += 1
    with pytest.raises(UserError, match=f"{run} .*1 of the training images have another {column} .*'train#1'"):
        read_shares(run, images, resolve_run(run).manifest()["class_names"], sigma=0.5)


def test_an_image_that_selection_votes_decided_has_their_shares_and_a_broken_one_none(tmp_path):
    run = write_run(tmp_path, "m.pt", {}, certify_under=())
    run.write_votes("0.parquet", votes_of_labels(["i0", "i1"]))
    decided = votes_table(
        {name: votes_of_labels(["i2"], n=0)[name].combine_chunks() for name in VOTES.names}
        | {"selection": histograms(np.array([[1, 0, 3]])), "sampling": ["sequential"]}
    )
    run.write_votes("1.parquet", decided)
    run.write_votes("2.parquet", votes_of_labels(["i3"], error="no image"))
    images = pd.DataFrame({"image_id": ["i0", "i1", "i2", "i3"], "label": [0, 1, 2, 0], "size": 1, "version": "v"})
    run.add_images(images)
    shares = read_shares(run.location, images, ["a", "b", "c"], sigma=run.manifest()["sigma"])
    assert shares.of(["i1", "i2"], "cpu").tolist() == [[0, 1, 0], [0.25, 0, 0.75]]
    with pytest.raises(UserError, match="has no votes of 1 of 1 training images, the first 'i3'"):
        shares.of(["i3"], "cpu")
