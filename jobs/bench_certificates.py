"""What a method of certificates gains over the one before it, from the same votes; and what certifying takes.

    python -m jobs.bench_certificates [--published TSV] [--n 10000]

TSV is a table of locuslab/smoothing for ImageNet, .../sigma_0.25, whose radii say p_A of its images. What the other 999
classes have is not published: they share the rest by rank^-POWER, for several powers. The shares of ten classes are
simulated too, those of a group alike.
"""

import multiprocessing
import resource
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from jobs.bench import show
from raycsr.certification import certify_counts, certify_votes
from raycsr.certification.votes import SparseVotes
from raycsr.cli import run_job
from raycsr.costs import CostMatrix
from raycsr.results import read_locuslab_tsv

ALPHA, N0, RADIUS, CLASSES = 0.001, 100, 0.25, 1000
MANY = 21_841  # of ImageNet-21k
POWERS = (0.0, 0.5, 1.0, 1.5)
DRAWS = 5
BEFORE, NOW = "clopper-pearson", "cp-2"
ANIMALS = (2, 3, 4, 5, 6, 7)  # of CIFAR-10; the others are vehicles


def imagenet(published: str, n: int) -> list[dict]:
    """Shares of images certified at RADIUS by both methods, of the published p_A and several tails."""
    sigma = float(Path(published).name.removesuffix(".tsv").removeprefix("sigma_"))
    table = read_locuslab_tsv(published)
    p_a = np.where(table["abstain"], 0.4, ndtr(table["standard_radius"] / sigma))
    labels = table["label"].to_numpy()
    answers = np.where(table["abstain"], labels, table["prediction"].fillna(0)).astype(int)
    rows = []
    for power in POWERS:
        generator, tail = np.random.default_rng(0), np.arange(1, CLASSES) ** -power
        found: dict[str, list[float]] = {}
        for _ in range(DRAWS):
            p = np.empty((len(labels), CLASSES))
            for i, answer in enumerate(answers):
                p[i, np.delete(np.arange(CLASSES), answer)] = (1 - p_a[i]) * generator.permutation(tail) / tail.sum()
                p[i, answer] = p_a[i]
            counts0, counts = (np.array([generator.multinomial(k, one) for one in p]) for k in (N0, n))
            options: dict[str, Any] = {
                "costs": CostMatrix.uniform(CLASSES),
                "sigma": sigma,
                "sampling": "fixed",
                "alpha": ALPHA,
            }
            before, now = (certify_counts(counts0, counts, labels, method=m, **options) for m in (BEFORE, NOW))
            right = now["prediction"] == labels
            for name, share in (
                ("cost-sensitive, before", (before["cost_sensitive_radius"] >= RADIUS).mean()),
                ("cost-sensitive", (now["cost_sensitive_radius"] >= RADIUS).mean()),
                ("lost", ((before["cost_sensitive_radius"] >= RADIUS) & (now["cost_sensitive_radius"] < RADIUS)).sum()),
                ("standard, right", (now["standard_radius"] >= RADIUS)[right].mean()),
                ("multiclass, right", (now["multiclass_radius"] >= RADIUS)[right].mean()),
            ):
                found.setdefault(name, []).append(float(share))
        rows.append(
            {"sigma": sigma, "n": n, "tail": power, **{name: np.mean(shares) for name, shares in found.items()}}
        )
    return rows


def ten_classes(n: int, images: int = 1000, sigma: float = 0.25) -> list[dict]:
    """Pairs and groups of ten classes at r = 2 sigma, of simulated shares: a few classes that look alike have most."""
    generator = np.random.default_rng(0)
    labels, p = np.arange(images) % 10, np.full((images, 10), 0.0)
    group = np.isin(np.arange(10), ANIMALS)
    for i, label in enumerate(labels):
        alike = np.where(group == group[label], 0.6, 0.04)
        alike[label] = 2.5
        p[i] = generator.dirichlet(alike)
    counts0, counts = generator.multinomial(N0, p), generator.multinomial(n, p)
    rows = []
    animals = np.where(group[:, None] != group, 1.0, 0.0)
    pairs = [CostMatrix.pairwise(10, {y: [k]}) for y in range(10) for k in range(10) if y != k]
    for name, matrices in (("90 pairs", pairs), ("animals / vehicles", [CostMatrix(animals)])):
        shares = {}
        for method in (BEFORE, NOW):
            options: dict[str, Any] = {"sigma": sigma, "sampling": "fixed", "alpha": ALPHA, "method": method}
            radii = [certify_counts(counts0, counts, labels, costs=one, **options) for one in matrices]
            certified = [(one["cost_sensitive_radius"].dropna() >= 2 * sigma).mean() for one in radii]
            shares[method] = float(np.mean(certified))
        rows.append({"what": name, "n": n, **shares})
    return rows


def speed() -> list[dict]:
    """What certifying takes of many images or many classes, under one cost matrix after another.

    Returns:
        A row for each: CPU seconds of all matrices together, and the most memory that they take beside the votes.
    """
    groups = CostMatrix.groups(MANY, (np.arange(MANY) % 300).tolist())
    many = [CostMatrix.uniform(MANY), CostMatrix.seedwise(MANY, [0, 1]), groups]
    return [
        _certified("one seed class", 50_000, [CostMatrix.seedwise(CLASSES, [0])]),
        _certified("20 seed classes, a matrix each", 50_000, [CostMatrix.seedwise(CLASSES, [k]) for k in range(20)]),
        _certified("uniform", 50_000, [CostMatrix.uniform(CLASSES)]),
        _certified("uniform, 2 seed classes, 300 groups", 1_000, many),
    ]


def _certified(name: str, images: int, matrices: list[CostMatrix]) -> dict:
    """Certifies images whose votes fell on ten classes or fewer, in a process of its own."""
    sending, receiving = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_certify, args=(receiving, images, matrices))
    child.start()
    seconds, more = sending.recv()
    child.join()
    of = {"costs": name, "images": f"{images:,}", "classes": f"{matrices[0].num_classes:,}"}
    return {**of, "CPU s": seconds, "MB more": more}


def _certify(to: Connection, images: int, matrices: list[CostMatrix]) -> None:
    generator, classes = np.random.default_rng(0), matrices[0].num_classes
    labels = generator.integers(0, classes, images)
    votes = []
    for total in (N0, 100_000):
        others = np.sort(np.stack([(labels + k * 37) % classes for k in range(9)], axis=1), axis=1)
        share = generator.dirichlet(np.full(9, 0.5), images)
        counts = np.floor(share * total).astype(np.int64)
        counts[:, 0] += total - counts.sum(axis=1)
        votes.append(SparseVotes(np.arange(images + 1) * 9, others.ravel().astype(np.int32), counts.ravel()))
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for costs in matrices:
        certify_votes(votes[0], votes[1], labels, costs=costs, sigma=0.5, sampling="fixed")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    to.send((time.process_time() - begin, (peak - before) / 1024))


def main(*, published: str | None = None, n: int = 1000, out: str | None = None) -> None:
    """Runs the benchmark and prints a table.

    Args:
        published: Table of locuslab/smoothing for ImageNet, .../sigma_0.25.
        n: Estimation samples of an image.
        out: File for the results, as JSON.
    """
    results = {"speed": speed(), "ten classes": ten_classes(n)}
    if published is not None:
        results["ImageNet"] = imagenet(published, n)
    show(results, out)


if __name__ == "__main__":
    sys.exit(run_job(main))
