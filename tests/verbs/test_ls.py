import json
import shutil
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pytest

from jobs.bench_scale import write_run
from raycsr import UserError
from raycsr.cli import main
from raycsr.results import resolve_run
from raycsr.store import Store
from raycsr.verbs.ls import ls


def test_a_folder_that_is_called_as_what_there_is_of_a_kind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = write_run("costs", images=100, parts=1, rules=("argmax",))
    assert main(["ls", "costs"]) == 0
    assert "seed:cat,dog" in (out := capsys.readouterr().out) and "raycsr ls ./costs" in out
    assert main(["ls", "costs", "--watch", "true"]) == 2 and "leave --watch out" in capsys.readouterr().err
    assert main(["ls", "./costs"]) == 0
    assert run.run_id in capsys.readouterr().out


@pytest.fixture(params=["local", "s3"])
def results(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "results")
    return f"s3://{request.getfixturevalue('s3').new_bucket()}/results"


def test_each_run_is_a_row_that_says_how_far_it_is(results, capsys):
    run = write_run(results, images=1200, parts=3, rules=("argmax", "offset-1"))
    assert main(["ls", results]) == 0
    header, _, row, *rest = capsys.readouterr().out.splitlines()
    expected = ["run", "experiment", "model", "sigma", "n", "images", "done", "missing", "errored", "state"]
    assert [cell.strip() for cell in header.split("|")[1:-1]] == expected
    expected = [
        run.run_id,
        "scale",
        "none",
        "0.5",
        "1,000",
        "1,200",
        "800",
        "400",
        "0",
        "stopped",
    ]  # the last part is not committed
    assert [cell.strip() for cell in row.split("|")[1:-1]] == expected
    named = next(line for line in rest if line.startswith("name a run")).split("--run ")[1].split(";")[0]
    assert resolve_run(named).location == run.location


def test_samples_are_whole_numbers_also_beside_a_run_that_has_none_and_int8_is_said(tmp_path, capsys):
    """Its votes say when to stop."""
    run = write_run(str(tmp_path), images=100, parts=1, rules=("argmax",))
    other = tmp_path / "other" / "runs" / "0123456789abcdef"
    shutil.copytree(run.store.location, other)
    facts = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(
        json.dumps({**facts, "n": None, "sampling": "sequential", "precision": "int8"})
    )
    assert main(["ls", str(tmp_path)]) == 0
    rows = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()[2:4]]
    assert sorted(row[5] for row in rows) == ["-", f"{facts['n']:,}"]
    assert [row[3] for row in rows if row[5] == "-"] == [f"{facts['model']} int8"]


def test_a_finished_run_is_not_read(results, capsys):
    run = write_run(results, images=4, parts=2, rules=("argmax",))
    run.store.write(f"votes/{run.vote_parts()[0]}", b"never read")
    run.finish(num_images=4, num_errors=1)
    row = ls(results).iloc[0]
    assert row[["done", "missing", "errored", "state"]].tolist() == [3, 0, 1, "finished"]


def test_sweeps_and_checkpoints_are_lines(results, capsys):
    experiment = Store(results).at("cats")
    trials = pa.Table.from_pandas(pd.DataFrame({"trial": [0, 1, 2]}))
    experiment.write_table("sweeps/lr/trials.parquet", trials)
    experiment.write("sweeps/lr/leaderboard.md", b"")
    experiment.write("sweeps/new/tuner.pkl", b"")
    experiment.write("checkpoints/resnet.pt", b"")
    assert len(ls(results)) == 0
    place = experiment.location
    assert capsys.readouterr().out.splitlines() == [
        f"sweep {place}/sweeps/lr: 3 trials, leaderboard.md",
        f"sweep {place}/sweeps/new: no leaderboard yet",
        f"checkpoint {place}/checkpoints/resnet.pt",
    ]


def test_an_empty_folder_has_no_runs_and_one_that_does_not_exist_is_a_mistake(tmp_path, s3, capsys):
    assert main(["ls", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs at {tmp_path}\n"
    for nowhere in (str(tmp_path / "nowhere"), f"s3://{s3.new_bucket()}/nowhere"):
        with pytest.raises(UserError, match=f"there is nothing at '{nowhere}'"):
            ls(nowhere)
    with pytest.raises(UserError, match="or objectives to list those"):
        ls("objective")


def test_listing_needs_neither_torch_nor_ray(tmp_path):
    code = f"import sys; from raycsr.cli import main; main(['ls', {str(tmp_path)!r}]); "
    code += "print(sorted({'torch', 'ray'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert said.splitlines()[-1] == "[]"
