"""A run's files: its manifest, rules, listing, votes and certificates, and how they are read back."""

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from raycsr.certification import BOUND, certify_votes
from raycsr.costs import CostMatrix
from raycsr.errors import UserError, nearest
from raycsr.results.schema import CERTIFICATES, VOTES, certificates_table, sparse_votes
from raycsr.results.store import Store

_READERS = 16  # parts read side by side; reading waits for the network


class RunRule(NamedTuple):
    """What a run says of a decision rule, to those who need no torch to apply it.

    Attributes:
        id: as in votes and certificates.
        kind: argmax, offset or expected_cost.
        spec: how a person writes it.
    """

    id: str
    kind: str
    spec: str


class Run:
    """One run: the votes of one base classifier at one noise level, growing as images are added.

    Attributes:
        store: the run's folder.
    """

    def __init__(self, store: Store) -> None:
        """Opens a run's folder; nothing is read yet."""
        self.store = store

    @property
    def location(self) -> str:
        """The folder, local or s3://."""
        return self.store.location

    @property
    def run_id(self) -> str:
        """The folder's name: a digest of what determines the votes of an image."""
        return self.location.rsplit("/", 1)[-1]

    # What the run is ------------------------------------------------------------------------------------

    def manifest(self) -> dict:
        """What was settled when the run began.

        Raises:
            UserError: where the folder holds no run.
        """
        return json.loads(self.store.read("manifest.json"))

    def costs(self, spec: str) -> CostMatrix:
        """Resolves a cost spec against the run's classes."""
        manifest = self.manifest()
        return CostMatrix.from_spec(spec, manifest["num_classes"], manifest["class_names"])

    def rules(self) -> dict[str, RunRule]:
        """The run's decision rules by id: argmax, then the others by their spec."""
        names = [name for name in self.store.names("rules") if name.endswith(".json")]
        stored = [json.loads(self.store.read(f"rules/{name}")) for name in names]
        rules = sorted((RunRule(rule["id"], rule["kind"], rule["spec"]) for rule in stored), key=lambda one: one.spec)
        return {rule.id: rule for rule in (RunRule("argmax", "argmax", "argmax"), *rules)}

    def add_rules(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Adds decision rules (`raycsr.models.Rule.to_dict`); those that the run has stay as they are."""
        for rule in rules:
            self.store.create(f"rules/{rule['id']}.json", json.dumps(rule).encode())

    def rule_id(self, rule: str) -> str:
        """The id of the rule that a person means by its id or its spec.

        Raises:
            UserError: where the run has no such rule, or several of that spec.
        """
        rules = self.rules().values()
        ids = [one.id for one in rules if rule in (one.id, one.spec)]
        if not ids:
            raise UserError(f"run {self.run_id} has no rule {rule!r}: {nearest(rule, [one.spec for one in rules])}")
        if len(ids) > 1:
            raise UserError(f"run {self.run_id} has {len(ids)} rules {rule!r}; name one by its id: {', '.join(ids)}")
        return ids[0]

    def images(self) -> pd.DataFrame:
        """The listing: image_id, label, size, version; the source of `num_images` and of "missing"."""
        return self.store.read_table("images.parquet").to_pandas()

    def add_images(self, images: pd.DataFrame) -> pd.DataFrame:
        """Adds images to the listing and returns it whole; listed ones stay as they are.

        Raises:
            UserError: where a listed image has changed in the source since its votes were drawn.
        """
        if self.store.exists("images.parquet"):
            before = self.images()
            both = before.merge(images, on="image_id", suffixes=("_before", ""))
            changed = both[(both["label"] != both["label_before"]) | (both["size"] != both["size_before"])]
            if len(changed):
                raise UserError(
                    f"{len(changed)} images changed in the source since run {self.run_id} listed them, the first "
                    f"{changed['image_id'].iloc[0]!r}; certify changed data into another --results"
                )
            new = images[~images["image_id"].isin(before["image_id"])]
            if not len(new):
                return before
            images = pd.concat([before, new], ignore_index=True)
        self.store.write_table("images.parquet", pa.Table.from_pandas(images, preserve_index=False))
        return images

    # Votes ----------------------------------------------------------------------------------------------

    def vote_parts(self) -> list[str]:
        """Names of the committed votes parts."""
        return [name for name in self.store.names("votes") if name.endswith(".parquet")]

    def write_votes(self, name: str, votes: pa.Table) -> None:
        """Commits one votes part."""
        self.store.write_table(f"votes/{name}", votes)

    def committed(self) -> pa.Table:
        """Keys of all committed rows: image_id, rule, error, part; doubles included."""
        return self._read("votes", self.vote_parts(), ["image_id", "rule", "error"])

    def votes(self, rule: str | None = None) -> pa.Table:
        """All votes, each (image_id, rule) once, of one rule, by its id, or of all.

        Raises:
            UserError: where two parts hold different votes for one key.
        """
        return _once(self._read("votes", self.vote_parts(), VOTES.names), rule)

    # Certificates ---------------------------------------------------------------------------------------

    def certificate_sets(self) -> dict[str, dict]:
        """Name of each stored certificate set -> its costs.json."""
        names = self.store.names("certificates")
        return {name: json.loads(self.store.read(f"certificates/{name}/costs.json")) for name in names}

    def certify(self, spec: str, costs: CostMatrix, alpha: float) -> str:
        """Certifies each votes part that has no certificates part yet, and returns the set's name.

        Raises:
            UserError: where the votes cannot be certified so.
        """
        name = certificate_set(spec, costs, alpha)
        folder = f"certificates/{name}"
        if not self.store.exists(f"{folder}/costs.json"):
            facts = {"spec": spec, "alpha": alpha, "bound": BOUND, "values": costs.values.tolist()}
            self.store.write(f"{folder}/costs.json", json.dumps(facts, separators=(",", ":")).encode())
        sigma = self.manifest()["sigma"]
        done = set(self.store.names(folder))
        for part in self.vote_parts():
            if part not in done:
                votes = self._read("votes", [part], VOTES.names)
                if len(votes):  # none where the part cannot be read
                    self.write_certificates(name, part, certify_table(votes, costs, sigma, alpha))
        return name

    def write_certificates(self, name: str, part: str, certificates: pd.DataFrame) -> None:
        """Commits the certificates of one votes part, under the same name."""
        self.store.write_table(f"certificates/{name}/{part}", certificates_table(certificates))

    def certificates(self, name: str, rule: str | None = None) -> pd.DataFrame:
        """A stored certificate set, each (image_id, rule) once, of one rule, by its id, or of all."""
        parts = [part for part in self.store.names(f"certificates/{name}") if part.endswith(".parquet")]
        return _once(self._read(f"certificates/{name}", parts, CERTIFICATES.names), rule).to_pandas()

    def missing(self, certificates: pd.DataFrame) -> list[str]:
        """Listed images that lack a row of a rule that others have a row of."""
        keys = zip(certificates["image_id"], certificates["rule"], strict=True)
        return missing_images(self.images(), keys, set(certificates["rule"]) or {"argmax"})["image_id"].tolist()

    def finish(self, **facts: float) -> None:
        """Notes that every listed image is sampled under every rule; a new image or rule undoes it."""
        self.store.write("finished.json", json.dumps({**facts, "rules": list(self.rules())}).encode())

    def finished(self) -> bool:
        """Whether every listed image has been sampled under every rule of the run."""
        if not self.store.exists("finished.json"):
            return False
        facts = json.loads(self.store.read("finished.json"))
        return facts["num_images"] == len(self.images()) and self.rules().keys() <= set(facts.get("rules", ["argmax"]))

    def _read(self, folder: str, names: list[str], columns: list[str]) -> pa.Table:
        """Rows of all parts in order of their names, with `part`; warns of a part that cannot be read."""

        def read(name: str) -> pa.Table | None:
            try:
                table = self.store.read_table(f"{folder}/{name}", columns)
            except (pa.ArrowException, OSError):  # the bytes arrived (the store's errors are UserErrors): damaged
                return None
            return table.append_column("part", pa.array([name] * len(table), pa.string()))

        with ThreadPoolExecutor(_READERS) as pool:
            tables = list(pool.map(read, names))
        whole = [table for table in tables if table is not None]
        schema = (VOTES if folder == "votes" else CERTIFICATES).field
        empty = pa.schema([*(schema(column) for column in columns), ("part", pa.string())]).empty_table()
        for name in (name for name, table in zip(names, tables, strict=True) if table is None):
            warnings.warn(
                f"{self.location}/{folder}/{name} cannot be read and counts for nothing; delete it", stacklevel=3
            )
        return pa.concat_tables([empty, *whole])


def certificate_set(spec: str, costs: CostMatrix, alpha: float) -> str:
    """Names a certificate set: a legible slug, and a digest of what the certificates depend on."""
    stem = PurePath(spec).stem if spec.endswith(".csv") else spec
    slug = re.sub(r"[^A-Za-z0-9]+", "-", stem)[:40]
    digest = sha256(json.dumps([costs.digest, alpha, BOUND]).encode()).hexdigest()
    return f"{slug}-{digest[:10]}"


def certify_table(votes: pa.Table, costs: CostMatrix, sigma: float, alpha: float) -> pd.DataFrame:
    """Certifies stored votes (`certify_votes` on a table of the VOTES schema).

    Raises:
        UserError: where a row holds fewer or more votes than samples were drawn, or cannot be certified.
    """
    selection, estimation = sparse_votes(votes["selection"]), sparse_votes(votes["estimation"])
    for histograms, drawn in ((selection, votes["n0"]), (estimation, votes["n"])):
        wrong = np.flatnonzero(histograms.totals() != drawn.to_numpy())
        if len(wrong):
            image_id = votes["image_id"][int(wrong[0])].as_py()
            raise UserError(f"the votes of image {image_id!r} do not add up to its samples; its part is damaged")
    sampling = votes["sampling"].to_pandas()
    return certify_votes(
        selection,
        estimation,
        votes["label"].to_numpy(),
        costs=costs,
        sigma=sigma,
        alpha=alpha,
        sampling=sampling.iloc[0] if sampling.nunique() == 1 else sampling.to_numpy(),
        image_ids=votes["image_id"].to_pylist(),
        rules=votes["rule"].to_pylist(),
        errors=votes["error"].to_pylist(),
    )


def missing_images(images: pd.DataFrame, committed: Iterable[tuple[str, str]], rules: Iterable[str]) -> pd.DataFrame:
    """The listing less the images that have a committed row for every rule.

    Args:
        images: the listing.
        committed: image_id and rule of each committed row.
        rules: ids of the wanted rules.

    Returns:
        Rows of the listing, with `rules`: the ids of those that the image lacks, with a space between.
    """
    have: dict[str, set[str]] = {}
    for image_id, rule in committed:
        have.setdefault(image_id, set()).add(rule)
    wanted = list(rules)
    lacking = [[rule for rule in wanted if rule not in have.get(i, ())] for i in images["image_id"]]
    missing = images.assign(rules=[" ".join(ids) for ids in lacking])
    return missing[[len(ids) > 0 for ids in lacking]].reset_index(drop=True)


def _once(table: pa.Table, rule: str | None) -> pa.Table:
    """Keeps one row a key: the first by part name that has no error, else the first.

    The choice never looks at votes, so it cannot favour lucky ones. Two rows for one key are the same work
    done twice and must agree; where device and batch shape were the same and the votes are not, something is
    wrong with one of the parts.

    Raises:
        UserError: where they do not agree.
    """
    if rule is not None:
        table = table.filter(pc.equal(table["rule"], rule))
    keys = pd.DataFrame({name: table[name].to_pandas() for name in ("image_id", "rule", "part")})
    keys["errored"] = table["error"].is_valid().to_pandas()
    keys = keys.sort_values(["errored", "part"], kind="stable")
    first = ~keys.duplicated(["image_id", "rule"])
    if "estimation" in table.column_names:
        _refuse_disagreement(table, keys, first)
    return table.take(np.sort(keys.index[first].to_numpy()))


def _refuse_disagreement(table: pa.Table, keys: pd.DataFrame, first: pd.Series) -> None:
    kept = keys[first].reset_index(names="kept")
    doubles = keys[~first & ~keys["errored"]].reset_index(names="double")
    for row in doubles.merge(kept, on=["image_id", "rule"], suffixes=("", "_kept")).itertuples():
        pair = table.take([row.kept, row.double]).to_pylist()
        a, b = ({k: v for k, v in votes.items() if k not in ("part", "seconds")} for votes in pair)
        if a != b and (a["device"], a["batch_size"]) == (b["device"], b["batch_size"]):
            raise UserError(
                f"image {row.image_id!r} has different votes in {row.part_kept!r} and {row.part!r}, counted alike; "
                "one of the parts is wrong: move it away and run the same command again"
            )
