"""What became of a run that was sampled."""

from dataclasses import dataclass

from raycsr.results import Run


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    run: Run
    num_images: int
    sampled: int  # images, by this call
    errors: dict[str, str]  # image_id -> why it certifies nothing
