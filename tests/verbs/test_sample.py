import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
import yaml
from nodes import pids_below
from PIL import Image

from raycsr import UserError, count_votes, load_certificates, load_votes
from raycsr.data.options import DataOptions
from raycsr.data.packaged import digits_arrays
from raycsr.distributed import pool
from raycsr.distributed.options import PoolOptions
from raycsr.distributed.pool import check_pool
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.options import SamplingOptions
from raycsr.verbs.sample import sample

HISTOGRAMS = ["selection", "estimation"]


def dense(histogram):
    counts = np.zeros(10, np.int64)
    for entry in histogram:
        counts[entry["class"]] = entry["count"]
    return counts


def comparable(votes):
    """What must be equal however the votes came about."""
    rows = votes.sort_values("image_id")[["image_id", "rule", "label", *HISTOGRAMS, "n0", "n", "image_sha", "error"]]
    rows = rows.astype(object).where(rows.notna(), None)
    return [{k: dense(v).tolist() if k in HISTOGRAMS else v for k, v in row.items()} for row in rows.to_dict("records")]


def test_the_pipeline_counts_the_votes_of_the_bare_engine(job):
    (outcome,) = sample(**job(limit=5))
    stored = load_votes(outcome.run.location).set_index("image_id")
    images, labels = digits_arrays("test")
    ids = [f"test#{i}" for i in range(5)]
    torch.set_num_threads(1)
    bare = count_votes(
        load_base_classifier(job()["model"]),
        torch.from_numpy(images[:5]).permute(0, 3, 1, 2) / 255,
        sigma=0.5, n0=32, n=128, seed=0, image_ids=ids,
    )  # fmt: skip
    for i, image_id in enumerate(ids):
        row = stored.loc[image_id]
        assert row["label"] == labels[i]
        assert dense(row["selection"]).tolist() == bare.counts0[i, 0].tolist()
        assert dense(row["estimation"]).tolist() == bare.counts[i, 0].tolist()
        assert (row["n0"], row["n"], row["sampling"]) == (32, 128, "fixed")
    assert stored["error"].isna().all()


