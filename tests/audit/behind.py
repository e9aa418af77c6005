"""The slabs behind a denoiser that is told three levels, at another size than theirs: slabs again, in closed form.

The denoiser shrinks towards grey: 1/2 + s (z - 1/2) with a power of two s for each level, where z = k / 256 for whole
grey levels k, so that float32 rounds nothing on the way. Resized to 4 x 4 pixels by R, the network's direction V sees
<V, R z> = <R'V, z>: the projection of the image itself on R'V, shrunk by s around that of grey, c. So the slabs of a
level end at c + (end - c) / s, and f, the mean of the levels' logits, is constant between any two of all these ends.
"""

from typing import Any, ClassVar

import numpy as np
import pytest
import slabs
import torch
from torch import nn

from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.denoisers import Denoiser
from raycsr.models.spec import Preprocessing

LEVELS = (0.125, 0.25, 0.5)
SCALES = [0.25 / level for level in LEVELS]
UP = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])  # 2 pixels -> 4, linear between their middles

_DOWN = np.linalg.pinv(UP)
_wanted = 256 / 255 * slabs.DIRECTION.astype(np.float64).reshape(3, slabs.HEIGHT, slabs.WIDTH)
DIRECTION = (_DOWN.T @ _wanted @ _DOWN).astype(np.float32)  # of the network: C 4 4
SEEN = UP.T @ DIRECTION.astype(np.float64) @ UP  # of z: C 2 2
GREY = 0.5 * float(SEEN.sum())
EDGES = (np.array([end for end, _ in slabs.SLABS[:-1]]) + GREY).astype(np.float32)
LOGITS = slabs.LOGITS + np.arange(slabs.NUM_CLASSES, dtype=np.float32) / 64  # no two classes have the same mean


class Shrink(Denoiser):
    """Whole grey levels over 255 -> over 256, and then towards grey, the more the higher the level."""

    archs: ClassVar = {"shrink": {}}
    takes_levels = True

    @classmethod
    def build(cls, *_: Any, **args: Any) -> nn.Module:
        return nn.Linear(1, 1)

    def forward(self, pixels: torch.Tensor, level: int = 0) -> torch.Tensor:
        return 0.5 + 0.25 / self.levels[level] * (torch.round(255 * pixels) / 256 - 0.5)


def base_classifier(network: nn.Module | None = None) -> BaseClassifier:
    """The network behind the denoiser."""
    assert network is None
    network = slabs.Slabs()
    network.direction = nn.Parameter(torch.from_numpy(DIRECTION.ravel().copy()))
    network.edges, network.logits = torch.from_numpy(EDGES.copy()), torch.from_numpy(LOGITS.copy())
    denoiser = Shrink("shrink", input_size=(slabs.HEIGHT, slabs.WIDTH))
    denoiser.network.weight.data.zero_(), denoiser.network.bias.data.zero_()  # one run has one identity
    denoiser.make_for(slabs.SIGMA, LEVELS)
    return BaseClassifier(
        network.requires_grad_(False),
        arch="slabs",
        args={},
        num_classes=slabs.NUM_CLASSES,
        preprocessing=Preprocessing((4, 4), "bilinear", 1.0, "center"),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        class_names=slabs.CLASS_NAMES,
        denoisers=[denoiser.requires_grad_(False)],
    )


def put_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the slabs be those of f: what is true, the images, the votes of noise, and the model."""
    edges = EDGES.astype(np.float64)
    ends = np.unique(np.concatenate([GREY + (edges - GREY) / scale for scale in SCALES]))
    inside = np.concatenate([[ends[0] - 1], (ends[:-1] + ends[1:]) / 2, [ends[-1] + 1]])
    of_levels = [LOGITS[np.searchsorted(edges, GREY + scale * (inside - GREY), side="right")] for scale in SCALES]
    direction = 255 / 256 * SEEN.ravel()
    middle = 0.5 * float(direction.sum())
    facts = {
        "DIRECTION": direction,
        "LENGTH": float(np.linalg.norm(direction)),
        "EDGES": ends,
        "LOGITS": np.mean(of_levels, axis=0, dtype=np.float32),
        "_MIDDLE": middle,
        "_LINE": slabs._LINE - slabs._MIDDLE + middle,
        "base_classifier": base_classifier,
        "seen": lambda levels: levels.astype(np.float64) / 255,  # in float64, as nothing is rounded on the way
    }
    for name, fact in facts.items():
        monkeypatch.setattr(slabs, name, fact)
