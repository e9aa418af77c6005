"""Runs of many classes take the memory of the votes that were cast, not of all that could have been."""

import json
import resource
import subprocess
import sys

import numpy as np
import pytest

from raycsr import CostMatrix, load_certificates
from raycsr.data.options import DataOptions
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.options import SamplingOptions
from raycsr.verbs.sample import sample

RULES = ["offset:1,2*seed:3"]


def of_classes(m, folder, *, limit, n=64, radii=None, split="test"):
    """A job of the digits whose network knows m classes, under three cost matrices, one of them of groups."""
    folder.mkdir(exist_ok=True)
    groups = folder / "groups.csv"
    groups.write_text("".join(f"{k},{k % 300}\n" for k in range(m)))
    return {
        "data": DataOptions("digits", split=split, limit=limit, class_names=[str(k) for k in range(m)]),
        "model": ModelOptions("cifar_resnet8", num_classes=m, input_size=8),
        "sampling": SamplingOptions(sigma=0.5, n0=64, n=n, radii=radii, precision="fp32", batch_size=64),
        "results": str(folder / "results"),
        "costs": ["uniform", "seed:0,1", f"groups:{groups}"],
        "rules": RULES,
    }


def test_a_run_of_a_thousand_classes_is_certified_as_its_votes_are(job, tmp_path):
    (outcome,) = sample(**{**job(), **of_classes(1000, tmp_path, limit=4, radii=[0.1])})
    run = outcome.run
    assert len(run.certificate_sets()) == 3
    for name, facts in run.certificate_sets().items():
        assert len(run.store.read(f"certificates/{name}/costs.json")) < 50_000
        stored, anew = run.certificates(name), load_certificates(run.location, costs=facts["costs"], rule="argmax")
        assert len(stored) == 3 * len(anew) == 12  # of three rules
        one = stored[stored["rule"] == "argmax"].set_index("image_id")["cost_sensitive_radius"]
        assert np.array_equal(one, anew.set_index("image_id").loc[one.index, "cost_sensitive_radius"], equal_nan=True)


@pytest.mark.long
def test_a_run_of_all_of_imagenet_21k_fits_in_memory(job, tmp_path):
    code = f"""
import pathlib, sys
sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
from test_many_classes import peak_of_a_run
peak_of_a_run(pathlib.Path({str(tmp_path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == 0 and found["sets"] == 3
    assert found["peak"] < 4e9, found


def peak_of_a_run(folder):
    """Samples 1,000 images in this process, and prints the most memory that it had, in bytes."""
    from raycsr.distributed.options import PoolOptions

    of_job = of_classes(21_841, folder, limit=1000, split="train", n=128)
    (outcome,) = sample(**of_job, pool=PoolOptions(actors=0, threads_per_actor=1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sets = len(outcome.run.certificate_sets())
    print(json.dumps({"peak": peak, "errors": len(outcome.errors), "sets": sets}))


def test_costs_of_another_commit_that_are_written_out_are_the_same_set(job, tmp_path):
    """A set of before has all values of many classes in its costs.json."""
    (outcome,) = sample(**{**job(), **of_classes(101, tmp_path, limit=2)})
    run = outcome.run
    sets = run.certificate_sets()
    for name in sets:
        file = f"certificates/{name}/costs.json"
        facts = json.loads(run.store.read(file))
        values = CostMatrix.of_json(facts).values.tolist()
        run.store.write(file, json.dumps({**facts, "values": values, "rows": None}).encode())
    assert run.certificate_sets() == sets
    assert [run.uncertified(name) for name in sets] == [[], [], []]
