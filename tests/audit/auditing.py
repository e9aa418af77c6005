"""The audit: is each row the votes of its noise, what do these bound, and how many certificates are not true."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import slabs
from numpy.typing import ArrayLike
from pipeline import Ask, Here, job
from scipy.special import betaln, ndtri, xlog1py, xlogy
from scipy.stats import binom
from torch import nn

from raycsr import load_certificates
from raycsr.models.rules import Rule
from raycsr.results import Run, sparse_votes
from raycsr.results.outcome import Outcome

SHARE_OF_P_A = 0.9  # of alpha (methods: "From counts to certificates"); the targets share the rest
CHANCE = 1e-6  # of one statement's count of false certificates to be over the limit, were each false at alpha


@dataclass
class Audit:
    """One run, what was asked of it so far, and what is wrong with its answers.

    Attributes:
        pictures: the images, and what is true of them.
        alpha: of each certificate.
        results: folder.
        here: how to sample without Ray.
        wrong_votes: what rows were not the votes of their noise.
        bold: what certificates claim more than those votes bound: few may still be false, as bounds have slack.
        false: statement -> whether each image's certificate was false after any ask, NaN where there is none.
    """

    pictures: slabs.Pictures
    alpha: float
    results: str
    here: Here = field(default_factory=Here)
    wrong_votes: list[str] = field(default_factory=list)
    bold: list[str] = field(default_factory=list)
    false: dict[str, np.ndarray] = field(default_factory=dict)

    def ask(self, ask: Ask, network: nn.Module | None = None, retry_errors: bool = False) -> Outcome:
        """Samples what is asked for, and looks at all that the run holds then."""
        outcome = self.here.sample(
            job(ask, self.pictures, self.alpha, self.results, network, retry_errors=retry_errors)
        )
        self.look(outcome.run, ask)
        return outcome

    def look(self, run: Run, ask: Ask) -> None:
        """Compares the run's votes and its certificates under the costs of an ask with what is true."""
        rules = {rule.id: rule for rule in slabs.rules(slabs.RULES)}
        images = slice(0, ask.images)
        for rule in slabs.rules(ask.rules):
            self._look_at_votes(run, rule, len(self.pictures.labels[images]))
        for spec in ask.costs:
            certificates = load_certificates(run.location, costs=spec, alpha=self.alpha)
            for rule, rows in certificates.groupby("rule"):
                self._look_at_certificates(spec, rules[rule], rows)
                self._look_at_bounds(spec, rules[rule], rows, run.manifest()["sampling"])

    def _look_at_votes(self, run: Run, rule: Rule, images: int) -> None:
        table = run.votes(rule.id)
        place = np.array(table["image_id"].to_pylist(), int)
        n = table["n"].to_numpy()
        if not set(range(images)) <= set(place) or table["error"].null_count != len(table):
            self.wrong_votes.append(f"{rule.spec}: images lack votes")
        for phase, trail, drawn in zip(
            ("selection", "estimation"), slabs.trails(self.pictures), (None, n), strict=True
        ):
            counts = sparse_votes(table[phase]).dense(slabs.NUM_CLASSES)
            drawn = np.full(len(n), self.pictures.n0) if drawn is None else drawn
            for size in np.unique(drawn):
                rows = np.flatnonzero(drawn == size)
                if size > trail.shape[1]:
                    self.wrong_votes.append(f"{rule.spec}: {len(rows)} rows of {size} {phase} votes, too many")
                    continue
                expected = slabs.votes(rule, trail[place[rows], :size])
                wrong = np.flatnonzero((counts[rows] != expected).any(axis=1))
                if len(wrong):
                    first = wrong[0]
                    self.wrong_votes.append(
                        f"{rule.spec}: {len(wrong)} rows of {size} {phase} votes, the first image "
                        f"{place[rows][first]}: {counts[rows][first]}, where its noise gives {expected[first]}"
                    )

    def _look_at_bounds(self, spec: str, rule: Rule, rows: pd.DataFrame, design: str) -> None:
        """Works each bound and each radius out again, from the votes that the noise gives and in other formulas."""
        place, n = rows["image_id"].to_numpy(int), rows["n"].to_numpy()
        selection, estimation = slabs.trails(self.pictures)
        top = slabs.votes(rule, selection[place]).argmax(axis=1)
        counts = np.zeros((len(rows), slabs.NUM_CLASSES), np.int64)
        for size in np.unique(n):
            counts[n == size] = slabs.votes(rule, estimation[place[n == size], :size])
        of_top = np.take_along_axis(counts, top[:, None], axis=1)[:, 0]
        lower, standard = rows["p_a_lower"].to_numpy(), rows["p_a_lower_standard"].to_numpy()
        found = {
            "prediction": rows["prediction"].to_numpy(int) != top,
            "p_a_lower_standard": too_high(design, standard, of_top, n, self.alpha),
            "p_a_lower": too_high(design, lower, of_top, n, SHARE_OF_P_A * self.alpha),
            "standard_radius": rows["standard_radius"] > slabs.SIGMA * ndtri(standard).clip(0) + 1e-9,
        }
        for y in np.unique(rows["label"]):
            targets, of_y = slabs.costs(spec).targets(y), np.flatnonzero(rows["label"] == y)
            if not len(targets):
                continue
            upper, radius = (np.stack(rows[name].iloc[of_y].to_list()) for name in ("p_b_upper", "pairwise_radius"))
            others, a = targets != top[of_y, None], lower[of_y, None]
            level = (1 - SHARE_OF_P_A) * self.alpha / len(targets)
            against = (n[:, None] - counts)[np.ix_(of_y, targets)]
            bold = too_high(design, 1 - upper, against, n[of_y, None], level) & ~(others & (upper >= 1 - a - 1e-12))
            far = radius > np.where(others, slabs.SIGMA / 2 * (ndtri(a) - ndtri(upper)), 0).clip(0) + 1e-9
            group = rows["cost_sensitive_radius"].iloc[of_y] > radius.min(axis=1)
            found |= {f"{y}, p_b_upper": bold, f"{y}, pairwise_radius": far, f"{y}, cost_sensitive_radius": group}
        self.bold += [
            f"{rule.spec}, {spec}, {name}: {np.sum(wrong)} rows are not what their votes bound"
            for name, wrong in found.items()
            if np.any(wrong)
        ]

    def _look_at_certificates(self, spec: str, rule: Rule, rows: pd.DataFrame) -> None:
        place, label = rows["image_id"].to_numpy(int), rows["label"].to_numpy()
        p = slabs.shares(rule, self.pictures.projections[place])
        if (label != self.pictures.labels[place]).any():
            self.wrong_votes.append(f"{rule.spec}: labels are not the images'")
        true_standard = slabs.standard_radius(p, rows["prediction"].to_numpy(int))
        true_pairs = slabs.pairwise_radius(p)
        found: dict[str, np.ndarray] = {"standard": rows["standard_radius"].to_numpy() > true_standard}
        group, joint = (np.full(len(rows), np.nan) for _ in range(2))
        pairs = np.full(p.shape, np.nan)
        for y in np.unique(label):
            targets, of_y = slabs.costs(spec).targets(y), np.flatnonzero(label == y)
            if not len(targets):
                continue
            truth = true_pairs[np.ix_(of_y, targets)]
            claimed = np.stack(rows["pairwise_radius"].iloc[of_y].to_list())
            pairs[np.ix_(of_y, targets)] = claimed > truth
            joint[of_y] = (claimed > truth).any(axis=1)
            group[of_y] = rows["cost_sensitive_radius"].to_numpy()[of_y] > truth.min(axis=1)
        found |= {f"{spec}, cost-sensitive": group, f"{spec}, all pairs": joint}
        found |= {f"{spec}, never {k}": pairs[:, k] for k in range(slabs.NUM_CLASSES)}
        for statement, false in found.items():
            ever = self.false.setdefault(f"{rule.spec}, {statement}", np.full(len(self.pictures), np.nan))
            ever[place] = np.fmax(ever[place], false)

    def false_rates(self) -> dict[str, tuple[int, int, int]]:
        """Statement -> false certificates, how many are let pass, and images that it is about."""
        rates = {}
        for statement, false in self.false.items():
            about = int((~np.isnan(false)).sum())
            if about:
                rates[statement] = (int(np.nansum(false)), int(binom.ppf(1 - CHANCE, about, self.alpha)), about)
        return rates

    def violations(self) -> dict[str, list[str]]:
        """What is wrong: `votes`, `bounds` and `certificates` -> findings."""
        found = defaultdict(list)
        for finding in self.wrong_votes:
            found["votes"].append(finding)
        for finding in self.bold:
            found["bounds"].append(finding)
        for statement, (false, most, about) in self.false_rates().items():
            if false > most:
                found["certificates"].append(
                    f"{statement}: {false} of {about} are false at alpha {self.alpha}, at most {most} may be"
                )
        return dict(found)


def too_high(design: str, lower: ArrayLike, votes: ArrayLike, n: ArrayLike, level: float) -> np.ndarray:
    """Where a lower bound on a share that got so many votes of n is above what a level allows."""
    if design == "fixed":
        return binom.sf(np.subtract(votes, 1), n, lower) > level * (1 + 1e-6)
    log_tail = betaln(np.add(votes, 0.5), np.subtract(n, votes) + 0.5) - betaln(0.5, 0.5) + np.log(level)
    above = xlogy(votes, lower) + xlog1py(np.subtract(n, votes), -np.asarray(lower)) > log_tail + 1e-6
    return (np.asarray(lower) > 0) & (above | (lower > np.divide(votes, n)))