def test_a_pool_of_no_actors_is_this_process(job, tmp_path):
    """Nothing of Ray is started, and the votes are those that actors draw: the test of their number compares them."""
    config = tmp_path / "job.yaml"
    options = job(limit=10, costs=["seed:4"])
    config.write_text(yaml.safe_dump({name: plain(value) for name, value in options.items()}))
    code = "import sys, ray; from raycsr.cli import main; main(sys.argv[1:]); print(ray.is_initialized())"
    words = [sys.executable, "-c", code, "sample", "--config", str(config)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False" and "in this process" in done.stdout, done.stderr
    (run,) = Path(options["results"]).glob("default/runs/*")
    assert len(load_votes(run)) == len(load_certificates(run, costs="seed:4")) == 10


def plain(value):
    return asdict(value) if is_dataclass(value) else value


@pytest.mark.parametrize("options", [{"elastic": True}, {"gpus_per_actor": 1}])
def test_what_no_actor_can_have_is_refused(options):
    with pytest.raises(UserError, match="pool.actors is 0.*leave out pool.elastic and pool.gpus_per_actor"):
        check_pool(PoolOptions(actors=0, **options))


@pytest.mark.ray
def test_votes_are_the_same_whatever_the_number_of_actors_and_blocks(cluster, job, tmp_path):
    (here,) = sample(**job(actors=0, results=str(tmp_path / "here")))
    (two,) = sample(**job(actors=2, results=str(tmp_path / "two")))
    assert here.run.run_id == two.run.run_id and len(here.run.vote_parts()) != len(two.run.vote_parts())
    assert comparable(load_votes(here.run.location)) == comparable(load_votes(two.run.location))


@pytest.mark.ray
def test_the_whole_path_on_s3_with_certificates_as_they_come(cluster, job, s3):
    results = f"s3://{s3.new_bucket()}/results"
    (outcome,) = sample(**job(actors=1, results=results, costs=["uniform", "pair:4/9"], alpha=0.01))
    assert outcome.run.location.startswith(results)
    assert sorted(facts["spec"] for facts in outcome.run.certificate_sets().values()) == ["pair:4/9", "uniform"]
    certificates = load_certificates(outcome.run.location, costs="uniform", alpha=0.01)
    assert len(certificates) == 12 and certificates["error"].isna().all()


def test_a_larger_subset_is_the_same_run_growing(job, capsys):
    (first,) = sample(**job(limit=4))
    (second,) = sample(**job(limit=10))
    (third,) = sample(**job(limit=10))
    assert first.run.location == second.run.location == third.run.location
    assert [outcome.sampled for outcome in (first, second, third)] == [4, 6, 0]
    assert len(load_votes(third.run.location)) == 10
    assert "all sampled" in capsys.readouterr().out.rsplit("run ", 1)[1]


def test_several_sigmas_and_models_are_a_run_each(job):
    options = job(limit=2)
    options["sampling"] = replace(options["sampling"], sigma=[0.25, 0.5])
    outcomes = sample(**options, further_models=["cifar_resnet20"])
    assert len({outcome.run.run_id for outcome in outcomes}) == 4


def test_an_image_that_cannot_be_decoded_is_an_errored_row_and_can_be_tried_again(job, photographs, tmp_path):
    options = job(**photographs)
    (outcome,) = sample(**options)
    assert list(outcome.errors) == ["dog/1.png"] and "UnidentifiedImageError" in outcome.errors["dog/1.png"]
    votes = load_votes(outcome.run.location).set_index("image_id")
    assert len(votes) == 6 and votes.loc["dog/1.png", "n"] == 0
    certificates = load_certificates(outcome.run.location, costs="uniform").set_index("image_id")
    assert certificates.loc["dog/1.png", "standard_radius"] == 0

    (again,) = sample(**options)
    assert again.sampled == 0 and list(again.errors) == ["dog/1.png"]

    good, bad = (tmp_path / "photos" / "dog" / name for name in ("0.png", "1.png"))
    bad.write_bytes(good.read_bytes())  # mended: another size, and no votes yet of what was there
    (again,) = sample(**options)
    assert again.sampled == 0 and list(again.errors) == ["dog/1.png"]
    (mended,) = sample(**options, retry_errors=True)
    assert mended.sampled == 1 and not mended.errors
    assert load_votes(mended.run.location)["error"].isna().all()


def test_data_that_was_copied_goes_on_and_data_that_was_replaced_does_not(job, tmp_path, capsys):
    generator = np.random.default_rng(0)
    for i in range(100):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.bmp"  # of one size whatever it shows
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    options = job(
        data=DataOptions(source="imagefolder", path=str(tmp_path / "photos"), limit=80),
        model=ModelOptions(name="cifar_resnet8", num_classes=2, input_size=8),
        n=32,
    )
    (first,) = sample(**options)
    shutil.copytree(tmp_path / "photos", tmp_path / "copy", copy_function=shutil.copyfile)
    copied = options | {"data": replace(options["data"], path=str(tmp_path / "copy"), limit=90)}
    (second,) = sample(**copied)
    assert (second.run.location, second.sampled) == (first.run.location, 10)
    assert "comparing 80 images" in capsys.readouterr().out
    one, other = (tmp_path / "copy" / "a" / f"{i}.bmp" for i in (0, 2))
    one.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match=r"1 images changed in the source .*'a/0.bmp'"):
        sample(**copied | {"data": replace(copied["data"], limit=None)})
    assert len(load_votes(first.run.location)) == 90


def test_retry_errors_samples_errored_images_again(job, photographs, monkeypatch):
    options = job(**photographs)
    (outcome,) = sample(**options)
    (retried,) = sample(**options, retry_errors=True)
    assert (outcome.sampled, retried.sampled) == (6, 1)
    assert list(retried.errors) == ["dog/1.png"]
    assert len(load_votes(retried.run.location)) == 6


def test_a_source_that_goes_away_while_sampling_is_one_line_and_keeps_what_is_done(job, photographs, monkeypatch):
    folder = Path(photographs["data"].path)
    options = job(**photographs)
    sample(**options | {"data": replace(options["data"], limit=2)})

    def vanish(*_, **__):
        folder.rename(folder.with_name("away"))
        return "plan"

    with (
        monkeypatch.context() as patched,
        pytest.raises(UserError, match=r"there is no .*photos.* on this node"),
    ):
        patched.setattr("raycsr.distributed.sampling.run.plan_of", vanish)
        sample(**options)
    folder.with_name("away").rename(folder)
    (outcome,) = sample(**options)
    assert outcome.sampled == 4


