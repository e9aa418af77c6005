"""`raycsr rm`: what it says, and that it asks."""

import io

import pytest
from handmade import write_run

from raycsr.cli import main
from raycsr.results import Ownership


@pytest.fixture
def run(tmp_path):
    return write_run(str(tmp_path / "results"), "m", {"argmax": [0, 1, 1, 1, 2, 2]})


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_it_says_what_it_deletes_and_asks(run, monkeypatch, capsys):
    for answer, deleted in (("n\n", False), ("", False), ("y\n", True)):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert main(["rm", "--run", run.location]) == 0
        out = capsys.readouterr().out
        assert f"run       {run.location}\nmodel     m at sigma 0.5\nimages    6 listed\nvotes     1 parts, " in out
        assert ("nothing is deleted" in out) == (not deleted) and (f"deleted {run.location}\n" in out) == deleted
        assert run.store.exists("manifest.json") == (not deleted)


def test_without_a_terminal_yes_is_said_by_an_option(run, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["rm", "--run", run.location]) == 2
    assert (
        capsys.readouterr().err
        == "raycsr rm: there is no terminal to ask at; give --yes true to delete without asking\n"
    )
    assert main(["rm", "--run", run.location[:-3], "--yes", "true"]) == 0  # the beginning of an id is enough
    assert not run.store.names("")
    assert main(["rm", "--run", run.location, "--yes", "true"]) == 2
    assert "no run at" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["results", "results/hand", "results/hand/"])
def test_a_run_is_named_itself_and_not_by_the_folder_that_it_is_in(run, place, tmp_path, monkeypatch, capsys):
    assert main(["rm", "--run", str(tmp_path / place), "--yes", "true"]) == 2
    assert f"is no run; name the run itself: {run.location}" in capsys.readouterr().err
    monkeypatch.chdir(run.location)
    for location in ("", "."):  # a variable that is empty
        assert main(["rm", "--run", location, "--yes", "true"]) == 2
    assert run.store.exists("manifest.json")
    assert main(["rm", "--run", str(tmp_path / "results" / run.run_id[:3]), "--yes", "true"]) == 0  # as `ls` names it
    assert not run.store.exists("manifest.json")


def test_folders_of_several_runs_are_refused(run, tmp_path, capsys):
    write_run(str(tmp_path / "results"), "other", {"argmax": [0] * 6})
    assert main(["rm", "--run", str(tmp_path / "results"), "--yes", "true"]) == 2
    assert "means 2 runs" in capsys.readouterr().err
    assert run.store.exists("manifest.json")


@pytest.mark.parametrize("damage", [["manifest.json"], ["images.parquet", "manifest.json"], ["votes/argmax.parquet"]])
def test_a_run_that_is_half_damaged_is_deleted(run, damage, capsys):
    for name in damage:
        run.store.write(name, b'{"model')
    run.store.write("notes.txt", b"mine")
    assert main(["rm", "--run", run.location, "--yes", "true"]) == 0
    assert "1 files that raycsr did not write stay, as notes.txt" in capsys.readouterr().out
    assert run.store.names("") == ["notes.txt"]


def test_what_is_left_of_a_deletion_is_deleted(run, capsys):
    run.store.remove("manifest.json")
    assert main(["rm", "--run", run.location, "--yes", "true"]) == 0
    assert "its manifest is missing or damaged" in capsys.readouterr().out
    assert not run.store.names("")


def test_a_run_that_is_being_sampled_is_refused_in_a_line(run, capsys):
    with Ownership(run.store):
        assert main(["rm", "--run", run.location, "--yes", "true"]) == 2
    err = capsys.readouterr().err
    assert "process" in err and err.count("\n") == 1
    assert run.store.exists("manifest.json")
