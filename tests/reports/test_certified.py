"""Several runs side by side: what reports and notebooks begin with."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from handmade import NEVER_B, NO_B, PLAIN, write_run

from raycsr import CostMatrix, UserError, collect_certificates, load_certificates
from raycsr.reports import (
    certified_curves,
    default_radii,
    load_certified,
    pairwise_tables,
    reference_and_best,
    summaries,
)
from raycsr.results import certificate_sets, runs, runs_at
from raycsr.results.certificate_sets import certify_table
from raycsr.results.merging import deduplicated


def test_an_entry_is_a_run_costs_and_rule(store):
    write_run(store.location, "x/a.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B})
    run = write_run(store.location, "y/a.pt", {"argmax": NEVER_B}, certify_under=("pair:a/b", "seed:c"))
    sets, left_out = load_certified([f"{store.location}/hand/runs/{i:016d}" for i in (0, 1)])
    assert [one.key for one in sets] == [
        ("x/a.pt σ=0.5", "pair:a/b", "argmax"),
        ("x/a.pt σ=0.5", "pair:a/b", "offset:1*pair:a/b"),
        ("y/a.pt σ=0.5", "pair:a/b", "argmax"),
        ("y/a.pt σ=0.5", "seed:c", "argmax"),
    ]
    assert [one.label for one in sets[:2]] == ["x/a.pt σ=0.5", "x/a.pt σ=0.5 · offset:1*pair:a/b"]
    last = sets[-1]
    assert (last.matrix.class_names, last.alpha, last.origin.location) == (("a", "b", "c"), 0.01, run.location)
    assert left_out == [] and last.certificates["prediction"].tolist() == NEVER_B
    table = summaries(sets, [0.5])
    assert table["accuracy"].round(3).tolist() == [0.833, 0.833, 0.667, 0.667]
    assert table[["run", "costs", "rule"]].apply(tuple, axis=1).tolist() == [one.key for one in sets]


def test_runs_without_such_certificates_are_refused_or_left_out_by_name(tmp_path):
    runs = [
        write_run(tmp_path, "a.pt", {"argmax": PLAIN}).location,
        write_run(tmp_path, "b.pt", {"argmax": PLAIN}, certify_under=()).location,
    ]
    with pytest.raises(UserError, match=r"run 0{15}1 has no certificates \(stored: none\); make them"):
        load_certified(runs)
    sets, left_out = load_certified(runs, allow_missing=True)
    assert [one.run for one in sets] == ["a.pt σ=0.5"] and left_out == ["b.pt σ=0.5"]
    with pytest.raises(UserError, match="there are 0 certificates to report on"):
        load_certified(runs[1:], allow_missing=True)


def test_a_folder_of_runs_stands_for_all_in_it_each_once(tmp_path):
    one, two = (write_run(tmp_path, name, {"argmax": PLAIN}).location for name in ("a.pt", "b.pt"))
    for given in ([str(tmp_path)], str(tmp_path), [f"{tmp_path}/hand"], [one, str(tmp_path)], [two[:-1] + "0", two]):
        assert runs_at(given) == [one, two]
        assert [made.run for made in load_certified(given)[0]] == ["a.pt σ=0.5", "b.pt σ=0.5"]
    table = f"{tmp_path}/published.tsv"
    Path(table).write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n")
    assert runs_at([table, one]) == [table, one]


def test_runs_of_another_schema_are_refused(tmp_path):
    run = write_run(tmp_path, "a.pt", {"argmax": PLAIN})
    run.store.write("manifest.json", json.dumps(run.manifest() | {"schema_version": 7}).encode())
    with pytest.raises(UserError, match="run 0{16} has 7"):
        load_certified([run.location])


def test_radii_and_curves_reach_as_far_as_the_certificates(tmp_path):
    sets, _ = load_certified([write_run(tmp_path, "a.pt", {"argmax": PLAIN}, sigma=0.25).location])
    reach = sets[0].certificates["standard_radius"].max()
    assert default_radii(sets) == [0, round(reach / 4, 2), round(reach / 2, 2), round(reach * 3 / 4, 2)]
    (curve,) = certified_curves(sets).values()
    assert curve["radius"].max() == pytest.approx(1.05 * reach)
    assert curve["certified_accuracy"].iloc[[0, -1]].tolist() == [pytest.approx(5 / 6), 0]


def test_the_reference_is_the_most_accurate_argmax_and_the_best_is_first_in_the_ranking(tmp_path):
    runs = [
        write_run(tmp_path, "a.pt", {"argmax": NEVER_B, "offset:1*pair:a/b": NO_B}),
        write_run(tmp_path, "b.pt", {"argmax": PLAIN}),
    ]
    sets, _ = load_certified([run.location for run in runs])
    (both,) = reference_and_best(sets, summaries(sets, [0.5])).values()
    assert [one.label for one in both] == ["b.pt σ=0.5", "a.pt σ=0.5 · offset:1*pair:a/b"]
    alone, _ = load_certified([runs[1].location])
    assert reference_and_best(alone, summaries(alone, [0.5])) == {"pair:a/b": alone}


def test_pairs_of_one_seed_class_are_one_table_of_all_sets_and_of_several_a_table_each(tmp_path):
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B}, certify_under=("seed:a", "uniform"))
    sets, _ = load_certified([run.location])
    ((title, table),) = pairwise_tables(sets[:2], 0.5).items()
    assert (title, table.index.tolist()) == ("images of class a", ["m.pt σ=0.5", "m.pt σ=0.5 · offset:1*pair:a/b"])
    assert table[["b", "c"]].to_numpy().tolist() == [[0.5, 1.0], [1.0, 1.0]] and table["a"].isna().all()
    tables = pairwise_tables(sets[2:], 0.5)
    assert list(tables) == [one.label for one in sets[2:]]
    plain = pd.DataFrame(tables["m.pt σ=0.5"])
    assert plain.loc["a", "b"] == 0.5 and plain.loc["b", "a"] == 1 and math.isnan(plain.loc["b", "b"])


def test_a_class_that_collapsed_is_marked_in_its_heat_map_and_the_title_says_why(tmp_path):
    run = write_run(
        tmp_path,
        "m.pt",
        {"argmax": PLAIN, "offset:1*pair:a/b": NEVER_B},
        certify_under=("seed:a", "uniform"),
        times=2,
    )
    sets, _ = load_certified([run.location])
    assert [one.collapse for one in sets] == ["", "b 0 of 4 right (argmax 1.000)"] * 2
    assert summaries(sets, [0.5])["collapsed"].tolist() == [one.collapse for one in sets]
    ((title, of_seed),) = pairwise_tables(sets[:2], 0.5).items()
    assert title.endswith("m.pt σ=0.5 · offset:1*pair:a/b: b 0 of 4 right (argmax 1.000)")
    assert of_seed.index.tolist() == ["m.pt σ=0.5", "m.pt σ=0.5 · offset:1*pair:a/b †"]
    plain, starved = pairwise_tables(sets[2:], 0.5).items()
    assert plain[0] == "m.pt σ=0.5" and list(plain[1]) == ["a", "b", "c"]
    assert "b 0 of 4 right" in starved[0] and list(starved[1]) == list(starved[1].index) == ["a", "b †", "c"]


def test_a_selection_of_rules_without_argmax_is_still_compared_with_it(tmp_path):
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NEVER_B}, times=2)
    ((one,), _) = load_certified([run.location], rules=["offset:1*pair:a/b"])
    assert one.collapse == "b 0 of 4 right (argmax 1.000)"


def test_rows_of_other_rules_are_not_read_nor_certified(tmp_path, monkeypatch):
    answers = {"argmax": PLAIN, "offset:1*pair:a/b": NO_B, "offset:2*pair:a/b": NEVER_B, "offset:4*pair:a/b": NEVER_B}
    run = write_run(tmp_path, "m.pt", answers)
    stored = run.certificates(*run.certificate_sets())
    read, certified = [], []
    monkeypatch.setattr(runs, "deduplicated", lambda table: read.append(table) or deduplicated(table))
    monkeypatch.setattr(
        certificate_sets,
        "certify_table",
        lambda votes, *of, **more: certified.append(votes) or certify_table(votes, *of, **more),
    )
    asked = ["offset:2*pair:a/b"]
    (one,), _ = load_certified([run.location], rules=asked)
    assert set(read[0]["rule"].to_pylist()) == {"argmax", one.rule_id} and certified == []  # argmax, to compare with
    of_rule = load_certificates(run.location, rule=asked[0])
    everywhere = collect_certificates(tmp_path, rule=asked[0])
    assert {*read[1]["rule"].to_pylist(), *read[2]["rule"].to_pylist()} == {one.rule_id} and len(read) == 3
    expected = stored[stored["rule"] == one.rule_id]["standard_radius"].tolist()
    assert of_rule["standard_radius"].tolist() == everywhere["standard_radius"].tolist() == expected
    for part in Path(one.folder.location).glob("*.parquet"):
        part.unlink()
    with pytest.warns(UserWarning, match="made in memory"):
        (again,), _ = load_certified([run.location], rules=asked)
    assert {rule for votes in certified for rule in votes["rule"].to_pylist()} == {"argmax", one.rule_id}
    assert again.certificates["standard_radius"].tolist() == expected


def test_a_cheap_rule_is_best_where_costs_differ_in_size(tmp_path):
    # a taken for b costs 10, for c 1: all a taken for c is cheaper than half of them taken for b
    a_is_c = [2, 2, 1, 1, 2, 2]
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN, "offset:1*pair:a/b": a_is_c}, certify_under=())
    run.certify("dear.csv", CostMatrix([[0, 10, 1], [0, 0, 0], [0, 0, 0]]), 0.01)
    run.certify("seed:a", run.costs("seed:a"), 0.01)
    sets, _ = load_certified([run.location])
    points = summaries(sets, [0.5])
    assert points.set_index("costs")["metric"].to_dict() == {"dear.csv": "rob_cost", "seed:a": "rob_cs"}
    best = {costs: shown[-1].rule_id for costs, shown in reference_and_best(sets, points, budget=0.5).items()}
    assert best == {"dear.csv": "offset-0000000002", "seed:a": "argmax"}


def test_a_published_table_may_have_any_name_one_class_and_no_answer(tmp_path):
    (tmp_path / "sigma_0.50").write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t0\t-1\t0.0\t0\t0:1\n")
    ((one,), _) = load_certified([str(tmp_path / "sigma_0.50")], table_alpha=0.01)
    assert (one.run, one.matrix.num_classes, one.alpha) == ("sigma_0.50", 2, 0.01)
    with pytest.raises(UserError, match="manifest.json is not a locuslab table"):
        load_certified([f"{write_run(tmp_path / 'results', 'm.pt', {'argmax': PLAIN}).location}/manifest.json"])


def test_reading_and_reporting_need_neither_torch_nor_ray():
    code = "import sys, raycsr, raycsr.verbs.report; raycsr.collect_trials; raycsr.reports.load_certified; "
    code += "print(sorted({'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
