"""`raycsr attack` on a sampled run: what it needs from the user, what it refuses in a line, where its results go."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from raycsr import load_attacks
from raycsr.cli import main
from raycsr.data.options import DataOptions
from raycsr.distributed.options import PoolOptions
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.options import SamplingOptions
from raycsr.verbs.sample import sample

SMALL = ["--pool.actors", "0", "--images", "4", "--steps", "2", "--noises", "2", "--n", "64"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Twelve digits under a network of random weights, with a rule beside argmax."""
    (outcome,) = sample(
        data=DataOptions(source="digits", limit=12),
        model=ModelOptions("cifar_resnet8", num_classes=10, input_size=8),
        sampling=SamplingOptions(sigma=0.5, n0=32, n=128, precision="fp32", batch_size=64),
        pool=PoolOptions(actors=0),
        rules=["offset:1=0.5"],
        results=str(tmp_path_factory.mktemp("attacked") / "results"),
    )
    return outcome.run.location


@pytest.fixture
def attack(run, capsys):
    """`attack(words)` attacks the run; returns the status, what was printed, and the last line of errors."""

    def call(*words, costs="uniform"):
        status = main(["attack", "--run", run, "--costs", costs, *SMALL, *words])
        said = capsys.readouterr()
        return status, said.out, said.err.splitlines()[-1] if said.err else ""

    return call


def test_model_and_data_are_those_of_the_manifest(attack, run):
    status, out, _ = attack("--radii", ".25,.5")
    assert status == 0
    assert "images    4, of which 4 to attack, each at radius 0.25, 0.5" in out
    assert "rob_cs at radius 0.25, 4 images: certified " in out and "rob_cs at radius 0.5, 4 images: " in out
    rows = load_attacks(run, costs="uniform")
    assert rows.groupby("image_id")["radius"].apply(list).tolist() == [[0.25, 0.5]] * 4
    assert (rows["distance"] <= rows["radius"]).all() and rows["error"].isna().all()
    again = attack("--radii", ".25,.5")
    assert again[0] == 0 and "images    4, all attacked" in again[1]


def test_a_rule_of_the_run_is_attacked_in_a_set_of_its_own(attack, run):
    assert attack("--radii", ".5", "--rule", "offset:1=0.5")[0] == 0
    rows = load_attacks(run)
    assert rows.loc[rows["rule"].str.startswith("offset-"), "radius"].tolist() == [0.5] * 4


def test_an_answer_is_attacked_in_a_set_of_its_own(attack, run):
    status, out, _ = attack("--radii", ".5", "--answer", "majority")
    assert status == 0 and "rule argmax, answer majority" in out and "attacks/uniform-majority-" in out
    assert (load_attacks(run)["answer"] == "majority").sum() == 4


def test_other_images_are_one_line_before_any_gradient(attack, tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "other.png")
    other = ["--data.source", "imagefolder", "--data.path", str(tmp_path)]
    status, _, error = attack("--radii", ".5", *other)
    assert status == 2 and "none of the images of run" in error and str(tmp_path) in error
    assert attack("--radii", ".5", "--data.source", "digits")[0] == 0  # they are elsewhere, say


def test_actors_find_what_this_process_finds(cluster, attack, run, tmp_path):
    copy = tmp_path / "runs" / Path(run).name
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("attacks"))
    words = ["attack", "--run", str(copy), "--costs", "uniform", *SMALL, "--radii", ".375"]
    assert main([*words, "--pool.actors", "1", "--pool.cpus_per_actor", "0.5"]) == 0
    assert attack("--radii", ".375")[0] == 0
    here = load_attacks(run)
    here = here[(here["radius"] == 0.375) & (here["rule"] == "argmax")].reset_index(drop=True)
    pd.testing.assert_frame_equal(*(one.drop(columns=["seconds", "device"]) for one in (load_attacks(str(copy)), here)))


def test_results_are_copied_and_deleted_with_their_run(attack, run, tmp_path):
    attack("--radii", ".25")
    assert main(["cp", "--run", run, "--results", str(tmp_path / "copy")]) == 0
    (copy,) = (tmp_path / "copy").glob("*/runs/*")
    assert len(load_attacks(str(copy))) == len(load_attacks(run))
    assert main(["rm", "--run", str(copy), "--yes", "true"]) == 0 and not copy.exists()


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["--radii", "0"], ["radii are 0", "above 0"]),
        (["--radii", ".5", "--times", "2"], ["times is 2", "radii are 0.5"]),
        (["--times", "0"], ["times is 0"]),
        (["--images", "0"], ["images is 0"]),
        (["--steps", "0"], ["steps is 0", "1 or more"]),
        (["--n", "19"], ["n is 19", "20 or more"]),
        (["--rule", "offset:2=1"], ["no rule 'offset:2=1'", "offset:1=0.5"]),
        (["--alpha", "1"], ["alpha is 1"]),
        (["--answer", "plurality"], ["plurality", "majority"]),
        (
            ["--model.name", "cifar_resnet20"],
            ["'cifar_resnet20' is not that of run", "weights differ", "cifar_resnet8"],
        ),
        (["--model.name", "cifar_resnet8", "--model.init_seed", "1"], ["weights differ", "--model.name"]),
        (["--data.source", "imagefolder"], ["imagefolder", "path"]),
        (["--pool.actors", "-1"], ["pool of -1 actors"]),
    ],
)
def test_bad_input_is_one_line(attack, words, facts):
    status, _, error = attack(*words)
    assert status == 2 and error.startswith("raycsr attack: ")
    assert all(fact in error for fact in facts), error


def test_costs_without_a_costly_image_are_one_line(attack):
    status, _, error = attack("--radii", ".5", costs="seed:nothing")
    assert status == 2 and "nothing" in error


def test_no_certificate_is_nothing_to_audit(attack):
    """Of random weights at alpha 1e-40 128 votes certify nothing."""
    status, _, error = attack("--alpha", "1e-40")
    assert status == 2 and "none is certified above 0" in error


def test_images_that_changed_are_named_and_end_with_status_1(attack, run, monkeypatch):
    read = "raycsr.data.decode.Decode.__call__"
    from raycsr.data.decode import OTHER_PIXELS, Decode

    decode = Decode.__call__

    def changed(self, batch):
        return decode(self, {**batch, "sampled": ["0" * 16] * len(batch["image_id"])})

    monkeypatch.setattr(read, changed)
    status, _, error = attack("--radii", ".125")
    assert status == 1 and "4 images could not be attacked" in error and OTHER_PIXELS in error
    monkeypatch.undo()
    assert attack("--radii", ".125")[0] == 0  # and are tried again


def test_validate_prints_the_plan_and_a_price_and_writes_nothing(run, capsys):
    before = sorted(Path(run).rglob("*"))
    words = ["validate", "attack", "--run", run, "--costs", "uniform", *SMALL, "--radii", ".75"]
    assert main([*words, "--time_one_batch", "true", "--devices", "2"]) == 0
    out = capsys.readouterr().out
    assert "gradients 2 steps of 2 noisy copies: " in out and "verdicts  64 + 64 votes" in out
    assert "takes     " in out and "on 2 such devices" in out
    assert sorted(Path(run).rglob("*")) == before


def test_the_config_in_jobs_is_understood(run, capsys):
    config = Path(__file__).parents[2] / "jobs" / "configs" / "attack.yaml"
    assert main(["validate", "attack", "--config", str(config), "--run", run, "--radii", ".5"]) == 0
    out = capsys.readouterr().out
    assert f"{yaml.safe_load(config.read_text())['steps']} steps of 32 noisy copies" in out
