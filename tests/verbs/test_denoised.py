"""A classifier behind a denoiser, through the verbs: sampled, deployed, attacked, and trained behind it."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raycsr import SmoothedClassifier
from raycsr.cli import arguments, main
from raycsr.data.options import DataOptions
from raycsr.distributed.options import ObjectiveOptions, WorkerOptions
from raycsr.distributed.training import fit
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.distributed.training.job import default_name
from raycsr.distributed.training.plan import prepare
from raycsr.errors import UserError
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.verbs import function_of
from raycsr.verbs.sample import sample
from raycsr.verbs.train import train

SMALL = {"depth": 3, "channels": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A classifier of digits behind a denoiser that does something, of random weights both, in files of their own."""
    folder = tmp_path_factory.mktemp("model")
    denoiser = DenoiserOptions("dncnn", args=SMALL, sigma=0.5)
    made = load_base_classifier(ModelOptions("cifar_resnet8", num_classes=10, input_size=8, denoiser=denoiser))
    made.denoisers[0].network[-1].weight.add_(0.1)
    save_checkpoint(folder / "both.pt", made)
    save_checkpoint(folder / "plain.pt", load_base_classifier(ModelOptions("cifar_resnet8", 10, input_size=8)))
    return ModelOptions(f"{folder}/plain.pt", denoiser=DenoiserOptions(f"{folder}/both.pt"))


@pytest.fixture(scope="module")
def run(model, make_job, tmp_path_factory):
    (outcome,) = sample(**make_job(tmp_path_factory.mktemp("runs"), limit=6, model=model, costs=["uniform"]))
    return outcome.run


def test_a_run_knows_its_parts_and_how_they_were_named(run, model):
    manifest = run.manifest()
    assert [one.get("kind") for one in manifest["components"]] == ["denoiser", "classifier"]
    assert manifest["model"] == f"{model.name} (behind both.pt)"  # of which tables show what follows the last /
    assert manifest["config"]["model"]["denoiser"]["name"] == model.denoisers[0].name


def test_a_run_is_deployed_by_its_manifest_and_kept_in_a_folder(run, tmp_path):
    deployed = SmoothedClassifier.from_run(run.location)
    assert deployed.base_classifier.components == run.manifest()["components"]
    deployed.save(tmp_path / "folder")
    again = SmoothedClassifier.load(tmp_path / "folder")
    assert again.base_classifier.components == deployed.base_classifier.components
    image = torch.zeros((1, 3, 8, 8), dtype=torch.uint8)
    assert len(again.certify(image, costs="seed:1")) > 0


def test_what_a_later_raycsr_notes_of_a_model_is_passed_over_and_damage_is_named(run, tmp_path):
    damaged = [{"denoiser": [3]}, {"denoiser": [{"name": 3}]}, {"name": 3}, {"pretrained": [1]}, {"input_size": "wide"}]
    changes = [({"later": 1}, None), *((change, "--model.name") for change in damaged)]
    for i, (change, words) in enumerate(changes):
        copy = shutil.copytree(run.location, tmp_path / "runs" / f"{i}")
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest["config"]["model"] |= change
        (copy / "manifest.json").write_text(json.dumps(manifest))
        if words is None:
            assert SmoothedClassifier.from_run(copy).base_classifier.components == manifest["components"]
        else:
            with pytest.raises(UserError, match=words) as caught:
                SmoothedClassifier.from_run(copy)
            assert "\n" not in str(caught.value)


def test_whole_numbers_name_the_same_run(model, make_job, tmp_path):
    """A sigma of 1 in a program is the 1.0 of a checkpoint."""
    denoisers = [DenoiserOptions("dncnn", args=SMALL, sigma=sigma) for sigma in (1, 1.0)]
    one, other = (load_base_classifier(replace(model, denoiser=asked)).components for asked in denoisers)
    assert json.dumps(one) == json.dumps(other)


def test_a_run_is_attacked_through_the_denoiser(run, capsys):
    words = ["--run", run.location, "--costs", "uniform", "--pool.actors", "0", "--images", "2", "--radii", ".5"]
    assert main(["attack", *words, "--steps", "2", "--noises", "2", "--n", "64"]) == 0
    assert "2 images" in capsys.readouterr().out


