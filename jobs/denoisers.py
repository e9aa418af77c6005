"""A classifier that never saw noise: alone, behind denoisers, and trained under noise, at equal passes.

    python -m jobs.denoisers --data.source digits --model.name cifar_resnet8 --model.input_size 8 --results RESULTS

Everything begins with one clean classifier, which is trained first. Each row adds as many epochs to it: to a denoiser
in front of it, or to itself under noise. What is told of costs is certified under argmax, and under a rule that is
tuned on training images. The same command goes on where it was stopped.
"""

import sys
from dataclasses import dataclass, replace

import pandas as pd

import raycsr
from raycsr.cli import run_job
from raycsr.costs import CostMatrix, CostSpec
from raycsr.data.options import DataOptions
from raycsr.distributed.options import ObjectiveOptions, PoolOptions
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.reports import Column, Document, Section, Table, as_markdown, as_text
from raycsr.smoothing.options import SamplingOptions
from raycsr.store import Store
from raycsr.training.options import AugmentationOptions, TrainingOptions, ValidationOptions
from raycsr.verbs.sample import sample
from raycsr.verbs.train import train
from raycsr.verbs.tune_rule import tune_rule

EXPERIMENT = "denoisers"
CLEAN = 0.001  # sigma of the clean classifier's training: a quarter of a grey level
OF_COSTS = 0.25  # sigma at which a denoiser that knows the costs is compared with one that does not
DENOISER = DenoiserOptions("dncnn", args={"depth": 6, "channels": 32})
BUDGET = 0.02  # accuracy that a tuned rule may lose on the training images that it is tuned on


@dataclass(frozen=True)
class Way:
    """A way to a classifier that certifies.

    Attributes:
        label: Its name in the table.
        objective: Objective of the training that is added to the clean classifier; none leaves it alone.
        args: Hyper-parameters of the objective.
        is_denoiser: Whether it trains a denoiser, else the classifier itself.
        rule: Whether a rule is tuned for it, too.
    """

    label: str
    objective: str | None
    args: tuple[tuple[str, float], ...] = ()
    is_denoiser: bool = True
    rule: bool = False


WAYS = (
    Way("alone", None),
    Way("behind an MSE denoiser", "denoise"),
    Way("behind a stability denoiser", "stability"),
    Way("behind one of both", "stability", (("mse", 10.0),), rule=True),
    Way("trained under noise", "gaussian", is_denoiser=False, rule=True),
)
COSTLY = tuple(
    Way(f"behind one of both, costs weigh {weight:g}", "stability_cs", (("mse", 10.0), ("weight", weight)), rule=True)
    for weight in (0.3, 1.0)
)


@dataclass(frozen=True)
class Setting:
    """What all trainings share.

    Attributes:
        data: Images, without their split.
        model: Classifier to begin with.
        results: Folder of results.
        costs: Cost matrix.
        epochs: Epochs that each way adds.
        denoiser: Options of the denoiser.
    """

    data: DataOptions
    model: ModelOptions
    results: str
    costs: str
    epochs: int
    denoiser: DenoiserOptions

    def trained(self, model: ModelOptions, sigma: float, way: Way, epochs: int) -> str:
        """Trains what is not trained yet, and returns its checkpoint."""
        objective = way.objective or "gaussian"
        how = TrainingOptions(epochs=epochs, batch_size=64, lr=0.05)
        if way.is_denoiser and way.objective is not None:
            how = replace(how, optimizer="adamw", lr=2e-3, weight_decay=1e-4)
        name = "-".join([objective, f"{sigma:g}", *(f"{key}{value:g}" for key, value in way.args)])
        return train(
            data=replace(self.data, split="train"),
            model=model,
            sigma=sigma,
            costs=self.costs,
            objective=ObjectiveOptions(objective, dict(way.args)),
            training=how,
            augmentation=AugmentationOptions(crop_padding=1 if self.model.input_size == 8 else 4),
            validation=ValidationOptions(every=epochs, images=100, sensitive=50, n0=16, n=64),
            results=self.results,
            experiment=EXPERIMENT,
            name=name.replace(".", "_"),
            threads=1,
        ).checkpoint