def test_a_network_that_is_broken_altogether_stops_at_once(job, tmp_path):
    model = load_base_classifier(job()["model"])
    model.network.fc.weight.fill_(3e38)  # a number, of which no sum is one
    save_checkpoint(tmp_path / "huge.pt", model)
    options = job(limit=40, n=4096, model=ModelOptions(name=str(tmp_path / "huge.pt")))
    with pytest.raises(UserError, match=r"the first block's .* images all gave logits that are not finite"):
        sample(**options)
    (run,) = Path(options["results"]).glob("default/runs/*")
    assert len(load_votes(run)) < 40


def test_training_at_another_sigma_draws_a_warning(job, tmp_path):
    model = load_base_classifier(job()["model"])
    save_checkpoint(tmp_path / "trained.pt", model, training_info={"objective": "gaussian", "sigma": 0.25})
    with pytest.warns(UserWarning, match="was trained at sigma 0.25 and is sampled at 0.5"):
        sample(**job(limit=1, model=ModelOptions(name=str(tmp_path / "trained.pt"))))


@pytest.mark.ray
def test_a_killed_actor_costs_nothing_but_time(cluster, job, tmp_path):
    # n is large enough for the actors to be killed while they work
    options = job(limit=40, n=4096, actors=2)
    (undisturbed,) = sample(**job(limit=40, n=4096, results=str(tmp_path / "undisturbed")))
    killed: list[int] = []
    thread = threading.Thread(target=_kill_a_voter, args=(Path(options["results"]), killed))
    thread.start()
    (outcome,) = sample(**options)
    thread.join()
    assert killed, "no actor was there to be killed"
    assert comparable(load_votes(outcome.run.location)) == comparable(load_votes(undisturbed.run.location))


def _kill_a_voter(results, killed):
    """Waits for the first committed part, then kills one of the processes that sample."""
    deadline = time.monotonic() + 120
    while not list(results.glob("default/runs/*/votes/*.parquet")):
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)  # polls a condition; nothing depends on how long it takes
    for pid in pids_below("MapWorker(MapBatches(HeedingVoters))")[:1]:
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)


@pytest.mark.ray
def test_a_pool_that_would_take_every_cpu_is_refused(cluster, job):
    cpus = int(ray.cluster_resources()["CPU"])
    with pytest.raises(
        UserError, match=rf"would take {cpus} of the cluster's {cpus} CPUs.*lower pool.actors to {cpus - 1}"
    ):
        sample(**job() | {"pool": PoolOptions(actors=cpus, cpus_per_actor=1)})
    with pytest.raises(UserError, match="the pool wants 2 GPUs and the cluster has 0"):
        sample(**job() | {"pool": PoolOptions(actors=2, gpus_per_actor=1)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampling": SamplingOptions(sigma=-0.5)}, "sigma must be a positive number.*got -0.5"),
        ({"sampling": SamplingOptions(sigma=[])}, "sampling.sigma is an empty list"),
        ({"sampling": SamplingOptions(n=9)}, "n=9 samples cannot certify any radius at alpha=0.001.*use n >= 10"),
        ({"alpha": 1.5}, "alpha is 1.5; give a failure probability between 0 and 1"),
        ({"costs": ["pair:4/cat"]}, "cat"),
        ({"data": DataOptions(source="imagefolder", path="/no/such/folder")}, "/no/such/folder"),
        ({"model": ModelOptions(name="resnet5", num_classes=10)}, "resnet50"),
        (
            {"model": ModelOptions(name="cifar_resnet8", num_classes=5)},
            "model 'cifar_resnet8' has 5 classes and the data has 10 .*data.class_names must list",
        ),
        (
            {"model": ModelOptions(name="cifar_resnet8", num_classes=12)},
            "model 'cifar_resnet8' has 12 classes and the data has 10",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(job, change, message):
    options = job() | change
    with pytest.raises(UserError, match=message):
        sample(**options)
    assert not Path(options["results"]).exists()


def test_n_of_10_is_the_least_that_certifies_at_alpha_001(job):
    options = job(limit=1)
    sample(**options | {"sampling": replace(options["sampling"], n=10)})


def test_a_run_keeps_the_batch_size_that_was_found_first(job, monkeypatch):
    sampling = replace(job()["sampling"], batch_size=None)
    for limit, found in ((2, 32), (4, 16)):
        monkeypatch.setattr(pool, "fastest_batch_size", lambda rate, max_samples, found=found: (found, 1000.0))
        (outcome,) = sample(**job(limit=limit, sampling=sampling))
    votes = load_votes(outcome.run.location)
    assert len(votes) == 4 and set(votes["batch_size"]) == {32}
