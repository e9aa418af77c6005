"""The scale benchmark: `python -m jobs.bench_scale [--images N] [--parts N] [--only NAME] [--out FILE]`, no network."""

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import ray

from jobs.bench import show
from raycsr.certification import Statements, looks
from raycsr.cli import run_job
from raycsr.data.images import frame
from raycsr.data.options import DataOptions
from raycsr.data.sources import Listing, Source
from raycsr.distributed.certify_run import certify_run
from raycsr.distributed.cluster import connect
from raycsr.distributed.options import PoolOptions
from raycsr.distributed.pool import Probe
from raycsr.distributed.sampling.arguments import SampleArguments
from raycsr.distributed.sampling.job import Job, open_run
from raycsr.distributed.sampling.remaining import Remaining
from raycsr.distributed.sampling.stream import Work, stream
from raycsr.distributed.sampling.voter import Voter
from raycsr.errors import UserError
from raycsr.models.loading import load_base_classifier
from raycsr.models.rules import ARGMAX, Rule
from raycsr.models.spec import ModelOptions
from raycsr.results import SCHEMA_VERSION, Ownership, Run, histograms, missing_images, votes_table
from raycsr.smoothing.engine import Counted, Request, Sampler
from raycsr.smoothing.options import CHUNK, SamplingOptions
from raycsr.store import PATIENCE, Store

IMAGENET = 1_281_167  # training images
CLASSES = 10
N0, N = 100, 1000
RULES = ("argmax", "offset-0123456789", "expected_cost-0123456789")
ALPHA = 0.001
MODEL = ModelOptions("cifar_resnet8", num_classes=1000, input_size=32)
FIXED, SEQUENTIAL = "fixed", "sequential"
MOST = 100_032  # estimation samples of a sequential run's image, at most
_WRITERS = 8


def resume(folder: str, images: int, parts: int) -> list[dict]:
    """Deciding what a run lacks: its listing and committed rows read and compared, in a fresh process."""
    rows = []
    for rules in (RULES[:1], RULES):
        run = write_run(f"{folder}/{len(rules)}", images, parts, rules)
        rows += _decide_of(run, f"{images:,} images, {parts:,} parts, {len(rules)} rules", None)
    run = write_run(f"{folder}/sequential", images, parts, RULES[:1], SEQUENTIAL)
    what = f"{images:,} images, {parts:,} parts, sequential"
    rows += _decide_of(run, f"{what}, the same radius", (0.25,), undecided=0)
    rows += _decide_of(run, f"{what}, two radii more", (0.25, 0.5, 0.75))
    return rows


def _decide_of(run: Run, what: str, radii: tuple[float, ...] | None, undecided: int | None = None) -> list[dict]:
    facts = _in_fresh_process(_decide, run.location, radii)
    lost = run.num_images() - len(pc.unique(run.committed()["image_id"]))
    if facts["missing"] != lost or undecided not in (None, facts["undecided"]):
        sys.exit(f"the decision is wrong: {facts['missing']} images missing and {facts['undecided']} undecided")
    return [
        {"what": f"process with its imports, {what}", "MB": facts["before"]},
        {"what": f"resume decision, {what}", "seconds": facts["seconds"], "MB": facts["peak"]},
    ]


def statements_of(run: Run, radii: tuple[float, ...]) -> Statements:
    """Those of the sequential benchmark."""
    return Statements([run.costs("uniform"), run.costs("seed:3")], radii, sigma=0.5, alpha=ALPHA, n=MOST)


def _decide(location: str, radii: tuple[float, ...] | None) -> dict[str, float]:
    before = _peak()
    start = time.perf_counter()
    run = Run(Store(location))
    images, rules = run.images(), list(run.rules())
    remaining = Remaining(run, None if radii is None else statements_of(run, radii), N if radii is None else MOST)
    found = remaining.to_sample(images, rules, retry_errors=False)
    seconds = time.perf_counter() - start
    undecided = int((found["continues"] != "").sum())
    return {
        "missing": len(found) - undecided,
        "undecided": undecided,
        "seconds": seconds,
        "before": before,
        "peak": _peak(),
    }


