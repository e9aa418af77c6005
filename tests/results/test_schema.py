"""What may change within one schema version, and what becomes of other versions, in all that reads."""

import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import write_run, write_sweep

from raycsr import (
    UserError,
    collect_certificates,
    collect_trials,
    list_runs,
    load_certificates,
    load_votes,
)
from raycsr.reports import load_certified
from raycsr.results import SCHEMA_VERSION, Ownership
from raycsr.results.schema import READABLE_SCHEMAS
from raycsr.store import Store
from raycsr.verbs.certify import certify
from raycsr.verbs.cp import cp
from raycsr.verbs.ls import ls
from raycsr.verbs.report import report
from raycsr.verbs.rm import rm

ANSWERS = {"argmax": [0, 1, 1, 1, 2, 2], "offset:1*pair:a/b": [0, 0, 1, 0, 2, 2]}
FUTURE = SCHEMA_VERSION + 1


@pytest.fixture
def run(tmp_path):
    run = write_run(str(tmp_path / "results"), "m", ANSWERS)
    with Ownership(run.store):
        pass
    return run


def change(run, name, **facts):
    run.store.write(name, json.dumps(json.loads(run.store.read(name)) | facts).encode())


def add_column(run, name):
    table = run.store.read_table(name)
    run.store.write_table(name, table.append_column("added", pa.array(["later"] * len(table))))


READERS = {
    "load_votes": lambda run, _: load_votes(run.location),
    "load_certificates, stored": lambda run, _: load_certificates(run.location),
    "load_certificates, made": lambda run, _: load_certificates(run.location, costs="uniform"),
    "collect_certificates": lambda run, _: collect_certificates(run.location),
    "load_certified": lambda run, _: load_certified([run.location]),
    "certify": lambda run, _: certify(run=[run.location], costs=["uniform"]),
    "report": lambda run, _: report(run=[run.location]),
    "cp": lambda run, folder: cp(run=[run.location], results=str(folder / "copy")),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_is_added_within_a_version_is_passed_over(run, read, tmp_path):
    names = ["manifest.json", "owners/0001.json"]
    names += [f"rules/{name}" for name in run.store.names("rules")]
    names += [f"certificates/{name}/costs.json" for name in run.store.names("certificates")]
    run.finish(num_images=6, num_errors=0)
    for name in [*names, "finished.json"]:
        change(run, name, added={"of": "later"})
    for name in ["images.parquet", *(f"votes/{part}" for part in run.vote_parts())]:
        add_column(run, name)
    kept = run.certify("pair:a/b", run.costs("pair:a/b"), 0.01)  # of the votes as they are now
    for part in run.vote_parts():
        add_column(run, f"certificates/{kept}/{part}")
    run.store.write("added/later.bin", b"")
    read(run, tmp_path)
    assert ls(run.location).iloc[0]["state"] == "finished"


@pytest.mark.parametrize("version", [1, FUTURE, None])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_runs_of_other_versions_are_refused_by_name(run, read, version, tmp_path):
    change(run, "manifest.json", schema_version=version)
    with pytest.raises(UserError, match=rf"reads schema_version 2 and 3, but run {run.run_id} has {version}"):
        read(run, tmp_path)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_runs_of_the_version_before_are_read(run, read, tmp_path):
    change(run, "manifest.json", schema_version=2)
    assert READABLE_SCHEMAS == (2, SCHEMA_VERSION)
    read(run, tmp_path)


def test_certificates_of_the_version_before_are_made_again_of_its_votes(run):
    change(run, "manifest.json", schema_version=2)
    right = load_certificates(run.location)
    (name,) = run.certificate_sets()
    for part in run.vote_parts():  # as 0.1 wrote them: in plain Parquet, and here of other votes
        file = f"certificates/{name}/{part}"
        table = run.store.read_table(file).replace_schema_metadata().drop_columns(["device", "batch_size"])
        radii = pa.array([9.0] * len(table))
        table = table.set_column(table.column_names.index("standard_radius"), "standard_radius", radii)
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        run.store.write(file, buffer.getvalue())
    with pytest.warns(UserWarning, match="made in memory; `raycsr certify` stores them"):
        assert load_certificates(run.location).equals(right)
    certify(run=[run.location], costs=["pair:a/b"], alpha=0.01)
    assert load_certificates(run.location).equals(right)


def test_runs_of_other_versions_are_listed_as_such_beside_others_and_deleted(run, tmp_path, capsys):
    other = write_run(str(tmp_path / "results"), "other", ANSWERS)
    change(run, "manifest.json", schema_version=FUTURE)
    run.store.write("images.parquet", b"written in another way")
    assert list_runs(str(tmp_path / "results"))["state"].tolist() == [f"schema_version {FUTURE}", "stopped"]
    assert ls(str(tmp_path / "results"))["done"].tolist() == [0, 6]
    assert f"| schema_version {FUTURE} |" in capsys.readouterr().out
    rm(run=[run.location], yes=True)
    assert list_runs(str(tmp_path / "results"))["location"].tolist() == [other.location]


def test_sweeps_of_other_versions_are_refused_by_name(tmp_path, capsys):
    results = str(tmp_path)
    write_sweep(results, "e", "s", [("uniform", 0.9, 0.5)])
    sweep = Store(results).at("e/sweeps/s")
    for facts in ({}, {"schema_version": SCHEMA_VERSION}):  # of before they noted a version, and since
        sweep.write("sweep.json", json.dumps(facts).encode())
        assert isinstance(collect_trials(results), pd.DataFrame)
    sweep.write("sweep.json", json.dumps({"schema_version": FUTURE}).encode())
    with pytest.raises(UserError, match=rf"e/sweeps/s/sweep.json has schema_version {FUTURE}, and this raycsr reads 3"):
        collect_trials(results)
    sweep.write("leaderboard.md", b"")
    ls(results)
    assert f"sweep.json has schema_version {FUTURE}" in capsys.readouterr().out
    sweep.write("sweep.json", b"{")
    with pytest.raises(UserError, match="e/sweeps/s/sweep.json"):
        collect_trials(results)
