"""`raycsr quantise`: from a base classifier and training images to one in int8, a checkpoint of its own."""

from dataclasses import dataclass

import numpy as np

from raycsr.data.options import DataOptions
from raycsr.errors import UserError
from raycsr.models.spec import ModelOptions
from raycsr.options import takes
from raycsr.results import ImageSet, own_checkpoint, trained_on
from raycsr.store import Store


@dataclass(frozen=True, kw_only=True)
class QuantiseArguments:
    """The options of `raycsr quantise`.

    Attributes:
        model: The base classifier: a checkpoint, or the name of a timm model.
        out: Checkpoint to write.
        data: The images to measure on, never those to be certified; by default those that the checkpoint was trained
            on.
        sigma: Noise level in [0, 1] pixel units, that of the certificates; by default that of the training.
        images: Number of images to draw.
        seed: Seed of the draw of images and of the noise.
        allow_test_images: Whether to take images of which a folder, split or shard is named test, val or validation.
    """

    model: str | ModelOptions
    out: str
    data: DataOptions | None = None
    sigma: float | None = None
    images: int = 256
    seed: int = 0
    allow_test_images: bool = False


@takes(QuantiseArguments)
def quantise(asked: QuantiseArguments) -> float:
    """Makes a base classifier in int8, which x86 CPUs compute about twice as fast as bf16.

    It is another base classifier, with certificates of its own: the checkpoint holds the same weights and the scales of
    what flows through the network, measured here on noisy training images. All verbs take it as any other, but for
    `raycsr train`; GPUs do not. ResNets and their kin gain; attention, and activations other than ReLU, do not, or lose
    accuracy. What is printed says how often both say the same of a noisy copy.

    Args:
        asked: Options of the verb; a caller gives its fields as keyword arguments.

    Returns:
        The share of noisy copies of which both say the same.

    Raises:
        UserError: Something is wrong with the options, or the network cannot be quantised.
    """
    from raycsr.data.memory import read_pixels
    from raycsr.data.of_training import data_of, sigma_of
    from raycsr.data.sources import open_source, with_split
    from raycsr.data.splits import refuse_test_images
    from raycsr.distributed.cluster import refuse_lost
    from raycsr.models.calibration import agreement, calibrated, watched
    from raycsr.models.checkpoints import save_checkpoint
    from raycsr.models.loading import load_base_classifier, warn_of_random_weights
    from raycsr.smoothing.options import Draws

    options = ModelOptions(asked.model) if isinstance(asked.model, str) else asked.model
    if asked.images < 1:
        raise UserError(f"images is {asked.images}: give 1 or more; 256 are enough")
    refuse_lost(asked.out, "out")
    _refuse_written(asked.out)
    base_classifier = load_base_classifier(options)
    watched(base_classifier)  # what cannot be quantised is refused before images are listed and read
    warn_of_random_weights(options)  # a checkpoint is made of them, which looks like any other
    sigma = sigma_of(base_classifier, options.name, asked.sigma)
    Draws(sigma, 1, 1)  # refuses a sigma that nothing can be sampled at
    with own_checkpoint(asked.out):
        _refuse_written(asked.out)  # by another command, meanwhile
        source = open_source(with_split(data_of(base_classifier, options.name, asked.data), "train"))
        listing = source.list()
        refuse_test_images(source.options, listing, allowed=asked.allow_test_images)
        number = min(asked.images, len(listing.images))
        generator = np.random.default_rng(asked.seed & (2**64 - 1))  # it takes none below 0
        rows = generator.choice(len(listing.images), number, replace=False)
        drawn = listing.images.iloc[np.sort(rows)]
        pixels = read_pixels(source, drawn, base_classifier.preprocessing).images
        print(
            f"quantise  {options.label} to int8 under sigma {sigma:g}\ndata      {source}\n"
            f"images    {len(pixels):,}, a noisy copy of each",
            *listing.notes,
            sep="\n",
        )
        made = calibrated(base_classifier, pixels, sigma=sigma, seed=asked.seed)
        same = agreement(made, pixels, sigma=sigma, seed=asked.seed + 1)
        seen = ImageSet.of(drawn, listing.identity).to_dict()
        known = [one for one in trained_on(made.training_info) if one != seen]
        save_checkpoint(asked.out, made, training_info={**made.training_info, "trained_on": [*known, seen]})
    print(f"agrees    with {options.label} in fp32 on {100 * same:.1f} % of other noisy copies of them\n{asked.out}")
    return same


def _refuse_written(out: str) -> None:
    if Store(out).exists(""):
        raise UserError(f"out is {out}, which is there already: give another --out, or move it away")