def made(setting: Setting, clean: str, sigma: float, way: Way) -> str:
    """Returns the checkpoint of a way at a noise level, with its tuned rule."""
    if way.objective is None:
        return clean
    model = ModelOptions(clean, denoiser=setting.denoiser) if way.is_denoiser else ModelOptions(clean)
    checkpoint = setting.trained(model, sigma, way, setting.epochs)
    if way.rule and sigma == OF_COSTS and not load_base_classifier(checkpoint).training_info.get("tuned_rules"):
        tune_rule(model=checkpoint, costs=setting.costs, budget=BUDGET, recall_budget=0.3, images=200, n0=16, n=128)
    return checkpoint


def rows_of(setting: Setting, checkpoint: str, sigma: float, draws: SamplingOptions, radius: float) -> pd.DataFrame:
    """Samples and certifies test images: a row a rule, with metrics at the radius."""
    (outcome,) = sample(
        data=replace(setting.data, split="test"),
        model=ModelOptions(checkpoint),
        sampling=replace(draws, sigma=sigma),
        pool=PoolOptions(actors=0, threads_per_actor=1),
        results=setting.results,
        experiment=EXPERIMENT,
        rules=["tuned"] if load_base_classifier(checkpoint).rules else [],
        costs=[setting.costs],
    )
    names = outcome.run.manifest()["class_names"]
    costs = CostMatrix.from_spec(setting.costs, len(names), names)
    found = raycsr.load_certificates(outcome.run.location, costs=setting.costs)
    specs = {one.id: one.spec for one in outcome.run.rules().values()}
    summaries = [
        raycsr.summarize(of_rule, costs=costs, radii=[radius]).assign(rule=specs.get(rule, rule))
        for rule, of_rule in found.groupby("rule")
    ]
    return pd.concat(summaries).sort_values("rule", key=lambda rules: rules != "argmax")


SHOWN = ("accuracy", "certified_accuracy", "acr", "rob_cs", "rob_cost")


def main(
    *,
    data: DataOptions,
    model: ModelOptions,
    results: str,
    costs: CostSpec = "seed:8",
    sigmas: list[float] | None = None,
    radius: float = 0.25,
    epochs: list[int] | None = None,
    images: int = 719,
    sampling: SamplingOptions = SamplingOptions(sigma=OF_COSTS, n0=32, n=256, batch_size=64),
    denoiser: DenoiserOptions = DENOISER,
) -> None:
    """Trains, samples and compares.

    Args:
        data: Images of both splits; `limit` is that of the training images.
        model: Architecture of the classifier.
        results: Folder of results.
        costs: Cost matrix.
        sigmas: Noise levels, .25 and .5 by default.
        radius: L2 radius of the table, in [0, 1] pixel units.
        epochs: Epochs of the clean classifier, and those that each way adds; by default 20 and 20.
        images: Number of test images.
        sampling: Samples of an image; sigma is set by `sigmas`.
        denoiser: Architecture of the denoiser.
    """
    first, more = epochs or [20, 20]
    setting = Setting(data, model, results, costs, more, denoiser)
    clean = setting.trained(model, CLEAN, Way("clean", None), first)
    on_test = replace(setting, data=replace(data, limit=images))
    sections = []
    for sigma in sigmas or [0.25, 0.5]:
        table: list[list[str]] = []
        for way in (*WAYS, *(COSTLY if sigma == OF_COSTS else ())):
            rows = rows_of(on_test, made(setting, clean, sigma, way), sigma, sampling, radius)
            of_way = [
                [way.label, row["rule"], *(f"{row[name]:.3f}" for name in SHOWN)] for row in rows.to_dict("records")
            ]
            print(*map(" ".join, of_way), sep="\n", flush=True)
            table += of_way
        columns = [Column("classifier"), Column("rule"), *(Column(name, numeric=True) for name in SHOWN)]
        sections.append(Section(f"sigma {sigma:g}, radius {radius:g}, costs {costs}", [Table(columns, table)]))
    document = Document(f"A clean classifier, and {more} epochs more", sections)
    Store(f"{results}/{EXPERIMENT}").write("denoisers.md", as_markdown(document).encode())
    print(as_text(document))


if __name__ == "__main__":
    sys.exit(run_job(main))
