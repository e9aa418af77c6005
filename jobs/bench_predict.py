"""What an answer costs: passes of `predict` beside those of a fixed n for the same answers, and one image by itself.

python -m jobs.bench_predict --model results/digits/checkpoints/gaussian.pt
"""

import sys
import time

import numpy as np
import torch

from raycsr import SmoothedClassifier, certify_counts, count_votes
from raycsr.cli import run_job
from raycsr.data.packaged import digits_arrays
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions

_FIXED = 1024  # estimation samples of an image in the run beside it
_LARGEST = 10_048


def bench_predict(*, model: str, images: int = 300, sigma: float = 0.5) -> None:
    """Answers digits by a fixed n and by fresh votes until each is proven, and one 32 x 32 image by a ResNet-20.

    Args:
        model: Checkpoint of a classifier of digits.
        images: Number of digits.
        sigma: Noise level, in [0, 1] pixel units.
    """
    torch.set_num_threads(1)
    pixels, labels = (array[:images] for array in digits_arrays("test"))
    print(f"{'':22}{'passes':>10}{'of fixed':>10}{'median':>8}{'CPU s':>8}{'said':>6}{'accuracy':>10}{'differ':>8}")
    network, start = load_base_classifier(model), time.process_time()
    batch, ids = torch.from_numpy(pixels).permute(0, 3, 1, 2), [str(i) for i in range(images)]
    votes = count_votes(network, batch, sigma=sigma, n0=64, n=_FIXED, seed=0, image_ids=ids)
    fixed_seconds, total = time.process_time() - start, images * (64 + _FIXED)
    for answer in ("majority", "argmax"):
        rows = certify_counts(
            votes.counts0[:, 0],
            votes.counts[:, 0],
            labels,
            costs="uniform",
            sigma=sigma,
            sampling="fixed",
            answer=answer,
        )
        fixed = np.where(rows["abstain"], -1, rows["prediction"].to_numpy(int))
        said = (fixed >= 0).sum()
        print(
            f"{f'{answer}, n = {_FIXED}':22}{total:>10,}{1:>10.3f}{64 + _FIXED:>8,}{fixed_seconds:>8.1f}{said:>6}"
            f"{(fixed == labels).mean():>10.3f}"
        )
        for n in (_FIXED, _LARGEST):
            g, start = SmoothedClassifier(model, sigma, answer=answer, n=n), time.process_time()
            found = g.predict(pixels)
            seconds, passes = time.process_time() - start, found["n"] + 64
            given = found["answer"].fillna(-1).to_numpy(int)
            both = (given >= 0) & (fixed >= 0)
            print(
                f"{f'{answer}, n <= {n}':22}{passes.sum():>10,}{passes.sum() / total:>10.3f}{passes.median():>8.0f}"
                f"{seconds:>8.1f}{(given >= 0).sum():>6}{(given == labels).mean():>10.3f}"
                f"{(given[both] != fixed[both]).sum():>8}"
            )
    g = SmoothedClassifier(load_base_classifier(ModelOptions("cifar_resnet20", num_classes=10)), 0.25)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for _ in range(3):
        start, wall = time.process_time(), time.perf_counter()
        (n,) = g.predict(image)["n"]
        seconds, wall = time.process_time() - start, time.perf_counter() - wall
    print(f"one 32 x 32 image, ResNet-20: 64 + {n} samples, {seconds:.2f} CPU s, {wall:.2f} s by the clock")


if __name__ == "__main__":
    sys.exit(run_job(bench_predict))
