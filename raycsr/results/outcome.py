"""What became of a run that was sampled, or attacked, and of images that were answered."""

from dataclasses import dataclass, field

import pandas as pd

from raycsr.results import Run


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        run: The run.
        num_images: Number of images that were asked for.
        sampled: Number of images that this call sampled to their end; others are left where a budget or `raycsr stop`
            ended it.
        errors: image_id -> why it certifies nothing.
    """

    run: Run
    num_images: int
    sampled: int
    errors: dict[str, str]


@dataclass(frozen=True)
class Reported:
    """What became of runs that were sampled and reported on.

    Attributes:
        outcomes: What became of each run.
        report: The table of `raycsr report`, whose `attrs` say what could not be made.
    """

    outcomes: list[Outcome]
    report: pd.DataFrame


@dataclass(frozen=True)
class Attacked:
    """What became of an attack on a run.

    Attributes:
        run: Whose images were attacked.
        attacks: Rows of `raycsr.results.schema.ATTACKS`, one an image and radius that was asked for.
        errors: image_id -> why it could not be attacked.
        broken_guarantee: One line, where more certificates broke than their alpha allows; else empty.
        lines: What was found, in words.
    """

    run: Run
    attacks: pd.DataFrame
    errors: dict[str, str]
    broken_guarantee: str = ""
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Predicted:
    """What became of images that were to be answered.

    Attributes:
        location: Folder of the answers.
        predictions: Rows of `raycsr.results.predictions.PREDICTIONS`, one an image.
        errors: image_id -> why nothing is said of it.
        lines: What was said, in words.
    """

    location: str
    predictions: pd.DataFrame
    errors: dict[str, str]
    lines: list[str] = field(default_factory=list)
