"""What a report stands on: data, images, samples, alpha, device, date, version and place of each run."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import pandas as pd

from raycsr.certification import TELLING_IMAGES
from raycsr.reports.certified import Certified

_UNKNOWN = "not recorded"
_DIGITS = 12  # of a listing's digest
_BRIEF = ("images", "data", "listing", "n0", "n", "alpha", "device", "begun", "raycsr", "location")


@dataclass(frozen=True)
class Stand:
    """What the numbers of some runs and published tables stand on.

    Attributes:
        facts: label of each -> name of a fact -> what it is; all have the same facts.
    """

    facts: dict[str, dict[str, str]]

    def rows(self) -> list[list[str]]:
        """Rows of text, the first the header: a row a fact, a column a run."""
        names = next(iter(self.facts.values()))
        return [["", *self.facts], *([name, *(of_run[name] for of_run in self.facts.values())] for name in names)]

    def brief(self) -> list[str]:
        """A line for each run with what matters most, and is known."""
        return [
            f"{label} stands on " + "; ".join(f"{name} {of_run[name]}" for name in _BRIEF if of_run[name] != _UNKNOWN)
            for label, of_run in self.facts.items()
        ]


def stands_on(sets: Sequence[Certified]) -> Stand:
    """Gathers what some sets of certificates stand on, run by run.

    Args:
        sets: of any runs, costs and rules.
    """
    labels = dict.fromkeys(one.run for one in sets)
    today = datetime.now(UTC).date().isoformat()
    reported = {"reported": f"{today} by raycsr {version('raycsr')}"}
    return Stand({label: _facts([one for one in sets if one.run == label]) | reported for label in labels})


def _facts(sets: Sequence[Certified]) -> dict[str, str]:
    """Those of one run, given its sets of several costs and rules."""
    first = sets[0]
    manifest = first.origin.manifest() if first.origin is not None else {}
    options = manifest.get("config", {}).get("data", {})
    data = [options.get("source"), options.get("path"), options.get("split") and f"split {options['split']}"]
    of_costs = {one.costs: one for one in sets}
    devices = first.origin.devices() if first.origin is not None else []
    return {
        "location": first.location,
        "model": manifest.get("model", _UNKNOWN),
        "sigma": f"{manifest['sigma']:g}" if "sigma" in manifest else _UNKNOWN,
        "data": " ".join(filter(None, data)) or _UNKNOWN,
        "listing": manifest.get("data", {}).get("images", _UNKNOWN)[:_DIGITS],
        "images": _images(sets),
        "sensitive images": "; ".join(f"{costs}: {_sensitive(one):,}" for costs, one in of_costs.items()),
        "classes": _classes(first),
        "n0": f"{manifest['n0']:,}" if "n0" in manifest else _UNKNOWN,
        "n": _samples(sets, manifest.get("sampling", _UNKNOWN)),
        "alpha": _alphas(sets),
        "device": ", ".join([*devices, *filter(None, [manifest.get("precision")])]) or _UNKNOWN,
        "begun": manifest.get("begun", _UNKNOWN),
        "raycsr": manifest.get("versions", {}).get("raycsr", _UNKNOWN),
    }


def _images(sets: Sequence[Certified]) -> str:
    """How many are certified, under each rule and costs, of those listed; a table lists none but its own."""
    if sets[0].origin is None:
        return f"{len(sets[0].certificates):,}"
    listed = len(sets[0].certificates) + sets[0].missing
    done = sorted({len(one.certificates) for one in sets})
    return f"{' to '.join(f'{count:,}' for count in (done[0], *done[1:][-1:]))} of {listed:,} listed"


def _sensitive(one: Certified) -> int:
    return int(one.certificates["cost_sensitive_radius"].notna().sum())


def _classes(one: Certified) -> str:
    """How many there are, and of how many too few images to tell whether their recall collapsed."""
    images = np.bincount(one.certificates["label"], minlength=one.matrix.num_classes)
    few = int((images < TELLING_IMAGES).sum())
    return f"{len(images):,}" + (
        f", {few:,} of them with fewer than {TELLING_IMAGES} images: too few to tell a collapsed recall" if few else ""
    )


def _samples(sets: Sequence[Certified], design: str) -> str:
    """Estimation samples that an image's certificate stands on."""
    if "n" not in sets[0].certificates:
        return _UNKNOWN
    under_costs = [one for one in sets if one.costs == sets[0].costs]
    n = pd.concat([one.certificates.loc[one.certificates["error"].isna(), "n"] for one in under_costs])
    if n.nunique() <= 1:
        return f"{n.max() if len(n) else 0:,} ({design})"
    return f"{n.min():,} to {n.max():,}, median {n.median():,.0f}, mean {n.mean():,.0f} ({design})"


def _alphas(sets: Sequence[Certified]) -> str:
    alphas = sorted({one.alpha for one in sets})
    return _UNKNOWN if np.isnan(alphas).any() else ", ".join(f"{alpha:g}" for alpha in alphas)
