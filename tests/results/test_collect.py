"""Everything under a location as one table, local and on S3."""

import json

import pandas as pd
import pytest
from handmade import NEVER_B, NO_B, PLAIN, write_run, write_sweep

from raycsr import CostMatrix, UserError, collect_certificates, collect_trials, list_runs, summarize
from raycsr.results import SCHEMA_VERSION
from raycsr.results.schema import CERTIFICATES
from raycsr.store import Store


def test_the_certificates_of_all_runs_are_one_table(store):
    write_run(store.location, "a.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B}, experiment="one")
    write_run(
        store.location, "b.pt", {"argmax": NEVER_B}, experiment="two", sigma=0.25, certify_under=("seed:a", "pair:a/b")
    )
    found = collect_certificates(store.location)
    assert list(found.columns) == ["run_id", "experiment", "model", "sigma", "costs", *CERTIFICATES.names]
    sizes = found.groupby(["experiment", "model", "sigma", "costs", "rule"]).size()
    assert sizes.to_dict() == {
        ("one", "a.pt", 0.5, "pair:a/b", "argmax"): 6,
        ("one", "a.pt", 0.5, "pair:a/b", "offset-0000000002"): 6,
        ("two", "b.pt", 0.25, "pair:a/b", "argmax"): 6,
        ("two", "b.pt", 0.25, "seed:a", "argmax"): 6,
    }
    of_one = collect_certificates(f"{store.location}/one", rule="argmax")
    assert of_one["prediction"].tolist() == PLAIN
    numbers = summarize(of_one, costs=CostMatrix.pairwise(3, {0: [1]}), radii=[0.5])
    assert (numbers["accuracy"][0], numbers["rob_cs"][0]) == (5 / 6, 0.5)


def test_costs_and_rules_are_selected_as_people_write_them(store, tmp_path):
    matrix = CostMatrix.pairwise(3, {2: [0]}, cost=7)
    pd.DataFrame(matrix.values).to_csv(tmp_path / "real.csv", header=False, index=False)
    specs = ("pair:a/b", "uniform", str(tmp_path / "real.csv"))
    write_run(store.location, "a.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B}, certify_under=specs)
    write_run(store.location, "b.pt", {"argmax": NEVER_B})
    assert set(collect_certificates(store.location, costs="pair:a/b")["model"]) == {"a.pt", "b.pt"}
    for costs in ("real.csv", specs[2], matrix):
        assert set(collect_certificates(store.location, costs=costs)["costs"]) == {specs[2]}
    for rule in ("offset:1*pair:a/b", "offset-0000000002"):
        found = collect_certificates(store.location, costs="uniform", rule=rule)
        assert found["prediction"].tolist() == NO_B and set(found["model"]) == {"a.pt"}


def test_costs_are_those_that_a_spec_means_now_as_in_reports(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "costs.csv").write_text(",a,b,c\na,0,5,0\nb,0,0,0\nc,0,0,0\n")
    write_run(store.location, "a.pt", {"argmax": PLAIN}, certify_under=("costs.csv", "seed:b"))
    for spec, stored in ((str(tmp_path / "costs.csv"), "costs.csv"), ("costs.csv",) * 2, ("seed:1", "seed:b")):
        assert set(collect_certificates(store.location, costs=spec)["costs"]) == {stored}
    (tmp_path / "costs.csv").write_text(",a,b,c\na,0,7,0\nb,0,0,0\nc,0,0,0\n")
    with pytest.raises(UserError, match="costs.csv has other costs than when .* certify --run .* --costs costs.csv"):
        collect_certificates(store.location, costs="costs.csv")


def test_what_a_file_of_costs_held_at_different_times_is_told_apart(store, tmp_path):
    costs = tmp_path / "costs.csv"
    costs.write_text(",a,b,c\na,0,5,0\nb,0,0,0\nc,0,0,0\n")
    run = write_run(store.location, "a.pt", {"argmax": PLAIN}, certify_under=(str(costs),))
    costs.write_text(",a,b,c\na,0,7,0\nb,0,0,0\nc,0,0,0\n")
    run.certify(str(costs), run.costs(str(costs)), 0.01)
    sizes = collect_certificates(store.location).groupby("costs").size()
    assert sizes.tolist() == [6, 6]
    for name in sizes.index:
        assert set(collect_certificates(store.location, costs=name)["costs"]) == {name}


def test_a_model_in_int8_is_told_from_that_of_its_name(store):
    for precision in ("fp32", "int8"):
        write_run(store.location, "a.pt", {"argmax": PLAIN}, precision=precision)
    assert set(collect_certificates(store.location)["model"]) == {"a.pt", "a.pt int8"}
    assert list_runs(store.location)["model"].tolist() == ["a.pt", "a.pt int8"]


def test_what_is_not_there_is_named(store):
    with pytest.raises(UserError, match=rf"no runs at '{store.location}'; give the --results"):
        collect_certificates(store.location)
    with pytest.raises(UserError, match=rf"no sweeps with trials at '{store.location}'; give the --results"):
        collect_trials(store.location)
    write_run(store.location, "a.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B})
    with pytest.raises(UserError, match=r"has certificates for costs 'seed:c' \(stored: pair:a/b\); make them"):
        collect_certificates(store.location, costs="seed:c")
    with pytest.raises(UserError, match=r"has a rule 'offset:1\*pair:a/c'; did you mean offset:1\*pair:a/b"):
        collect_certificates(store.location, rule="offset:1*pair:a/c")


def test_runs_of_another_schema_are_refused_by_name(store):
    write_run(store.location, "a.pt", {"argmax": PLAIN})
    for version in (1, None):
        run = write_run(store.location, "b.pt", {"argmax": PLAIN})
        run.store.write("manifest.json", json.dumps(run.manifest() | {"schema_version": version}).encode())
    message = f"schema_version 2 and {SCHEMA_VERSION}, but run 0{{15}}1 has 1, run 0{{15}}2 has None; read them by"
    with pytest.raises(UserError, match=message):
        collect_certificates(store.location)


def test_the_trials_of_all_sweeps_are_one_table(store):
    write_sweep(store.location, "one", "lr", [("seed:a", 0.9, 0.5), ("seed:a", 0.8, 0.7)])
    write_sweep(store.location, "two", "wd", [("pair:a/b", 0.7, 0.6)])
    Store(store.location).write("two/sweeps/running/sweep.json", b"{}")
    found = collect_trials(store.location)
    assert list(found.columns[:4]) == ["experiment", "sweep", "trial", "state"]
    assert found[["experiment", "sweep", "trial", "rob_cs"]].to_numpy().tolist() == [
        ["one", "lr", "t0", 0.5],
        ["one", "lr", "t1", 0.7],
        ["two", "wd", "t0", 0.6],
    ]
    assert collect_trials(f"{store.location}/two")["experiment"].tolist() == ["two"]


def test_a_column_that_is_empty_in_one_sweep_takes_its_type_from_another(store):
    write_sweep(store.location, "one", "lr", [("seed:a", 0.9, 0.5)])
    failed = pd.DataFrame({"trial": ["t0"], "state": ["failed"], "error": ["the loss is nan"], "accuracy": [None]})
    Store(store.location).write("two/sweeps/wd/trials.parquet", failed.to_parquet())
    found = collect_trials(store.location)
    assert found["error"].tolist()[1] == "the loss is nan" and found["error"].isna().tolist() == [True, False]
    assert found["accuracy"].dtype == float and found["accuracy"][0] == 0.9
