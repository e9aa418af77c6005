"""The audit: is each stored row the votes of its noise, and how many certificates claim what is not true."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import slabs
from pipeline import Ask, Here, job
from scipy.stats import binom
from torch import nn

from raycsr import load_certificates
from raycsr.models import Rule
from raycsr.pipelines.sample import Outcome
from raycsr.results import Run, sparse_votes

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
        false: statement -> whether each image's certificate was false after any ask, NaN where there is none.
    """

    pictures: slabs.Pictures
    alpha: float
    results: str
    here: Here = field(default_factory=Here)
    wrong_votes: list[str] = field(default_factory=list)
    false: dict[str, np.ndarray] = field(default_factory=dict)

    def ask(self, ask: Ask, network: nn.Module | None = None, retry_errors: bool = False) -> Outcome:
        """Samples what is asked for, and looks at all that the run holds then."""
        outcome = self.here.sample(job(ask, self.pictures, self.alpha, self.results, network), retry_errors)
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
        """What is wrong: `votes` and `certificates` -> findings."""
        found = defaultdict(list)
        for finding in self.wrong_votes:
            found["votes"].append(finding)
        for statement, (false, most, about) in self.false_rates().items():
            if false > most:
                found["certificates"].append(
                    f"{statement}: {false} of {about} are false at alpha {self.alpha}, at most {most} may be"
                )
        return dict(found)
