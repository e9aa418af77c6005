"""`raycsr validate`: the plan of each verb, its hours and price, and nothing written."""

import json

import numpy as np
import pytest

from raycsr.certification import Statements
from raycsr.cli import main
from raycsr.costs import CostMatrix
from raycsr.distributed.prices import expected_samples

SAMPLE = """
data: {source: digits, limit: 30}
model: {name: cifar_resnet8, num_classes: 10, input_size: 8}
sampling: {sigma: 0.5, n0: 32, n: 1000, precision: fp32}
costs: [uniform]
"""
TRAIN = """
data: {source: digits, split: train}
model: {name: cifar_resnet8, input_size: 8}
sigma: 0.25
costs: seed:4
training: {epochs: 2, batch_size: 64}
validation: {images: 20, sensitive: 10, n: 64}
"""
SWEEP = TRAIN + "space: {training.lr: {grid: [0.05, 0.1]}}\n"


@pytest.fixture
def validate(tmp_path, capsys):
    """`validate(verb, text, more words)` returns the status and what was said; nothing may be written."""

    def run(verb, text, *words):
        (tmp_path / "job.yaml").write_text(text)
        results = tmp_path / "results"
        status = main(["validate", verb, "--config", str(tmp_path / "job.yaml"), "--results", str(results), *words])
        assert not list(results.rglob("*")) if results.exists() else True
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_a_network_without_weights_is_said_to_be_random(validate, tmp_path):
    with pytest.warns(UserWarning, match="'cifar_resnet8' has random weights.*model.pretrained to true or to a file"):
        validate("sample", SAMPLE)


@pytest.mark.parametrize(
    ("verb", "text"), [("sample", SAMPLE), ("sweep", SWEEP + "test: {source: digits}\nsampling: {n: 1000}\n")]
)
def test_a_pool_that_no_cluster_could_hold_is_refused(validate, verb, text):
    status, _, err = validate(verb, text, "--pool.actors", "-1")
    assert status == 2 and "pool of -1 actors with " in err.splitlines()[-1]


WRONG_SAMPLE = """
data: {source: digits, limit: 3}
model: {name: cifar_resnt8}
sampling: {sigma: -1, n0: 0, batch_size: 3}
pool: {actors: -1}
costs: [unifrm, "seed:12", "pair:1/2"]
rules: [ofset:1*uniform]
answers: [majorty]
alpha: 2
"""
OF_SAMPLE = ["pool of -1", "alpha is 2", "sigma must", "n0 and n", "power of two, got 3; try 64", "cifar_resnet8"]
OF_SAMPLE += ["did you mean uniform", "class 12 is not one of the 10", "did you mean majority", "did you mean offset"]
WRONG_TRAIN = """
data: {source: digits}
model: {name: cifar_resnt8}
sigma: 0.5
costs: sed:8
objective: {name: gausian}
training: {epochs: 0}
validation: {images: 0}
"""
OF_TRAIN = ["training.epochs", "validation.images", "did you mean seed", "did you mean gaussian", "cifar_resnet8"]
OF_SWEEP = ["unknown metric 'rob_sc'", *OF_TRAIN[:-1]]  # models of a space are loaded when the rest of it is right


