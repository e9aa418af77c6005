"""A training as it is planned: its options, checked against its data before anything is paid for."""

import math
import os
import warnings
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np

from raycsr.certification import group_column
from raycsr.costs import CostMatrix
from raycsr.data.memory import num_bytes
from raycsr.data.sources import Listing, Source, open_source
from raycsr.data.splits import refuse_test_images
from raycsr.distributed.sampling.classes import check_classes
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.distributed.training.inputs import inputs_of
from raycsr.distributed.training.shares import read_shares
from raycsr.errors import Mistakes, UserError, shown
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.denoisers import denoiser_archs
from raycsr.models.loading import has_weights, load_base_classifier, warn_of_random_denoisers
from raycsr.models.spec import DenoiserOptions, Preprocessing
from raycsr.progress import size
from raycsr.results import ImageSet, trained_on
from raycsr.training.augmentation import Augmentation
from raycsr.training.loop import check_training
from raycsr.training.objectives import OF_DENOISERS, Objective, resolve_objective
from raycsr.training.validation import HeldOut, check_validation, hold_out

_MEMORY_SHARE = 0.25  # of the machine's memory that decoded images may take


@dataclass(frozen=True)
class Plan:
    """A training with everything checked that can be checked before it starts."""

    config: TrainConfig
    source: Source
    listing: Listing
    costs: CostMatrix
    objective: Objective
    held_out: HeldOut
    model: BaseClassifier
    stream: bool
    reading: str  # in words: in memory or streamed, and why

    @property
    def part(self) -> Literal["classifier", "denoisers"]:
        """The part that is trained."""
        return part_of(self.config)

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The images and the costs (`inputs_of`)."""
        return inputs_of(self.listing, {self.config.costs: self.costs})

    @cached_property
    def trained_on(self) -> list[dict[str, Any]]:
        """The images of the training, held-out ones among them, and those of what it starts from (`ImageSet`)."""
        ours = ImageSet.of(self.listing.images, self.listing.identity).to_dict()
        return [*(one for one in trained_on(self.model.training_info) if one != ours), ours]


def prepare(config: TrainConfig, listing: Listing | None = None) -> Plan:
    """Checks all that can be checked before training starts, and creates the model.

    Args:
        config: Options of the training.
        listing: Listing of its data, where it has been listed before.

    Raises:
        UserError: naming all that is wrong.
    """
    mistakes, num_classes = Mistakes(), None
    with mistakes.noted():
        source = open_source(config.data)
        listing = listing or source.list()
        num_classes = len(listing.class_names)
    with mistakes.noted():
        if listing is None:
            check_options(config)
        else:
            costs, objective, held_out = check(config, listing)
    with mistakes.noted():
        model = _model(config, num_classes)
        if model.calibration is not None:
            raise UserError(
                f"model {config.model.name!r} is quantised to int8, which no gradient goes through: train the one that "
                "it was made of, and quantise what comes of it"
            )
        if listing is not None:
            check_classes(listing, model, config.model.name)
    mistakes.refuse()
    assert listing is not None
    model.rules = ()  # those of a checkpoint were tuned for its weights
    stream, reading = reading_of(config, len(listing.images), model.preprocessing)
    return Plan(config, source, listing, costs, objective, held_out, model, stream, reading)


def part_of(config: TrainConfig) -> Literal["classifier", "denoisers"]:
    """The part that is trained: the denoisers by the objectives that are theirs, else what is behind them."""
    return "denoisers" if config.objective.name in OF_DENOISERS else "classifier"


def _model(config: TrainConfig, num_classes: int | None) -> BaseClassifier:
    """The model to train; denoisers that are trained are made for the sigma of the training."""
    name, options = config.objective.name, config.model
    if part_of(config) == "classifier":
        model = load_base_classifier(options, num_classes=num_classes, new_head=True)
        warn_of_random_denoisers(options)  # which stay as they are
        _warn_of_denoisers_sigma(model, config)
        return model
    if not has_weights(options):
        raise UserError(
            f"{name} trains a denoiser for a classifier that stays as it is, and model {options.name!r} has random "
            "weights: give a trained one as model.name, or its weights as model.pretrained"
        )
    others = [one for one in options.denoisers if one.sigma not in (None, config.sigma)]
    if others:
        raise UserError(
            f"model.denoiser.sigma is {others[0].sigma:g} and the denoiser is trained at sigma {config.sigma:g}: leave "
            "model.denoiser.sigma out"
        )
    asked = [replace(one, sigma=_needed(one, config.sigma)) for one in options.denoisers]
    model = load_base_classifier(replace(options, denoiser=asked), num_classes=num_classes)
    if not model.in_front:
        raise UserError(
            f"{name} trains the denoisers in front of a classifier and model {options.name!r} has none: give "
            "model.denoiser.name, one of `raycsr ls denoisers`"
        )
    if any(one.draws for one in model.in_front):
        raise UserError(f"{name} trains a denoiser that is asked once: give it without reverse_steps and denoisings")
    told = [one for one in model.in_front if one.told]
    if told:
        raise UserError(
            f"model.denoiser.levels is {[*told[0].levels]} and {name} trains a denoiser at the noise of the training "
            f"alone: give it as model.denoiser.name with model.denoiser.levels [{config.sigma:g}], and the classifier "
            "behind it as model.name"
        )
    for one in model.in_front:
        one.make_for(config.sigma)
    return model


def _warn_of_denoisers_sigma(model: BaseClassifier, config: TrainConfig) -> None:
    """What stands in front sees the noise, and stays as it is."""
    sigma = model.training_sigma if model.in_front else None
    if sigma is not None and not math.isclose(sigma, config.sigma, rel_tol=1e-6):
        warnings.warn(
            f"denoiser {model.in_front[0].arch!r} of model {config.model.name!r} is made for sigma {sigma:g}, and the "
            f"classifier behind it is trained at {config.sigma:g}",
            stacklevel=2,
        )


def _needed(options: DenoiserOptions, sigma: float) -> float | None:
    """The sigma of the training, where a denoiser cannot be loaded without one."""
    kind = denoiser_archs().get(options.name)
    return sigma if kind is not None and kind.needs_sigma else None


def reading_of(config: TrainConfig, num_images: int, preprocessing: Preprocessing) -> tuple[bool, str]:
    """Whether a training's images are streamed; and that, with its reason, in words."""
    if config.augmentation.random_resized_crop is not None:  # memory would hold what evaluation crops
        return True, "streamed, for random_resized_crop cuts from whole images"
    if config.stream is not None:
        return config.stream, "streamed, as asked for" if config.stream else "in memory, as asked for"
    memory = _MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = num_bytes(num_images, preprocessing)
    figures = f"{size(needed)}, of {size(memory)} that they may take here"
    return needed > memory, f"{'streamed' if needed > memory else 'in memory'}: {figures}"


