"""The whole story on handwritten digits: train, sample, certify, report. No download, no GPU."""

import time

import torch

from raycsr.data import DataOptions, digits_arrays
from raycsr.models import BaseClassifier, ModelOptions, load_base_classifier, save_checkpoint
from raycsr.pipelines.evaluate import evaluate
from raycsr.pipelines.pool import PoolOptions
from raycsr.pipelines.sample import Outcome
from raycsr.results import Store
from raycsr.smoothing import SamplingOptions
from raycsr.training import Epoch, InMemoryBatches, TrainingOptions, train
from raycsr.training.objectives import gaussian

SIGMA = 0.5
COSTS = ["uniform", "seed:4", "pair:4/9,3/8"]
_EPOCHS = 30


def quickstart(*, results: str = "results") -> list[Outcome]:
    """Trains a small classifier on handwritten digits under noise, and certifies it under three cost matrices.

    Args:
        results: Folder of results, local or s3://bucket/prefix.

    Returns:
        The outcome of the run.

    Raises:
        UserError: where the results cannot be written.
    """
    start = time.monotonic()
    folder = Store(results).at("digits")
    checkpoint = f"{folder.location}/checkpoints/gaussian.pt"
    print(f"1. Train a ResNet-8 on 1,078 digits of 8 x 8 pixels under Gaussian noise, sigma {SIGMA:g}")
    save_checkpoint(checkpoint, train_digits(), training_info={"objective": "gaussian", "sigma": SIGMA})
    print(f"   saved {checkpoint}")
    print("2. Sample noisy copies of 300 held-out digits on two Ray actors; certify three cost matrices as they come")
    outcomes = evaluate(
        data=DataOptions(source="digits", limit=300),
        model=ModelOptions(name=checkpoint),
        sampling=SamplingOptions(sigma=SIGMA, n0=64, n=1024),
        pool=PoolOptions(actors=2, cpus_per_actor=0.5),
        costs=COSTS,
        results=results,
        experiment="digits",
        radii=[0.0, 0.25, 0.5, 0.75],
        out=f"{folder.location}/report",
    )
    run = outcomes[0].run.location
    print(
        f"Done in {time.monotonic() - start:.0f} s. The picture: {folder.location}/report/curves.png\n"
        "Try next:\n"
        f"  raycsr certify --run {run} --costs pair:1/7 --costs seed:0,8    # other mistakes, no new samples\n"
        f"  raycsr report --run {run} --radii 0.1,0.2,0.4\n"
        f"  raycsr sample --config jobs/configs/digits.yaml --model.name {checkpoint} --results {results}"
        "    # all 719 digits, more samples"
    )
    return outcomes


def train_digits() -> BaseClassifier:
    """Trains a ResNet-8 on the training digits by the `gaussian` objective, the same each time."""
    torch.set_num_threads(1)  # 8 x 8 pixels: threads would wait for each other longer than they work
    model = load_base_classifier(ModelOptions(name="cifar_resnet8", num_classes=10, input_size=8))
    images, labels = digits_arrays("train")
    batches = InMemoryBatches(
        torch.from_numpy(images),
        torch.from_numpy(labels),
        batch_size=64,
        generator=torch.Generator().manual_seed(0),
        crop_padding=1,
    )
    train(
        model,
        batches,
        objective=gaussian,
        sigma=SIGMA,
        generator=torch.Generator().manual_seed(1),
        options=TrainingOptions(epochs=_EPOCHS),
        on_epoch=_print_epoch,
    )
    return model


def _print_epoch(epoch: Epoch) -> None:
    if epoch.number % 10 == 0:
        print(f"   epoch {epoch.number:>3} of {_EPOCHS}: loss {epoch.loss:.3f}")
