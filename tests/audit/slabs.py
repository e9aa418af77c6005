"""A base classifier of slabs along one direction: vote shares and radii of its smoothed version in closed form.

Its logits depend on the slab alone into which the projection <u, x> of the pixels falls. So p_k at x is a sum of
differences of Phi, g at x + d depends on <u, d> alone, and the distance from x to where g answers a class is that
along u: what certificates claim can be compared with what is true.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import sha256
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from torch import nn

from raycsr.costs import CostMatrix
from raycsr.data.images import frame
from raycsr.data.options import DataOptions
from raycsr.data.sources import Listing, Source
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.rules import ARGMAX, Rule, parse_rules
from raycsr.models.spec import Preprocessing
from raycsr.smoothing.lattice import lattice_table
from raycsr.smoothing.noise import noise_key
from raycsr.smoothing.options import CHUNK

SIGMA = 0.25
SEED = 0
HEIGHT, WIDTH = 2, 2
NUM_CLASSES = 6
CLASS_NAMES = [str(k) for k in range(NUM_CLASSES)]
COSTS = ("uniform", "seed:0,4", "pair:0/1,0/4,1/0,2/4,3/0,3/1")
RULES = ("offset:1=-1.5", "expected_cost:1*seed:4")  # beside argmax

# Where a slab ends, from the left, and its logits: the answer has 2. A class may own several slabs, and rules move the
# borders: where the runner-up has 1, costs or an offset of 1.5 make it the answer.
SLABS: list[tuple[float, dict[int, float]]] = [
    (-0.6, {0: 2}),
    (-0.15, {1: 2}),
    (0.1, {1: 2, 5: 1}),
    (0.2, {2: 2, 4: 1}),
    (0.3, {3: 2}),
    (0.35, {2: 2}),
    (0.85, {4: 2}),
    (1.0, {4: 2, 3: 1.5}),
    (1.2, {1: 2, 4: 1.5}),
    (np.inf, {1: 2}),
]

_generator = np.random.default_rng(5)
_direction = _generator.uniform(0.24, 0.34, 3 * HEIGHT * WIDTH) * _generator.choice([-1, 1], 3 * HEIGHT * WIDTH)
DIRECTION = (_direction / np.linalg.norm(_direction)).astype(np.float32)  # C H W, as a network has it
LENGTH = float(np.linalg.norm(DIRECTION.astype(np.float64)))  # 1 but for rounding
_MIDDLE = 0.5 * float(DIRECTION.astype(np.float64).sum())  # the grey image's projection, the slabs' origin
EDGES = (np.array([end for end, _ in SLABS[:-1]]) + _MIDDLE).astype(np.float32)
LOGITS = np.array([[row.get(k, 0.0) for k in range(NUM_CLASSES)] for _, row in SLABS], np.float32)


class Slabs(nn.Module):
    """Pixels -> the logits of their slab; the projection is taken in float64, whatever the network's precision."""

    def __init__(self) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.from_numpy(DIRECTION.copy()))
        self.register_buffer("edges", torch.from_numpy(EDGES.copy()))
        self.register_buffer("logits", torch.from_numpy(LOGITS.copy()))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        projection = (pixels.double().flatten(1) * self.direction.double()).sum(1)
        return self.logits[torch.bucketize(projection, self.edges.double(), right=True)]


def base_classifier(network: nn.Module | None = None) -> BaseClassifier:
    """The slabs as raycsr has a model."""
    preprocessing = Preprocessing((HEIGHT, WIDTH), "bilinear", 1.0, "center")
    return BaseClassifier(
        network or Slabs(),
        arch="slabs",
        args={},
        num_classes=NUM_CLASSES,
        preprocessing=preprocessing,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        class_names=CLASS_NAMES,
    )


def rules(specs: Sequence[str]) -> list[Rule]:
    return parse_rules(["argmax", *specs], num_classes=NUM_CLASSES, class_names=CLASS_NAMES)


def costs(spec: str) -> CostMatrix:
    return CostMatrix.from_spec(spec, NUM_CLASSES, CLASS_NAMES)


def answers(rule: Rule) -> np.ndarray:
    """What a rule answers in each slab."""
    return rule(torch.from_numpy(LOGITS)).numpy()


# What is true --------------------------------------------------------------------------------------------


def shares(rule: Rule, at: np.ndarray) -> np.ndarray:
    """p_k under a rule where the projection is `at`, (N,) -> (N, m)."""
    ends = np.concatenate([[-np.inf], EDGES.astype(np.float64), [np.inf]])
    z = (ends - np.asarray(at)[:, None]) / (SIGMA * LENGTH)
    low, high = z[:, :-1], z[:, 1:]
    # the smaller tail of the two, or a slab far to the right would have no share at all
    of_slab = np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
    p = np.zeros((len(z), NUM_CLASSES))
    np.add.at(p.T, answers(rule), of_slab.T)
    return p


