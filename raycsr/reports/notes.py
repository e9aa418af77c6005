"""How to read a report: what its words mean, and what must be known of its numbers to read them right."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from raycsr.certification import group_numbers
from raycsr.certification.summary import RHO
from raycsr.reports.certified import Certified
from raycsr.reports.comparison import DRAWN_LOSS, MOST_DRAWN
from raycsr.reports.findings import Findings
from raycsr.reports.statements import statements_in_words
from raycsr.results import seen_images_of

GLOSSARY = {
    "base classifier": "the network, with its decision rule: it votes on noisy copies of an image.",
    "smoothed classifier": "what is certified, and what to deploy: it answers the class with most votes.",
    "sigma (σ)": "the standard deviation of the noise, in units in which black is 0 and white is 1.",
    "radius": "how far an image may be changed: the L2 size of the change, in the same units.",
    "certified at radius r": "no change of L2 size r or less makes it false. Of one image it is false with probability "
    "alpha at most; a guaranteed share is one that, with a stated probability, truly holds of these very images.",
    "true class and costly answer": "a mistake is costly from a true class (a seed class; the sensitive images are of "
    "these) to an answer (a target class; the target images are of these).",
    "rob_cs": "of the sensitive images, the share on which no change makes a costly mistake.",
    "rob_cost, worst cost": "the mean of the costs that are not ruled out, and of the largest of them: less is better.",
    "accuracy": "of all images, the share that is provably answered rightly where nobody changes them; argmax accuracy "
    "counts the class with most votes, whatever its share.",
    "certified accuracy": "of all images, the share that is answered rightly, and stays so. Standard: as published "
    "tables have it, by the share of the answer alone, which must exceed 1/2. Multiclass: of the argmax, by the shares "
    "of the answer and of its runner-up, so that no majority is needed.",
    "coverage": "of all images, the share that is provably answered; of others it may abstain, as for a person to "
    "look at. That is never a costly mistake, nor right, and an adversary can force it.",
    "recall": "of the images of a class, the share that is answered rightly; read it beside rob_cs, for what calls "
    "everything a cat never mistakes a cat.",
}


def notes_on(found: Findings) -> list[str]:
    """What a reader of these numbers must know to read them right, a sentence or two each."""
    sets = found.sets
    sizes = sorted({one.input_size for one in sets if one.input_size is not None})
    tables = ", ".join(dict.fromkeys(one.run for one in sets if one.origin is None))
    grouped = {one.run for one in sets if "group" in one.certificates}
    units = "images" if not grouped else "groups" if grouped == {one.run for one in sets} else "images or their groups"
    notes = [
        "radius: L2 in [0, 1] pixel units"
        + (f" at {', '.join(f'{h} x {w}' for h, w in sizes)} px" if sizes else "")
        + f"; brackets: 95 % interval over {units}.",
        statements_in_words(sets, found.table["radius"].unique().tolist()),
        f"guaranteed: with probability {1 - RHO:g} the share of these images that is truly certified is no smaller, at "
        "all radii at once.",
    ]
    if tables:
        notes.append(
            f"{tables}: a radius counts as half a unit of its last digit less than written, as it may be rounded up."
        )
    if any(np.isnan(one.alpha) for one in sets):
        notes.append(
            f"{tables}: no guaranteed shares, as such a table does not say its alpha; give it by --table_alpha "
            "(certify.py's default is 0.001)."
        )
    older = sorted({str(one.method) for one in sets if one.costs.endswith(f"({one.method})")})
    if older:
        notes.append(
            f"{', '.join(older)}: certified by a method of before, with shorter radii; compare it with no other. "
            "`raycsr certify` certifies the same votes by the present one."
        )
    if len(found.compared):
        notes.append(
            "A front is a picture: a rule or model picked from it on these images has no valid alpha. Tune a rule on "
            "others (`raycsr tune-rule`), then certify it here."
        )
    if (found.compared.groupby("costs")["num_images"].nunique() > 1).any():
        notes.append("The points of a front stand on different numbers of images: compare them with care.")
    if len(found.drawn) < len(sets):
        notes.append(
            f"Curves: where a run has more than {MOST_DRAWN} rules beside argmax, argmax and of each kind the best "
            f"on the front at radius {found.radius:g} that loses at most {DRAWN_LOSS:g} of argmax's accuracy."
        )
    for run, one in {one.run: one for one in sets if "group" in one.certificates}.items():
        groups = len(np.unique(group_numbers(one.certificates["group"])))
        notes.append(
            f"The images of {run} come in {groups:,} groups (such as one a patient), which are not independent within: "
            "its intervals are over groups, not over images."
        )
    notes += images_in_words(sets)
    errors = pd.concat(
        [one.certificates.loc[one.certificates["error"].notna(), ["image_id"]].assign(run=one.run) for one in sets]
    )
    notes += [
        f"{run}: {count:,} {'image has an error' if count == 1 else 'images have an error'} instead of votes: "
        "counted as failing."
        for run, count in errors.groupby("run", sort=False)["image_id"].nunique().items()
    ]
    missing = max(one.missing for one in sets)
    if missing:
        notes.append(f"INCOMPLETE: up to {missing} listed images a run have no certificate and are left out.")
    if found.left_out:
        notes.append(f"{', '.join(found.left_out)}: no certificates of these costs and rules, left out.")
    return notes + unreadable_in_words(found)


def unreadable_in_words(found: Findings) -> list[str]:
    """A sentence for each run that was named, and is not in the report because it cannot be read."""
    return [f"LEFT OUT: {location} cannot be read: {error}" for location, error in sorted(found.unreadable.items())]


def images_in_words(sets: Sequence[Certified]) -> list[str]:
    """Which runs stand on some of their images or samples alone, or on images that a model or a rule has seen."""
    notes = [f"{run}: {counted}." for run, counted in {one.run: one.counted for one in sets}.items() if counted]
    rules: dict[str, list[str]] = {}
    for one in sets:
        rules.setdefault(one.run, []).append(one.decision)
    runs = {one.run: one.origin for one in sets if one.origin is not None}
    early = {one.run for one in sets if one.ended_early}
    notes += [f"{label}: {_ended_early(run.manifest())}" for label, run in runs.items() if label in early]
    return notes + [f"{label}: {line}." for label, run in runs.items() for line in seen_images_of(run, rules[label])]


def _ended_early(manifest: dict) -> str:
    """That votes of a sequential run say of other radii less than they could: nothing else tells it from robustness."""
    radii = manifest.get("config", {}).get("sampling", {}).get("radii") or []
    begun = f" ({', '.join(f'{radius:g}' for radius in radii)} when it was begun)" if radii else ""
    return (
        f"sampling of an image ended once it was known whether the radii that were asked for{begun} are reached. At "
        "others, under costs and answers that were not asked for, and in accuracy, coverage and the mean radius (ACR), "
        "less is certified than more samples would certify: a curve falls where sampling ended. `raycsr sample` with "
        "such sampling.radii (.01 for accuracy and coverage), costs and answers goes on."
    )
