"""Tuning a rule on digits, from the checkpoint to the checkpoint. No Ray."""

import shlex
import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from learning import learn_digits

from raycsr import Answer
from raycsr.cli import main
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source
from raycsr.distributed.options import PoolOptions
from raycsr.distributed.sampling.arguments import SampleArguments
from raycsr.distributed.sampling.job import check
from raycsr.errors import UserError
from raycsr.models import checkpoints
from raycsr.models.checkpoints import load_checkpoint, load_training_state, save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.rules import ARGMAX, parse_rules
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.options import hints_of, read_words
from raycsr.results import ImageSet, own_checkpoint
from raycsr.smoothing.options import SamplingOptions
from raycsr.verbs import tune_rule as module
from raycsr.verbs.sample import sample
from raycsr.verbs.tune_rule import tune_rule

TRAIN = DataOptions("digits", split="train")


@pytest.fixture(scope="module")
def trained():
    """A classifier of digits under noise that is right most of the time."""
    model = load_base_classifier(ModelOptions("cifar_resnet8", num_classes=10, input_size=8))
    learn_digits(model, partial(torch.optim.SGD, lr=0.1, momentum=0.9), sigma=0.5, epochs=5)
    return model


@pytest.fixture
def checkpoint(trained, tmp_path):
    """A checkpoint as `raycsr train` leaves one in the middle of training."""
    path = str(tmp_path / "model.pt")
    training_info = {"objective": "gaussian", "sigma": 0.5, "data": asdict(TRAIN)}
    save_checkpoint(path, trained, training_info=training_info, training_state={"epoch": torch.tensor(3)})
    return path


def tune(model, costs="pair:4/9,3/8", **more):
    """Tunes a rule, and by `answers=None` an answer with it."""
    return tune_rule(model=model, costs=costs, **{"images": 160, "n0": 64, "n": 128, "answers": ["argmax"], **more})


def test_the_rule_is_stored_with_what_it_gains_and_costs(checkpoint, trained, capsys):
    rule = tune(checkpoint, budget=0.03, recall_budget=0.2)
    loaded = load_checkpoint(checkpoint)
    assert loaded.rules == (rule,) and loaded.rules[0].spec == rule.spec and rule != ARGMAX
    assert rule.spec.endswith("*pair:4/9,3/8")
    (facts,) = loaded.training_info["tuned_rules"]
    assert facts["id"] == rule.id and (facts["costs"], facts["radius"], facts["sigma"]) == ("pair:4/9,3/8", 0.5, 0.5)
    assert facts["accuracy_after"] >= facts["accuracy_before"] - 0.03
    assert facts["rob_cs_after"] > facts["rob_cs_before"]
    out = capsys.readouterr().out
    assert "160, of which 80 of seed classes; 64 + 128 samples an image, twice" in out
    (line,) = [line for line in out.splitlines() if "<- chosen" in line]
    assert f"| {rule.spec} " in line and f" {facts['rob_cs_after']:.3f} " in line
    assert "by        rob_cs at radius 0.5" in out and facts["rob_cost_after"] < facts["rob_cost_before"]
    # all else is as it was
    assert loaded.components == trained.components and loaded.training_info["data"]["split"] == "train"
    assert load_training_state(checkpoint)["epoch"] == 3


