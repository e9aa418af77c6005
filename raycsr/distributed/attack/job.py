"""An attack of a run: what is checked before it, which images at which radii, and what is still to be done."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from raycsr.certification import Answer, check_alpha
from raycsr.certification.attacks import COST_SENSITIVE_RADIUS
from raycsr.costs import CostMatrix
from raycsr.data.options import DataOptions
from raycsr.data.sources import Source, open_source, stored_options
from raycsr.deployment.of_run import base_classifier_of, rule_of
from raycsr.distributed.attack.arguments import AttackArguments
from raycsr.distributed.plans import AttackPlan
from raycsr.distributed.pool import check_pool_options, refuse_gpus
from raycsr.errors import Mistakes, UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.rules import Rule
from raycsr.options import listed
from raycsr.results import Run, load_certificates, resolve_run
from raycsr.results.attacks import AttackSet, attack_set
from raycsr.smoothing.options import CHUNK, check_attack


@dataclass(frozen=True)
class AttackJob:
    """An attack, with everything checked that can be checked without the cluster.

    Attributes:
        run: Run whose images are attacked.
        manifest: Manifest of the run.
        asked: Options of the user.
        base_classifier: That of the run.
        source: Source of the images.
        rule: The decision rule.
        answer: What the smoothed classifier says, given shares.
        matrix: The cost matrix.
        certificates: Certificates of the run under the costs, one row for each image.
        wanted: a row an attack, in the order in which images are drawn: image_id, label, radius, certified and alpha
            (NaN where the radius was named).
    """

    run: Run
    manifest: dict[str, Any]
    asked: AttackArguments
    base_classifier: BaseClassifier
    source: Source
    rule: Rule
    answer: Answer
    matrix: CostMatrix
    certificates: pd.DataFrame
    wanted: pd.DataFrame

    @property
    def attacks(self) -> AttackSet:
        """Where what is found is kept."""
        name = attack_set(self.asked.costs, self.matrix, self.rule.id, self.asked.options, self.answer)
        return AttackSet(self.run.store, name)

    @property
    def audits(self) -> bool:
        """Whether the guarantee says that nothing breaks, but for alpha."""
        return self.asked.radii is None and self.asked.times < 1

    def plan(self, missing: pd.DataFrame) -> AttackPlan:
        """What there is to do, where these rows of `wanted` are missing."""
        asked = self.asked
        return AttackPlan(
            run=self.run.location,
            attacks=self.attacks.location,
            costs=asked.costs,
            rule=self.rule.spec,
            answer=self.answer.spec,
            num_images=self.wanted["image_id"].nunique(),
            num_to_attack=missing["image_id"].nunique(),
            num_attacks=len(missing),
            radii=tuple(listed(asked.radii) or ()),
            times=asked.times if asked.radii is None else None,
            steps=asked.steps,
            noises=asked.noises,
            n0=CHUNK,
            n=asked.n,
            passes_a_copy=self.base_classifier.num_passes,
        )


def check(asked: AttackArguments) -> AttackJob:
    """Checks all that can be checked without the cluster.

    Raises:
        UserError: naming what is wrong.
    """
    mistakes, asked = Mistakes(), replace(asked, radii=listed(asked.radii))
    with mistakes.noted():
        check_pool_options(asked.pool)
    with mistakes.noted():
        check_alpha(asked.alpha)
    with mistakes.noted():
        check_attack(asked.options)
    with mistakes.noted():
        _check_aim(asked)
    found = None
    with mistakes.noted():
        found = resolve_run(asked.run)
        manifest = found.manifest()
    if found is not None:
        with mistakes.noted():
            rule = rule_of(found, asked.rule)
        with mistakes.noted():
            matrix = found.costs(asked.costs)
        with mistakes.noted():
            (answer,) = found.answers([asked.answer])
    mistakes.refuse()
    assert found is not None
    if not matrix.sensitive.any():
        raise UserError(f"costs {asked.costs!r} have no costly mistake: there is nothing to attack")
    certificates = load_certificates(found.location, asked.costs, asked.alpha, rule.id, answer=answer)
    base_classifier, source = base_classifier_of(found, manifest, asked.model), _source(found, manifest, asked.data)
    refuse_gpus(asked.pool, base_classifier)
    wanted = wanted_attacks(certificates, asked, found.run_id)
    if asked.data is not None:
        _refuse_other_images(source, wanted["image_id"], found.run_id)
    return AttackJob(
        run=found,
        manifest=manifest,
        asked=asked,
        base_classifier=base_classifier,
        source=source,
        rule=rule,
        answer=answer,
        matrix=matrix,
        certificates=certificates,
        wanted=wanted,
    )


def _check_aim(asked: AttackArguments) -> None:
    if asked.images < 1:
        raise UserError(f"images is {asked.images}; give 1 or more")
    if not (np.isfinite(asked.times) and asked.times > 0):
        raise UserError(f"times is {asked.times}; give a multiple of the certified radius above 0, such as 0.99")
    if asked.radii is None:
        return
    if not asked.radii or not all(np.isfinite(radius) and radius > 0 for radius in asked.radii):
        raise UserError(f"radii are {_listed(asked.radii)}; give L2 radii above 0, in [0, 1] pixel units")
    if asked.times != AttackArguments.times:
        raise UserError(
            f"times is {asked.times:g} and radii are {_listed(asked.radii)}: times is of each certificate's own "
            "radius; give one of the two"
        )


def _listed(radii: Sequence[float]) -> str:
    return ", ".join(f"{radius:g}" for radius in radii) or "none"


def wanted_attacks(certificates: pd.DataFrame, asked: AttackArguments, run_id: str) -> pd.DataFrame:
    """A row an attack. Images are drawn by a digest of their ids: those of a larger budget are these, and more."""
    radii = certificates[COST_SENSITIVE_RADIUS]
    is_certified = asked.radii is None
    some = certificates[certificates["error"].isna() & ((radii > 0) if is_certified else radii.notna())]
    if some.empty:
        what = "certified above 0" if is_certified else "of a class with costly mistakes"
        raise UserError(
            f"run {run_id} has {len(certificates)} images under costs {asked.costs!r}, and none is {what}; there is "
            "nothing to attack"
        )
    order = some["image_id"].map(lambda one: hashlib.blake2b(f"{asked.seed} {one}".encode(), digest_size=8).digest())
    some = some.loc[
        order.sort_values(kind="stable").index[: asked.images], ["image_id", "label", COST_SENSITIVE_RADIUS]
    ]
    some = some.rename(columns={COST_SENSITIVE_RADIUS: "certified"})
    if is_certified:
        return some.assign(radius=asked.times * some["certified"], alpha=asked.alpha).reset_index(drop=True)
    of_radii = [some.assign(radius=radius) for radius in dict.fromkeys(asked.radii or [])]
    every = pd.concat(of_radii).sort_index(kind="stable").loc[some.index]
    return every.assign(certified=np.nan, alpha=np.nan).reset_index(drop=True)


def _refuse_other_images(source: Source, image_ids: pd.Series, run_id: str) -> None:
    """Refuses data that have none of the images: each would be an error of its own, after the first gradients."""
    listed_there = open_source(replace(source.options, limit=None), labelled=False).list().images["image_id"]
    if not image_ids.isin(listed_there).any():
        raise UserError(
            f"data {source} have none of the images of run {run_id}, such as {image_ids.iloc[0]!r}; give those that it "
            "was sampled from, or leave --data out where they have not moved"
        )


def _source(run: Run, manifest: dict[str, Any], data: DataOptions | None) -> Source:
    if data is not None:
        return open_source(data)
    stored = manifest.get("config", {}).get("data")
    if not stored:
        raise UserError(f"run {run.run_id} does not say where its images are; give --data.source and --data.path")
    return open_source(stored_options(stored))
