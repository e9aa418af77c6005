"""Which sigma, n, radius and alpha make sense for some images, by a pilot on them, and what each takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raycsr.certification.advice import expected_summary
from raycsr.certification.intervals import Z_95
from raycsr.costs import CostMatrix
from raycsr.distributed.plans import Price
from raycsr.errors import printable
from raycsr.reports.document import Column, Table
from raycsr.reports.text import as_text

NS = (1_000, 10_000, 100_000)
ALPHAS = (0.001, 0.01)
_POINT = 0.01  # a share that is this much larger is worth naming
_MULTIPLES = (0.5, 1.0, 2.0, 3.0)  # of sigma: the radii where none are named


@dataclass(frozen=True)
class ExpectedShares(Price):
    """What a fixed number of samples would certify, and its price.

    Attributes:
        model: The model, as `ModelOptions.label` writes it.
        sigma: Noise level, in [0, 1] pixel units.
        rule: Spec of the decision rule.
        n: Estimation samples of an image.
        alpha: Failure probability of one image's certificate.
        largest_radius: L2 radius of an image whose votes all agree, in [0, 1] pixel units.
        radii: L2 radii, in [0, 1] pixel units.
        shares: Certified accuracy (multiclass), and rob_cs of each cost matrix with the number of the pilot's images
            that it is about -> the expected share at each radius; None where there is no such image.
        pilot_images: Number of images of the pilot.
    """

    model: str
    sigma: float
    rule: str
    n: int
    alpha: float
    largest_radius: float
    radii: tuple[float, ...]
    shares: dict[str, tuple[float | None, ...]]
    pilot_images: int

    def cells(self) -> list[str]:
        """Those of its price, behind the largest radius."""
        return [f"{self.largest_radius:.3g}", *super().cells()]

    def columns(self) -> list[Column]:
        """Those of `cells`."""
        return [Column("largest radius", numeric=True), *super().columns()]


def radii_of(named: Sequence[float], sigmas: Sequence[float]) -> tuple[float, ...]:
    """The radii at which designs are compared: those that were named, or multiples of the noise levels."""
    return tuple(named) or tuple(sorted({round(times * sigma, 3) for sigma in sigmas for times in _MULTIPLES}))


def expected_shares(
    votes: np.ndarray,
    labels: np.ndarray,
    matrices: Mapping[str, CostMatrix],
    *,
    sigma: float,
    draws: tuple[int, int],
    alpha: float,
    radii: Sequence[float],
) -> dict[str, tuple[float | None, ...]]:
    """The field `shares` of `ExpectedShares`.

    Args:
        votes: Votes of the pilot by one decision rule; int (N, m).
        labels: Classes of its images; int (N,).
        matrices: Spec -> cost matrix.
        sigma: Noise level of the pilot, in [0, 1] pixel units.
        draws: n0 and n.
        alpha: Failure probability of one image's certificate.
        radii: L2 radii, in [0, 1] pixel units.
    """
    found: dict[str, tuple[float | None, ...]] = {}
    for spec, matrix in (matrices or {"": CostMatrix.uniform(votes.shape[1])}).items():
        table = expected_summary(votes, labels, matrix, sigma=sigma, draws=draws, alpha=alpha, radii=radii)
        found.setdefault("certified accuracy", tuple(table["multiclass_certified_accuracy"].tolist()))
        if spec:
            found[f"rob_cs {spec} ({int(matrix.sensitive[labels].sum())} images)"] = tuple(
                None if np.isnan(one) else one for one in table["rob_cs"].tolist()
            )
    return found


def in_tables(offers: Sequence[ExpectedShares]) -> list[str]:
    """The offers of one noise level for a terminal: what they stand on, and a table for each share; none of none.

    Args:
        offers: One for each of `NS` and `ALPHAS`.
    """
    if not offers:
        return []
    first = offers[0]
    texts = [
        f"expected  under {first.rule} and a fixed n, by {first.pilot_images} images; a share of k images may be "
        f"{50 * Z_95:.0f} / sqrt(k) points off"
    ]
    for place, name in enumerate(first.shares):
        titles = ["n", "alpha", *(f"at {radius:g}" for radius in first.radii)]
        columns = [Column(title, numeric=True) for title in titles] + (first.columns() if not place else [])
        rows = []
        for one in offers:
            shares = ["-" if share is None else f"{share:.2f}" for share in one.shares[name]]
            rows.append([f"{one.n:,}", f"{one.alpha:g}", *shares, *(one.cells() if not place else [])])
        texts.append(f"\n{printable(name)}\n{as_text(Table(columns, rows))}")
    return [*texts, ""]


def in_words(offers: Sequence[ExpectedShares]) -> list[str]:
    """What follows from the offers of one noise level, a line each; nothing where there are none.

    Args:
        offers: One for each of `NS` and `ALPHAS`.
    """
    if not offers:
        return []
    by_n = [one for one in offers if one.alpha == ALPHAS[0]]
    enough = next(one for one in by_n if _most_gained(one, by_n[-1]) < _POINT)
    loose = next(one for one in offers if (one.n, one.alpha) == (enough.n, ALPHAS[-1]))
    if enough is by_n[-1]:
        gained = 100 * _most_gained(by_n[-2], enough)
        lines = [f"advice    n {enough.n:,}: it certifies up to {gained:.0f} points more than {by_n[-2].n:,}"]
    else:
        lines = [f"advice    n {enough.n:,}: {by_n[-1].n:,} certify less than a point more at any of these radii"]
    lines.append(
        f"          alpha {ALPHAS[0]:g}: {loose.alpha:g} would certify up to {100 * _most_gained(enough, loose):.1f} "
        f"points more, of which {loose.alpha / ALPHAS[0]:.0f} times as many may be false"
    )
    for name, at in enough.shares.items():
        half = [radius for radius, share in zip(enough.radii, at, strict=True) if share is not None and share >= 0.5]
        reach = f"{max(half):g} is the largest of these that half of the images reach" if half else "half reach none"
        lines.append(f"          radius, {name}: {reach}")
    return lines


def best_sigma(offers: Sequence[ExpectedShares]) -> list[str]:
    """Which noise levels certify most at each radius, a line for each model and share; nothing of one level alone.

    Args:
        offers: Those of all models and noise levels; the largest n at the first of `ALPHAS` decides.
    """
    lines = []
    for model in dict.fromkeys(one.model for one in offers):
        largest = [one for one in offers if (one.model, one.n, one.alpha) == (model, NS[-1], ALPHAS[0])]
        if len(largest) > 1:
            lines += [f"advice    sigma for {model}, {name}: {_best(largest, name)}" for name in largest[0].shares]
    return lines


def _best(offers: Sequence[ExpectedShares], name: str) -> str:
    """The noise levels within a point of the most, at each radius."""
    best = []
    for place, radius in enumerate(offers[0].radii):
        known = [(one.shares[name][place] or 0.0, one.sigma) for one in offers]
        most = max(share for share, _ in known)
        near = dict.fromkeys(f"{sigma:g}" for share, sigma in known if share > most - _POINT)
        best += [f"{' or '.join(near)} at {radius:g}"] if most else []
    return ", ".join(best) or "nothing is certified at any of these radii"


def _most_gained(one: ExpectedShares, other: ExpectedShares) -> float:
    """The most that the other certifies more, over all shares and radii."""
    pairs = [pair for name in one.shares for pair in zip(one.shares[name], other.shares[name], strict=True)]
    return max((b - a for a, b in pairs if a is not None and b is not None), default=0.0)