def test_what_is_printed_is_the_front_without_repetitions(checkpoint, capsys):
    tune(checkpoint, budget=0.03, recall_budget=0.2, answers=None)
    out = capsys.readouterr().out
    compared = int(out.split("compared  ")[1].split()[0])
    rows = [[cell.strip(" †") for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| ")]
    points = [(float(row[2]), float(row[5])) for row in rows[1:]]  # accuracy, rob_cs
    plain = [row[-1] == "" and row[:2] != ["argmax", "argmax"] for row in rows[1:]]
    on_front = [point for point, other in zip(points, plain, strict=True) if other]
    assert 2 < len(points) < compared / 2
    assert not any(a[0] > b[0] and a[1] > b[1] for a in points for b in on_front)
    assert len({tuple(row[2:-1]) for row in rows[1:]}) >= len(rows) - 2


def test_a_checkpoint_that_another_tuning_or_training_writes_is_refused_and_keeps_both_rules_one_after_the_other(
    checkpoint,
):
    with own_checkpoint(checkpoint), pytest.raises(UserError, match="model.pt is held by process .*; wait for it"):
        tune(checkpoint)
    tune(checkpoint, "pair:4/9,3/8", budget=0.1, recall_budget=0.3)
    tune(checkpoint, "pair:9/4", budget=0.1, recall_budget=0.3)
    assert [one["costs"] for one in load_checkpoint(checkpoint).training_info["tuned_rules"]] == [
        "pair:4/9,3/8",
        "pair:9/4",
    ]


def test_a_rule_that_another_stored_while_this_one_waited_is_kept(checkpoint, trained, tmp_path, monkeypatch):
    """It loads the checkpoint once it owns it."""
    other = str(tmp_path / "other.pt")
    save_checkpoint(other, trained, training_info=load_checkpoint(checkpoint).training_info)
    rule = tune(other, "pair:9/4", budget=0.1, recall_budget=0.3)

    def own_late(path):
        Path(path).write_bytes(Path(other).read_bytes())  # the other ends
        return own_checkpoint(path)

    monkeypatch.setattr(module, "own_checkpoint", own_late)
    mine = tune(checkpoint, budget=0.1, recall_budget=0.3)
    assert load_checkpoint(checkpoint).rules == (rule, mine)


def test_a_rule_that_cannot_be_stored_is_told_as_not_stored(checkpoint, monkeypatch, capsys):
    """The options that are told certify what was found, without tuning again."""
    before = Path(checkpoint).read_bytes()

    def full(*_, **__):
        raise UserError("no space is left at model.pt")

    monkeypatch.setattr(checkpoints, "save_checkpoint", full)
    with pytest.raises(UserError, match="NOT stored: no space is left at model.pt") as said:
        tune(checkpoint, budget=0.1, recall_budget=0.3, answers=["argmax", "majority"])
    out = capsys.readouterr().out
    assert "stored" not in out and "<- chosen" in out and Path(checkpoint).read_bytes() == before
    told = read_words(shlex.split(str(said.value).split("evaluate ... ")[1].split("`")[0]), hints_of(sample))
    monkeypatch.undo()
    rule = tune(checkpoint, budget=0.1, recall_budget=0.3, answers=["argmax", "majority"])
    (facts,) = load_checkpoint(checkpoint).training_info["tuned_rules"]
    assert rule != ARGMAX and parse_rules(told["rules"], num_classes=10) == [rule]
    assert told.get("answers", ["argmax"]) == [Answer.of_dict(facts["answer"]).spec]


def test_costs_that_differ_in_size_are_tuned_by_what_is_left_of_them(checkpoint, tmp_path, capsys):
    values = np.zeros((10, 10))
    values[4, 9], values[3, 8] = 10, 1
    np.savetxt(tmp_path / "dear.csv", values, delimiter=",")
    tune(checkpoint, costs=str(tmp_path / "dear.csv"), budget=0.05, recall_budget=0.3, strengths=[1.0, 2.0])
    (facts,) = load_checkpoint(checkpoint).training_info["tuned_rules"]
    assert facts["rob_cost_after"] < facts["rob_cost_before"]
    assert "by        rob_cost (less is better; the costs differ in size) at radius 0.5" in capsys.readouterr().out


def test_a_rule_that_starves_a_class_is_marked_in_the_table(checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(module, "_on_front", lambda tuned: [*range(len(tuned.table))])  # what is on it hangs on the CPU
    tune(checkpoint, costs="pair:4/9", strengths=[0.5, 40.0], budget=0.9, recall_budget=0.99)
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if line.startswith("| offset:40*")]
    assert row.count("†") == 4  # accuracy, rob_cs, rob_cost, seed recall
    (line,) = [line for line in out.splitlines() if line.startswith("†")]
    assert "offset:40*pair:4/9: 9 0 of " in line and "right (argmax 0." in line


def test_tuning_again_for_the_same_replaces_and_for_other_costs_adds(checkpoint):
    first = tune(checkpoint, strengths=[0.8])
    second = tune(checkpoint, strengths=[2.0])
    assert len({ARGMAX, first, second}) == 3 and load_checkpoint(checkpoint).rules == (second,)
    other = tune(checkpoint, costs="seed:8")
    loaded = load_checkpoint(checkpoint)
    assert loaded.rules == (second, other)
    assert [one["id"] for one in loaded.training_info["tuned_rules"]] == [second.id, other.id]


def test_as_a_user_types_it_into_another_file(checkpoint, tmp_path, capsys):
    out = str(tmp_path / "tuned.pt")
    words = ["--costs", "seed:8", "--budget", "0.05", "--images", "100", "--n", "64", "--radius", "0.3", "--out", out]
    assert main(["tune-rule", "--model", checkpoint, "--answers", "argmax", *words]) == 0
    assert f"in {out}; certify them on other images by `raycsr evaluate ... --rules tuned`" in capsys.readouterr().out
    assert load_checkpoint(checkpoint).rules == () and len(load_checkpoint(out).rules) == 1


def test_an_answer_is_tuned_with_the_rule_and_stored_beside_its_id(checkpoint, capsys):
    rule = tune(checkpoint, costs="pair:4/9", answers=None, strengths=[0.5], coverage_budget=0.2, n=64)
    (facts,) = load_checkpoint(checkpoint).training_info["tuned_rules"]
    answer = Answer.of_dict(facts["answer"])
    assert facts["id"] == rule.id and not answer.is_argmax and facts["coverage_budget"] == 0.2
    assert facts["coverage_after"] >= facts["coverage_before"] - 0.2
    assert facts["rob_cs_after"] > facts["rob_cs_before"]
    out = capsys.readouterr().out
    assert f"answer {answer.spec} in {checkpoint}" in out and f"--answers {answer.spec}" in out.replace("'", "")
    rows = [line for line in out.splitlines() if line.startswith("| ")]
    assert any(" majority " in row for row in rows) and sum("<- chosen" in row for row in rows) == 1


def test_where_no_rule_can_help_argmax_stays_and_nothing_is_written(checkpoint, tmp_path, capsys):
    before = (tmp_path / "model.pt").read_bytes()
    assert tune(checkpoint, costs="uniform", images=40) == ARGMAX  # all costs alike: every rule is argmax
    assert "argmax stays, and nothing is stored" in capsys.readouterr().out
    assert (tmp_path / "model.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0.0}, "budget is a share between 0 and 1, got 0.0"),
        ({"coverage_budget": 1.0}, "coverage_budget is a share between 0 and 1, got 1.0"),
        ({"answers": ["majorty"]}, "'majorty' not understood; did you mean majority"),
        ({"recall_budget": 1.0}, "recall_budget is a share between 0 and 1, got 1.0"),
        ({"radius": 2.0}, r"radius is 2, and n=128 samples certify one above 0 and up to 0.8\d+ at sigma 0.5"),
        ({"radius": 0.0}, "radius is 0"),
        ({"strengths": [1.0, -1.0]}, r"strengths must be positive numbers, got \[1.0, -1.0\]"),
        ({"data": DataOptions("digits", split="test")}, "data.split is 'test', .* --allow_test_images true"),
        ({"costs": "seed:44"}, "class 44"),
        ({"data": DataOptions("digits", split="train", classes=[1])}, "none of the 1.. images is of a class"),
    ],
)
def test_what_cannot_be_tuned_is_said(checkpoint, change, message):
    with pytest.raises(UserError, match=message) as caught:
        tune(checkpoint, **change)
    assert "\n" not in str(caught.value) and load_checkpoint(checkpoint).rules == ()


def test_without_a_split_it_is_the_training_images_and_others_must_be_allowed(checkpoint, capsys):
    tune(checkpoint, costs="seed:8", images=40, data=DataOptions("digits"))
    assert "data      digits, split train" in capsys.readouterr().out
    tune(checkpoint, costs="seed:8", images=40, data=DataOptions("digits", split="test"), allow_test_images=True)
    assert "data      digits, split test" in capsys.readouterr().out


def test_sampling_warns_of_images_that_the_model_and_its_rules_have_seen(checkpoint, trained, tmp_path):
    """Before a sample is paid for."""
    listing = open_source(TRAIN).list()
    trained_on = [ImageSet.of(listing.images, listing.identity).to_dict()]
    save_checkpoint(checkpoint, trained, training_info={"sigma": 0.5, "data": asdict(TRAIN), "trained_on": trained_on})
    rule = tune(checkpoint, costs="seed:8", images=100, strengths=[2.0])
    (entry,) = load_checkpoint(checkpoint).training_info["tuned_rules"]
    assert entry["tuned_on"]["num_images"] == 100 and entry["tuned_on"]["listing"] == listing.identity

    def warned(data, rules=()):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model, pool = ModelOptions(checkpoint), PoolOptions(actors=0)
            check(
                SampleArguments(
                    data=data, model=model, sampling=SamplingOptions(), pool=pool, results=str(tmp_path), rules=rules
                )
            )
        return [str(one.message) for one in caught]

    (of_model,) = warned(TRAIN)
    assert of_model.startswith(f"model '{checkpoint}': 1,078 of 1,078 images are, by name and size, among those that")
    of_model, of_rule = warned(TRAIN, ["tuned"])
    assert f"100 of 1,078 images are, by name and size, among those that rule {rule.spec} was tuned on" in of_rule
    assert warned(DataOptions("digits"), ["tuned"]) == []  # the test split


def test_the_models_own_file_keeps_its_input_size(checkpoint, tmp_path):
    resized = ModelOptions(checkpoint, input_size=16)
    with pytest.raises(UserError, match=r"input_size 16 would change .*model\.pt itself: leave it out, or give --out"):
        tune(resized)


def test_the_models_own_file_gets_no_denoiser_in_front(checkpoint):
    behind = ModelOptions(checkpoint, denoiser=DenoiserOptions("dncnn", args={"depth": 3, "channels": 4}, sigma=0.25))
    with pytest.raises(
        UserError, match=r"model\.denoiser would change .*model\.pt itself: leave it out, or give --out"
    ):
        tune(behind)


def test_random_weights_are_said(tmp_path):
    behind = ModelOptions("cifar_resnet8", 10, input_size=8, denoiser=DenoiserOptions("dncnn", args={"depth": 3}))
    with (
        pytest.warns(UserWarning, match="model 'cifar_resnet8' has random weights"),
        pytest.warns(UserWarning, match="denoiser 'dncnn' has random weights"),
        pytest.raises(UserError, match=r"strengths must be positive numbers, got \[-1\]"),
    ):
        tune(behind, sigma=0.5, out=str(tmp_path / "new.pt"), strengths=[-1])


def test_costs_without_a_costly_mistake_are_refused(checkpoint, tmp_path):
    (tmp_path / "nothing.csv").write_text("\n".join([",".join(["0"] * 10)] * 10))
    with pytest.raises(UserError, match="have no costly mistake"):
        tune(checkpoint, costs=str(tmp_path / "nothing.csv"))


def test_what_the_model_does_not_say_must_be_given(trained, tmp_path):
    name = ModelOptions("cifar_resnet8", num_classes=10, input_size=8)
    with pytest.raises(
        UserError, match="'cifar_resnet8' is no checkpoint of raycsr and cannot hold a rule; give --out"
    ):
        tune(name)
    trained.training_info = {}
    path, out = str(tmp_path / "bare.pt"), str(tmp_path / "out.pt")
    save_checkpoint(path, trained)
    with pytest.raises(UserError, match="does not say the sigma it was trained at; give --sigma"):
        tune(path)
    with pytest.raises(UserError, match="does not say what it was trained on; give training images"):
        tune(path, sigma=0.5)
    rule = tune(path, sigma=0.5, data=TRAIN, out=out)
    assert load_checkpoint(out).rules == (rule,)
    with pytest.raises(UserError, match="has 10 classes and the data has 2"):
        tune(path, sigma=0.5, data=photographs_of_two_classes(tmp_path))


def photographs_of_two_classes(tmp_path):
    from PIL import Image

    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / label / "0.png")
    return DataOptions("imagefolder", path=str(tmp_path / "photos"))
