"""What a first GPU is asked, rehearsed where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jobs import first_gpu

PROJECT = Path(__file__).parents[1]
HIDDEN = """
import importlib.machinery, runpy, sys
hidden, finder = ("ray", "jsonargparse"), importlib.machinery.PathFinder
find = finder.find_spec
finder.find_spec = lambda name, *where: None if name.split(".")[0] in hidden else find(name, *where)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_figure_stands_beside_its_baseline_and_is_written_down_as_it_is_there(tmp_path, capsys):
    out = tmp_path / "figures.json"
    assert first_gpu.main(["--quick", "--only", "cifar_resnet20", "--out", str(out)]) == 0
    rows = {row["what"]: row for row in json.loads(out.read_text())["steps"]["cifar_resnet20"]["rows"]}
    assert rows["bare"]["ratio"] == 1 and rows["engine"]["samples_per_second"] > 0
    assert rows["rows equal to the last bit again"]["ratio"] == 1
    assert "cifar_resnet20 what=engine" in capsys.readouterr().out


def test_a_step_that_fails_loses_no_other(tmp_path, monkeypatch):
    def broken(measured):
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setitem(first_gpu.STEPS, "noise", (1, broken))
    monkeypatch.setitem(first_gpu.STEPS, "vit_b", (1, lambda measured: [{"what": "done"}]))
    out = tmp_path / "figures.json"
    assert first_gpu.main(["--quick", "--only", "noise", "vit_b", "--out", str(out)]) == 1
    steps = json.loads(out.read_text())["steps"]
    assert "illegal memory access" in steps["noise"]["rows"][0]["what"] and steps["vit_b"]["rows"] == [{"what": "done"}]


def test_a_step_that_has_no_time_left_is_left_out_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    out = tmp_path / "figures.json"
    assert first_gpu.main(["--seconds", "5", "--only", "vit_b", "--out", str(out)]) == 0
    assert "left out" in json.loads(out.read_text())["steps"]["vit_b"]["rows"][0]["what"]


def test_votes_are_drawn_by_the_share_that_an_image_names():
    class Network(torch.nn.Module):
        precision = "fp32"
        scale = torch.zeros(1)

        def forward(self, pixels):
            return pixels.mean(dim=(2, 3))

    made = torch.from_numpy(first_gpu._drawn(([12], 64))).permute(0, 3, 1, 2)
    noise = torch.randn((4096, 3, 64, 64), generator=torch.Generator().manual_seed(0)) * 127.5
    says = first_gpu.ByShares(Network())((made + noise.round()) / 255)[:, 0].mean()
    assert abs(says - first_gpu.WRONG[2]) < 0.03


@pytest.mark.long
def test_all_of_it_runs_without_ray(tmp_path):
    command = [sys.executable, "-c", HIDDEN, "jobs/first_gpu.py", "--quick", "--out", str(tmp_path / "figures.json")]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    found = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    steps = json.loads((tmp_path / "figures.json").read_text())["steps"]
    assert list(steps) == list(first_gpu.STEPS)
    assert {row["rows_used"] > 0 for row in steps["resnet50"]["rows"] if "rows_used" in row} == {True}
