"""A classifier behind a diffusion model, and one that takes noise as it is, through the verbs."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from published import numbered

from raycsr import SmoothedClassifier, load_votes
from raycsr.cli import main
from raycsr.data.options import DataOptions
from raycsr.distributed.options import ObjectiveOptions
from raycsr.distributed.sampling.arguments import SampleArguments
from raycsr.distributed.sampling.job import check, plan_of
from raycsr.errors import UserError
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.denoisers import create_denoiser
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.smoothing.options import SamplingOptions
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.verbs.sample import sample
from raycsr.verbs.train import train

SMALL = {
    **{"image_size": 16, "num_channels": 32, "num_res_blocks": 1},
    **{"attention_resolutions": [8], "channel_mult": [1, 2]},
}
SEQUENTIAL = SamplingOptions(sigma=0.5, n0=32, radii=[0.25], n=256, precision="fp32", batch_size=64)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A classifier of digits and the weights of a small diffusion model, in files of their own."""
    folder = tmp_path_factory.mktemp("model")
    network = numbered(create_denoiser("improved_diffusion", SMALL, sigma=0.5).network, 0.1)
    torch.save({name: tensor.half() for name, tensor in network.state_dict().items()}, folder / "ema_0.9999.pt")
    save_checkpoint(folder / "plain.pt", load_base_classifier(ModelOptions("cifar_resnet8", 10, input_size=8)))
    denoiser = DenoiserOptions("improved_diffusion", pretrained=f"{folder}/ema_0.9999.pt", args=SMALL, sigma=0.5)
    return ModelOptions(f"{folder}/plain.pt", denoiser=denoiser)


def sampled(make_job, folder, model, **more):
    (outcome,) = sample(**make_job(folder, limit=3, model=model, **more))
    return outcome.run


