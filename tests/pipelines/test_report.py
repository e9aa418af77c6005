import json
import shutil

import numpy as np
import pytest

from raycsr import UserError
from raycsr.pipelines.certify import certify
from raycsr.pipelines.report import report
from raycsr.pipelines.sample import sample
from raycsr.results import Run, Store


@pytest.fixture(scope="module")
def sampled(make_job, tmp_path_factory):
    (outcome,) = sample(**make_job(tmp_path_factory.mktemp("sampled"), limit=8))
    return outcome.run.location


@pytest.fixture
def run(sampled, tmp_path):
    """A run of eight digits without certificates, the test's own copy."""
    return Run(Store(shutil.copytree(sampled, tmp_path / "runs" / "0123")))


def test_certify_adds_any_number_of_matrices_without_sampling(run, tmp_path):
    costs = np.zeros((10, 10))
    costs[1, 7], costs[7, 1] = 10, 1
    np.savetxt(tmp_path / "real.csv", costs, delimiter=",")
    made = certify(run=[run.location], costs=["uniform", "seed:3", str(tmp_path / "real.csv")], alpha=0.01)
    assert [name.rsplit("-", 1)[0] for name in made[run.location]] == ["uniform", "seed-3", "real"]
    table = report(run=[run.location], costs=[str(tmp_path / "real.csv")], radii=[0.0, 0.1])
    assert table["rob_cost"].between(0, 10).all() and table["num_images"].tolist() == [8, 8]
    assert table["costs"].tolist() == ["real.csv"] * 2


def test_a_report_covers_runs_and_published_tables_in_one(run, tmp_path, capsys):
    certify(run=[run.location], costs=["uniform", "pair:4/9"], alpha=0.01)
    tsv = tmp_path / "sigma_0.50.tsv"
    tsv.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.5\t1\t0:1\n")
    table = report(run=[run.location, str(tsv)], radii=[0.25], out=str(tmp_path / "out"))
    assert table["costs"].tolist() == ["pair:4/9", "uniform", "(standard)"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"report.md", "summary.parquet", "curves.png"}
    out = capsys.readouterr().out
    assert "8 x 8 px" in out and "0.001, 0.01 an image" in out
    folder = run.store.names("certificates")[-1]
    assert json.loads(run.store.read(f"certificates/{folder}/metrics.json"))[0]["radius"] == 0.25


def test_a_report_on_a_run_with_missing_images_is_refused_unless_told_otherwise(run, capsys):
    certify(run=[run.location], costs=["uniform"])
    listing = run.images()
    listing.loc[len(listing)] = ["test#700", 1, 1, "v"]
    run.add_images(listing)
    with pytest.raises(UserError, match=r"lacks 1 of 9 images under 'uniform' \(the first 'test#700'\)"):
        report(run=[run.location])
    report(run=[run.location], allow_missing=True)
    assert "INCOMPLETE: up to 1 listed images" in capsys.readouterr().out


def test_a_run_without_certificates_says_how_to_make_them(run):
    with pytest.raises(
        UserError, match=r"has no certificates for uniform \(stored: none\); make them with `raycsr certify"
    ):
        report(run=[run.location], costs=["uniform"])


@pytest.mark.parametrize("radii", [[-1.0], [float("nan")]])
def test_radii_are_non_negative_numbers(run, radii):
    with pytest.raises(UserError, match="radii must be non-negative"):
        report(run=[run.location], radii=radii)


def test_certify_checks_everything_before_it_writes(run):
    with pytest.raises(UserError, match="cat"):
        certify(run=[run.location], costs=["uniform", "seed:cat"])
    assert run.certificate_sets() == {}
    with pytest.raises(UserError, match="alpha is a probability"):
        certify(run=[run.location], costs=["uniform"], alpha=0)
