"""What ends a command that samples, or trains, and reports: its own work stands, whatever of the report failed."""

from types import SimpleNamespace

import pytest

from raycsr.cli import main
from raycsr.reports import composition
from raycsr.verbs import quickstart as quickstart_verb

DIGITS = "--data.source digits --data.limit 4 --model.name cifar_resnet8 --model.num_classes 10 --model.input_size 8"
SAMPLING = "--sampling.sigma 0.5 --sampling.n0 8 --sampling.n 64 --pool.actors 0"


def broken(*_, **__):
    raise ZeroDivisionError("no room")


def test_a_part_of_the_report_that_fails_is_status_1_and_the_runs_are_told(tmp_path, monkeypatch, capsys):
    words = ["evaluate", *DIGITS.split(), *SAMPLING.split(), "--costs", "pair:3/8", "--results", str(tmp_path)]
    assert main(words) == 0
    run = capsys.readouterr().out.splitlines()[-1]
    monkeypatch.setattr(composition, "summary_table", broken)
    with pytest.warns(UserWarning, match="All numbers .*could not be made: ZeroDivisionError"):
        assert main(words) == 1
    assert capsys.readouterr().out.splitlines()[-1] == run and str(tmp_path) in run


def test_the_quickstart_says_by_its_status_that_a_part_of_its_report_failed(tmp_path, monkeypatch, capsys):
    words = ["evaluate", *DIGITS.split(), *SAMPLING.split(), "--costs", "seed:8", "--results", str(tmp_path)]
    assert main(words) == 0
    run = capsys.readouterr().out.splitlines()[-1]
    outcome = SimpleNamespace(run=SimpleNamespace(location=run), errors={})
    monkeypatch.setattr(quickstart_verb, "train", lambda **_: SimpleNamespace(checkpoint="network.pt"))
    monkeypatch.setattr(quickstart_verb, "tune_rule", lambda **_: None)
    monkeypatch.setattr(quickstart_verb, "sample", lambda **_: [outcome])
    monkeypatch.setattr(composition, "summary_table", broken)
    with pytest.warns(UserWarning, match="All numbers .*could not be made"):
        assert main(["quickstart", "--results", str(tmp_path)]) == 1
    assert "Done in" in (out := capsys.readouterr().out) and out.splitlines()[-1] == run