def _peak() -> float:
    """This program's largest resident set in MB; `getrusage` would count what its parent held at the fork, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def certify(folder: str, images: int, parts: int) -> list[dict]:
    """Certifying stored votes by Ray Data tasks on this machine's CPUs, against one process without Ray."""
    run = write_run(folder, images, parts, RULES[:1])
    costs = run.costs("uniform")
    name = run.open_certificates("uniform", costs, ALPHA)
    few = run.uncertified(name)[: max(1, parts // 20)]
    start = time.perf_counter()
    run.certify_parts(name, few, costs, ALPHA)
    bare = len(few) * images / parts / (time.perf_counter() - start)
    connect()
    start = time.perf_counter()
    certify_run(run, "uniform", costs, ALPHA)
    seconds = time.perf_counter() - start
    rate = (1 - len(few) / parts) * images / seconds
    what = f"{CLASSES} classes, {images // parts} rows a part"
    return [
        {"what": f"one process, {what}", "rows_per_second": bare, "ratio": 1.0},
        {"what": f"certify, {what}", "seconds": seconds, "rows_per_second": rate, "ratio": rate / bare},
    ]


@dataclass(frozen=True)
class _Grey(Source):
    """Images that need no reading."""

    def read_in_turns(self, image_ids: Sequence[str]) -> Iterator[list]:
        """The same grey image for each id."""
        yield [np.full((32, 32, 3), 128, np.uint8)] * len(image_ids)


class _Idle(Sampler):
    """An engine that draws nothing: all votes are for class 0."""

    def __init__(self, rules: tuple[Rule, ...], num_classes: int) -> None:
        """Settles what each image gets."""
        self.rules, self.n0, self.n, self.batch_size = rules, N0, N, 64
        self.out_of_memory = 0
        self._counts = np.zeros((2, len(rules), num_classes), np.int64)
        self._counts[0, :, 0], self._counts[1, :, 0] = N0, N

    def set_batch_size(self, batch_size: int) -> None:
        """Nothing has a shape here."""

    def sample(self, requests: Iterable[Request | None]) -> Iterator[Counted]:
        """The votes of any images."""
        for position, _ in enumerate(request for request in requests if request is not None):
            yield Counted(position, self._counts[0], self._counts[1], N0 + N, None, self.batch_size)


class _IdleVoter(Voter):
    """The actor without its engine: what is left is the pipeline's own work."""

    def _open_sampler(self) -> Sampler:
        return _Idle(self.spec.rules, self.network.num_classes)


def pipeline(folder: str, images: int, parts: int) -> list[dict]:
    """The pipeline's own rate: decode, actors, commits and the driver, with an engine that draws nothing."""
    return [_in_fresh_process(_flow, folder, images, PoolOptions(actors=8, cpus_per_actor=0.1), 0)]


def wide(folder: str, images: int, parts: int) -> list[dict]:
    """The same with 64 actors on logical GPUs, which this machine's cores start one after the other."""
    return [_in_fresh_process(_flow, folder, min(images, 20_000), PoolOptions(actors=64, gpus_per_actor=1), 64)]


def _flow(folder: str, images: int, pool: PoolOptions, gpus: int) -> dict:
    ray.init("local", num_gpus=gpus, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    connect()
    ids = [f"{i % 1000}/{i}" for i in range(images)]
    listed = frame(ids, 0, 1, "1")
    base_classifier = load_base_classifier(MODEL)
    sampling = SamplingOptions(sigma=0.5, n0=N0, n=N, precision="fp32")
    listing = Listing(listed, [str(label) for label in range(1000)], {"source": "grey", "images": str(images)})
    asked = SampleArguments(
        data=DataOptions("digits"), model=MODEL, sampling=sampling, pool=pool, results=folder, experiment="e"
    )
    job = Job(asked, base_classifier, "grey", 0.5, _Grey(asked.data), listing, (ARGMAX,), {}, None)
    found = Probe("fp32", "none", 64, 1e9)
    run = open_run(job, found)
    start, began = time.perf_counter(), time.time()
    with Ownership(run.store) as owner:
        missing = missing_images(run.add_images(listed), run.committed(), ["argmax"])
        missing = missing.assign(continues="", batch_size=0)
        listing_seconds = time.perf_counter() - start
        list(stream([Work(job, run, found, owner, missing)], _IdleVoter))
    seconds = time.perf_counter() - start
    committed = run.committed()["image_id"].to_pylist()
    if len(committed) != images or set(committed) != set(ids):
        sys.exit(f"{len(committed)} rows and {len(set(committed))} images were committed, where {images} are")
    written = sorted(path.stat().st_mtime for path in Path(run.location, "votes").iterdir())
    return {
        "what": f"{pool.actors} actors, {images:,} images, no engine",
        "seconds": seconds,
        "first_part_after_seconds": written[0] - began,
        "listing_seconds": listing_seconds,
        "images_per_second": images / (written[-1] - written[0]),
        "MB": _peak(),
    }


def _in_fresh_process(function: Callable[..., dict], *arguments: Any) -> dict:
    pool = multiprocessing.get_context("spawn").Pool(1)
    try:
        return pool.apply(function, arguments)
    finally:
        pool.close()
        pool.join()


def write_run(folder: str, images: int, parts: int, rules: tuple[str, ...], design: str = FIXED) -> Run:
    """A run as `raycsr sample` leaves it before its last part is committed, its votes made up.

    Of a sequential run a quarter of the parts go on with images of others.
    """
    run = Run(Store(folder, PATIENCE).at("scale/runs/0123456789abcdef"))
    classes = [str(label) for label in range(CLASSES)]
    manifest = {
        "experiment": "scale",
        "model": "none",
        "sigma": 0.5,
        "n0": N0,
        "n": N if design == FIXED else None,
        "schema_version": SCHEMA_VERSION,
        "precision": "fp32",
        "sampling": design,
    }
    manifest |= {"num_classes": CLASSES, "class_names": classes}
    run.store.create("manifest.json", json.dumps(manifest).encode())
    run.add_rules({"id": rule, "kind": rule.split("-")[0], "spec": rule} for rule in rules[1:])
    generator = np.random.default_rng(0)
    ids = np.array([f"n{10_000_000 + i % 1000}/n{10_000_000 + i % 1000}_{i}.JPEG" for i in range(images)])
    labels = generator.integers(0, CLASSES, images, np.int32)
    run.add_images(pd.DataFrame({"image_id": ids, "label": labels, "size": 1, "version": "1"}))
    begin = parts if design == FIXED else parts - parts // 4
    chosen = np.array_split(generator.permutation(images), begin)
    looked_at, digest = np.array(looks(MOST, CHUNK)), "" if design == FIXED else statements_of(run, (0.25,)).digest

    def write(part: int) -> None:
        own = np.random.default_rng(part)
        of_part = chosen[part % begin]
        if design == FIXED:
            votes = pa.concat_tables(_votes(ids[of_part], labels[of_part], rule, N, own) for rule in rules)
        else:
            n = own.choice(looked_at[:40] if part < begin else looked_at[40:], len(of_part))
            before = _name(part - begin) if part >= begin else None
            votes = _votes(ids[of_part], labels[of_part], rules[0], n, own, design, digest, before)
        run.write_votes(_name(part), votes)

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(write, (part for part in range(parts) if part != begin - 1)))
    return run


def _name(part: int) -> str:
    return f"0001-{part:016x}.parquet"


def _votes(
    ids: np.ndarray,
    labels: np.ndarray,
    rule: str,
    n: int | np.ndarray,
    generator: np.random.Generator,
    design: str = FIXED,
    decided: str = "",
    continues: str | None = None,
) -> pa.Table:
    """Votes for each image's label, and some for another class."""
    rows, images = np.arange(len(ids)), len(ids)
    n = np.broadcast_to(n, images)
    others = (generator.random(images) * 0.4 * n).astype(np.int64)
    counts = np.zeros((2, images, CLASSES), np.int64)
    counts[0, rows, labels], counts[1, rows, labels] = N0, n - others
    counts[1, rows, (labels + generator.integers(1, CLASSES, images)) % CLASSES] = others
    return votes_table(
        {
            "image_id": ids,
            "label": labels,
            "rule": [rule] * images,
            "selection": histograms(counts[0]),
            "estimation": histograms(counts[1]),
            "n0": np.full(images, N0),
            "n": n,
            "sampling": [design] * images,
            "decided": [decided or None] * images,
            "continues": [continues] * images,
            "image_sha": [generator.bytes(32).hex() for _ in ids],
            "device": ["cpu AMD EPYC Processor, AVX512, 2 threads"] * images,
            "batch_size": np.full(images, 64, np.int32),
            "seconds": generator.random(images),
            "error": [None] * images,
        }
    )


BENCHMARKS: dict[str, Callable[[str, int, int], list[dict]]] = {
    "resume": resume,
    "certify": certify,
    "pipeline": pipeline,
    "wide": wide,
}


def bench_scale(
    *,
    images: int = IMAGENET,
    parts: int = 10_000,
    only: str | None = None,
    results: str | None = None,
    out: str | None = None,
) -> None:
    """Runs the scale benchmarks one after the other, and prints a table.

    Args:
        images: Images of a run.
        parts: Votes parts that hold them.
        only: One of resume, certify, pipeline, wide; by default all.
        results: Empty folder for their runs, local or s3://bucket/prefix, which keeps them; by default a temporary one.
        out: JSON file to write.
    """
    if only not in (None, *BENCHMARKS):
        raise UserError(f"no benchmark {only!r}; choose one of {', '.join(BENCHMARKS)}")
    measured = {}
    for name in [only] if only else BENCHMARKS:
        with tempfile.TemporaryDirectory() as temporary:
            measured[name] = BENCHMARKS[name](f"{results}/{name}" if results else temporary, images, parts)
    show(measured, out)


if __name__ == "__main__":
    from jobs import bench_scale as importable  # actors cannot find classes of __main__

    sys.exit(run_job(importable.bench_scale))