def check(config: TrainConfig, listing: Listing) -> tuple[CostMatrix, Objective, HeldOut]:
    """Checks all but the model.

    Raises:
        UserError: naming all that is wrong.
    """
    mistakes, names, costs = Mistakes(), listing.class_names, None
    with mistakes.noted():
        refuse_test_images(open_source(config.data).options, listing, allowed=config.allow_test_images)
    with mistakes.noted():
        check_options(config)
    with mistakes.noted():
        costs = CostMatrix.from_spec(config.costs, len(names), names)
    with mistakes.noted():
        known = CostMatrix.uniform(len(names)) if costs is None else costs  # else its mistakes hide the objective's
        objective = resolve_objective(
            config.objective.name,
            config.objective.args,
            costs=known,
            read_shares=partial(read_shares, images=listing.images, class_names=names, sigma=config.sigma),
        )
    mistakes.refuse()
    assert costs is not None
    labels = listing.images["label"].to_numpy(np.int64)
    if config.objective.name.endswith("_cs") and not costs.sensitive[labels].any():
        name, plain = config.objective.name, config.objective.name.removesuffix("_cs")
        raise UserError(
            f"{name} needs images of a seed class of the costs {shown(config.costs)}, and none of the {len(labels)} "
            f"images is of one; widen data.classes or data.limit, or use {'gaussian' if name == 'margin_cs' else plain}"
        )
    return costs, objective, hold_out(labels, costs, config.validation, group_column(listing.images))


def check_options(config: TrainConfig) -> None:
    """Checks what can be checked without the data and the model.

    Raises:
        UserError: naming all that is wrong.
    """
    mistakes = Mistakes()
    with mistakes.noted():
        check_training(config.training)
    if not config.sigma > 0:
        mistakes.note(f"sigma must be a positive number of [0, 1] pixel units, got {config.sigma}; try 0.5")
    else:
        with mistakes.noted():
            check_validation(config.validation, config.sigma)
    with mistakes.noted():
        Augmentation(config.augmentation, (1, 1))
    if config.stream is False and config.augmentation.random_resized_crop is not None:
        mistakes.note(
            "stream is false, and augmentation.random_resized_crop cuts from whole images, which are streamed: leave "
            "one of the two out"
        )
    mistakes.refuse()
