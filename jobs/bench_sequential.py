"""What sequential sampling saves, and what it loses, on a real model's own votes.

    python -m jobs.bench_sequential --path DIR --model gaussian.pt [--published TSV] [--out DIR]
    python -m jobs.bench_sequential --run RUN [--n N] [--out DIR]

DIR holds CIFAR-10 as Parquet; TSV is a table of locuslab/smoothing for ImageNet, by whose radii all 50,000 validation
images are priced. Of a stored run of CIFAR-10 nothing is sampled: shares that may have given its votes are drawn, and
votes by these, on paper.
"""

import functools
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.special import ndtr

from jobs.bench import show
from jobs.bench_engine import ROUNDS
from raycsr.certification import WORTH, Statements, certify_counts, looks
from raycsr.certification.votes import SparseVotes
from raycsr.cli import run_job
from raycsr.costs import CostMatrix
from raycsr.data.memory import read_pixels
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source
from raycsr.distributed.prices import expected_samples
from raycsr.errors import UserError
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference, resolve_precision
from raycsr.models.spec import ModelOptions
from raycsr.progress import Progress
from raycsr.reports.drawing import STYLE, Form, rendered
from raycsr.results import read_locuslab_tsv, resolve_run, sparse_votes
from raycsr.smoothing.engine import Enough, Request, Sampler
from raycsr.smoothing.options import CHUNK, Draws
from raycsr.store import Store

SIGMA, ALPHA, N0 = 0.25, 0.001, 64
N = 100_032  # whole chunks
COSTS = ("uniform", "seed:cat", "pair:cat/dog")
# what is to be decided: (cost matrices, radii), the standard and the multiclass radius always among it
DESIGNS = {
    "one radius, uniform": (COSTS[:1], (0.25,)),
    "one radius, seed:cat": (COSTS[1:2], (0.25,)),
    "one radius, pair:cat/dog": (COSTS[2:], (0.25,)),
    "one radius, three matrices": (COSTS, (0.25,)),
    "three radii, three matrices": (COSTS, (0.1, 0.25, 0.5)),
}
# With four times as many samples, sequences certify more than Clopper-Pearson bounds do with N.
BEYOND_DOUBT: dict[str, Any] = {"worth": 1e11, "n": 4 * N}
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

Trace = list[np.ndarray]  # estimation votes (m,) of an image at each look


