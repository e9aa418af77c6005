"""The whole story on handwritten digits: train, tune a rule, sample, certify, report. No download, no GPU."""

import time

from raycsr.data.options import DataOptions
from raycsr.distributed.options import ObjectiveOptions, PoolOptions
from raycsr.models.spec import ModelOptions
from raycsr.results.outcome import Reported
from raycsr.smoothing.options import SamplingOptions
from raycsr.store import Store
from raycsr.training.options import AugmentationOptions, TrainingOptions, ValidationOptions
from raycsr.verbs.report import report
from raycsr.verbs.sample import sample
from raycsr.verbs.train import train
from raycsr.verbs.tune_rule import tune_rule

SIGMA = 0.5
COSTLY = "seed:8"


def quickstart(*, results: str = "results") -> Reported:
    """Makes a classifier of handwritten digits robust where mistakes are costly, in two ways, and certifies both.

    Args:
        results: Folder for the results, local or s3://bucket/prefix.

    Returns:
        The outcomes of the runs, and the report on them.

    Raises:
        UserError: where the results cannot be written.
    """
    start = time.monotonic()
    folder = Store(results).at("digits")
    print(f"1. Train a ResNet-8 on handwritten digits of 8 x 8 pixels under Gaussian noise, sigma {SIGMA:g}")
    gaussian = _train(results, "gaussian", ModelOptions("cifar_resnet8", input_size=8), epochs=30)
    print("2. Mistaking an 8 for another digit is to be the costly mistake: train on with the margin_cs objective")
    margin_cs = _train(results, "margin_cs", ModelOptions(gaussian), epochs=10, lr=0.02, args={"k": 4, "gamma_n": 0.0})
    print("3. Or leave the network as it is and tune its decision rule, on training images")
    tune_rule(model=gaussian, costs=COSTLY, budget=0.01, images=400, n=192, answers=["argmax"])  # one idea at a time
    print("4. Sample noisy copies of 300 held-out digits in this process, as actors on a cluster do, and certify them")
    outcomes = []
    for checkpoint, rules in ((gaussian, ["argmax", "tuned"]), (margin_cs, ["argmax"])):
        outcomes += sample(
            data=DataOptions(source="digits", limit=300),
            model=ModelOptions(checkpoint),
            sampling=SamplingOptions(sigma=SIGMA, n0=64, n=1024),
            pool=PoolOptions(actors=0),
            rules=rules,
            costs=[COSTLY],
            results=results,
            experiment="digits",
        )
    table = report(
        run=[outcome.run.location for outcome in outcomes],
        radii=[SIGMA],
        out=f"{folder.location}/report",
        pictures=True,  # digits are nobody's
    )
    run = outcomes[0].run.location
    print(
        f"Done in {time.monotonic() - start:.0f} s. The pictures: {folder.location}/report/curves.png, front.png\n"
        "Try next:\n"
        f"  raycsr certify --run {run} --costs pair:1/7 --costs seed:0,4    # other mistakes, no new samples\n"
        f"  raycsr report --run {run} --radii 0.1,0.2,0.4\n"
        "  raycsr configs digits > digits.yaml\n"
        f"  raycsr sample --config digits.yaml --model.name {gaussian} --results {results}"
        "    # all 719 digits, more samples"
    )
    return Reported(outcomes, table)


def _train(
    results: str, objective: str, model: ModelOptions, *, epochs: int, lr: float = 0.1, args: dict | None = None
) -> str:
    trained = train(
        data=DataOptions(source="digits", split="train"),
        model=model,
        sigma=SIGMA,
        costs=COSTLY,
        objective=ObjectiveOptions(objective, args or {}),
        training=TrainingOptions(epochs=epochs, batch_size=64, lr=lr, precision="fp32"),  # one kind of CPU, one table
        augmentation=AugmentationOptions(crop_padding=1),
        validation=ValidationOptions(every=10, images=60, sensitive=40),
        results=results,
        experiment="digits",
        name=objective,
        threads=1,  # 8 x 8 pixels: threads would wait for each other longer than they work
    )
    return trained.checkpoint