@pytest.fixture(scope="module")
def run(model, make_job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return sampled(make_job, folder, model, sampling=SEQUENTIAL, rules=["argmax", "offset:1*seed:8"], costs=["uniform"])


def test_a_run_names_its_flags_and_its_sigma(run):
    denoiser, classifier = run.manifest()["components"]
    assert (denoiser["kind"], denoiser["arch"], denoiser["sigma"]) == ("denoiser", "improved_diffusion", 0.5)
    assert denoiser["args"] == SMALL and denoiser["input_size"] == [16, 16]
    assert classifier["kind"] == "classifier"
    assert load_votes(run.location)["rule"].value_counts().tolist() == [3, 3]


def test_the_same_weights_at_another_step_are_another_run(run, model, make_job, tmp_path):
    other = replace(model, denoiser=replace(model.denoisers[0], sigma=0.25))
    with pytest.warns(UserWarning, match=r"'improved_diffusion' .* sigma 0\.25 and is sampled at 0\.5; certificates"):
        another = sampled(make_job, tmp_path, other, sampling=SEQUENTIAL)
    mine, theirs = run.manifest()["components"], another.manifest()["components"]
    assert another.location.rpartition("/")[2] != run.location.rpartition("/")[2]
    assert mine[0]["sha256"] == theirs[0]["sha256"]


def test_a_run_is_deployed_and_attacked(run, capsys):
    deployed = SmoothedClassifier.from_run(run.location)
    assert deployed.base_classifier.components == run.manifest()["components"]
    words = ["--run", run.location, "--costs", "uniform", "--pool.actors", "0", "--images", "1", "--radii", ".5"]
    assert main(["attack", *words, "--steps", "2", "--noises", "2", "--n", "64"]) == 0
    assert "1 image" in capsys.readouterr().out


def test_several_levels_are_sampled_gone_on_with_deployed_attacked_and_trained_behind(model, make_job, tmp_path, run):
    asked = replace(model, denoiser=replace(model.denoisers[0], levels=[0.4, 0.5]))
    first = sampled(make_job, tmp_path, asked, sampling=replace(SEQUENTIAL, n=64), costs=["uniform"])
    several = sampled(make_job, tmp_path, asked, sampling=SEQUENTIAL, costs=["uniform"])
    assert several.location == first.location and several.run_id != run.run_id
    at_once = sampled(make_job, tmp_path / "at_once", asked, sampling=SEQUENTIAL, costs=["uniform"])
    votes, at_once = (load_votes(one.location).sort_values("image_id") for one in (several, at_once))
    assert str(votes["estimation"].tolist()) == str(at_once["estimation"].tolist())
    assert several.manifest()["components"][0]["levels"] == [0.4, 0.5]
    deployed = SmoothedClassifier.from_run(several.location)
    deployed.save(tmp_path / "folder")
    again = SmoothedClassifier.load(tmp_path / "folder")
    assert again.base_classifier.components == several.manifest()["components"]
    words = ["--run", several.location, "--costs", "uniform", "--pool.actors", "0", "--images", "1", "--radii", ".5"]
    assert main(["attack", *words, "--steps", "1", "--noises", "2", "--n", "64"]) == 0
    found = train(
        data=DataOptions("digits", split="train", limit=64),
        model=asked,
        sigma=0.5,
        training=TrainingOptions(epochs=1, batch_size=64, lr=0.01),
        validation=ValidationOptions(every=1, images=10, sensitive=0, n0=8, n=64),
        results=str(tmp_path),
        threads=1,
    )
    trained = load_base_classifier(found.checkpoint)
    assert trained.components[0] == several.manifest()["components"][0] and trained.num_passes == 2
    assert trained.components[1]["sha256"] != several.manifest()["components"][1]["sha256"]


def test_noise_of_a_denoisers_own_is_sampled_gone_on_with_deployed_and_attacked(model, make_job, tmp_path, capsys):
    args = {**SMALL, "reverse_steps": 2, "denoisings": 2}
    asked = replace(model, denoiser=replace(model.denoisers[0], args=args))
    options = {"model": asked, "sampling": replace(SEQUENTIAL, radii=None, n=96)}
    sample(**make_job(tmp_path, **options, limit=1))
    assert "for sigma 0.5, in 2 steps (2 passes of it and of what is behind" in (out := capsys.readouterr().out)
    assert " forward passes, 2 a noisy copy" in out
    runs = [sample(**make_job(folder, **options, limit=2))[0].run for folder in (tmp_path, tmp_path / "at_once")]
    votes, at_once = (load_votes(one.location).sort_values("image_id") for one in runs)
    assert str(votes["estimation"].tolist()) == str(at_once["estimation"].tolist()) and set(votes["n"]) == {96}
    run = runs[0]
    SmoothedClassifier.from_run(run.location).save(tmp_path / "folder")
    again = SmoothedClassifier.load(tmp_path / "folder")
    assert again.base_classifier.components == run.manifest()["components"]
    words = ["--run", run.location, "--costs", "uniform", "--pool.actors", "0", "--images", "1", "--radii", ".5"]
    assert main(["attack", *words, "--steps", "1", "--noises", "2", "--n", "64"]) == 0
    options = {"data": DataOptions("digits", split="train", limit=64), "model": asked, "sigma": 0.5}
    with pytest.raises(UserError, match="denoise trains a denoiser that is asked once: give it without reverse_steps"):
        train(**options, objective=ObjectiveOptions("denoise"), results=str(tmp_path))


def test_a_plan_has_its_parts_and_its_price(model, tmp_path, capsys):
    denoiser = model.denoisers[0]
    words = ["--data.source", "digits", "--data.limit", "2", "--model.name", model.name, "--sampling.sigma", "0.5"]
    words += ["--model.denoiser.name", "improved_diffusion", "--model.denoiser.pretrained", denoiser.pretrained]
    words += ["--model.denoiser.args", str(SMALL)]
    words += ["--sampling.n", "64", "--results", str(tmp_path), "--pool.actors", "0", "--time_one_batch", "true"]
    assert main(["validate", "sample", *words]) == 2
    assert "give model.denoiser.sigma" in capsys.readouterr().err
    assert main(["validate", "sample", *words, "--model.denoiser.sigma", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "behind    improved_diffusion for sigma 0.5, 16 x 16 px" in out and "16 x 16 px, " in out
    assert " forward passes\n" in out  # one a noisy copy


def test_a_plan_and_a_budget_count_each_level_of_a_noisy_copy_as_a_pass(model, make_job, tmp_path, capsys):
    asked = replace(model, denoiser=replace(model.denoisers[0], levels=[0.4, 0.5, 0.6]))
    options = make_job(tmp_path, limit=12, n=32, model=asked, costs=["uniform"])
    (job,) = check(SampleArguments(**options))
    plan = plan_of(job, precision="fp32", device="cpu", to_sample=pd.Series(["a", "b"]))
    assert f": {2 * 3 * (32 + 32)} forward passes, 3 a noisy copy\n" in f"{plan}\n"
    assert (plan.forward_passes, plan.passes_a_copy) == (384, 3)
    (outcome,) = sample(**options, budget=f"{6 * 3 * (32 + 32)} passes")  # by blocks of three images
    assert outcome.sampled == 6 and not outcome.run.finished()
    capsys.readouterr()
    words = ["--run", outcome.run.location, "--costs", "uniform", "--pool.actors", "0", "--images", "1"]
    with pytest.warns(UserWarning, match="first 6 of 12 images"):
        assert main(["validate", "attack", *words, "--radii", ".5", "--steps", "2", "--noises", "4", "--n", "64"]) == 0
    out = capsys.readouterr().out
    assert f"{3 * 2 * 4} forward and backward passes, 3 a noisy copy" in out
    assert f"64 + 64 votes: {3 * 128} forward passes, 3 a noisy copy" in out


def test_a_sigma_that_no_step_has_ends_before_anything_is_drawn(model, make_job, tmp_path):
    other = replace(model, denoiser=replace(model.denoisers[0], sigma=1e-4))
    with pytest.raises(UserError, match=r"no step of the 4000 .* sigma 0\.0001"):
        sampled(make_job, tmp_path, other)


def test_a_network_that_takes_noise_as_it_is_says_where_its_sigma_is_another(make_job, tmp_path):
    args = {"sigma": 0.25, "image_size": 32, "patch_size": 8, "width": 32, "depth": 1, "heads": 2, "hidden": 8}
    made = load_base_classifier(ModelOptions("rrcm_base_patch4_32", 10, args=args))
    torch.save(made.network.state_dict(), tmp_path / "n05.net")
    asked = ModelOptions("rrcm_base_patch4_32", pretrained=f"{tmp_path}/n05.net", args=args)
    with pytest.warns(UserWarning, match=r"sigma 0\.25 and is sampled at 0\.5; certificates hold"):
        run = sampled(make_job, tmp_path, asked)
    assert run.manifest()["components"][0]["args"]["sigma"] == 0.25 and len(run.votes()) == 3


@pytest.mark.ray
def test_actors_draw_the_same_votes_from_checkpoints_on_s3_into_s3(model, make_job, tmp_path, cluster, s3):
    place = f"s3://{s3.new_bucket()}"
    asked = replace(model, denoiser=replace(model.denoisers[0], levels=[0.4, 0.5]))
    save_checkpoint(f"{place}/both.pt", load_base_classifier(asked, num_classes=10))
    fixed = replace(SEQUENTIAL, radii=None)
    on_s3 = {"model": ModelOptions(f"{place}/both.pt"), "results": place}
    there = sampled(make_job, tmp_path, **on_s3, actors=1, sampling=fixed)
    here = sampled(make_job, tmp_path, asked, sampling=fixed)
    votes = [load_votes(one.location).sort_values("image_id") for one in (there, here)]
    assert there.run_id == here.run_id and there.location.startswith(place)
    assert str(votes[0]["estimation"].tolist()) == str(votes[1]["estimation"].tolist())
    assert votes[0]["n"].tolist() == [256] * 3