class Model:
    """A base classifier, images of CIFAR-10's test split, and the engine."""

    def __init__(self, path: str, model: str, images: int, batch_size: int) -> None:
        """Reads every so many-th image, so that there are `images` of them."""
        base_classifier = load_base_classifier(ModelOptions(model))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        source = open_source(DataOptions("parquet", path=path, split="test", class_names=CLASSES))
        listed = source.list().images
        rows = listed.iloc[:: max(1, len(listed) // images)].head(images)
        self.pixels = read_pixels(source, rows, base_classifier.preprocessing)
        network = prepare_for_inference(base_classifier, precision=resolve_precision("auto", device), device=device)
        self._draws = Draws(SIGMA, N0, N, batch_size=batch_size)
        self._sampler = functools.partial(Sampler, network, device=device)

    def sampler(self, n: int, checks: Sequence[int] = (), enough: Enough | None = None) -> Sampler:
        """The engine, for n estimation samples at most."""
        return self._sampler(replace(self._draws, n=n), checks=checks, enough=enough)

    def requests(self, images: int | None = None) -> list[Request]:
        """Images whose label is their position: that is how `enough` knows them."""
        chosen = zip(self.pixels.images[:images], self.pixels.image_ids[:images], strict=True)
        return [Request(torch.from_numpy(image).permute(2, 0, 1), name, i) for i, (image, name) in enumerate(chosen)]


def statements(design: str, worth: float = WORTH, n: int = N, sigma: float = SIGMA) -> Statements:
    """What a design decides."""
    costs, radii = DESIGNS[design]
    matrices = [CostMatrix.from_spec(spec, 10, CLASSES) for spec in costs]
    at = [radius * sigma / SIGMA for radius in radii]
    return Statements(matrices, at, sigma=sigma, alpha=ALPHA, n=n, worth=worth)


def traces(model: Model) -> tuple[np.ndarray, list[Trace]]:
    """Samples each image until the statements of all designs are beyond doubt.

    Returns:
        Selection votes (N, m), and each image's estimation votes at each look that there was.
    """
    labels, union = model.pixels.labels, statements("three radii, three matrices", **BEYOND_DOUBT)
    seen: dict[int, Trace] = defaultdict(list)

    def enough(counts0: np.ndarray, counts: np.ndarray, positions: np.ndarray) -> np.ndarray:
        for position, votes in zip(positions.tolist(), counts, strict=True):
            seen[position].append(votes.copy())
        return union.rows_are_decided(counts0, counts, labels[positions])

    sampler = model.sampler(n=N, checks=looks(N, CHUNK), enough=enough)
    selection, samples = np.zeros((len(labels), 10), np.int64), 0
    with Progress(len(labels), "trace", "images", lambda: f"{samples:,} samples") as progress:
        for counted in sampler.sample(model.requests()):
            selection[counted.position] = counted.counts0[0]
            if counted.counts.sum() == N:  # the last look is not asked about
                seen[counted.position].append(counted.counts[0])
            samples += counted.drawn
            progress.update(1)
    return selection, [seen[i] for i in range(len(labels))]


def certified(
    selection: np.ndarray, counts: np.ndarray, labels: np.ndarray, design: str, sampling: str, sigma: float = SIGMA
) -> tuple[np.ndarray, np.ndarray]:
    """Which statements of a design are about an image, and which its certificates make: bool (N, statements) each."""
    (costs, radii), about, made = DESIGNS[design], [], []
    for place, spec in enumerate(costs):
        matrix = CostMatrix.from_spec(spec, 10, CLASSES)
        table = certify_counts(selection, counts, labels, costs=matrix, sigma=sigma, alpha=ALPHA, sampling=sampling)
        sensitive = table["cost_sensitive_radius"].to_numpy(np.float64, na_value=np.nan)
        right, everyone = table["prediction"] == labels, np.ones(len(labels), bool)
        sides = [(everyone, table[name] * right) for name in ("standard_radius", "multiclass_radius")]
        for is_about, radius in [*(sides if place == 0 else []), (~np.isnan(sensitive), np.nan_to_num(sensitive))]:
            for r in radii:
                about.append(is_about)
                made.append((radius > 0) & (radius >= r * sigma / SIGMA))
    return np.stack(about, axis=1), np.stack(made, axis=1)


def saved(model: Model) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Each design against n = N for every image.

    Returns:
        Rows of samples an image and statements lost, and each design's n of each image.
    """
    selection, seen = traces(model)
    labels = model.pixels.labels
    last = np.stack([trace[-1] for trace in seen])
    whole = last.sum(axis=1) == N
    rows, taken = [], {}
    for design in DESIGNS:
        of_design = statements(design)
        stops = [
            next((at for at in trace if of_design.decided([first], [at], int(label))), trace[-1])
            for first, trace, label in zip(selection, seen, labels, strict=True)
        ]
        n = taken[design] = np.array([stop.sum() for stop in stops])
        about, ours = certified(selection, np.stack(stops), labels, design, "sequential")
        # of an image that has not all N samples, what is not certified by now is beyond doubt
        _, fixed = certified(selection, last, labels, design, "sequential")
        fixed[whole] |= certified(selection[whole], last[whole], labels[whole], design, "fixed")[1]
        lost = fixed & ~ours
        rows.append(_row(design, n, about, ours, lost, N))
    return rows, taken


def on_paper(location: str, images: int, most: int) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Each design on votes that are drawn by shares that may have given a stored run's votes, by argmax.

    Args:
        location: Run of CIFAR-10; radii of the designs are those of SIGMA, times the run's sigma over SIGMA.
        images: Number of its images.
        most: Number of samples that an image may have.

    Returns:
        As `saved` does; what is lost is what all of `most` samples would have certified.
    """
    run = resolve_run(location)
    table, sigma = run.votes("argmax"), float(run.manifest()["sigma"])
    table = table.filter(table["error"].is_null())
    table = table.take(np.arange(0, len(table), max(1, len(table) // images))[:images])
    votes = np.sum([sparse_votes(table[name]).dense(10) for name in ("selection", "estimation")], axis=0)
    labels, generator, steps = table["label"].to_numpy(), np.random.default_rng(0), looks(most, CHUNK)
    shares = np.stack([generator.dirichlet(of_image + 0.1) for of_image in votes])
    selection = generator.multinomial(N0, shares)  # (N, m)
    seen = np.cumsum([generator.multinomial(n, shares) for n in np.diff(steps, prepend=0)], axis=0)  # (looks, N, m)
    rows, taken, everyone = [], {}, np.arange(len(labels))
    for design in DESIGNS:
        of_design, stops, left = statements(design, n=most, sigma=sigma), np.zeros(len(labels), int), everyone
        for look in range(len(steps)):
            stops[left] = look
            seen_now = SparseVotes.from_dense(selection[left]), SparseVotes.from_dense(seen[look, left])
            decided = of_design.are_decided(of_design.tally(*seen_now, labels[left], 10))
            left = left[~decided]
        n = taken[design] = np.array(steps)[stops]
        about, ours = certified(selection, seen[stops, everyone], labels, design, "sequential", sigma)
        _, whole = certified(selection, seen[-1], labels, design, "sequential", sigma)
        rows.append(_row(design, n, about, ours, whole & ~ours, most))
    return rows, taken


def _row(
    design: str, n: np.ndarray, about: np.ndarray, ours: np.ndarray, lost: np.ndarray, most: int
) -> dict[str, object]:
    return {
        "what": design,
        "samples_an_image": float(n.mean()),
        "median": float(np.median(n)),
        "ratio": most / float(n.mean()),
        "statements": int(about.sum()),
        "certified": int(ours.sum()),
        "lost": int(lost.sum()),
        "points_lost": 100 * float(lost.sum() / about.sum()),
    }


def engine(model: Model, n: int = 1024, images: int = 8) -> list[dict]:
    """The engine with images mixed and votes looked at, against one image after the other at a fixed n."""
    of_design, labels = statements("one radius, three matrices"), model.pixels.labels
    requests = model.requests(images)
    alone = model.sampler(n=n)

    def one_by_one() -> int:
        for request in requests:
            alone.count(request.image, request.image_id)
        return len(requests) * (N0 + n)

    def enough(counts0: np.ndarray, counts: np.ndarray, positions: np.ndarray) -> np.ndarray:
        of_design.rows_are_decided(counts0, counts, labels[positions])
        return np.zeros(len(positions), bool)  # the work of deciding, and the same samples

    mixed = model.sampler(n=n, checks=looks(n // CHUNK * CHUNK, CHUNK), enough=enough)

    def together() -> int:
        return sum(counted.drawn for counted in mixed.sample(requests))

    rates: dict[str, list[float]] = {"one image after the other": [], "images mixed, votes looked at": []}
    for turn in range(ROUNDS + 1):  # the first round warms up
        for name, contender in zip(rates, (one_by_one, together), strict=True):
            start = time.perf_counter()
            samples = contender()
            if turn:
                rates[name].append(samples / (time.perf_counter() - start))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    first = next(iter(middle.values()))
    return [{"what": name, "samples_per_second": rate, "ratio": rate / first} for name, rate in middle.items()]


def imagenet(published: str, radius: float, samples_per_second: float) -> list[dict]:
    """All 50,000 validation images of ImageNet by the published radii of a network.

    The table's radii give each image's share of votes; samples are drawn from it again. A wrong answer is decided at
    the first look.

    Args:
        published: a table of locuslab/smoothing, .../sigma_SIGMA.
        radius: to be decided, the standard one.
        samples_per_second: of one device, for a network like that.
    """
    sigma = float(Path(published).name.removesuffix(".tsv").removeprefix("sigma_"))
    table = read_locuslab_tsv(published)
    shares = np.where(table["abstain"], 0.5, ndtr(table["standard_radius"] / sigma))
    votes = np.round(np.stack([shares, 1 - shares], axis=1)[:, None] * N).astype(np.int64)
    labels = np.where(table["abstain"] | (table["prediction"] == table["label"]), 0, 1)
    what = Statements([], [radius], sigma=sigma, alpha=ALPHA, n=N)
    n = expected_samples(votes, labels, what, n0=N0)
    rows = []
    for name, each in (("n = 100,000", N0 + N), (f"sequential, radius {radius:g}", N0 + n)):
        hours = 50_000 * each / samples_per_second / 3600
        rows.append({"what": f"ImageNet, {name}", "samples_an_image": each, "ratio": (N0 + N) / each, "hours": hours})
    return rows


def plot(taken: dict[str, np.ndarray], most: int = N) -> bytes:
    """Each design's samples over the images, those that select among them; the images that took least first."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.6), dpi=120, layout="constrained")
        axis = figure.subplots()
        for dashes, (design, n) in zip(("-", "--", ":", "-.", (0, (5, 1))), taken.items(), strict=True):
            share = 100 * np.arange(1, len(n) + 1) / len(n)
            axis.plot(share, N0 + np.sort(n), linestyle=dashes, label=f"{design}: {N0 + n.mean():,.0f} on average")
        axis.axhline(N0 + most, color="black", linewidth=0.8)
        axis.annotate("a fixed n", (1, N0 + most), va="bottom", fontsize=8)
        axis.set(xlabel="% of the images", ylabel="samples until decided, all", yscale="log", xlim=(0, 100))
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.legend(frameon=False, fontsize=8)
        return rendered(figure, Form.PNG)


def main(
    *,
    path: str | None = None,
    model: str | None = None,
    run: str | None = None,
    n: int = N,
    images: int = 200,
    batch_size: int = 64,
    published: str | None = None,
    samples_per_second: float = 40.0,
    out: str | None = None,
) -> None:
    """Runs the benchmark and prints a table.

    Args:
        path: CIFAR-10 as Parquet.
        model: Checkpoint of a network that was trained under noise of SIGMA.
        run: Run of CIFAR-10 instead, local or s3://, whose votes say which shares there are; nothing is sampled.
        n: Samples that an image may have then.
        images: Of the test split.
        batch_size: Rows of a forward pass.
        published: A table of locuslab/smoothing for ImageNet, .../sigma_0.50: prices its validation images.
        samples_per_second: Of a device with a network like the table's (`python -m jobs.bench --only engine`).
        out: Folder for sequential.json and sequential.png.
    """
    results: dict[str, list[dict]] = {}
    if run is not None:
        results["saved"], taken = on_paper(run, images, n)
    elif path is None or model is None:
        raise UserError("give --path and --model, to sample; or --run, whose votes are used")
    else:
        one = Model(path, model, images, batch_size)
        results["engine"] = engine(one)
        results["saved"], taken = saved(one)
    if published is not None:
        results["imagenet"] = imagenet(published, 0.5, samples_per_second)
    if out is not None:
        Store(out).write("sequential.png", plot(taken, n))
    show(results, f"{out}/sequential.json" if out else None)


if __name__ == "__main__":
    sys.exit(run_job(main))