@pytest.mark.parametrize(
    ("verb", "text", "mistakes"),
    [
        ("sample", WRONG_SAMPLE, OF_SAMPLE),
        ("train", WRONG_TRAIN, OF_TRAIN),
        ("sweep", WRONG_TRAIN + "space: {training.lr: {grid: [0.1, 0.2]}}\nsearch: {metric: rob_sc}", OF_SWEEP),
        (
            "attack",
            "run: nowhere\ncosts: uniform\nalpha: 2\nsteps: 0\nimages: 0",
            ["nowhere", "alpha", "steps", "images"],
        ),
    ],
)
def test_all_mistakes_are_said_at_once_a_line_each(verb, text, mistakes, tmp_path, capsys):
    (tmp_path / "job.yaml").write_text(text)
    words = [] if verb == "attack" else ["--results", str(tmp_path / "results")]
    assert main(["validate", verb, "--config", str(tmp_path / "job.yaml"), *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    for mistake in mistakes:
        assert sum(mistake in line for line in lines) == 1, mistake
    assert len(lines) == len(mistakes) and all(line.startswith("raycsr validate: ") for line in lines)


def test_what_a_model_that_cannot_be_loaded_hides_is_said_of_the_data(tmp_path, capsys):
    text = WRONG_SAMPLE.replace("digits, limit: 3", "nothing").replace("costs: [unifrm", "costs: [uniform")
    (tmp_path / "job.yaml").write_text(text)
    assert main(["validate", "sample", "--config", str(tmp_path / "job.yaml"), "--results", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "unknown source 'nothing'" in err and "cifar_resnt8" in err  # costs have no classes to be read by


def test_a_certification_is_planned_without_a_cluster(validate):
    status, out, _ = validate("sample", SAMPLE)
    assert status == 0
    assert "rules     argmax\ncosts     uniform\nimages    30, of which 30 to sample" in out
    assert "32 + 1,000 an image at sigma 0.5: 30,960 forward passes" in out
    assert "speed" not in out


def test_its_hours_and_price_are_those_of_a_fixed_and_of_a_sequential_n(validate):
    words = ("--time_one_batch", "true", "--devices", "4", "--hourly_price", "3600")
    status, out, err = validate("sample", SAMPLE, *words)
    assert status == 0, err
    assert "on 4 such devices, each at 3600 an hour:" in out
    ((_, fixed, sequential),) = tables_of(out)[:1]
    assert fixed[:2] == ["fixed", "1,032"] and float(fixed[3].replace(",", "")) > 0
    assert sequential[0] == "sequential, to decide radius 0.5, by 16 images"
    assert 32 <= float(sequential[1].replace(",", "")) <= 1032 + 64  # the selection votes of some images decide all


def tables_of(out):
    """The tables that were printed: their cells, row by row, the header first."""
    tables, before = [], ""
    for line in out.splitlines():
        if line.startswith("| "):
            tables += [] if before.startswith("|") else [[]]
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        before = line
    return tables


def test_a_pilot_says_what_each_sigma_n_and_alpha_would_certify_and_its_price(validate):
    words = (
        "--time_one_batch",
        "true",
        "--hourly_price",
        "3600",
        "--pilot_images",
        "8",
        "--sampling.sigma",
        "0.25,0.5",
    )
    status, out, err = validate("sample", SAMPLE, *words)
    assert status == 0, err
    assert out.count("under argmax and a fixed n, by 8 images") == 2 and out.count("\nrob_cs uniform (8 images)\n") == 2
    tables = tables_of(out)
    assert len(tables) == 2 * 3  # of each noise level: the designs, certified accuracy, rob_cs
    radii = [f"at {radius}" for radius in ("0.125", "0.25", "0.5", "0.75", "1", "1.5")]
    for accuracy, rob_cs in (tables[1:3], tables[4:]):
        assert rob_cs[0] == ["n", "alpha", *radii] and accuracy[0] == [*rob_cs[0], "largest radius", "time", "price"]
        designs = [[n, alpha] for alpha in ("0.001", "0.01") for n in ("1,000", "10,000", "100,000")]
        assert [row[:2] for row in accuracy[1:]] == [row[:2] for row in rob_cs[1:]] == designs
    assert out.splitlines()[-1].startswith("advice    sigma for cifar_resnet8, rob_cs uniform")
    status, _, err = validate("sample", SAMPLE, "--pilot_images", "0")
    assert status == 2 and "pilot of 0 images" in err


def test_a_training_and_a_sweep_are_planned(validate):
    status, out, _ = validate("train", TRAIN, "--time_one_batch", "true")
    assert status == 0 and "2 epochs of batches of 64" in out and "on 1 such device\n" in out
    status, out, _ = validate("sweep", SWEEP, "--time_one_batch", "true", "--hourly_price", "1")
    assert status == 0 and "trials    2 trials" in out and "by the 2 corners of the space" in out
    assert "space     training.lr  grid  (0.05, 0.1)\n" in out


def test_what_is_wrong_is_one_line(validate, capsys):
    status, _, err = validate("sample", SAMPLE.replace("digits", "digit"))
    assert status == 2 and "unknown source 'digit': did you mean digits" in err
    assert main(["validate", "report"]) == 2
    assert "validate what? give one of sample, train, sweep" in capsys.readouterr().err


def test_expected_samples_of_clear_and_of_close_images():
    statements = Statements([CostMatrix.seedwise(3, [0])], [0.25], sigma=0.5, alpha=0.001, n=10_048)
    clear, close = np.array([[[1000, 0, 0]]]), np.array([[[700, 300, 0]]])  # radius .25 needs p_A = .691
    few = expected_samples(clear, np.array([0]), statements, n0=64)
    many = expected_samples(close, np.array([0]), statements, n0=64)
    assert 64 <= few < 200 < 3000 < many <= 10_048


@pytest.mark.parametrize(("verb", "text"), [("sample", SAMPLE), ("train", TRAIN), ("sweep", SWEEP)])
def test_results_that_cannot_be_written_are_told_first_and_then_what_is_wrong_with_the_data(validate, s3, verb, text):
    for results, fact in (
        ("s3://no-such-bucket-here/x", "no such bucket; create it"),
        ("/proc/x", "cannot use /proc/x"),
    ):
        status, out, said = validate(verb, text.replace("source: digits", "source: photos"), "--results", results)
        assert (status, out) == (2, "") and fact in said.splitlines()[0] and "photos" in said.splitlines()[1]


@pytest.fixture
def plans(validate):
    """The plans that stdout holds as JSON, and nothing beside them."""

    def read(verb, text, *words):
        status, out, err = validate(verb, text, "--json", "true", *words)
        assert status == 0, err
        document = json.loads(out)
        assert document["verb"] == verb
        return document["plans"]

    return read


PRICED = ("--time_one_batch", "true", "--devices", "4", "--hourly_price", "3600")


def test_a_certification_is_planned_as_json(plans):
    first, second = plans("sample", SAMPLE.replace("sigma: 0.5", "sigma: [0.5, 1.0], radii: [0.25]"), *PRICED)
    assert (first["sigma"], second["sigma"], second["model"]) == (0.5, 1.0, "cifar_resnet8")
    assert (first["num_images"], first["n0"], first["n"], first["forward_passes"]) == (30, 32, 1024, 30 * 1056)
    assert (first["rules"], first["costs"], first["design"]) == (["argmax"], ["uniform"], "sequential")
    assert second["largest_radius"] == 2 * first["largest_radius"] > 2
    fixed, sequential = first["prices"]
    assert [(one["n"], one["alpha"]) for one in first["expected"]][:2] == [(1000, 0.001), (10000, 0.001)]
    assert fixed["design"] == "fixed" and fixed["samples_per_image"] == 1032
    assert fixed["price"] == pytest.approx(4 * fixed["seconds"])
    assert sequential["radii"] == [0.25] and sequential["pilot_images"] == 16


def test_a_training_and_a_sweep_are_planned_as_json(plans):
    (training,) = plans("train", TRAIN, *PRICED)
    assert training["checkpoint"].endswith(".pt") and training["device"] == "cpu" and training["workers"] == 1
    assert training["num_images"] + training["num_held_out"] == 1078 and training["epochs"] == 2
    assert training["prices"][0]["devices"] == 4
    (sweep,) = plans("sweep", SWEEP, *PRICED)
    assert sweep["num_trials"] == 2 and sweep["space"] == {"training.lr": {"grid": [0.05, 0.1]}}
    assert sweep["metrics"] == {"seed:4": "rob_cs"} and sweep["prices"][0]["corners"] == 2
    assert min(one["prices"][0]["seconds"] for one in (training, sweep)) > 0  # by two stopwatches: not to be compared
    (endless,) = plans("sweep", SWEEP + "search: {samples: -1, max_hours: 1}\n", *PRICED)
    assert endless["num_trials"] is None and endless["prices"] == []


def test_what_cannot_be_planned_leaves_stdout_empty(validate):
    status, out, err = validate("sample", SAMPLE.replace("digits", "digit"), "--json", "true")
    assert (status, out) == (2, "") and "digits" in err


def test_options_of_a_plan_may_stand_before_the_verb(capsys, tmp_path):
    (tmp_path / "job.yaml").write_text(SAMPLE)
    words = ["sample", "--config", str(tmp_path / "job.yaml"), "--results", str(tmp_path / "results")]
    assert main(["validate", "--json", "true", *words]) == 0
    assert json.loads(capsys.readouterr().out)["plans"][0]["num_images"] == 30
    for wrong in (["--experiment", *words], ["report", *words]):
        assert main(["validate", *wrong]) == 2 and "validate what?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--devices", "0"), ("--hourly_price", "-1"), ("--hourly_price", ".nan")])
def test_a_price_that_cannot_be_told_is_refused(validate, words):
    status, out, err = validate("sample", SAMPLE, *words)
    assert (status, out) == (2, "") and words[0].strip("-") in err