def test_a_denoiser_of_another_sigma_is_said_and_certifies(model, make_job, tmp_path):
    plain = make_job(tmp_path, limit=2, model=model)
    with pytest.warns(UserWarning, match=r"denoiser 'dncnn' .* sigma 0\.5 and is sampled at 0\.25; certificates hold"):
        (outcome,) = sample(**plain | {"sampling": plain["sampling"].__class__(sigma=0.25, n0=32, n=128)})
    assert len(outcome.run.votes()) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the classifier's own training is no matter behind a denoiser
        sample(**plain)


def test_a_denoiser_of_random_weights_is_said(make_job, tmp_path):
    asked = ModelOptions("cifar_resnet8", 10, input_size=8, denoiser=DenoiserOptions("dncnn", args=SMALL))
    with pytest.warns(UserWarning, match="denoiser 'dncnn' has random weights"):
        sample(**make_job(tmp_path, limit=1, model=asked))


def test_a_plan_says_the_denoiser_its_sigma_and_the_memory(model, tmp_path, capsys):
    words = ["--data.source", "digits", "--sampling.sigma", "0.5", "--results", str(tmp_path), "--pool.actors", "0"]
    asked = ["--model.name", model.name, "--model.denoiser.name", model.denoisers[0].name]
    assert main(["validate", "sample", *words, *asked]) == 0
    out = capsys.readouterr().out
    assert "behind    dncnn for sigma 0.5, 8 x 8 px, " in out and "\nmemory    " in out


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--model.denoiser.name", "d.pt", "--model.denoiser.sigma", "0.5"], [DenoiserOptions("d.pt", sigma=0.5)]),
        (["--model.denoiser", "{name: dncnn, args: {depth: 3}}"], [DenoiserOptions("dncnn", args={"depth": 3})]),
        (["--model.denoiser", "[{name: a.pt}, {name: b.pt}]"], [DenoiserOptions("a.pt"), DenoiserOptions("b.pt")]),
        ([], []),
    ],
)
def test_a_command_line_names_one_or_several(words, asked):
    always = ["--data.source", "digits", "--model.name", "m.pt", "--results", "r", "--sampling.sigma", "0.5"]
    given = arguments("raycsr sample", function_of("sample"), [*always, *words])
    assert list(given["model"].denoisers) == asked


def test_a_yaml_file_names_several(tmp_path):
    (tmp_path / "c.yaml").write_text("model: {name: m.pt, denoiser: [{name: a.pt}, {name: b.pt, sigma: 0.25}]}")
    words = ["--data.source", "digits", "--results", "r", "--sampling.sigma", "0.5", "--config", f"{tmp_path}/c.yaml"]
    given = arguments("raycsr sample", function_of("sample"), words)
    assert given["model"].denoisers == (DenoiserOptions("a.pt"), DenoiserOptions("b.pt", sigma=0.25))


def training(model, results):
    return {
        "data": DataOptions("digits", split="train"),
        "model": model,
        "sigma": 0.5,
        "training": TrainingOptions(epochs=2, batch_size=64, lr=0.05, ema=0.9),
        "validation": ValidationOptions(every=2, images=20, sensitive=0, n0=8, n=64),
        "results": str(results),
        "threads": 1,
    }


def test_what_is_trained_under_noise_is_the_classifier_and_the_denoiser_stays(model, tmp_path, capsys):
    before = load_base_classifier(model)
    found = train(**training(model, tmp_path), name="behind")
    after = load_base_classifier(found.checkpoint)
    assert after.components[0] == before.components[0]  # batch statistics among its weights
    assert after.components[1] != before.components[1]
    assert "behind    dncnn for sigma 0.5, 8 x 8 px" in (out := capsys.readouterr().out)
    assert "trains    the classifier alone; of the denoisers nothing changes" in out
    history = after.training_info["history"]
    assert history[1]["loss"] < history[0]["loss"] and np.isfinite(history[1]["metrics"]["acr"])