def standard_radius(p: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Within it g answers `answer`, by p alone: 0 where it may not at x itself."""
    return SIGMA * np.maximum(0.0, ndtri(np.take_along_axis(p, answer[:, None], axis=1)[:, 0]))


def pairwise_radius(p: np.ndarray) -> np.ndarray:
    """Within [:, j] g never answers j, by p alone: 0 where it may at x itself."""
    return SIGMA / 2 * np.maximum(0.0, ndtri(p.max(axis=1, keepdims=True)) - ndtri(p))


def distances(rule: Rule, at: np.ndarray) -> np.ndarray:
    """How far x is from where g answers each class, (N,) -> (N, m): exact, by the borders of g along u."""
    grid = np.linspace(EDGES[0] - 8 * SIGMA, EDGES[-1] + 8 * SIGMA, 40_001)
    tops = shares(rule, grid).argmax(axis=1)
    borders = [grid[0]]
    for i in np.flatnonzero(np.diff(tops)):
        two = tops[[i, i + 1]]
        borders.append(brentq(partial(_lead, rule, two), grid[i], grid[i + 1]))
    answered = tops[np.concatenate([np.flatnonzero(np.diff(tops)), [-1]])]
    lows, highs = np.array(borders), np.array([*borders[1:], grid[-1]])
    found = np.full((len(at), NUM_CLASSES), np.inf)
    for k, low, high in zip(answered, lows, highs, strict=True):
        outside = np.maximum(low - at, at - high).clip(0) / LENGTH
        found[:, k] = np.minimum(found[:, k], outside)
    return found


def _lead(rule: Rule, two: np.ndarray, at: float) -> float:
    """By how much the second of two classes is more likely."""
    first, second = shares(rule, np.array([at]))[0, two]
    return second - first


# Images ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pictures(Source):
    """Images whose ids are their places, and all that is true about them.

    Attributes:
        pixels: uint8 (N, H, W, 3).
        labels: (N,).
        n0: selection samples that are drawn of each.
        n: estimation samples that are drawn of each at most.
    """

    options: DataOptions = field(default_factory=lambda: DataOptions("digits"))
    pixels: np.ndarray = field(default_factory=lambda: np.zeros((0, HEIGHT, WIDTH, 3), np.uint8))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    n0: int = 64
    n: int = 1280

    __eq__, __hash__ = object.__eq__, object.__hash__  # a Source is its options, and these are alike

    def __len__(self) -> int:
        return len(self.labels)

    def read_in_turns(self, image_ids: Sequence[str]) -> Iterator[list]:
        yield [self.pixels[int(image_id)] for image_id in image_ids]

    def list(self, limit: int | None = None) -> Listing:
        ids = [str(i) for i in range(len(self))]
        identity = {"source": "slabs", "images": sha256(self.pixels.tobytes()).hexdigest()}
        return Listing(frame(ids, self.labels, 12, "1").iloc[:limit], CLASS_NAMES, identity)

    @property
    def projections(self) -> np.ndarray:
        pixels = torch.from_numpy(self.pixels).permute(0, 3, 1, 2).float() / 255
        return pixels.flatten(1).double().numpy() @ DIRECTION.astype(np.float64)


def seen(levels: np.ndarray) -> np.ndarray:
    """What the slabs see of whole grey levels."""
    return levels / np.float32(255)


@cache
def trails(pictures: Pictures) -> tuple[np.ndarray, np.ndarray]:
    """The slab of each selection sample and of each estimation sample, uint8 (N, n0) and (N, n).

    The noise is drawn again, image by image, and added outside of the engine.
    """
    selection, estimation = (np.empty((len(pictures), n), np.uint8) for n in (pictures.n0, pictures.n))
    noise, table = np.empty((CHUNK, HEIGHT, WIDTH, 3), np.float32), lattice_table(SIGMA)
    direction, edges = (torch.from_numpy(values).double() for values in (DIRECTION, EDGES))
    for i, image in enumerate(pictures.pixels):
        for phase, trail in (("selection", selection[i]), ("estimation", estimation[i])):
            for start in range(0, len(trail), CHUNK):
                table.fill(noise.reshape(-1), noise_key(SEED, str(i), phase, start // CHUNK), 0)
                noisy = torch.from_numpy(seen(image + noise)).permute(0, 3, 1, 2)
                found = torch.bucketize((noisy.double().flatten(1) * direction).sum(1), edges, right=True)
                trail[start : start + CHUNK] = found.numpy()[: len(trail) - start]
    return selection, estimation


def votes(rule: Rule, trail: np.ndarray) -> np.ndarray:
    """The votes of samples that fell into these slabs, (N, n) -> (N, m)."""
    slabs = np.stack([(trail == slab).sum(axis=1) for slab in range(len(LOGITS))], axis=1)
    counts = np.zeros((len(trail), NUM_CLASSES), np.int64)
    np.add.at(counts.T, answers(rule), slabs.T)
    return counts


def pictures_near_radii(
    number: int,
    radii: Sequence[float],
    of: Sequence[str] = RULES,
    under: Sequence[str] = COSTS,
    **options: Any,
) -> Pictures:
    """Images of which each has a true radius just below one of `radii`: to certify that would be false, and is near.

    Args:
        number: of images.
        radii: that are to be asked about.
        of: rules beside argmax; an image is near by one of them.
        under: cost matrices. Half of the images are near by the standard radius, the others by the cost-sensitive one
            under one of these, and some label; all by the standard one, where there are none.
        options: `n0` and `n` of Pictures.
    """
    standard, cost_sensitive = [], []
    for rule in rules(of):
        p = shares(rule, _LINE)
        top, pairs = p.argmax(axis=1), pairwise_radius(p)
        for label, radius in product(range(NUM_CLASSES), radii):
            standard.append((label, _just_below(radius, np.where(top == label, standard_radius(p, top), 0))))
            for targets in (costs(spec).targets(label) for spec in under):
                if len(targets):
                    cost_sensitive.append((label, _just_below(radius, pairs[:, targets].min(axis=1))))
    half = number // 2 if under else number
    return _pictures([(half, standard), (number - half, cost_sensitive)], **options)


def pictures_that_argmax_has_wrong(number: int, radius: float, rule: Rule, **options: Any) -> Pictures:
    """Images of which a rule's standard radius is just below `radius`, and of which argmax's answer is wrong."""
    p = shares(rule, _LINE)
    top, by_argmax = p.argmax(axis=1), shares(ARGMAX, _LINE).argmax(axis=1)
    truth = np.where(top == by_argmax, 0, standard_radius(p, top))
    kinds = [(label, _just_below(radius, np.where(top == label, truth, 0))) for label in range(NUM_CLASSES)]
    return _pictures([(number, kinds)], **options)


def pictures_of_ties(number: int, **options: Any) -> Pictures:
    """Images on a border of two wide slabs, whose classes are as likely as each other."""
    kinds = [(label, np.array([border + _MIDDLE])) for label, border in ((0, -0.6), (1, -0.6), (1, 1.0), (4, 1.0))]
    return _pictures([(number, kinds)], **options)


_LINE = np.arange(-1.25, 1.25, 5e-5) + _MIDDLE  # as far as pixels reach


def _just_below(radius: float, truth: np.ndarray) -> np.ndarray:
    """The projections whose true radius is so, given those of the line."""
    return _LINE[(radius - 0.002 < truth) & (truth < radius - 0.0005)]


def _pictures(wanted: Sequence[tuple[int, Sequence[tuple[int, np.ndarray]]]], **options: Any) -> Pictures:
    """So many images of each group of kinds, in a random order; a kind is a label and projections to choose from."""
    generator = np.random.default_rng(1)
    chosen: list[tuple[int, float]] = []
    for number, group in wanted:
        kinds = [(label, where) for label, where in group if len(where)]
        for kind in generator.integers(len(kinds), size=number):
            chosen.append((kinds[kind][0], generator.choice(kinds[kind][1])))
    order = generator.permutation(len(chosen))
    labels, targets = (np.array(values)[order] for values in zip(*chosen, strict=True))
    return Pictures(pixels=_pixels(targets, generator), labels=labels, **options)


def _pixels(targets: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Images with as good as these projections, uint8 (N, H, W, 3)."""
    u = DIRECTION.astype(np.float64)
    sideways = generator.uniform(-0.02, 0.02, (len(targets), len(u)))
    sideways -= np.outer(sideways @ u, u)
    pixels = np.rint(255 * (0.5 + np.outer(targets - _MIDDLE, u) + sideways))
    moves = np.concatenate([np.zeros((1, len(u))), np.eye(len(u)), -np.eye(len(u))])  # of one pixel by one level
    moves = (moves[:, None] + moves).reshape(-1, len(u))  # of two
    moves = moves[np.argsort(moves @ u)]
    nearest = np.searchsorted(moves @ u, 255 * targets - pixels @ u).clip(0, len(moves) - 1)
    pixels += moves[nearest]
    assert pixels.min() >= 0 and pixels.max() <= 255
    return pixels.astype(np.uint8).reshape(-1, 3, HEIGHT, WIDTH).transpose(0, 2, 3, 1).copy()
