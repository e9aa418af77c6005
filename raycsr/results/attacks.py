"""A run's attacks: for images and radii, the votes on the worst picture that was found, a set for each way to attack.

Of some images, a few dozen of a run, the pictures that broke are kept for people to see; the same command on the same
kind of device finds the others again.
"""

import json
import os
import warnings
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import pandas as pd
import pyarrow as pa

from raycsr.certification.answers import ARGMAX, Answer
from raycsr.costs import CostMatrix
from raycsr.errors import DamagedFile, UserError
from raycsr.results.certificate_sets import slug
from raycsr.results.locations import resolve_run
from raycsr.results.notes import is_count, is_text, read_note
from raycsr.results.parts import Parts
from raycsr.results.runs import Run
from raycsr.results.schema import ATTACKS
from raycsr.smoothing.options import AttackOptions
from raycsr.store import Store

_SCHEME = 1  # of what an attack does: another gives other pictures, in a set of its own
_FIX = "move it away, and `raycsr attack` with its options writes it again"
_KEY = ["image_id", "radius", "alpha"]
_FIELDS = [name for name in ATTACKS.names if name != "picture"]  # pictures are read where they are shown
_ADDED = frozenset({"picture"})


class AttackSet:
    """The attacks of one run under one cost matrix, decision rule, answer and budget.

    Attributes:
        name: Of its folder.
    """

    def __init__(self, run: Store, name: str) -> None:
        """Opens a set; nothing is read yet.

        Args:
            run: The run's folder.
            name: As `attack_set` gives it.
        """
        self.name = name
        self._parts = Parts(run.at(f"attacks/{name}"), ATTACKS, _ADDED)

    @property
    def location(self) -> str:
        """Its folder, local or s3://."""
        return self._parts.store.location

    def note(self, spec: str, costs: CostMatrix, rule: str, options: AttackOptions, answer: Answer = ARGMAX) -> None:
        """Writes down what the set is of, where that is not there."""
        if not self._parts.store.exists("attack.json"):
            facts = {"spec": spec, "rule": rule, **asdict(options), **costs.to_json()}
            facts |= {} if answer.is_argmax else {"answer": answer.to_dict()}
            self._parts.store.write("attack.json", json.dumps(facts, separators=(",", ":")).encode())

    def facts(self) -> dict[str, Any]:
        """What the set is of: spec, rule (its id), the options, costs (a `CostMatrix`) and answer (an `Answer`).

        Raises:
            DamagedFile: the file that says it is not what was written.
        """
        counts = dict.fromkeys(("steps", "noises", "n"), is_count)
        fields = {"spec": is_text, "rule": is_text, "seed": lambda value: type(value) is int, **counts}
        facts = read_note(self._parts.store, "attack.json", fields, _FIX)
        try:
            facts["costs"] = CostMatrix.of_json(facts)
            options = AttackOptions(**{name: facts[name] for name in AttackOptions.__dataclass_fields__})
            facts["answer"] = Answer.of_dict(facts["answer"]) if "answer" in facts else ARGMAX
            name = attack_set(facts["spec"], facts["costs"], facts["rule"], options, facts["answer"])
        except (UserError, ValueError, LookupError, TypeError):
            name = ""
        if name != self.name:
            raise DamagedFile(f"{self.location}/attack.json", "it is of other attacks than its folder", _FIX)
        return facts

    def write(self, part: str, attacks: pa.Table) -> None:
        """Commits a part."""
        self._parts.write(part, attacks)

    def exists(self, part: str) -> bool:
        """Whether a part is committed."""
        return self._parts.store.exists(part)

    def one(self, part: str) -> pa.Table | None:
        """A committed part, None where it cannot be read."""
        return self._parts.one(part, _FIELDS)

    def read(self) -> pd.DataFrame:
        """All attacks, each image, radius and certificate once: the first by part name that has no error, if any."""
        rows = self._parts.read(_FIELDS).to_pandas()
        rows = rows.sort_values("error", key=lambda errors: errors.notna(), kind="stable")
        return rows.drop_duplicates(_KEY).sort_values(_KEY, ignore_index=True)

    def nearest(self, most: int) -> pd.DataFrame:
        """The nearest of the broken pictures that are kept, each of another image.

        Args:
            most: Number of pictures at most.

        Returns:
            Rows with `picture`, a PNG of the model's input size, the nearest first.
        """
        rows = self._parts.read([*_FIELDS, "picture"]).to_pandas().dropna(subset="picture")
        rows = rows.sort_values(["distance", "image_id"], kind="stable").drop_duplicates("image_id")
        return rows.head(most).reset_index(drop=True)

    def lacking(self, wanted: pd.DataFrame) -> pd.DataFrame:
        """Of wanted rows of image_id, radius and alpha those that are not there, or have an error."""
        rows = self.read()
        done = pd.MultiIndex.from_frame(_keys(rows[rows["error"].isna()]))
        return wanted[~pd.MultiIndex.from_frame(_keys(wanted)).isin(done)]