def test_a_training_behind_a_denoiser_of_another_sigma_is_said(model):
    of_training = {name: one for name, one in training(model, "r").items() if name not in ("results", "threads")}
    with pytest.warns(UserWarning, match=r"'dncnn' of model .* for sigma 0\.5, and the classifier .* trained at 0\.25"):
        prepare(TrainConfig(**of_training | {"sigma": 0.25}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(TrainConfig(**of_training))


def test_a_training_behind_a_denoiser_of_random_weights_is_said(model):
    asked = replace(model, denoiser=DenoiserOptions("dncnn", args=SMALL, sigma=0.5))
    of_training = {name: one for name, one in training(asked, "r").items() if name not in ("results", "threads")}
    with pytest.warns(UserWarning, match="denoiser 'dncnn' has random weights"):
        prepare(TrainConfig(**of_training))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # those that are trained begin so
        prepare(TrainConfig(**of_training | {"objective": ObjectiveOptions("denoise")}))


def test_a_training_without_denoisers_keeps_its_name():
    config = TrainConfig(data=DataOptions("digits"), model=ModelOptions("cifar_resnet8", input_size=8), sigma=0.25)
    assert default_name(config) == "gaussian-cifar_resnet8-sigma0.25-77dbfaf4"
    with_one = TrainConfig(
        data=config.data, model=ModelOptions("cifar_resnet8", denoiser=DenoiserOptions("dncnn")), sigma=0.25
    )
    assert default_name(with_one) == "gaussian-cifar_resnet8-sigma0.25-58aecad9"  # as before there were levels


def test_a_training_that_was_begun_before_there_were_denoisers_goes_on(tmp_path, capsys):
    plain = training(ModelOptions("cifar_resnet8", input_size=8), tmp_path)
    found = train(**plain, name="old")
    beside = Path(found.checkpoint).with_suffix(".json")
    facts = json.loads(beside.read_text())
    del facts["config"]["model"]["denoiser"]
    beside.write_text(json.dumps(facts))
    assert train(**plain, name="old") == found and "finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("objective", "args"), [("denoise", {}), ("stability", {"mse": 1.0}), ("stability_cs", {"weight": 0.5})]
)
def test_a_denoiser_is_trained_for_a_classifier_that_stays_as_it_is(model, tmp_path, capsys, objective, args):
    asked = replace(model, denoiser=DenoiserOptions("dncnn", args=SMALL))
    options = training(asked, tmp_path) | {"costs": "seed:4", "objective": ObjectiveOptions(objective, args)}
    options["training"] = replace(options["training"], optimizer="adamw", lr=0.01)
    found = train(**options, name="denoiser")
    before, after = load_base_classifier(asked), load_base_classifier(found.checkpoint)
    assert after.components[1] == before.components[1]
    assert after.denoisers[0].component["sha256"] != before.denoisers[0].component["sha256"]
    assert after.denoisers[0].sigma == after.training_sigma == 0.5
    history = after.training_info["history"]
    assert history[1]["loss"] < history[0]["loss"] and np.isfinite(history[1]["metrics"]["acr"])
    assert "trains    the denoisers alone; of the classifier nothing changes" in capsys.readouterr().out
    assert train(**options, name="denoiser") == found


@pytest.mark.parametrize("objective", ["stability", "gaussian"])  # of the denoiser, and of what is behind
def test_a_training_that_was_killed_goes_on_to_the_same_weights(model, tmp_path, monkeypatch, objective):
    class Killed(Exception):
        pass

    def save_once(plan, model, state, history, path):
        save(plan, model, state, history, path)
        if len(history) == 1:
            raise Killed

    save = fit.save
    options = training(replace(model, denoiser=DenoiserOptions("dncnn", args=SMALL)), tmp_path)
    options["objective"] = ObjectiveOptions(objective)
    whole = train(**options, name="whole")
    monkeypatch.setattr(fit, "save", save_once)
    with pytest.raises(Killed):
        train(**options, name="killed")
    monkeypatch.setattr(fit, "save", save)
    again = train(**options, name="killed")
    assert load_base_classifier(again.checkpoint).components == load_base_classifier(whole.checkpoint).components
    assert again.metrics == whole.metrics


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"denoiser": None}, ["stability", "model.denoiser.name"]),
        ({"name": "cifar_resnet8", "input_size": 8}, ["stability", "'cifar_resnet8'", "random weights", "model.name"]),
        ({"denoiser": DenoiserOptions("dncnn", sigma=0.25)}, ["model.denoiser.sigma is 0.25", "0.5", "leave"]),
        ({"denoiser": [DenoiserOptions("dncn")]}, ["'dncn'", "dncnn"]),
    ],
)
def test_what_no_denoiser_can_be_trained_for_is_told_in_a_line(model, tmp_path, change, words):
    options = training(replace(model, **change), tmp_path) | {"objective": ObjectiveOptions("stability")}
    with pytest.raises(UserError) as caught:
        train(**options)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_a_denoiser_that_is_told_the_noise_level_is_told_that_of_the_training(model, tmp_path):
    tiny = DenoiserOptions("drunet", args={"channels": [4, 4, 4, 4], "blocks": 1})
    options = training(replace(model, denoiser=tiny), tmp_path) | {"objective": ObjectiveOptions("denoise")}
    options["training"] = replace(options["training"], epochs=1, optimizer="adamw", lr=0.01)
    after = load_base_classifier(train(**options, name="told").checkpoint)
    assert after.components[0]["sigma"] == 0.5
    with pytest.raises(UserError, match=r"'drunet' takes the noise level as an input: give model\.denoiser\.sigma"):
        load_base_classifier(replace(model, denoiser=tiny))


