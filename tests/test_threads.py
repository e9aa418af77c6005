"""Threads that wait for each other leave the cores to others, whoever imports PyTorch."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("said", "spins"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
    ids=["nothing is said", "a count of the user's", "a policy of the user's"],
)
def test_openmp_hears_how_long_to_spin_before_pytorch_loads_it(said, spins):
    (torch,) = importlib.util.find_spec("torch").submodule_search_locations
    if not (openmp := [*Path(torch, "lib").glob("libgomp*.so*"), *Path(torch).parent.glob("torch.libs/libgomp*.so*")]):
        pytest.skip("this PyTorch brings no GNU OpenMP")
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    heard = subprocess.run(
        [sys.executable, "-c", f"import ctypes, raycsr; ctypes.CDLL({str(openmp[0])!r})"],
        env={**environment, **said, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
    )
    assert f"GOMP_SPINCOUNT = '{spins}'" in heard.stderr