def _keys(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[_KEY].fillna({"alpha": 0.0})  # where a radius was named; NaN equals nothing


def attack_set(spec: str, costs: CostMatrix, rule: str, options: AttackOptions, answer: Answer = ARGMAX) -> str:
    """Names a set: a legible slug, and a digest of what its attacks depend on.

    Args:
        spec: The cost matrix as a person writes it.
        costs: Its values.
        rule: Id of the decision rule.
        options: The budget.
        answer: What the smoothed classifier says, given shares.
    """
    facts, words = [_SCHEME, costs.digest, rule, *asdict(options).values()], [slug(spec)]
    if not answer.is_argmax:  # sets of argmax are called what they were before there were others
        facts, words = [*facts, answer.id], [*words, slug(answer.spec)]
    return f"{'-'.join(words)}-{sha256(json.dumps(facts).encode()).hexdigest()[:10]}"


def attack_sets(run: Run) -> dict[str, dict[str, Any]]:
    """Name of each set of a run -> what it is of (`AttackSet.facts`); warns of what is damaged."""
    found = {}
    for name in run.store.names("attacks"):
        one = AttackSet(run.store, name)
        if not run.store.exists(f"attacks/{name}/attack.json"):
            continue
        try:
            found[name] = one.facts()
        except DamagedFile as error:
            warnings.warn(f"attacks are left out: {error}", stacklevel=2)
    return found


def load_attacks(run: str | os.PathLike[str], costs: CostMatrix | str | None = None) -> pd.DataFrame:
    """Reads what `raycsr attack` found on a run's images.

    Args:
        run: Its folder, a unique prefix of it, or `s3://...`.
        costs: Only those under this cost matrix, or a spec such as `seed:cat`; by default all.

    Returns:
        One row an attack: costs (the spec), rule (its id), answer (its spec), steps, noises and seed, then the columns
        of `raycsr.results.schema.ATTACKS` but for the pictures.

    Raises:
        UserError: where there is no such run, or the spec is none of its classes.

    Example:
        >>> len(load_attacks(run))  # nobody attacked this run
        0
    """
    found = resolve_run(run)
    matrix = found.costs(costs) if isinstance(costs, str) else costs
    columns = ["costs", "rule", "answer", "steps", "noises", "seed"]
    frames = [pd.DataFrame({name: [] for name in columns}), ATTACKS.empty_table().select(_FIELDS).to_pandas()]
    frames = [pd.concat(frames, axis=1)]
    for name, facts in attack_sets(found).items():
        if matrix is None or facts["costs"] == matrix:
            of_set = {"costs": facts["spec"], **{column: facts[column] for column in columns[1:]}}
            of_set["answer"] = facts["answer"].spec
            rows = AttackSet(found.store, name).read()
            frames.append(pd.concat([pd.DataFrame(of_set, index=rows.index), rows], axis=1))
    return pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)
