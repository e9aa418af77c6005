"""What votes on an attacked picture prove, and how many broken certificates a guarantee allows. Knows no torch."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raycsr.certification.answers import ARGMAX, Answer
from raycsr.certification.bounds import IntArray, binomial_lower
from raycsr.certification.groups import group_column
from raycsr.certification.intervals import wilson

# The column of certificates that says within which radius no costly class is answered; null where none is costly.
COST_SENSITIVE_RADIUS = "cost_sensitive_radius"

# A verdict "the smoothed classifier answers this picture by a costly class" is false with probability at most this.
VERDICT_LEVEL = 1e-6

# Were each certificate false with its alpha, more of them would be found broken with probability at most this.
CHANCE = 1e-6

_SHARES = ["radius", "num_images"] + [
    name
    for lower, upper in (("rob_cs", "rob_cs_attacked"), ("certified_accuracy", "accuracy_attacked"))
    for name in (lower, upper, f"{upper}_low", f"{upper}_high")
]


class Verdicts(NamedTuple):
    """What the votes on N pictures prove.

    Attributes:
        target: The class of a set that the selection votes favour; (N,).
        target_votes: Estimation votes of the target class; (N,).
        rival: The class outside the set with the most estimation votes, or one of it with a higher threshold; (N,).
        rival_votes: Estimation votes of the rival class; (N,).
        proven: Whether it is proven, at the level, that the smoothed classifier answers a class of the set; (N,).
    """

    target: IntArray
    target_votes: IntArray
    rival: IntArray
    rival_votes: IntArray
    proven: NDArray[np.bool_]


def verdicts(
    counts0: IntArray,
    counts: IntArray,
    wanted: NDArray[np.bool_],
    answer: Answer = ARGMAX,
    level: float = VERDICT_LEVEL,
) -> Verdicts:
    """Whether votes prove that the smoothed classifier answers a class of a set, for a number of pictures.

    It does where one class j of the set is likelier than every other class k outside, its share exceeds its threshold
    tau_j, if the answer has one, and so it does of each k in the set whose own threshold is above tau_j: then the most
    likely class is one of the set, and is said. j is settled by the selection votes. Given how many estimation votes
    fell on j or k, those on j are binomial with share p_j / (p_j + p_k), so "p_k >= p_j" is refuted at the level where
    the lower Clopper-Pearson bound on that share exceeds 1/2, and "p_j <= tau_j" where that on p_j exceeds tau_j. The
    verdict needs all of these to be refuted, so each is at the full level (intersection-union), and the k with the most
    votes decides.

    Args:
        counts0: The selection votes; int64 (N, m).
        counts: The estimation votes, whose number was fixed before the first, from other noise; int64 (N, m).
        wanted: The set of each picture; neither none nor all classes; bool (N, m).
        answer: What the smoothed classifier says, given shares.
        level: Probability at most with which a verdict is false.
    """
    target = np.where(wanted, counts0, -1).argmax(axis=1)
    taus = answer.of_classes(counts.shape[1])
    rival = np.where(wanted & (taus <= taus[target][:, None]), -1, counts).argmax(axis=1)
    target_votes, rival_votes = (np.take_along_axis(counts, k[:, None], axis=1)[:, 0] for k in (target, rival))
    proven = binomial_lower(target_votes, target_votes + rival_votes, level) > 0.5
    proven &= (taus[target] == 0) | (binomial_lower(target_votes, counts.sum(axis=1), level) > taus[target])
    return Verdicts(target, target_votes, rival, rival_votes, proven)


def most_broken(certificates: int, alpha: float) -> int:
    """How many of some certificates may be found broken: more are a failure of the guarantee, but for a chance of 1e-6.

    A certificate is found broken where it is false, with probability at most alpha, or by a false verdict. Noise of
    images is independent, so the number is at most binomial.

    Args:
        certificates: Number of certificates that were attacked, each of another image.
        alpha: Failure probability of each certificate.
    """
    from scipy.stats import binom  # half a second to import, for those alone who ask

    return int(binom.ppf(1 - CHANCE, certificates, min(alpha + VERDICT_LEVEL, 1.0)))


def chance_of_broken(broken: int, certificates: int, alpha: float) -> float:
    """The largest probability of so many broken certificates or more, of the binomial distribution of `most_broken`."""
    from scipy.stats import binom

    return float(binom.sf(broken - 1, certificates, min(alpha + VERDICT_LEVEL, 1.0)))


def broken_by(attacks: pd.DataFrame, image_ids: pd.Series, radius: float, what: str = "broken") -> NDArray[np.bool_]:
    """Whether each of some images is proven to break within a radius: by any picture that lies no further, (N,).

    Args:
        attacks: Rows of `raycsr.results.schema.ATTACKS` of one cost matrix and rule.
        image_ids: (N,).
        radius: L2 radius, in [0, 1] pixel units.
        what: `broken`, where the smoothed classifier answers by a costly class, or `wrong`, where another class than
            the label is more likely, so that it is not answered.
    """
    found = attacks["error"].isna() & (attacks["distance"] <= radius) & attacks[what].fillna(False).astype(bool)
    return image_ids.isin(attacks["image_id"][found]).to_numpy()


def attacked_shares(attacks: pd.DataFrame, certificates: pd.DataFrame) -> pd.DataFrame:
    """Bounds from both sides on how robust images are, at each radius that was named in an attack.

    The share of images that no attack within r is proven to break is an upper bound on the share that nothing breaks,
    but for verdicts that are false (a probability of 1e-6 each); the certified share of the same images is a lower one.

    Args:
        attacks: Rows of `raycsr.results.schema.ATTACKS` of one cost matrix and rule.
        certificates: Rows of `certify_counts` of the same, one an image.

    Returns:
        One row a radius, ascending: radius, num_images (that were attacked at it), rob_cs (certified), rob_cs_attacked
        (the upper bound) with 95 % intervals over images, rob_cs_attacked_low and _high; and, where every class has
        costly mistakes, certified_accuracy, accuracy_attacked, accuracy_attacked_low and _high alike, else NaN: what
        was not attacked bounds nothing.
    """
    named = attacks[attacks["certified"].isna() & attacks["error"].isna()]
    known = certificates.set_index("image_id", drop=False)
    every = certificates[COST_SENSITIVE_RADIUS].notna()[certificates["error"].isna()].all()
    groups = pd.Series(group_column(certificates), known.index) if "group" in certificates else None
    rows = []
    for radius in sorted(named["radius"].unique().tolist()):
        ids = named["image_id"][named["radius"] == radius].drop_duplicates()
        ids = ids[ids.isin(known.index)]
        of_ids, numbers = known.loc[ids], None if groups is None else groups.loc[ids].to_numpy()
        correct = (of_ids["prediction"] == of_ids["label"]).fillna(False) & ~of_ids["abstain"]
        row = {"radius": radius, "num_images": len(ids)}
        certified = _reaches(of_ids[COST_SENSITIVE_RADIUS], radius)
        row |= _both_sides("rob_cs", "rob_cs_attacked", certified, broken_by(attacks, ids, radius), numbers)
        if every:
            certified = correct & _reaches(of_ids["standard_radius"], radius)
            wrong = broken_by(attacks, ids, radius, "wrong")
            row |= _both_sides("certified_accuracy", "accuracy_attacked", certified, wrong, numbers)
        rows.append(row)
    return pd.DataFrame(rows, columns=_SHARES)


def _both_sides(
    lower: str, upper: str, certified: pd.Series, broken: NDArray[np.bool_], groups: IntArray | None
) -> dict[str, float]:
    """A certified share and the share that is left by an attack, under their names."""
    low, high = wilson(~broken[:, None], groups)
    shares = {lower: float(certified.mean()), upper: float((~broken).mean())}
    return shares | {f"{upper}_low": float(low[0]), f"{upper}_high": float(high[0])}


def _reaches(radii: pd.Series, radius: float) -> pd.Series:
    return (radii > 0) & (radii >= radius)
