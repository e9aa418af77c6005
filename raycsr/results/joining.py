"""Joining two runs of one identity that were sampled apart: what the other lacks is copied into it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from raycsr.errors import UserError, shown
from raycsr.results.listing import Relisted
from raycsr.results.merging import behind, deduplicated
from raycsr.results.owners import Ownership
from raycsr.results.prefix import join_notes
from raycsr.results.runs import Run
from raycsr.results.schema import SCHEMA_VERSION, VOTES
from raycsr.results.transfer import RunFiles, copy_each
from raycsr.store import READERS

IDENTITY = (
    *("preprocessing", "components", "sigma", "seed", "precision", "compile", "noise_scheme", "n0", "n", "sampling"),
    *("data", "begun_anew", "num_classes", "class_names"),
)
"""What a manifest says alike of runs of one identity: what determines votes, and what classes are called."""

_OF_LISTS = ", and a source that lists an image more, or fewer, is other data: `raycsr report` takes both"
_COUNTED_BY = ["device", "batch_size"]
_COLUMNS = ["image_id", "rule", "error", "n", "continues", *_COUNTED_BY, "part"]


@dataclass(frozen=True)
class Joined:
    """What came to a run by joining another to it.

    Attributes:
        images: Number of images that the run had not listed.
        parts: Number of votes parts.
        attacks: Number of parts of attacks.
    """

    images: int
    parts: int
    attacks: int


def join_runs(source: Run, target: Run) -> Joined:
    """Copies into a run what another one of its identity has and it lacks: images, rules, votes and attacks.

    Parts are copied as they are, so that rows that continue others, and certificates, stay true. Both runs may have
    votes of one image: what `merging` says of a run's own doubles holds then. Certificates are not copied: they follow
    from the votes. Attacks are: what they prove of the smoothed classifier is true whichever votes certified it. What
    stops midway goes on when repeated, and repeating what is done changes nothing.

    Args:
        source: The run that is read; of one that is being sampled, what is committed by now.
        target: The run that grows.

    Raises:
        UserError: where the two are of different identities, or of images that changed between them; where they have
            different votes of an image, counted alike; or a living driver owns the target.
    """
    if source.location == target.location:
        raise UserError(f"{source.location} is joined to itself; name another run")
    _refuse_other_identity(source, target)
    with Ownership(target.store) as owner:
        finished = source.finished() and target.finished()
        parts, to_agree = _new_parts(source, target)
        _refuse_contradictions(source, target, to_agree)
        before = target.num_images()
        _add_images(source, target)
        files = [name for name in RunFiles.of(source.store).stored if name.startswith(("rules/", "known_sets/"))]
        for name in files:
            target.store.create(name, source.store.read(name))
        names = {f"votes/{part}": f"votes/{new}" for part, new in parts.items()}
        copy_each(source.store, target.store, names)
        attacks = _new_attacks(source, target)
        copy_each(source.store, target.store, attacks)
        join_notes(source, target)
        owner.check()
        if finished and not target.finished():
            _finish(source, target)
        return Joined(target.num_images() - before, len(parts), sum(name.endswith(".parquet") for name in attacks))


def _refuse_other_identity(source: Run, target: Run) -> None:
    one, other = source.manifest(), target.manifest()
    for run, facts in ((source, one), (target, other)):
        if facts["schema_version"] != SCHEMA_VERSION:
            raise UserError(
                f"run {run.location} is of schema_version {facts['schema_version']} and can be read, but not joined to "
                f"another; only runs of schema_version {SCHEMA_VERSION} are"
            )
    differ = [name for name in IDENTITY if one.get(name) != other.get(name)]
    if differ:
        name, *values = _parting(differ[0], one.get(differ[0]), other.get(differ[0]))
        they = " and ".join(shown(str(value)) for value in values)
        raise UserError(
            f"{source.location} and {target.location} are two different runs: their {name} is {they}; only runs that "
            f"were begun with the same options on the same data are joined{_OF_LISTS if name == 'data.images' else ''}"
        )


def _parting(name: str, one: Any, other: Any) -> tuple[str, Any, Any]:
    """The first place where two different JSON values of this name differ, and what each has there."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        i = next(i for i, (left, right) in enumerate(zip(one, other, strict=True)) if left != right)
        return _parting(f"{name}[{i}]", one[i], other[i])
    if isinstance(one, dict) and isinstance(other, dict):
        absent = object()
        key = next(key for key in one | other if one.get(key, absent) != other.get(key, absent))
        return _parting(f"{name}.{key}", one.get(key), other.get(key))
    return name, one, other


