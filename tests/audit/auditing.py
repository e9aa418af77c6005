"""The audit: is each row the votes of its noise, what do these bound, and how many certificates are not true."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import slabs
from numpy.typing import ArrayLike
from pipeline import Ask, Here, job
from scipy.special import betaln, logsumexp, ndtr, ndtri, xlog1py, xlogy
from scipy.stats import beta, binom, norm
from torch import nn

from raycsr import Answer, load_certificates
from raycsr.certification.answers import as_answer
from raycsr.models.rules import Rule
from raycsr.results import Run, sparse_votes
from raycsr.results.outcome import Outcome

ANSWERS = ("majority", "threshold:0.4*COSTS")
SHARE_OF_P_A = 0.9  # of alpha: of a statement about all pairs, whose targets share the rest; of one about a target
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
            for answer in ANSWERS:
                said = as_answer(answer.replace("COSTS", spec), slabs.NUM_CLASSES)
                certificates = load_certificates(run.location, costs=spec, alpha=self.alpha, answer=said)
                for rule, rows in certificates.groupby("rule"):
                    self._look_at_answer(f"{rules[rule].spec}, {spec}, {answer}", rules[rule], spec, said, rows)

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
        before = slabs.votes(rule, selection[place])
        top = before.argmax(axis=1)
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
            found |= {f"{y}, p_b_upper": bold, f"{y}, pairwise_radius": far}
            alone = np.stack(rows["target_radius"].iloc[of_y].to_list())
            group = rows["cost_sensitive_radius"].iloc[of_y] > alone.min(axis=1)
            votes = (counts[of_y], before[of_y], top[of_y], targets)
            too_far = self._too_far if design == "fixed" else self._too_far_by_evidence
            far = too_far(alone, rows.iloc[of_y], *votes)
            found |= {f"{y}, target_radius": far, f"{y}, cost_sensitive_radius": group}
        runner_up = np.where(np.arange(slabs.NUM_CLASSES) == top[:, None], 0, counts).max(axis=1)
        multiclass = rows["multiclass_radius"].to_numpy()
        if design == "fixed":
            found["multiclass_radius"] = self._beyond_pair(multiclass, of_top, runner_up, n)
        else:
            top0 = np.take_along_axis(before, top[:, None], axis=1)[:, 0]
            found["multiclass_radius"] = self._beyond_evidence(multiclass, of_top, runner_up, n, top0)
        self.bold += [
            f"{rule.spec}, {spec}, {name}: {np.sum(wrong)} rows are not what their votes bound"
            for name, wrong in found.items()
            if np.any(wrong)
        ]

    def _beyond_pair(
        self, radius: ArrayLike, of_a: ArrayLike, of_b: ArrayLike, n: ArrayLike, parts: ArrayLike = 1
    ) -> np.ndarray:
        """Where a radius of the pair route, one statement at alpha, is beyond what votes for A and for b allow."""
        low = ndtri(lowest(of_a, n, SHARE_OF_P_A * self.alpha / np.asarray(parts)))
        high = -ndtri(lowest(np.subtract(n, of_b), n, (1 - SHARE_OF_P_A) * self.alpha))
        return radius > slabs.SIGMA / 2 * (low - np.minimum(high, -low)).clip(0) + 1e-9

    def _too_far(
        self,
        radius: np.ndarray,
        rows: pd.DataFrame,
        counts: np.ndarray,
        before: np.ndarray,
        top: np.ndarray,
        targets: np.ndarray,
    ) -> np.ndarray:
        """Where a target's own radius is beyond what its route allows; T is sought in the selection votes."""
        n, size = rows["n"].to_numpy(), sizes_of_sets(rows)
        of_top = np.take_along_axis(counts, top[:, None], axis=1)
        beyond = self._beyond_pair(radius, of_top, counts[:, targets], n[:, None], 1 + (size[:, None] > 0))
        beyond |= (targets == top[:, None]) & (radius > 0)
        for i in np.flatnonzero(size):
            harmless = np.setdiff1d(np.argsort(-before[i], kind="stable"), targets, assume_unique=True)[: size[i]]
            level = SHARE_OF_P_A * self.alpha / 2
            low_a, low = (lowest(counts[i, of].sum(), n[i], level) for of in ([top[i]], harmless))
            high = 1 - lowest(n[i] - counts[i, targets], n[i], (1 - SHARE_OF_P_A) * self.alpha)
            high = np.minimum(high, 1 - np.maximum(low_a, low))
            pair = (ndtri(low_a) - ndtri(high)) / 2
            allowed = np.maximum(pair, by_set(np.full(len(targets), low), high, np.full(len(targets), size[i])))
            beyond[i] = (radius[i] > slabs.SIGMA * allowed.clip(0) + 1e-9) | ((targets == top[i]) & (radius[i] > 0))
        return beyond

    def _too_far_by_evidence(
        self,
        radius: np.ndarray,
        rows: pd.DataFrame,
        counts: np.ndarray,
        before: np.ndarray,
        top: np.ndarray,
        targets: np.ndarray,
    ) -> np.ndarray:
        """Where a target's own radius has too little evidence."""
        of_top, of_top0 = (np.take_along_axis(votes, top[:, None], axis=1) for votes in (counts, before))
        n = rows["n"].to_numpy()[:, None]
        of_target = np.minimum(counts[:, targets], n - of_top)
        beyond, size = self._beyond_evidence(radius, of_top, of_target, n, of_top0), sizes_of_sets(rows)
        for i in np.flatnonzero(size):
            harmless = np.setdiff1d(np.argsort(-before[i], kind="stable"), targets, assume_unique=True)[: size[i]]
            of_set = counts[i, harmless].sum(), before[i, harmless].sum(), size[i]
            beyond[i] = self._beyond_evidence(radius[i], of_top[i], of_target[i], n[i], of_top0[i], of_set)
        return np.where(targets == top[:, None], radius > 0, beyond)

    def _beyond_evidence(
        self,
        radius: np.ndarray,
        of_a: ArrayLike,
        of_b: ArrayLike,
        n: ArrayLike,
        of_a0: ArrayLike,
        of_set: tuple[int, int, int] | None = None,
    ) -> np.ndarray:
        """Where the votes do not speak against "b may be answered" within a radius, or within half of it.

        A set has its votes, its selection votes and its size.
        """
        of_a, of_b, n, of_a0 = np.broadcast_arrays(of_a, of_b, n, of_a0, radius)[:4]
        little = [
            log_evidence(of_a, of_b, n, of_a0, self.pictures.n0, r / slabs.SIGMA, of_set) < -np.log(self.alpha) - 1e-6
            for r in (radius, radius / 2)
        ]
        return (radius > 0) & (little[0] | little[1])

    def _look_at_certificates(self, spec: str, rule: Rule, rows: pd.DataFrame) -> None:
        place, label = rows["image_id"].to_numpy(int), rows["label"].to_numpy()
        p = slabs.shares(rule, self.pictures.projections[place])
        if (label != self.pictures.labels[place]).any():
            self.wrong_votes.append(f"{rule.spec}: labels are not the images'")
        true_standard = slabs.standard_radius(p, rows["prediction"].to_numpy(int))
        true_pairs = slabs.pairwise_radius(p)
        found: dict[str, np.ndarray] = {"standard": rows["standard_radius"].to_numpy() > true_standard}
        answer = rows["prediction"].to_numpy(int)
        others = np.where(np.arange(p.shape[1]) == answer[:, None], 0, p).max(axis=1)
        p_a = np.take_along_axis(p, answer[:, None], axis=1)[:, 0]
        true_multiclass = slabs.SIGMA / 2 * (ndtri(p_a) - ndtri(others)).clip(0)
        found["multiclass"] = rows["multiclass_radius"].to_numpy() > true_multiclass
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
            by_sets = np.stack([by_any_set(p[of_y], target) for target in targets], axis=1)
            farthest = np.where(sizes_of_sets(rows)[of_y, None] > 0, np.maximum(truth, by_sets), truth)
            group[of_y] = rows["cost_sensitive_radius"].to_numpy()[of_y] > farthest.min(axis=1)
        found |= {f"{spec}, cost-sensitive": group, f"{spec}, all pairs": joint}
        found |= {f"{spec}, never {k}": pairs[:, k] for k in range(slabs.NUM_CLASSES)}
        for statement, false in found.items():
            ever = self.false.setdefault(f"{rule.spec}, {statement}", np.full(len(self.pictures), np.nan))
            ever[place] = np.fmax(ever[place], false)

    def _look_at_answer(self, name: str, rule: Rule, spec: str, said: Answer, rows: pd.DataFrame) -> None:
        """What certificates of an answer state against the true shares, by whichever route reaches farthest."""
        place, label = rows["image_id"].to_numpy(int), rows["label"].to_numpy()
        p, taus = slabs.shares(rule, self.pictures.projections[place]), said.of_classes(slabs.NUM_CLASSES)
        top = rows["prediction"].to_numpy(int)
        p_a = np.take_along_axis(p, top[:, None], axis=1)[:, 0]
        others = np.where(np.arange(p.shape[1]) == top[:, None], 0, p).max(axis=1)
        says = slabs.SIGMA * np.minimum((ndtri(p_a) - ndtri(others)) / 2, ndtri(p_a) - ndtri(taus[top])).clip(0)
        found = {"multiclass": rows["multiclass_radius"].to_numpy() > says, "answers": ~rows["abstain"] & (says <= 0)}
        found["standard"] = rows["standard_radius"].to_numpy() > says
        with np.errstate(invalid="ignore"):  # of a threshold of 0 and no share there is none
            never = np.fmax(slabs.pairwise_radius(p), slabs.SIGMA * (ndtri(taus) - ndtri(p)).clip(0))
        found["cost-sensitive"] = np.full(len(rows), np.nan)
        for y in np.unique(label):
            targets, of_y = slabs.costs(spec).targets(y), np.flatnonzero(label == y)
            if len(targets):
                by_sets = np.stack([by_any_set(p[of_y], target) for target in targets], axis=1)
                farthest = np.maximum(never[np.ix_(of_y, targets)], by_sets).min(axis=1)
                found["cost-sensitive"][of_y] = rows["cost_sensitive_radius"].to_numpy()[of_y] > farthest
        for statement, false in found.items():
            ever = self.false.setdefault(f"{name}, {statement}", np.full(len(self.pictures), np.nan))
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


