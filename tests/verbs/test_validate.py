"""`raycsr validate`: the plan of each verb, its hours and price, and nothing written."""

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


def test_a_certification_is_planned_without_a_cluster(validate):
    status, out, _ = validate("sample", SAMPLE)
    assert status == 0
    assert "images    30, of which 30 to sample" in out
    assert "32 + 1,000 an image at sigma 0.5: 30,960 forward passes" in out
    assert "speed" not in out


def test_its_hours_and_price_are_those_of_a_fixed_and_of_a_sequential_n(validate):
    words = ("--time_one_batch", "true", "--devices", "4", "--hourly_price", "3600")
    status, out, err = validate("sample", SAMPLE, *words)
    assert status == 0, err
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "1,032 samples an image" in lines["fixed"] and "on 4 such devices" in lines["fixed"]
    assert "to decide radius 0.5, by 16 images" in lines["sequential"] and "at 3600 an hour" in lines["sequential"]
    fixed, sequential = (float(lines[name].split()[1].replace(",", "")) for name in ("fixed", "sequential"))
    assert 32 + 64 <= sequential <= fixed + 64


def test_a_training_and_a_sweep_are_planned(validate):
    status, out, _ = validate("train", TRAIN, "--time_one_batch", "true")
    assert status == 0 and "2 epochs of batches of 64" in out and "on 1 such devices" in out
    status, out, _ = validate("sweep", SWEEP, "--time_one_batch", "true", "--hourly_price", "1")
    assert status == 0 and "trials    2 trials" in out and "by the 2 corners of the space" in out


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
def test_results_that_cannot_be_written_are_told_before_the_data_is_read(validate, s3, verb, text):
    for results, fact in (
        ("s3://no-such-bucket-here/x", "no such bucket; create it"),
        ("/proc/x", "cannot use /proc/x"),
    ):
        status, out, said = validate(verb, text.replace("source: digits", "source: photos"), "--results", results)
        assert (status, out) == (2, "") and fact in said and "photos" not in said