def diffusion(tmp_path, **options):
    """A checkpoint of a small diffusion model that is made for sigma .25."""
    args = {"image_size": 8, "num_channels": 32, "num_res_blocks": 1, "channel_mult": [1], "attention_resolutions": []}
    asked = DenoiserOptions("improved_diffusion", args=args, sigma=0.25, **options)
    made = load_base_classifier(ModelOptions("cifar_resnet8", 10, input_size=8, denoiser=asked))
    save_checkpoint(tmp_path / "diffusion.pt", made)
    return DenoiserOptions(f"{tmp_path}/diffusion.pt")


def test_a_denoiser_that_goes_on_at_another_sigma_is_told_that_one(model, tmp_path):
    """What was trained at the step of one sigma and is asked at that of another would be another network."""
    options = training(replace(model, denoiser=diffusion(tmp_path)), tmp_path)
    asked = TrainConfig(
        **{name: options[name] for name in ("data", "model", "sigma", "training", "validation")},
        objective=ObjectiveOptions("denoise"),
    )
    (at_half,) = prepare(asked).model.in_front
    save_checkpoint(tmp_path / "again.pt", prepare(asked).model)
    (again,) = load_base_classifier(f"{tmp_path}/again.pt").in_front
    assert at_half.sigma == again.sigma == 0.5 and at_half.steps == again.steps
    assert at_half.steps != load_base_classifier(f"{tmp_path}/diffusion.pt").in_front[0].steps


def test_a_denoiser_that_is_told_several_levels_is_trained_at_one(model, tmp_path):
    options = training(replace(model, denoiser=diffusion(tmp_path, levels=[0.2, 0.25])), tmp_path)
    options |= {"sigma": 0.25, "objective": ObjectiveOptions("stability")}
    with pytest.raises(UserError, match=r"levels is \[0.2, 0.25\] and stability .*: give .*levels \[0.25\]"):
        train(**options)


@pytest.mark.ray
def test_several_workers_train_a_denoiser(model, tmp_path, cluster):
    options = training(replace(model, denoiser=DenoiserOptions("dncnn", args=SMALL)), tmp_path)
    options |= {"objective": ObjectiveOptions("stability", {"mse": 1.0}), "workers": WorkerOptions(number=2)}
    options["training"] = replace(options["training"], epochs=1)
    after = load_base_classifier(train(**options, name="two").checkpoint)
    assert after.components[1] == load_base_classifier(model).components[1]
    assert after.denoisers[0].sigma == 0.5 and after.denoisers[0].network[-1].weight.abs().sum() > 0
