"""Runs say which noise they stand on: those of the lattice, and those of float32 from before."""

import json

import pytest
from test_sample import comparable

from raycsr import UserError, load_certificates, load_votes
from raycsr.smoothing.lattice import lattice_table
from raycsr.verbs.certify import certify
from raycsr.verbs.report import report
from raycsr.verbs.sample import sample


@pytest.fixture
def older(job, monkeypatch):
    """A run that was begun under v1, with half of the images that are wanted now."""
    with monkeypatch.context() as patched:
        patched.setattr("raycsr.distributed.sampling.job.NOISE_SCHEME", "v1")
        (outcome,) = sample(**job(limit=3), begin_anew=False)
    facts = outcome.run.manifest()
    assert facts["noise_scheme"] == "v1"
    facts.pop("noise")  # which they did not say
    outcome.run.store.write("manifest.json", json.dumps(facts).encode())
    return outcome.run


def test_a_manifest_says_which_table_the_noise_is_from_and_how_far_that_is_from_the_gaussian(job):
    (outcome,) = sample(**job(limit=1))
    facts, table = outcome.run.manifest(), lattice_table(0.5)
    assert facts["noise_scheme"] == "v2" and facts["noise"]["table"] == table.digest
    assert facts["noise"]["total_variation"] == 8 * 8 * 3 * table.total_variation < 1e-18


def test_a_worker_whose_table_is_another_one_draws_nothing(job, monkeypatch):
    (outcome,) = sample(**job(limit=1))
    facts = outcome.run.manifest()
    facts["noise"]["table"] = "0123456789abcdef"
    outcome.run.store.write("manifest.json", json.dumps(facts).encode())
    with pytest.raises(UserError, match=f"{lattice_table(0.5).digest} on node .* and 0123456789abcdef in .*mpmath"):
        sample(**job(limit=2))
    assert len(load_votes(outcome.run.location)) == 1


def test_a_run_of_float_noise_is_read_and_certified(older):
    assert len(load_votes(older.location)) == 3
    certify(run=older.location, costs=["seed:3"])
    assert len(load_certificates(older.location, costs="seed:3")) == 3


def test_a_report_says_the_noise_of_each_run(older, job, tmp_path, capsys):
    (exact,) = sample(**job(limit=3, costs=["seed:3"], results=str(tmp_path / "elsewhere")))
    certify(run=older.location, costs=["seed:3"])
    capsys.readouterr()
    report(run=[older.location, exact.run.location])
    out = capsys.readouterr().out
    assert "noise v1, in float32" in out and "noise v2, exact for whole grey levels" in out
    assert f"{exact.run.manifest()['noise']['total_variation']:.1g}" in out


def test_beside_a_run_of_float_noise_none_of_its_options_begins_unasked(older, job, tmp_path):
    for limit in (3, 6):  # nor where nothing was left to do
        with pytest.raises(UserError, match=rf"{older.run_id} .* noise scheme v1.*--experiment.*--begin_anew true"):
            sample(**job(limit=limit))
    (elsewhere,) = sample(**job(limit=3, results=str(tmp_path / "elsewhere")))
    (beside,) = sample(**job(limit=3), experiment="exact")
    assert elsewhere.run.run_id == beside.run.run_id != older.run_id
    assert comparable(load_votes(elsewhere.run.location)) == comparable(load_votes(beside.run.location))


def test_one_that_is_begun_anew_goes_on_by_the_same_command_and_by_it_alone(older, job):
    (anew,) = sample(**job(limit=2), begin_anew=True)
    assert anew.sampled == 2 and anew.run.manifest()["noise_scheme"] == "v2"
    (more,) = sample(**job(limit=3), begin_anew=True)
    assert more.run.run_id == anew.run.run_id and more.sampled == 1
    assert len(load_votes(older.location)) == 3


def test_a_lattice_run_that_there_is_goes_on_whatever_stands_beside_it(older, job, tmp_path):
    (outcome,) = sample(**job(limit=2, results=str(tmp_path / "elsewhere")))
    run = older.store.at(f"../{outcome.run.run_id}")
    for name in ("manifest.json", "images.parquet"):
        run.write(name, outcome.run.store.read(name))
    (more,) = sample(**job(limit=3))
    assert more.run.run_id == outcome.run.run_id and more.sampled == 3
