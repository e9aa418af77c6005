"""`raycsr quantise`: training images in, a checkpoint in int8 out, which the other verbs take as any other."""

import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import torch
from learning import learn_digits

from raycsr import SmoothedClassifier, count_votes, load_attacks, load_certificates, load_predictions, load_votes
from raycsr.cli import main
from raycsr.data.options import DataOptions
from raycsr.data.packaged import digits_arrays
from raycsr.errors import UserError
from raycsr.models.checkpoints import load_checkpoint, save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.smoothing.options import SamplingOptions
from raycsr.store import Store
from raycsr.verbs.quantise import quantise
from raycsr.verbs.sample import sample
from raycsr.verbs.tune_rule import tune_rule

if "x86" not in torch.backends.quantized.supported_engines:
    pytest.skip("int8 is for x86 CPUs", allow_module_level=True)

TRAIN = DataOptions("digits", split="train")


@pytest.fixture(scope="module")
def float32(tmp_path_factory):
    """A checkpoint of a classifier of digits under noise that is right most of the time."""
    model = load_base_classifier(ModelOptions("cifar_resnet8", num_classes=10, input_size=8))
    learn_digits(model, partial(torch.optim.SGD, lr=0.1, momentum=0.9), sigma=0.5, epochs=5)
    path = str(tmp_path_factory.mktemp("model") / "float32.pt")
    save_checkpoint(path, model, training_info={"objective": "gaussian", "sigma": 0.5, "data": asdict(TRAIN)})
    return path


@pytest.fixture(scope="module")
def int8(float32):
    path = float32.replace("float32", "int8")
    assert quantise(model=float32, out=path) > 0.9
    return path


@pytest.fixture(scope="module")
def runs(float32, int8, make_job, tmp_path_factory):
    """Runs of 40 digits, of the model in float32 and in int8, under two rules."""
    folder = tmp_path_factory.mktemp("runs")
    sampling = SamplingOptions(sigma=0.5, n0=32, n=512, batch_size=64)
    found = []
    for path in (float32, int8):
        job = make_job(folder, limit=40, model=ModelOptions(path), rules=["offset:4=0.5"], costs=["uniform"])
        (outcome,) = sample(**job | {"sampling": sampling})
        found.append(outcome.run)
    return found


def test_data_and_sigma_are_those_of_the_training_and_are_said(float32, tmp_path, capsys):
    out = str(tmp_path / "made.pt")
    assert main(["quantise", "--model", float32, "--out", out, "--images", "50"]) == 0
    said = capsys.readouterr().out
    assert "under sigma 0.5" in said and "digits, split train" in said and "50, a noisy copy of each" in said
    made = load_checkpoint(out)
    assert made.calibration.sigma == 0.5 and made.training_sigma == 0.5
    (seen,) = made.training_info["trained_on"]
    assert seen["num_images"] == 50
    assert [one["sha256"] for one in made.components] == [one["sha256"] for one in load_checkpoint(float32).components]


