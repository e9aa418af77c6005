"""`raycsr predict`: images without labels in, what the smoothed classifier says of them out."""

import io
import json
import os
import shutil
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raycsr import UserError, load_predictions
from raycsr.cli import main
from raycsr.data.options import DataOptions
from raycsr.data.packaged import digits_arrays
from raycsr.distributed.options import PoolOptions
from raycsr.distributed.pool import Probe
from raycsr.distributed.predict.arguments import PredictArguments
from raycsr.distributed.predict.job import check_job
from raycsr.distributed.predict.run import _summed_up
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.results.predictions import PREDICTIONS, PredictionSet
from raycsr.store import Store
from raycsr.verbs.sample import sample

NAMES = [f"digit {k}" for k in range(10)]
SMALL = ["--pool.actors", "0", "--n", "256", "--batch_size", "64"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint of random weights that prefer one class, so that something is said."""
    network = load_base_classifier(ModelOptions("cifar_resnet8", num_classes=10, input_size=8))
    network.network.fc.bias.data[3] += 0.6
    path = tmp_path_factory.mktemp("model") / "digits.pt"
    save_checkpoint(str(path), network, class_names=NAMES)
    return str(path)


@pytest.fixture(scope="module")
def run(model, make_job, tmp_path_factory):
    data = DataOptions("digits", limit=3, class_names=NAMES)
    options = make_job(tmp_path_factory.mktemp("runs"), model=ModelOptions(model), rules=["offset:0=1"])
    (outcome,) = sample(**options | {"data": data})
    return outcome.run.location


@pytest.fixture
def photos(tmp_path):
    """A flat folder of six digits, and a file that is no image."""
    (tmp_path / "photos").mkdir()
    for i, pixels in enumerate(digits_arrays("test")[0][:6]):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    return tmp_path / "photos"


@pytest.fixture
def predict(photos, tmp_path, capsys):
    """`predict(words)` answers the photos; returns the status, what was printed, and the last line of errors."""

    def call(*words, small=SMALL):
        stored = ["--data.source", "imagefolder", "--data.path", str(photos), "--results", str(tmp_path / "results")]
        status = main(["predict", *stored, *small, *words])
        said = capsys.readouterr()
        return status, said.out, said.err.splitlines()[-1] if said.err else ""

    return call


def rows_at(location):
    predictions = PredictionSet(Store(location))
    return predictions._parts.read(PREDICTIONS.names).to_pandas().sort_values("image_id", ignore_index=True)


def test_of_many_classes_the_most_frequent_are_counted_in_words():
    rows = pd.DataFrame({"name": ["a", "a", *"bcdefghijkl"], "answer": range(13), "error": None, "n0": 64, "n": 64})
    (counted, _) = _summed_up(rows)
    assert counted.startswith("answered  13 of 13 images: a 2, b 1, ") and counted.endswith(" and 2 more")


def test_images_are_answered_by_a_model(predict, model):
    status, out, error = predict("--model.name", model, "--sigma", ".1", "--costs", "pair:digit 3/digit 8")
    assert status == 1 and "1 images could not be answered: broken.png" in error
    assert "images    7, of which 7 to answer" in out and "alpha + alpha_p" in out
    rows = rows_at(out.splitlines()[-1])
    assert rows["image_id"].tolist() == [*(f"{i}.png" for i in range(6)), "broken.png"]
    good = rows[rows["error"].isna()]
    assert (good["n0"] == 64).all() and good["n"].between(64, 256).all()
    said = good[good["answer"].notna()]
    assert len(said) and (said["name"] == [NAMES[int(k)] for k in said["answer"]]).all()
    assert (good["standard_radius"] > 0).any() and (good["multiclass_radius"] >= 0).all()
    for radii in good["radius_if"]:
        assert len(radii) == 10 and not np.isnan(radii[3]) and np.isnan(np.delete(radii, 3)).all()
    broken = rows.iloc[-1]
    assert pd.isna(broken["answer"]) and broken["n"] == 0 and "UnidentifiedImageError" in broken["error"]


def test_random_weights_and_a_denoiser_of_another_sigma_are_said(predict):
    words = ["--model.name", "cifar_resnet8", "--model.input_size", "8", "--model.denoiser.name", "dncnn"]
    words += ["--model.denoiser.args", "{depth: 3, channels: 4}", "--model.denoiser.sigma", "0.5"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        status, _, error = predict(*words, "--sigma", ".1", "--rule", "offset:0=1,99=1")
    assert status == 2 and "99" in error  # nothing is drawn
    said = [str(one.message) for one in caught if one.category is UserWarning]
    assert [one.split(",")[0] for one in said[:2]] == [
        "model 'cifar_resnet8' has random weights",
        "denoiser 'dncnn' has random weights",
    ]
    assert "denoiser 'dncnn' of model 'cifar_resnet8' is made for sigma 0.5 and is sampled at 0.1" in said[2]


def test_a_set_is_listed_read_and_no_run(predict, model, photos, tmp_path, capsys):
    location = predict("--model.name", model, "--sigma", ".1", "--answer", "argmax")[1].splitlines()[-1]
    shutil.copy(photos / "0.png", photos / "broken.png")
    os.utime(photos / "broken.png", ns=(1, 1))
    predict("--model.name", model, "--sigma", ".1", "--answer", "argmax")
    rows = load_predictions(location)
    assert rows["image_id"].tolist() == [*(f"{i}.png" for i in range(6)), "broken.png", "broken.png"]
    assert rows["error"].notna().sum() == 1 and (rows.columns == PREDICTIONS.names).all()
    assert load_predictions(tmp_path / "results").equals(rows)
    for place in (tmp_path / "results", location):
        assert main(["ls", str(place)]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("predictions ")]
        assert location in line and "7 images" in line and "digits.pt at sigma 0.1, rule argmax, argmax" in line
    for words in (["cp", "--results", str(tmp_path / "copies")], ["rm", "--yes", "true"], ["report"]):
        assert main([*words, "--run", location]) == 2
        assert "load_predictions" in capsys.readouterr().err
    predict("--model.name", model, "--sigma", ".2")
    with pytest.raises(UserError, match="2 sets of predictions"):
        load_predictions(tmp_path / "results")
    Store(location).write("predictions.json", b"{}")
    with pytest.raises(UserError, match=r"predictions.json is damaged"):
        load_predictions(location)
    assert main(["ls", location]) == 0 and "is damaged" in capsys.readouterr().out


def test_the_same_command_goes_on_where_it_was_interrupted(predict, model, photos):
    words = ["--model.name", model, "--sigma", ".1"]
    location = predict(*words)[1].splitlines()[-1]
    before = rows_at(location)
    assert "7, all answered" in predict(*words)[1]
    of_part = {part: PredictionSet(Store(location)).one(part) for part in os.listdir(f"{location}/parts")}
    os.remove(
        f"{location}/parts/{next(part for part, rows in of_part.items() if '0.png' in rows['image_id'].to_pylist())}"
    )
    out = predict(*words)[1]
    assert "all answered" not in out and out.splitlines()[-1] == location
    again = rows_at(location)
    assert again["image_id"].tolist() == before["image_id"].tolist()
    kept = again.merge(before, on=["image_id", "seconds"])["image_id"].tolist()
    assert len(kept) > 0 and "0.png" not in kept  # only what was lost is asked about again


def test_an_image_that_was_replaced_is_asked_about_again_and_an_error_when_one_says_so(predict, model, photos):
    words = ["--model.name", model, "--sigma", ".1"]
    location = predict(*words)[1].splitlines()[-1]
    shutil.copy(photos / "0.png", photos / "broken.png")
    os.utime(photos / "broken.png", ns=(1, 1))
    status, out, _ = predict(*words)
    assert status == 0 and "7, of which 1 to answer" in out and out.splitlines()[-1] == location
    (photos / "1.png").write_bytes(b"no image")
    os.utime(photos / "1.png", ns=(2, 2))
    assert predict(*words)[0] == 1 and "all answered" in predict(*words)[1]
    assert "of which 1 to answer" in predict(*words, "--retry_errors", "true")[1]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_all_answers_are_one_table_on_request(predict, model, tmp_path, kind):
    path = str(tmp_path / f"answers.{kind}")
    assert predict("--model.name", model, "--sigma", ".1", "--costs", "pair:3/8", "--out", path)[0] == 1
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "jsonl": lambda path: pd.read_json(path, lines=True)}[kind]
    rows = read(path)
    assert rows["image_id"].tolist() == [*(f"{i}.png" for i in range(6)), "broken.png"]
    assert {"answer", "name", "shares", "standard_radius", "multiclass_radius", "radius_if", "n", "error"} <= {*rows}


def test_a_run_answers_as_it_was_certified(predict, run):
    status, out, _ = predict("--run", run, "--rule", "offset:0=1", "--answer", "argmax")
    assert status == 1 and "rule      offset:0=1, answer argmax" in out and "sigma 0.5" in out and "fp32" in out
    facts = json.loads((Store(out.splitlines()[-1])).read("predictions.json"))
    assert facts["run"] == run.rsplit("/", 1)[1] and facts["class_names"] == NAMES


def test_other_options_are_another_set_and_another_machine_is_not(model, tmp_path):
    data = {"data": DataOptions("digits", limit=2), "results": str(tmp_path), "pool": PoolOptions(actors=0)}
    base = {"model": model, "sigma": 0.1}
    more = [{}, {"answer": "argmax"}, {"rule": "offset:0=1"}, {"alpha_p": 0.01}, {"costs": "pair:3/8"}, {"sigma": 0.2}]
    jobs = [check_job(PredictArguments(**data, **base | options)) for options in more]
    found = Probe("fp32", "cpu", 64, 1000.0)
    assert len({job.set_of(found).store.location for job in jobs}) == len(more)
    elsewhere = replace(found, device="gpu", batch_size=8)
    assert jobs[0].set_of(elsewhere).store.location == jobs[0].set_of(found).store.location


def test_one_image_is_answered_as_json(photos, model, capsys, monkeypatch):
    words = ["predict", *SMALL, "--model.name", model, "--sigma", ".1", "--costs", "pair:digit 3/digit 8", "--image"]
    assert main([*words, str(photos / "0.png")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["name"] in [*NAMES, None] and said["n0"] == 64 and list(said["radius_if"]) == ["digit 3"]
    assert sum(said["shares"].values()) <= 1 + 1e-9 and "alpha_p" in said["claim"] and said["error"] is None
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO((photos / "0.png").read_bytes())))
    assert main([*words, "-"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == said.keys()


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["--image", "MISSING.png"], ["--data"]),
        (["--out", "answers.xlsx"], ["answers.xlsx", ".csv"]),
        (["--data.classes", "[0]"], ["data.classes"]),
        (["--sigma", "0"], ["sigma"]),
        (["--answer", "plurality"], ["plurality"]),
        (["--answer", "threshold:cow=0.7"], ["cow"]),
        (["--costs", "seed:cow"], ["cow"]),
        (["--alpha_p", "0"], ["alpha_p is 0"]),
        (["--n", "5"], ["n=5"]),
        (["--batch_size", "3"], ["batch_size", "3"]),
        (["--data.class_names", "[a,b]"], ["data.class_names", "digit 0"]),
        (["--rule", "offset:0.5,1*pair:0/1"], ["2 rules"]),
    ],
)
def test_bad_input_is_one_line(predict, model, words, facts):
    status, _, error = predict("--model.name", model, "--sigma", ".1", *words)
    assert status == 2 and error.startswith("raycsr predict: ")
    assert all(fact in error for fact in facts), error


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ([], ["--run", "--model.name"]),
        (["--model.name", "cifar_resnet8"], ["sigma is missing"]),
        (["--run", "RUN", "--sigma", "1"], ["sigma is 1", "--run"]),
        (["--run", "RUN", "--precision", "bf16"], ["precision is bf16"]),
        (["--run", "RUN", "--rule", "offset:1=1"], ["no rule 'offset:1=1'"]),
        (["--run", "RUN", "--model.name", "cifar_resnet20"], ["weights differ"]),
    ],
)
def test_who_is_to_answer_is_asked_in_one_line(predict, run, words, facts):
    status, _, error = predict(*(run if word == "RUN" else word for word in words))
    assert status == 2 and all(fact in error for fact in facts), error


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_one_file_that_is_no_image_is_one_line(model, tmp_path, capsys, content):
    (tmp_path / "a.png").write_bytes(content)
    words = ["predict", *SMALL, "--model.name", model, "--sigma", ".1", "--image", str(tmp_path / "a.png")]
    assert main(words) == 2
    assert f"{tmp_path}/a.png' is no image that can be read" in capsys.readouterr().err.splitlines()[-1]


def test_actors_answer_as_this_process_does(cluster, predict, model):
    small = ["--pool.actors", "1", "--pool.cpus_per_actor", "0.5", "--n", "256", "--batch_size", "64"]
    status, out, error = predict("--model.name", model, "--sigma", ".1", small=small)
    assert status == 1 and "1 images could not be answered: broken.png" in error
    rows = rows_at(out.splitlines()[-1])
    assert len(rows) == 7 and rows["error"].notna().sum() == 1 and rows["answer"].notna().any()
