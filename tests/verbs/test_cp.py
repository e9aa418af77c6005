"""`raycsr cp`: runs into another results folder."""

from handmade import write_run

from raycsr import load_certificates
from raycsr.cli import main


def test_runs_of_a_folder_are_copied_to_s3_and_read_there(s3, tmp_path, capsys):
    here, there = str(tmp_path / "results"), f"s3://{s3.new_bucket()}/results"
    runs = [write_run(here, model, {"argmax": [0, 1, 1, 1, 2, 2]}) for model in ("one", "two")]
    runs[0].store.write("notes.txt", b"mine")
    for words in ("copied", "was copied before"):
        assert main(["cp", "--run", here, "--results", there]) == 0
        out = capsys.readouterr().out.splitlines()
        assert sum(words in line for line in out) == 2
        assert f"left out of {runs[0].location}: notes.txt, which raycsr did not write" in out
        assert out[-2:] == [f"{there}/hand/runs/{run.run_id}" for run in runs]
    copy, original = (load_certificates(location) for location in (out[-1], runs[-1].location))
    assert copy.equals(original)


def test_a_run_is_not_copied_onto_itself(tmp_path, capsys):
    run = write_run(str(tmp_path / "results"), "m", {"argmax": [0] * 6})
    assert main(["cp", "--run", run.location, "--results", str(tmp_path / "results")]) == 2
    assert "is the run itself" in capsys.readouterr().err


def test_a_manifest_that_names_no_experiment_is_refused(tmp_path, capsys):
    run = write_run(str(tmp_path / "results"), "m", {"argmax": [0] * 6}, experiment="e")
    run.store.write("manifest.json", b'{"schema_version": 3}')
    assert main(["cp", "--run", run.location, "--results", str(tmp_path / "other")]) == 2
    err = capsys.readouterr().err
    assert "manifest.json is damaged" in err and "experiment" in err and err.count("\n") == 1