def _new_parts(source: Run, target: Run) -> tuple[dict[str, str], dict[str, str]]:
    """What there is of votes in the source that is not in the target.

    Two drivers that each began with the same images gave their parts one name. Where the source's has votes that the
    target's lacks, it gets a name behind it; what goes on from either goes on from both, for they were counted alike.
    Where they were not, the target's stands by its name, and what goes on from the source's is left out.

    Returns:
        Names of the source's parts to copy -> their names in the target; and the same of all that are to agree with it.
    """
    ours, theirs = (dict(tuple(run.rows(_COLUMNS).to_pandas().groupby("part"))) for run in (source, target))
    same = _same_bytes(source, target, sorted(ours.keys() & theirs.keys()))
    new: dict[str, str] = {}
    to_agree: dict[str, str] = {}
    unlike: set[str] = set()
    for part, rows in ((part, rows) for part, rows in ours.items() if part not in same):
        name = part
        if rows["continues"].iloc[0] in unlike:
            unlike.add(part)
            continue
        if part in theirs:
            both = rows.merge(theirs[part], on=["image_id", "rule"], suffixes=("", "_there"))
            voted = both[both["error"].isna() & both["error_there"].isna()]
            alike = all((voted[fact] == voted[f"{fact}_there"]).all() for fact in _COUNTED_BY)
            more = (both["n"] > both["n_there"]) if alike else both["error"].isna() & both["error_there"].notna()
            if not alike:
                unlike.add(part)
            name = behind(part, source.store.read(f"votes/{part}")) if more.any() else ""
        to_agree[part] = name or part
        if name and name not in theirs:
            new[part] = name
    return new, to_agree


def _new_attacks(source: Run, target: Run) -> dict[str, str]:
    """Names of the source's files of attacks that the target lacks -> their names in the target.

    Two drivers may have attacked the same images, and given their parts one name: both are kept, and of their rows for
    an attack one stands. What a set is of is alike in both, as its name says it.
    """
    there, new = RunFiles.of(target.store).stored, dict[str, str]()
    for file in (file for file in RunFiles.of(source.store).stored if file.startswith("attacks/")):
        to = file
        if file in there and file.endswith(".parquet"):
            data = source.store.read(file)
            to = file if data == target.store.read(file) else behind(file, data)
        if to not in there:
            new[file] = to
    return new


def _same_bytes(source: Run, target: Run, parts: list[str]) -> set[str]:
    """Those parts that are the same in both, as where one run was copied from the other."""

    def is_same(part: str) -> bool:
        return source.store.read(f"votes/{part}") == target.store.read(f"votes/{part}")

    with ThreadPoolExecutor(READERS) as pool:
        return {part for part, same in zip(parts, pool.map(is_same, parts), strict=True) if same}


def _refuse_contradictions(source: Run, target: Run, parts: dict[str, str]) -> None:
    """Refuses runs whose votes of an image are of different pixels, or cannot both be right."""
    columns = [*VOTES.names, "part"]
    rows = source.rows(columns)
    rows = rows.filter(pc.is_in(rows["part"], value_set=pa.array(list(parts), pa.string())))
    theirs = pc.unique(target.rows(["image_id"])["image_id"])
    shared = pc.unique(rows["image_id"]).filter(pc.is_in(pc.unique(rows["image_id"]), value_set=theirs)).to_pandas()
    if not len(shared):
        return
    pixels = pd.concat([run.sampled_pixels(shared) for run in (source, target)]).drop_duplicates()
    changed = pixels["image_id"][pixels["image_id"].duplicated()].drop_duplicates()
    if len(changed):
        raise UserError(
            f"{len(changed)} images changed between {source.location} and {target.location}, the first "
            f"{changed.iloc[0]!r}: their votes are of other pixels; certify changed data into another --results"
        )
    names = pa.array([parts[part] for part in rows["part"].to_pylist()], pa.string())
    rows = rows.set_column(rows.column_names.index("part"), "part", names)
    try:
        deduplicated(pa.concat_tables([target.rows(columns), rows]).sort_by("part"))
    except UserError as error:
        raise UserError(f"{source.location} and {target.location} cannot be joined: {error}") from error


def _add_images(source: Run, target: Run) -> None:
    """Lists what the source lists; of an image that looks different there, the target's votes say what it was."""
    if not source.num_images():
        return
    images = source.images()
    if target.num_images():
        other = Relisted(target.images(), images, target.run_id).touched
        images = images[~images["image_id"].isin(target.sampled_pixels(other)["image_id"])]
    target.add_images(images.reset_index(drop=True), replaced=lambda _: [])


def _finish(source: Run, target: Run) -> None:
    """Notes that the target is finished, where both were and no image lacks a rule that only one of them had."""
    counts = target.progress()
    if not counts.missing:
        target.finish(num_images=counts.images, num_errors=counts.errored)
