"""What a smoothed classifier says of training images: shares of its stored votes, for objectives that lean on them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from raycsr.errors import UserError


@dataclass(frozen=True)
class Shares:
    """The shares of the votes of a run's images.

    Attributes:
        location: Where the run is, for messages.
        image_ids: N names of images.
        values: Share of each class in an image's votes; float32 (N, m).
    """

    location: str
    image_ids: Sequence[str]
    values: np.ndarray
    _rows: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Remembers where each image stands."""
        object.__setattr__(self, "_rows", {name: row for row, name in enumerate(self.image_ids)})

    def of(self, image_ids: Sequence[str], device: torch.device) -> torch.Tensor:
        """Returns the shares of images by name: float32 (B, m).

        Raises:
            UserError: The run has no votes of one.
        """
        self.refuse_others(image_ids)
        rows = [self._rows[name] for name in image_ids]
        return torch.from_numpy(self.values[rows]).to(device, non_blocking=True)

    def refuse_others(self, image_ids: Sequence[str]) -> None:
        """Refuses images that the run has no votes of."""
        absent = [name for name in image_ids if name not in self._rows]
        if absent:
            raise UserError(
                f"{self.location} has no votes of {len(absent)} of {len(image_ids)} training images, the first "
                f"{absent[0]!r}; sample all of them: raycsr sample --data.split train, with the data of this training"
            )