def sizes_of_sets(rows: pd.DataFrame) -> np.ndarray:
    """How many classes rule targets out together, 0 where the answer alone does."""
    return rows["route"].str.extract(r"pair[+]set:(\d+)")[0].fillna("0").to_numpy(int)


def by_set(in_set: np.ndarray, of_target: np.ndarray, size: np.ndarray) -> np.ndarray:
    """How far the mean share of a set stays above a target's, in units of sigma, by bisection."""
    low, high = np.zeros(len(in_set)), np.full(len(in_set), 10.0)
    for _ in range(60):
        middle = (low + high) / 2
        holds = ndtr(ndtri(in_set) - middle) > size * ndtr(ndtri(of_target) + middle)
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return high


def by_any_set(p: np.ndarray, target: int) -> np.ndarray:
    """The true radius of a target by the set that rules it out farthest, (N, m) -> (N,)."""
    shares = np.cumsum(-np.sort(-np.delete(p, target, axis=1), axis=1), axis=1)[:, :-1]
    radii = [by_set(shares[:, k], p[:, target], np.full(len(p), k + 1)) for k in range(shares.shape[1])]
    return slabs.SIGMA * np.max(radii, axis=0)


def log_evidence(
    of_a: np.ndarray,
    of_b: np.ndarray,
    n: np.ndarray,
    of_a0: np.ndarray,
    n0: int,
    scale: np.ndarray,
    of_set: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """How far the votes speak against "b may be answered within scale * sigma", by its definition."""
    wagers = log_fortune(of_a, of_b, n, of_a0, n0, scale, 1)
    ours, size = of_a, 1
    if of_set is not None:
        ours, ours0, size = of_set
        wagers = np.logaddexp(wagers, log_fortune(ours, of_b, n, ours0, n0, scale, size)) - np.log(2)
    share = norm.cdf(norm.ppf(size / (size + 1)) + scale)
    return np.logaddexp(wagers, log_odds(ours, n, share)) - np.log(2)


def log_fortune(
    ours: ArrayLike, of_b: np.ndarray, n: np.ndarray, ours0: ArrayLike, n0: int, scale: np.ndarray, size: int
) -> np.ndarray:
    """What bettors have on average who wager that b is less likely than the mean of a set, in logarithms."""
    share = (np.asarray(ours0) + 0.5) / (n0 + 1)
    error = np.sqrt(share * (1 - share) / n0) / norm.pdf(norm.ppf(share))
    fortunes = []
    for tangent in (-2, -1, 0):
        z = norm.ppf(share) + tangent * error
        w = norm.ppf(norm.cdf(z - scale) / size)
        slope = np.exp(norm.logpdf(w - scale) - norm.logpdf(w) + norm.logpdf(z - scale) - norm.logpdf(z)) / size
        mean = slope * norm.cdf(z) - norm.cdf(w - scale)
        for bet in (0.95, 0.6, 0.35, 0.2, 0.11, 0.06, 0.03):
            b = bet / (1 + mean)
            of_others = (n - ours - of_b) * np.log(1 - b * mean)
            fortunes.append(ours * np.log(1 + b * (slope - mean)) + of_b * np.log(1 - b * (1 + mean)) + of_others)
    return logsumexp(fortunes, axis=0) - np.log(len(fortunes))


def log_odds(votes: ArrayLike, n: ArrayLike, share: ArrayLike) -> np.ndarray:
    """How far votes speak against a share or less: likelihood ratios of the shares above, weighed by Beta(1/2, 1/2)."""
    votes, n = np.asarray(votes, float), np.asarray(n, float)
    above = beta.logsf(share, votes + 0.5, n - votes + 0.5) - beta.logsf(share, 0.5, 0.5)
    whole = betaln(votes + 0.5, n - votes + 0.5) - betaln(0.5, 0.5)
    return whole + above - xlogy(votes, share) - xlog1py(n - votes, -np.asarray(share))


def lowest(votes: ArrayLike, n: ArrayLike, level: ArrayLike) -> np.ndarray:
    """The lower bound that a level allows where n was fixed, by the beta distribution."""
    votes, n, level = (np.asarray(one, float) for one in np.broadcast_arrays(votes, n, level))
    return np.where(votes == 0, 0.0, beta.ppf(level, np.maximum(votes, 1), n - votes + 1))


def too_high(design: str, lower: ArrayLike, votes: ArrayLike, n: ArrayLike, level: float) -> np.ndarray:
    """Where a lower bound on a share that got so many votes of n is above what a level allows."""
    claimed = np.asarray(lower) > 0  # a share of 0 is no claim
    if design == "fixed":
        return claimed & (binom.sf(np.subtract(votes, 1), n, lower) > level * (1 + 1e-6))
    against = log_odds(votes, n, np.where(claimed, lower, 0.5))
    return claimed & ((against < -np.log(level) - 1e-6) | (lower * np.asarray(n) > votes))