def test_the_same_command_makes_the_same_classifier_and_another_seed_another(float32, int8, tmp_path):
    quantise(model=float32, out=str(tmp_path / "same.pt"))
    quantise(model=float32, out=str(tmp_path / "other.pt"), seed=1)
    of = {name: load_checkpoint(tmp_path / f"{name}.pt").components for name in ("same", "other")}
    assert of["same"] == load_checkpoint(int8).components != of["other"]


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["--images", "0"], "images is 0"),
        (["--sigma", "-1"], "sigma must be a positive number"),
        (["--out", "{folder}"], "is a folder; give a file, such as {folder}/model.pt"),
        (["--data.source", "digits", "--data.split", "test"], "allow_test_images"),
        (["--model", "vit_tiny_patch16_224", "--sigma", ".5", "--data.source", "digits"], "LayerNorm"),
    ],
)
def test_what_is_wrong_is_one_line(float32, words, fix, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        words = [word.replace("{folder}", str(tmp_path)) for word in words]
        assert main(["quantise", "--model", float32, "--out", str(tmp_path / "made.pt"), *words]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("raycsr quantise: ")]
    assert fix.replace("{folder}", str(tmp_path)) in line
    assert not (tmp_path / "made.pt").exists()


@pytest.mark.parametrize(("model", "fix"), [("int8", "already"), ("vit_tiny_patch16_224", "LayerNorm")])
def test_what_cannot_be_quantised_is_refused_before_images_are_looked_for(model, fix, int8, tmp_path):
    nowhere = DataOptions("imagefolder", path=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=fix):
        quantise(model={"int8": int8}.get(model, model), out=str(tmp_path / "made.pt"), sigma=0.5, data=nowhere)


def test_random_weights_are_said_which_the_checkpoint_does_not_tell_any_more(float32, tmp_path):
    denoiser = DenoiserOptions("dncnn", args={"depth": 3, "channels": 4}, sigma=0.5)
    behind, made = ModelOptions(float32, denoiser=denoiser), {"out": str(tmp_path / "made.pt"), "images": 4}
    with pytest.warns(UserWarning, match="denoiser 'dncnn' has random weights"):
        quantise(model=behind, **made)
    with pytest.warns(UserWarning, match="denoiser 'dncnn' has random weights"):
        tune_rule(model=behind, costs="pair:4/9", images=20, n0=4, n=16, radius=0.1, out=str(tmp_path / "tuned.pt"))


def test_a_file_that_another_command_writes_meanwhile_stays(float32, tmp_path, monkeypatch):
    """Both had seen none there; the second gets its turn when the first is done."""
    out = tmp_path / "made.pt"
    monkeypatch.setattr("raycsr.models.loading.warn_of_random_weights", lambda _: out.write_text("of another"))
    with pytest.raises(UserError, match="there already"):
        quantise(model=float32, out=str(out))
    assert out.read_text() == "of another"


def test_a_checkpoint_that_would_be_lost_with_a_submitted_job_is_refused(float32, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UserError, match="out 'made.pt' is a relative path.*s3://"):
        quantise(model=float32, out="made.pt")
    with pytest.raises(UserError, match="out 'made.pt' is a relative path.*s3://"):
        tune_rule(model=float32, costs="pair:4/9", out="made.pt")
    assert not list(tmp_path.iterdir())


def test_a_seed_below_0_is_a_seed(float32, tmp_path):
    quantise(model=float32, out=str(tmp_path / "made.pt"), images=4, seed=-1)
    tuning = {"images": 20, "n0": 4, "n": 16, "radius": 0.1, "strengths": [1.0], "out": str(tmp_path / "tuned.pt")}
    tune_rule(model=float32, costs="pair:4/9", seed=-1, **tuning)


def test_no_file_is_written_over(float32, int8):
    with pytest.raises(UserError, match="there already"):
        quantise(model=float32, out=int8)
    with pytest.raises(UserError, match="there already"):
        quantise(model=float32, out=float32)


def test_a_run_in_int8_is_another_run_of_about_the_same_certificates(runs):
    float32, int8 = (load_certificates(run.location, costs="uniform") for run in runs)
    manifests = [run.manifest() for run in runs]
    assert manifests[1]["precision"] == "int8" and manifests[0]["precision"] in ("fp32", "bf16")
    assert runs[0].run_id != runs[1].run_id
    assert manifests[1]["components"][0]["int8"] == load_checkpoint(manifests[1]["model"]).calibration.digest
    assert (float32["multiclass_radius"] > 0).mean() > 0.6, "or nothing is shown"
    assert abs(float32["multiclass_radius"].mean() - int8["multiclass_radius"].mean()) < 0.02
    assert (float32["multiclass_radius"] - int8["multiclass_radius"]).abs().max() < 0.2


def test_reports_comparisons_and_listings_say_which_model_is_in_int8(runs, tmp_path, capsys):
    words = [word for run in runs for word in ("--run", run.location)]
    assert main(["report", *words, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| int8.pt int8 σ=0.5 |" in said and "| float32.pt σ=0.5 " in said
    assert "int8.pt int8 σ=0.5" in (tmp_path / "report.html").read_text()
    assert main(["compare", *words, "--rules", "argmax"]) == 0
    assert "B: int8.pt int8 σ=0.5" in capsys.readouterr().out
    assert main(["ls", runs[1].store.location.rsplit("/", 3)[0]]) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if ".pt" in line]
    assert sorted("int8.pt int8 " in line for line in listed) == [False, True]
    assert f"{runs[1].manifest()['model']}".endswith("/int8.pt"), "what is stored is the name"


def test_votes_are_those_of_any_batch_and_go_on(int8, make_job, tmp_path):
    """Drawn by 64 or by 16, at once or in two commands, in sequence or not: each image votes alone."""
    votes = []
    for name, batch_size, limits in (("a", 64, (6,)), ("b", 16, (3, 6))):
        sampling = SamplingOptions(sigma=0.5, n0=32, n=128, radii=[0.25], batch_size=batch_size)
        for limit in limits:
            job = make_job(tmp_path / name, limit=limit, model=ModelOptions(int8), costs=["uniform"])
            (outcome,) = sample(**job | {"sampling": sampling})
        rows = load_votes(outcome.run.location).sort_values("image_id")
        votes.append([(row.selection, row.estimation) for row in rows.itertuples()])
    assert len(votes[0]) == 6
    assert str(votes[0]) == str(votes[1])


def test_actors_count_the_same_votes(int8, make_job, tmp_path, cluster):
    votes = []
    for actors in (0, 2):
        job = make_job(tmp_path / str(actors), limit=6, actors=actors, model=ModelOptions(int8))
        sampling = SamplingOptions(sigma=0.5, n0=32, n=128, batch_size=64)
        (outcome,) = sample(**job | {"sampling": sampling})
        rows = load_votes(outcome.run.location).sort_values("image_id")
        votes.append([outcome.run.run_id, *((row.selection, row.estimation) for row in rows.itertuples())])
    assert len(votes[0]) == 7
    assert str(votes[0]) == str(votes[1])


@pytest.mark.long
def test_actors_count_the_same_votes_on_s3(int8, float32, make_job, tmp_path, s3, cluster):
    """Beside the model in float32 and at two noise levels, until they decide, and topped up by a second command."""
    bucket = f"s3://{s3.new_bucket()}"
    Store(f"{bucket}/models/int8.pt").write("", Path(int8).read_bytes())
    places = [(str(tmp_path), 0, int8), (f"{bucket}/results", 2, f"{bucket}/models/int8.pt")]
    votes = []
    for results, actors, model in places:
        for n in (128, 256):
            job = make_job(tmp_path, limit=4, actors=actors, model=ModelOptions(model), costs=["pair:4/9"])
            sampling = SamplingOptions(sigma=[0.25, 0.5], n0=32, n=n, radii=[0.25], batch_size=64)
            outcomes = sample(
                **job
                | {"sampling": sampling, "further_models": [float32], "rules": ["offset:4=0.5"], "results": results}
            )
        found = {}
        for outcome in outcomes:
            rows = load_votes(outcome.run.location).sort_values(["rule", "image_id"])
            found[outcome.run.run_id] = [(row.selection, row.estimation) for row in rows.itertuples()]
        votes.append(found)
    assert len(votes[0]) == 4 and {len(rows) for rows in votes[0].values()} == {8}
    for run_id, rows in votes[0].items():
        assert str(rows) == str(votes[1][run_id])


def test_votes_from_python_are_those_of_int8_too(int8, float32):
    images = torch.from_numpy(digits_arrays("test")[0][:4]).permute(0, 3, 1, 2)
    model = load_base_classifier(int8)
    ready = prepare_for_inference(model, precision="int8", device="cpu")
    facts = {"sigma": 0.5, "n0": 64, "n": 2048, "seed": 0, "image_ids": list("abcd")}
    counted = [count_votes(one, images, **facts).counts for one in (model, ready, load_base_classifier(float32))]
    assert (counted[0] == counted[1]).all()
    assert (counted[0] != counted[2]).any()


def test_it_predicts(int8, tmp_path):
    words = ["--model.name", int8, "--sigma", "0.5", "--data.source", "digits", "--data.limit", "3", "--n", "256"]
    assert main(["predict", *words, "--pool.actors", "0", "--results", str(tmp_path)]) == 0
    assert len(load_predictions(tmp_path)) == 3


def test_another_sigma_than_it_was_measured_at_is_said(int8, make_job, tmp_path):
    job = make_job(tmp_path, limit=1, model=ModelOptions(int8))
    with pytest.warns(UserWarning, match="quantised to int8 for sigma 0.5 and is sampled at 0.25"):
        sample(**job | {"sampling": SamplingOptions(sigma=0.25, n0=8, n=64, batch_size=64)})


@pytest.mark.parametrize(
    ("which", "sampling", "fix"),
    [
        ("int8", {"precision": "bf16"}, "precision is bf16.*quantised to int8"),
        ("int8", {"compile": True}, "compile is true"),
        ("float32", {"precision": "int8"}, "raycsr quantise"),
    ],
)
def test_a_precision_that_the_model_has_not_is_refused_before_anything_starts(
    which, sampling, fix, float32, int8, make_job, tmp_path
):
    path = {"int8": int8, "float32": float32}[which]
    job = make_job(tmp_path, limit=1, model=ModelOptions(path))
    with pytest.raises(UserError, match=fix):
        sample(**job | {"sampling": SamplingOptions(sigma=0.5, n0=8, n=64, **sampling)})


def test_it_is_attacked_by_gradients_of_the_network_that_it_was_made_of(runs):
    words = ["--pool.actors", "0", "--images", "2", "--steps", "2", "--noises", "2", "--n", "64", "--radii", ".25"]
    assert main(["attack", "--run", runs[1].location, "--costs", "uniform", *words]) == 0
    rows = load_attacks(runs[1].location, costs="uniform")
    assert len(rows) == 2 and rows["error"].isna().all() and (rows["distance"] > 0.2).all()


def test_it_is_deployed_from_its_run_and_from_a_folder(runs, tmp_path):
    deployed = SmoothedClassifier.from_run(runs[1].location)
    assert deployed.deployed.precision == "int8"
    deployed.save(tmp_path / "folder")
    again = SmoothedClassifier.load(tmp_path / "folder")
    images, labels = digits_arrays("test")
    said = again.predict(torch.from_numpy(images[:20]).permute(0, 3, 1, 2))["answer"]
    assert (said == labels[:20]).mean() > 0.6
    alone = SmoothedClassifier(runs[1].manifest()["model"], 0.5)
    assert alone.deployed.precision == "int8"


def test_a_rule_is_tuned_for_it_and_its_calibration_stays(int8, tmp_path):
    out = str(tmp_path / "tuned.pt")
    tune_rule(
        model=int8,
        costs="pair:4/9,3/8",
        images=60,
        n0=16,
        n=64,
        strengths=[1.0],
        budget=0.9,
        recall_budget=0.9,
        out=out,
    )
    assert load_checkpoint(out).components == load_checkpoint(int8).components
    assert load_checkpoint(out).training_info["tuned_rules"]


def test_a_process_that_sees_a_gpu_computes_it_on_its_cpu(int8, runs, make_job, tmp_path, monkeypatch, capsys):
    """Planned, priced, sampled, attacked, tuned and deployed: whoever names no GPU gets none that cannot compute it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    words = ["--data.source", "digits", "--data.limit", "2", "--model.name", int8, "--results", str(tmp_path)]
    for actors in ("0", "2"):
        more = ["--sampling.sigma", "0.5", "--pool.actors", actors, "--time_one_batch", "true", "--pilot_images", "1"]
        assert main(["validate", "sample", *words, *more]) == 0
        assert "int8 on cpu " in capsys.readouterr().out
    attack = ["--run", runs[1].location, "--costs", "uniform", "--images", "1", "--steps", "1", "--n", "64"]
    assert main(["validate", "attack", *attack, "--time_one_batch", "true"]) == 0
    job = make_job(tmp_path, limit=1, model=ModelOptions(int8))
    (outcome,) = sample(**job | {"sampling": SamplingOptions(sigma=0.5, n0=8, n=64, batch_size=64)})
    assert load_votes(outcome.run.location)["device"].str.startswith("cpu ").all()
    tuning = {"images": 10, "n0": 4, "n": 16, "radius": 0.1, "strengths": [1.0], "out": str(tmp_path / "tuned.pt")}
    tune_rule(model=int8, costs="pair:4/9", **tuning)
    for deployed in (SmoothedClassifier(int8, 0.5), SmoothedClassifier.from_run(outcome.run.location)):
        assert deployed.device.type == "cpu"


def test_actors_of_a_plan_that_reserve_no_gpu_have_none(float32, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    words = ["--data.source", "digits", "--data.limit", "2", "--model.name", float32, "--results", str(tmp_path)]
    more = ["--sampling.sigma", "0.5", "--time_one_batch", "true", "--pilot_images", "1"]
    assert main(["validate", "sample", *words, *more]) == 0
    assert " on cpu " in capsys.readouterr().out


def test_it_is_priced_and_not_trained(int8, tmp_path, capsys):
    words = ["--data.source", "digits", "--data.limit", "2", "--model.name", int8, "--results", str(tmp_path)]
    assert main(["validate", "sample", *words, "--sampling.sigma", "0.5"]) == 0
    assert "int8 on " in capsys.readouterr().out
    assert main(["train", *words, "--sigma", "0.5", "--data.split", "train"]) == 2
    assert "no gradient goes through" in capsys.readouterr().err
