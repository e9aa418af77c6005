"""What options may name is listed with a line each, and what stands there is understood."""

import subprocess
import sys

import pytest

from raycsr.catalogue import KINDS
from raycsr.certification import METRICS
from raycsr.certification.answers import parse_answer
from raycsr.certification.methods import METHODS
from raycsr.costs import CostMatrix
from raycsr.data.sources import source_names
from raycsr.models.rules import ARGMAX, parse_rules
from raycsr.training.objectives import objective_names
from raycsr.verbs.ls import ls

CLASSES = ["cat", "dog", "car", "3", "4", "5", "6", "7", "8"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_name_has_a_line(kind, capsys):
    table = ls(kind)
    out = capsys.readouterr().out
    assert len(table) > 2 and all(table["about"].str.len() > 8) and out.count("\n") == len(table)
    assert not table["about"].str.contains("`:|no word of", regex=True).any()


def test_there_are_all_names():
    assert list(KINDS["objectives"]()) == objective_names()
    assert list(KINDS["sources"]()) == source_names()
    assert list(KINDS["metrics"]()) == list(METRICS) and list(KINDS["methods"]()) == list(METHODS)
    assert "cifar_resnet20" in KINDS["models"]()


def test_forms_are_understood(monkeypatch, tmp_path):
    for spec in KINDS["costs"]():
        if not spec.startswith(("groups:", "FILE")):
            assert CostMatrix.from_spec(spec, 9, CLASSES).sensitive.any()
    for spec in KINDS["answers"]():
        assert parse_answer(spec.replace("COSTS", "seed:1"), 9).spec
    for spec in KINDS["rules"]():
        assert parse_rules([spec.replace("COSTS", "seed:1")], num_classes=9, stored=[ARGMAX])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("models", "denoisers", "objectives")])
def test_what_needs_no_torch_loads_none(kind):
    code = f"import sys; from raycsr.verbs.ls import ls; ls({kind!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
