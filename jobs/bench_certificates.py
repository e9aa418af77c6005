"""What a method of certificates gains over the one before it, from the same votes.

    python -m jobs.bench_certificates --published TSV [--n 10000]

TSV is a table of locuslab/smoothing for ImageNet, .../sigma_0.25, whose radii say p_A of its images. What the other 999
classes have is not published: they share the rest by rank^-POWER, for several powers. The shares of ten classes are
simulated too, those of a group alike.
"""

import resource
import sys
import time
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
    """50,000 images of 1,000 classes, from sparse votes, under one seed class and under all."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, 50_000)
    votes = []
    for total in (N0, 100_000):
        others = np.sort(np.stack([(labels + k * 37) % CLASSES for k in range(9)], axis=1), axis=1)
        share = generator.dirichlet(np.full(9, 0.5), 50_000)
        counts = np.floor(share * total).astype(np.int64)
        counts[:, 0] += total - counts.sum(axis=1)
        votes.append(SparseVotes(np.arange(50_001) * 9, others.ravel().astype(np.int32), counts.ravel()))
    rows = []
    for name, costs in (("seed:0", CostMatrix.seedwise(CLASSES, [0])), ("uniform", CostMatrix.uniform(CLASSES))):
        before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        certify_votes(votes[0], votes[1], labels, costs=costs, sigma=0.5, sampling="fixed")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows.append({"costs": name, "CPU s": time.process_time() - begin, "MB more": (peak - before) / 1024})
    return rows


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
