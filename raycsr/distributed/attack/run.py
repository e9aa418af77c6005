"""Attacking a run: what is missing is attacked and committed, block by block, and what it proves is summed up."""

import functools
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import ray

from raycsr.certification.attacks import attacked_shares, chance_of_broken, most_broken
from raycsr.data.decode import Decode
from raycsr.distributed.attack.attacker import Attacker, AttackerSpec
from raycsr.distributed.attack.job import AttackJob
from raycsr.distributed.cluster import user_errors_of_workers
from raycsr.distributed.pool import alive_actors
from raycsr.distributed.sampling.blocks import in_this_process, on_actors
from raycsr.progress import Progress
from raycsr.results import Ownership
from raycsr.results.outcome import Attacked

_BLOCK_IMAGES = 16  # that an actor attacks and commits at once, at most
_BLOCKS = 64  # at least, where there are images enough, so that actors finish together


def attack_run(job: AttackJob) -> Attacked:
    """Attacks what is missing of a job, and sums up."""
    pool = job.asked.pool
    with Ownership(job.run.store) as owner:
        attacks = job.attacks
        attacks.note(job.asked.costs, job.matrix, job.rule.id, job.asked.options, job.answer)
        missing = attacks.lacking(job.wanted)
        print(job.plan(missing))
        if len(missing):
            with user_errors_of_workers(pool.needs, seconds=pool.patience):
                _stream(job, owner, missing)
    keys = job.wanted[["image_id", "radius", "alpha"]]
    rows = keys.merge(attacks.read(), on=["image_id", "radius", "alpha"])  # what cannot be read proves nothing
    failed = rows[rows["error"].notna()].drop_duplicates("image_id")
    return summed_up(job, rows, dict(zip(failed["image_id"], failed["error"], strict=True)))


def summed_up(job: AttackJob, rows: pd.DataFrame, errors: dict[str, str]) -> Attacked:
    """What attacks prove about a run's certificates, or between which bounds its images are robust."""
    good = rows[rows["error"].isna()]
    if job.asked.radii is not None:
        return Attacked(job.run, rows, errors, lines=_bounds_in_words(attacked_shares(good, job.certificates)))
    broken, total, alpha = int(good["broken"].sum()), len(good), job.asked.alpha
    words = f"{broken:,} of {total:,} certificates broken at {job.asked.times:g} of their radii"
    if not job.audits:
        return Attacked(job.run, rows, errors, lines=[f"{words}, where nothing is guaranteed"])
    most, chance = most_broken(total, alpha), chance_of_broken(broken, total, alpha)
    if broken <= most:
        line = f"{words}: with alpha {alpha:g} so many or more come with probability {chance:.3g} at most"
        return Attacked(job.run, rows, errors, lines=[line])
    first = good["image_id"][good["broken"]].iloc[0]
    failure = (
        f"{words}, the first {first!r}: with alpha {alpha:g} more than {most:,} come with probability 1e-6 at most, so "
        f"the guarantee of run {job.run.run_id} does not hold under costs {job.asked.costs!r}"
    )
    return Attacked(job.run, rows, errors, failure)


def _bounds_in_words(shares: pd.DataFrame) -> list[str]:
    lines = []
    for row in shares.to_dict("records"):
        low, high = row["rob_cs_attacked_low"], row["rob_cs_attacked_high"]
        words = [f"rob_cs at radius {row['radius']:g}, {row['num_images']:,} images: certified {row['rob_cs']:.3f}"]
        words += [f"not broken {row['rob_cs_attacked']:.3f} [{low:.3f}, {high:.3f}]"]
        if not np.isnan(row["accuracy_attacked"]):
            words += [
                f"certified accuracy {row['certified_accuracy']:.3f}",
                f"not wrong {row['accuracy_attacked']:.3f}",
            ]
        lines.append(", ".join(words))
    return lines


def _stream(job: AttackJob, owner: Ownership, missing: pd.DataFrame) -> None:
    """Decodes ahead of the actors, attacks on them, and follows; a pool of no actors is this process."""
    pool, blocks = job.asked.pool, _blocks(job, missing)
    decode = Decode(job.source, job.base_classifier.preprocessing)
    spec = AttackerSpec.of(job, owner=owner.number, threads=pool.threads)
    total = missing["image_id"].nunique()
    if not pool.actors:
        here = functools.partial(Attacker, model=lambda: job.base_classifier, spec=spec)
        _follow(in_this_process(blocks, [decode], here), owner, total)
        return
    model = functools.partial(ray.get, ray.put(job.base_classifier))
    attacked = on_actors(blocks, [decode], pool, Attacker, model=model, spec=spec)
    _follow(attacked, owner, total, counts_actors=True)


def _blocks(job: AttackJob, missing: pd.DataFrame) -> list[pa.Table]:
    """What an actor attacks and commits at once: a row an image, its radii in one text.

    Gradients of images that share a pass may round otherwise in other company, so blocks are cut by what is wanted, not
    by what is missing or by actors: an attack that was interrupted goes on with the very blocks that it lacks.
    """
    ids = job.wanted["image_id"].drop_duplicates()
    size = int(np.clip(len(ids) // _BLOCKS, 1, _BLOCK_IMAGES))
    block_of = pd.Series(np.arange(len(ids)) // size, index=ids)
    by_image = missing.groupby("image_id", sort=False)
    rows = by_image.first().drop(columns="radius")
    rows["radii"] = by_image["radius"].agg(lambda radii: " ".join(map(repr, map(float, radii))))
    rows = rows.reset_index()
    pixels = job.run.sampled_pixels(rows["image_id"]).drop_duplicates("image_id").set_index("image_id")["image_sha"]
    rows["sampled"] = rows["image_id"].map(pixels).fillna("").astype(object)  # another image is not attacked
    blocks = rows.groupby(rows["image_id"].map(block_of))
    return [pa.Table.from_pandas(block, preserve_index=False) for _, block in blocks]


def _follow(attacked: Iterable[pd.DataFrame], owner: Ownership, images: int, *, counts_actors: bool = False) -> None:
    broken = 0

    def note() -> str:
        return f"{broken:,} broken" + (f", {alive_actors()} actors alive" if counts_actors else "")

    with Progress(images, "attack", "images", note) as progress:
        for block in attacked:
            owner.check()
            broken += int(block["broken"].sum())
            progress.update(len(block))
