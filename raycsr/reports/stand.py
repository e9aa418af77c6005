"""What a report stands on: data, images, samples, alpha, device, date, version and place of each run."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from raycsr.certification import TELLING_IMAGES
from raycsr.reports.certified import Certified
from raycsr.reports.document import NOT_RECORDED, Facts
from raycsr.reports.labels import denoisers_named
from raycsr.results.notes import model_of

_DIGITS = 12  # of a digest


def stands_on(sets: Sequence[Certified]) -> Facts:
    """Gathers what some sets of certificates stand on, run by run.

    Args:
        sets: Sets of any runs, costs and rules.
    """
    labels = dict.fromkeys(one.run for one in sets)
    today = datetime.now(UTC).date().isoformat()
    reported = {"reported": f"{today} by raycsr {version('raycsr')}"}
    places = {one.run: one.location for one in sets if "://" not in one.location}
    return Facts(
        {label: _facts([one for one in sets if one.run == label]) | reported for label in labels},
        {label: Path(place).absolute().as_uri() for label, place in places.items()},
    )


def _facts(sets: Sequence[Certified]) -> dict[str, str]:
    """Those of one run, given its sets of several costs and rules."""
    first = sets[0]
    manifest = first.origin.manifest() if first.origin is not None else {}
    options = manifest.get("config", {}).get("data", {})
    data = [options.get("source"), options.get("path"), options.get("split") and f"split {options['split']}"]
    of_costs = {one.costs: one for one in sets}
    devices = first.origin.devices() if first.origin is not None else []
    return {
        "images": _images(sets),
        "sensitive images": "; ".join(f"{costs}: {_sensitive(one):,}" for costs, one in of_costs.items()),
        "classes": _classes(first),
        "data": " ".join(filter(None, data)),
        "listing": manifest.get("data", {}).get("images", "")[:_DIGITS],
        "model": "; ".join([model_of(manifest) if manifest else "", *_in_front(manifest)]),
        "sigma": f"{manifest['sigma']:g}" if "sigma" in manifest else "",
        "n0": f"{manifest['n0']:,}" if "n0" in manifest else "",
        "n": _samples(sets, manifest.get("sampling", NOT_RECORDED)),
        "noise": _noise(manifest),
        "alpha": _alphas(sets),
        "method": ", ".join(dict.fromkeys(one.method for one in sets if one.method)),
        "device": ", ".join([*devices, *filter(None, [manifest.get("precision")])]),
        "begun": manifest.get("begun", ""),
        "raycsr": manifest.get("versions", {}).get("raycsr", ""),
        "location": first.location,
    }


def _in_front(manifest: dict) -> Iterator[str]:
    """The denoisers in front of the classifier: where they are from, and what determines the pixels of each."""
    if named := denoisers_named(manifest):
        yield f"denoiser{'s' * (len(named) > 1)} of {', '.join(named)}"
    components = manifest.get("components")
    for one in components if isinstance(components, list) else []:
        if isinstance(one, dict) and one.get("kind") == "denoiser":
            facts = {
                "": one.get("arch"),
                "args ": one.get("args"),
                "for sigma ": one.get("sigma"),
                "told ": str(one.get("levels", "")).strip("[]"),
                "size ": str(one.get("input_size", "")).strip("[]").replace(", ", " x "),
                "sha256 ": str(one.get("sha256", ""))[:_DIGITS],
            }
            yield ", ".join(f"{name}{fact}" for name, fact in facts.items() if fact)


def _noise(manifest: dict) -> str:
    """The noise scheme, and what certificates of its votes do not hold for."""
    scheme = manifest.get("noise_scheme", "")
    if "noise" not in manifest:
        return f"{scheme}, in float32: certificates hold but for what its low bits tell of an image" if scheme else ""
    apart = manifest["noise"]["total_variation"]
    return f"{scheme}, exact for whole grey levels (uint8); {apart:.1g} from the Gaussian, a sample, at most"


def _images(sets: Sequence[Certified]) -> str:
    """How many are certified, under each rule and costs, of those listed; a table lists none but its own."""
    if sets[0].origin is None:
        return f"{len(sets[0].certificates):,}"
    counted = sets[0].counted
    listed = len(sets[0].certificates) + sets[0].missing if counted is None else counted.num_images
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
        return ""
    under_costs = [one for one in sets if one.costs == sets[0].costs]
    n = pd.concat([one.certificates.loc[one.certificates["error"].isna(), "n"] for one in under_costs])
    if n.nunique() <= 1:
        return f"{n.max() if len(n) else 0:,} ({design})"
    return f"{n.min():,} to {n.max():,}, median {n.median():,.0f}, mean {n.mean():,.0f} ({design})"


def _alphas(sets: Sequence[Certified]) -> str:
    alphas = sorted({one.alpha for one in sets})
    return "" if np.isnan(alphas).any() else ", ".join(f"{alpha:g}" for alpha in alphas)
