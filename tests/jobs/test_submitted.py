"""Jobs submitted to a cluster of several nodes, with their results on a durable S3 server."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from nodes import submission_id
from test_analysis import pictures, run_notebook, text

from raycsr.distributed.sampling.prometheus import COUNTERS, GAUGES
from raycsr.results import collect_trials, find_runs
from raycsr.store import Store

CERTIFICATION = """
experiment: digits
data: {source: digits, limit: 40}
model: {name: cifar_resnet8, num_classes: 10, input_size: 8}
sampling: {sigma: 0.5, n0: 64, n: 1024, precision: fp32}
pool: {actors: 2, gpus_per_actor: 1}
costs: [uniform, "seed:4"]
"""

SWEEP = """
experiment: digits
name: two
data: {source: digits, split: train, limit: 400}
model: {name: cifar_resnet8, input_size: 8}
training: {epochs: 2, batch_size: 64, lr: 0.05}
validation: {every: 2, images: 30, sensitive: 10, n: 64}
costs: "seed:4"
space: {sigma: {grid: [0.25, 0.5]}}
search: {cpus_per_trial: 0.5, gpus_per_trial: 0.5}
test: {source: digits, limit: 40}
sampling: {n0: 64, n: 256, precision: fp32}
pool: {actors: 0}
radii: [0.1]
"""

READ = """
import sys, raycsr
runs = raycsr.list_runs(sys.argv[1])
certificates = raycsr.load_certificates(runs.location[0], costs="seed:4")
assert not {"ray", "torch"} & set(sys.modules)
print(len(runs), runs.finished[0], len(certificates), certificates.error.notna().sum())
"""


pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
]  # nothing of it counts: a job imports for long where the machine is busy

# each holds its node's GPU until the other has one
TASK_ON_EACH_NODE = """
import ray, time
ray.init()
started = [ray.remote(num_gpus=1)(lambda: time.sleep(2)).remote() for _ in range(2)]
ray.get(started)
"""


@pytest.fixture(scope="module", autouse=True)
def unpacked(nodes):
    """All nodes have the checkout: those of one machine share its folder, and each replaces it on first need."""
    done = nodes.submit("python", "-c", TASK_ON_EACH_NODE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def written(tmp_path):
    """`written(text)` is the path of a config that every node of this machine can read."""

    def write(text):
        path = tmp_path / "job.yaml"
        path.write_text(text)
        return str(path)

    return write


def last_line(output):
    """What the job printed last; `ray job submit` itself goes on."""
    said = re.split(r"\d{4}-\d\d-\d\d [\d:,]+\s+(?:INFO|ERR|SUCC)", output.split("Running entrypoint")[1])[0]
    return said.strip().splitlines()[-1]


def test_a_sweep_is_submitted_and_the_notebook_reads_what_it_wrote(nodes, on_ceph, written, tmp_path):
    results = f"{on_ceph}/results"
    done = nodes.submit("python", "-m", "jobs.sweep", "--config", written(SWEEP), "--results", results)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = collect_trials(results)
    assert trials["sigma"].tolist() == [0.25, 0.5] and set(trials["state"]) == {"finished"}
    best = [name for name in Store(f"{results}/digits/sweeps/two").names("best") if name.endswith(".pt")]
    assert best == ["sigma0.25-seed-4.pt", "sigma0.5-seed-4.pt"]
    cells = run_notebook(tmp_path, RESULTS=results, RADIUS=0.1)
    winners = [run.run_id for run in find_runs(results)]  # certified on the test split
    assert len(winners) == 2 and all(run_id in text(cells["runs"]) for run_id in winners)
    assert len(pictures(cells["curves"])) == 1 and len(pictures(cells["recalls"])) >= 1
    assert "two" in text(cells["trials"])


def test_a_mistake_fails_the_job_and_is_its_last_line(nodes, on_ceph, written):
    """Of two commands: results in the copy that the job runs in, which are refused, and a model that is none."""
    config = written(CERTIFICATION.replace("cifar_resnet8", "cifar_resnet9"))
    relative = f"python -m jobs.sample --config {config} --results results"
    wrong = f"python -m jobs.evaluate --config {config} --results {on_ceph}/results"
    done = nodes.submit("sh", "-c", f"{relative} || echo status $?; {wrong}")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    refused = "\n".join(lines[: lines.index("status 2")])
    assert "results 'results' is a relative path" in refused and "s3://bucket/prefix" in refused
    said = last_line(done.stdout)
    assert said.startswith("raycsr evaluate: ") and "'cifar_resnet9'" in said and "cifar_resnet8" in said


def test_a_certification_is_watched_stopped_continued_and_read_back_without_ray(nodes, ceph, on_ceph, written):
    results = f"{on_ceph}/results"
    entrypoint = [
        *("python", "-m", "jobs.evaluate", "--config", written(CERTIFICATION)),
        *("--sampling.n", "16384", "--results", results),
    ]
    job = submission_id(nodes.submit(*entrypoint, wait=False).stdout)
    give_up = time.monotonic() + 600
    while not (runs := find_runs(results)) or len(runs[0].vote_parts()) < 3:
        assert time.monotonic() < give_up, nodes.ray("job", "logs", job).stdout
    happened = {"raycsr_images", "raycsr_samples"}  # no counter shows before it counts
    wanted = {f"ray_{name}_total" for name in COUNTERS if name in happened} | {f"ray_{name}" for name in GAUGES}
    while wanted - (shown := exported(nodes, runs[0].run_id)):
        assert time.monotonic() < give_up, shown
    assert nodes.ray("job", "stop", job).returncode == 0
    assert json.loads(runs[0].store.read("owners/0001.json"))["released"]
    assert "raycsr evaluate: stopped by SIGTERM; what is committed is kept" in nodes.ray("job", "logs", job).stdout
    done = nodes.submit(*entrypoint)
    assert done.returncode == 0, done.stdout
    assert 0 < int(re.search(r"of which (\d+) to sample", done.stdout)[1]) < 40
    ids = runs[0].committed()["image_id"].to_pylist()
    assert len(ids) == len(set(ids)) == 40 and runs[0].finished()
    assert last_line(done.stdout) == runs[0].location and "| seed:4 " in done.stdout
    read = subprocess.run([sys.executable, "-c", READ, results], capture_output=True, text=True)
    assert read.stdout.split() == ["1", "True", "40", "0"], read.stderr
    texts = [
        done.stdout,
        done.stderr,
        *(runs[0].store.read(f"{name}.json").decode() for name in ("manifest", "finished")),
    ]
    assert not any(key in text for text in texts for key in ceph.keys)


def exported(nodes, run_id):
    """Names of what the worker nodes show of a run to Prometheus."""
    ports = re.findall(r"metrics-export-port=(\d+)", " ".join(" ".join(map(str, n.process.args)) for n in nodes.nodes))
    pages = [urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=10).read().decode() for port in ports]
    return {line.split("{")[0] for page in pages for line in page.splitlines() if f'run="{run_id}"' in line}


def test_whoever_lacks_the_token_is_turned_away(nodes):
    refused = nodes.ray("job", "list", RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode != 0 and "authentication" in refused.stderr
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{nodes.api}/api/jobs/", timeout=10)
