"""The benchmark: `python -m jobs.bench [--only NAME] [--out FILE]`. Each figure beside a baseline of the same run."""

import json
import multiprocessing
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pandas.api.types import is_numeric_dtype
from PIL import Image

from jobs.bench_engine import MODEL, ROUNDS, SIGMA, engine, noise, picture
from raycsr.certification import certify_counts
from raycsr.cli import run_job
from raycsr.costs import CostMatrix
from raycsr.data.options import DataOptions
from raycsr.distributed.options import PoolOptions
from raycsr.distributed.pool import device_name
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference, resolve_precision
from raycsr.reports import Column, Table, as_text
from raycsr.results import load_votes
from raycsr.smoothing.engine import Sampler
from raycsr.smoothing.options import Draws, SamplingOptions
from raycsr.training.augmentation import Augmentation
from raycsr.training.batches import InMemoryBatches
from raycsr.training.loop import Epoch, Trainer
from raycsr.training.objectives import Objective, resolve_objective
from raycsr.training.options import AugmentationOptions, TrainingOptions
from raycsr.verbs.sample import sample

BATCH = 128  # of a training step


def pipeline() -> list[dict]:
    """Ray pipeline against the bare engine at the same total threads, start of the actors included."""
    threads = torch.get_num_threads()
    images, few, n = 40, 16, 96
    with tempfile.TemporaryDirectory() as folder:
        _write_photographs(Path(folder) / "photos", images)
        base_classifier = load_base_classifier(MODEL)
        precision = resolve_precision("auto", "cpu")
        network = prepare_for_inference(base_classifier, precision=precision, device="cpu")
        sampler = Sampler(network, Draws(SIGMA, 32, n, batch_size=16))
        pixels = picture()
        sampler.count(pixels, "warm")
        start = time.perf_counter()
        for i in range(few):
            sampler.count(pixels, str(i))
        bare = few / (time.perf_counter() - start)
        rows = [{"what": f"bare engine, 1 x {threads} threads", "images_per_second": bare, "ratio": 1.0}]
        for actors in sorted({1, threads}):
            rate, steady = _pipeline_rate(folder, images, n, actors, threads // actors)
            what = f"pipeline, {actors} actors x {threads // actors} threads"
            rows.append({"what": f"{what}, from start to end", "images_per_second": rate, "ratio": rate / bare})
            rows.append(
                {"what": f"{what}, once the actors sample", "images_per_second": steady, "ratio": steady / bare}
            )
    return rows


def _pipeline_rate(folder: str, images: int, n: int, actors: int, threads: int) -> tuple[float, float]:
    start = time.time()
    (outcome,) = sample(
        data=DataOptions(source="imagefolder", path=f"{folder}/photos", class_names=[str(i) for i in range(1000)]),
        model=MODEL,
        sampling=SamplingOptions(sigma=SIGMA, n0=32, n=n, batch_size=16),
        pool=PoolOptions(actors=actors, cpus_per_actor=0.5 / actors, threads_per_actor=threads),
        results=f"{folder}/results-{actors}",
    )
    end = time.time()
    votes = load_votes(outcome.run.location)
    sampling = votes["seconds"].sum() / actors
    return images / (end - start), images / sampling


def start() -> list[dict]:
    """From typing `raycsr sample` to the first committed votes, on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "raycsr.cli",
            "sample",
            "--data.source",
            "digits",
            "--model.name",
            "cifar_resnet20",
        ]
        command += ["--model.num_classes", "10", "--model.input_size", "8", "--sampling.n", "256", "--results", folder]
        begin = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(Path(folder).glob("default/runs/*/votes/*.parquet")) and process.poll() is None:
            time.sleep(0.05)
        seconds = time.monotonic() - begin
        process.wait()
    return [{"what": "start to first votes", "seconds": seconds}]


def trainer() -> list[dict]:
    """The trainer's epoch against a bare PyTorch loop with the same loss, network, precision and data in memory."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = np.random.default_rng(0).integers(0, 256, (32 * BATCH, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(len(images)) % 10
    costs = torch.tensor(CostMatrix.seedwise(10, [3]).values, dtype=torch.float32, device=device)
    rows = []
    for name, args, options in (
        ("gaussian", {}, AugmentationOptions()),
        ("gaussian", {}, AugmentationOptions(crop_padding=4, flip=True)),
        ("margin_cs", {"k": 4}, AugmentationOptions()),
    ):
        objective = resolve_objective(name, args, costs=CostMatrix.seedwise(10, [3]))
        ours, theirs = (load_base_classifier("cifar_resnet20", num_classes=10, device=device) for _ in range(2))
        epoch = _bare_epoch(theirs, images, labels, objective, costs)
        batches = InMemoryBatches(
            images,
            labels,
            batch_size=BATCH,
            generator=torch.Generator().manual_seed(0),
            augment=Augmentation(options, (32, 32)),
        )
        made = Trainer(
            ours,
            batches,
            objective=objective,
            sigma=SIGMA,
            generator=torch.Generator(device).manual_seed(1),
            costs=costs,
            options=TrainingOptions(epochs=ROUNDS + 1, batch_size=BATCH, lr=0.01, schedule="cosine", precision="bf16"),
        )
        rates: dict[str, list[float]] = {"bare loop": [], "trainer": []}

        def after(done: Epoch, epoch: Callable = epoch, rates: dict = rates) -> None:
            start = time.perf_counter()
            epoch()
            rates["bare loop"].append(len(images) / (time.perf_counter() - start))
            rates["trainer"].append(done.images_per_second)

        made.run(after)
        middle = {what: statistics.median(values[1:]) for what, values in rates.items()}  # the first round warms up
        augmented = ", crop and flip" if options.flip else ""
        for what, rate in middle.items():
            shown = f"{what}, {name}{augmented if what == 'trainer' else ''}"
            rows.append({"what": shown, "images_per_second": rate, "ratio": rate / middle["bare loop"]})
    return rows


def _bare_epoch(
    model: BaseClassifier, images: np.ndarray, labels: np.ndarray, objective: Objective, costs: torch.Tensor
) -> Callable[[], None]:
    """An epoch as one would write it by hand."""
    device = costs.device
    model.requires_grad_(True).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    pixels, answers = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)
    generator = torch.Generator(device).manual_seed(1)

    def epoch() -> None:
        for chosen in torch.randperm(len(pixels)).split(BATCH):
            x, y = (pixels[chosen].float() / 255).to(device), answers[chosen].to(device)
            with torch.autocast(device.type, torch.bfloat16):
                loss = objective(model, x, y, sigma=SIGMA, costs=costs, progress=0.0, generator=generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()

    return epoch


def memory() -> list[dict]:
    """Peak memory of a CPU sampler of resnet50 at 224 px and batch 64, above the process with its model."""
    spawn = multiprocessing.get_context("spawn")
    rows = []
    for n in (64, 640):
        with spawn.Pool(1) as pool:
            before, after = pool.apply(_peak_memory, (n,))
        rows.append({"what": f"sampler's peak at n = {n}, above its model", "MB": after - before})
    return rows


def _peak_memory(n: int) -> tuple[float, float]:
    network = prepare_for_inference(load_base_classifier(MODEL), precision="bf16", device="cpu")
    before = _resident()
    sampler = Sampler(network, Draws(SIGMA, 64, n))
    sampler.count(picture(), "image")
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def certify() -> list[dict]:
    """Certifying 50,000 images x 1,000 classes under the uniform matrix, from dense counts."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 1000, 50_000)
    counts0, counts = np.zeros((2, 50_000, 1000), np.int64)
    for target, total in ((counts0, 100), (counts, 100_000)):
        others = generator.integers(0, 1000, (50_000, 8))
        share = generator.dirichlet(np.r_[8.0, np.full(8, 0.3)], 50_000)
        votes = np.floor(share * total).astype(np.int64)
        votes[:, 0] += total - votes.sum(1)
        np.add.at(target, (np.arange(50_000)[:, None], np.c_[labels, others]), votes)
    before, begin = _resident(), time.perf_counter()
    certify_counts(counts0, counts, labels, costs=CostMatrix.uniform(1000), sigma=0.5, sampling="fixed")
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [{"what": "certify 50,000 x 1,000, |Omega| = 999", "seconds": seconds, "MB": max(peak - before, 0.0)}]


def _write_photographs(folder: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    (folder / "0").mkdir(parents=True)
    for i in range(count):
        small = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.resize((500, 375)).save(folder / "0" / f"{i}.jpg")


BENCHMARKS = {
    "engine": engine,
    "noise": noise,
    "pipeline": pipeline,
    "trainer": trainer,
    "start": start,
    "memory": memory,
    "certify": certify,
}


def bench(*, only: str | None = None, out: str | None = None) -> None:
    """Runs the benchmarks one after the other and prints a table.

    Args:
        only: One of engine, noise, pipeline, trainer, start, memory, certify; by default all.
        out: JSON file to write.
    """
    if only not in (None, *BENCHMARKS):
        raise UserError(f"no benchmark {only!r}; choose one of {', '.join(BENCHMARKS)}")
    show({name: BENCHMARKS[name]() for name in ([only] if only else BENCHMARKS)}, out)


def show(results: dict[str, list[dict]], out: str | None) -> None:
    """Prints the figures of benchmarks as a table, and writes them as JSON where `out` names a file."""
    device = device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    rows = pd.DataFrame([{"benchmark": name, **row} for name, rows in results.items() for row in rows])
    cells = rows.map(lambda value: value if isinstance(value, str) else "" if pd.isna(value) else f"{value:,.3g}")
    print(f"{device}, torch {torch.__version__}")
    columns = [Column(name, numeric=is_numeric_dtype(rows[name])) for name in rows.columns]
    print(as_text(Table(columns, cells.to_numpy().tolist())))
    if out:
        facts = {"device": device, "torch": torch.__version__, "python": platform.python_version()}
        Path(out).write_text(json.dumps(facts | {"results": results}, indent=1))


if __name__ == "__main__":
    sys.exit(run_job(bench))
