import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_sample import comparable

from raycsr import UserError, load_votes
from raycsr.store import Store
from raycsr.verbs.sample import sample

COMMAND = """
data: {source: digits, limit: 40}
model: {name: cifar_resnet8, num_classes: 10, input_size: 8}
sampling: {sigma: 0.5, n0: 32, n: 4096, precision: fp32}
pool: {actors: 2, cpus_per_actor: 0.25}
costs: [uniform]
"""


def parts(results):
    return list(Path(results).glob("default/runs/*/votes/*.parquet"))


@pytest.mark.ray
def test_a_killed_driver_is_continued_by_the_same_command(job, tmp_path):
    config, results = tmp_path / "job.yaml", tmp_path / "killed"
    config.write_text(COMMAND)
    command = [sys.executable, "-m", "raycsr.cli", "sample", "--config", str(config), "--results", str(results)]
    # a Ray of its own, as a driver on another machine would have
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    driver = subprocess.Popen(
        [*command[:1], "-c", f"import os, ray; ray.init(address='local', num_cpus=2, include_dashboard=False);"
         f"from raycsr.cli import main; main({command[3:]!r})"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    while not parts(results) and driver.poll() is None:
        pass
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    committed = {part.name: part.read_bytes() for part in parts(results)}
    assert committed, driver.stderr.read().decode()
    (owner,) = (results / "default/runs").glob("*/owners/0001.json")
    assert not json.loads(owner.read_text())["released"]

    options = job(limit=40, n=4096, costs=["uniform"])
    (continued,) = sample(**options | {"results": str(results)})
    assert 0 < continued.sampled < 40
    for name, data in committed.items():
        assert continued.run.store.read(f"votes/{name}") == data
    (undisturbed,) = sample(**options)
    assert undisturbed.run.run_id == continued.run.run_id
    assert comparable(load_votes(continued.run.location)) == comparable(load_votes(undisturbed.run.location))
    (name,) = continued.run.certificate_sets()
    assert continued.run.missing(continued.run.certificates(name)) == []


def test_a_full_disk_stops_the_run_in_one_line_and_more_space_continues_it(job, small_disk, tmp_path):
    options = job(limit=40, costs=["uniform", "seed:4", "pair:4/9"])
    with pytest.raises(UserError, match="no space left on the device; free some"):
        sample(**options | {"results": str(small_disk / "results")})
    committed = parts(small_disk / "results")
    assert committed
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    (continued,) = sample(**options | {"results": str(small_disk / "results")})
    assert 0 < continued.sampled < 40
    (undisturbed,) = sample(**options)
    assert comparable(load_votes(continued.run.location)) == comparable(load_votes(undisturbed.run.location))


def test_an_unreadable_part_is_sampled_again(job):
    options = job(limit=8)
    (before,) = sample(**options)
    votes = comparable(load_votes(before.run.location))
    (part, *_) = before.run.vote_parts()
    Store(before.run.location).write(f"votes/{part}", b"cut off")
    with pytest.warns(UserWarning, match=f"{part} cannot be read"):
        (after,) = sample(**options)
    assert after.sampled > 0
    (Path(after.run.location) / "votes" / part).unlink()
    assert comparable(load_votes(after.run.location)) == votes
