"""What a user says to have a classifier trained: `TrainConfig` is what determines it, wherever it is trained."""

from dataclasses import dataclass, fields

from raycsr.costs import CostSpec
from raycsr.data.options import DataOptions
from raycsr.data.sources import with_split
from raycsr.distributed.options import ObjectiveOptions, WorkerOptions
from raycsr.models.spec import ModelOptions
from raycsr.training.options import AugmentationOptions, TrainingOptions, ValidationOptions


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All that determines a training.

    Attributes:
        data: The images to train on; some are held out for validation.
        model: The architecture, or a checkpoint to fine-tune.
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix.
        objective: The training objective.
        training: The optimiser and its schedule.
        augmentation: The random augmentation of an image before the noise.
        validation: The held-out images by whose certificates the training is judged.
        seed: Seed of the order of the images, the augmentation, the noise and the network's own randomness.
        stream: Whether to read the images anew each epoch, through Ray Data, in the same batches; by default where they
            do not fit in memory, or random_resized_crop cuts from whole images.
        allow_test_images: Whether to take images of which a folder, split or shard is named test, val or validation.
    """

    data: DataOptions
    model: ModelOptions
    sigma: float
    costs: CostSpec = "uniform"
    objective: ObjectiveOptions = ObjectiveOptions()
    training: TrainingOptions = TrainingOptions()
    augmentation: AugmentationOptions = AugmentationOptions()
    validation: ValidationOptions = ValidationOptions()
    seed: int = 0
    stream: bool | None = None
    allow_test_images: bool = False

    def __post_init__(self) -> None:
        """Settles the split, so that it is what is shown, stored and part of a training's name."""
        object.__setattr__(self, "data", with_split(self.data, "train"))

    @property
    def config(self) -> "TrainConfig":
        """These options alone, without those that a verb has beside them."""
        return TrainConfig(**{field.name: getattr(self, field.name) for field in fields(TrainConfig)})


@dataclass(frozen=True, kw_only=True)
class TrainArguments(TrainConfig):
    """The options of `raycsr train`.

    Attributes:
        results: Folder for the results, local or s3://bucket/prefix.
        experiment: Name of the experiment, a folder within the results; the checkpoint goes to its `checkpoints`.
        name: Name of the checkpoint; by default it is made of the objective, the model, sigma and a digest of all
            options.
        workers: The workers that train together, on a Ray cluster; by default this process alone.
        threads: Number of torch threads on a CPU; by default all cores. Tiny networks are faster with 1.
    """

    results: str
    experiment: str = "default"
    name: str | None = None
    workers: WorkerOptions = WorkerOptions()
    threads: int | None = None
