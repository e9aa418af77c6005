"""A run's files: its manifest, rules, listing, votes and certificates, and how they are read back."""

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from raycsr.certification.answers import ARGMAX, Answer, parse_answers
from raycsr.costs import CostMatrix
from raycsr.errors import DamagedFile, UserError, nearest
from raycsr.results.certificate_sets import CertificateSet, certificate_set, certificate_sets
from raycsr.results.counts import ImageCounts
from raycsr.results.listing import Relisted, pixels_in, refuse_changed
from raycsr.results.merging import deduplicated, missing_images
from raycsr.results.notes import is_count, is_texts, read_manifest, read_note, read_rule
from raycsr.results.parts import Parts
from raycsr.results.schema import VOTES, refuse_other_schemas
from raycsr.store import Store

_STANDING = ["image_id", "rule", "error", "n", "continues", "device", "batch_size", "part"]  # by which rows stand
_NOTE = "finished.json"
_LIST_AGAIN = "delete it, and `raycsr sample` lists the images again"


class RunRule(NamedTuple):
    """What a run says of a decision rule, to those who need no torch to apply it.

    Attributes:
        id: Id of the rule, as in votes and certificates.
        kind: Kind of the rule, such as argmax or offset (`raycsr.models.rules.KINDS`).
        spec: Spec of the rule, as a person writes it.
    """

    id: str
    kind: str
    spec: str


class Run:
    """One run: the votes of one base classifier at one noise level, growing as images are added.

    Attributes:
        store: The run's folder.

    Example:
        >>> stored = Run(Store(run))
        >>> stored.manifest()["sigma"], stored.num_images(), stored.finished()
        (0.5, 6, False)
    """

    def __init__(self, store: Store) -> None:
        """Opens a run's folder; nothing is read yet."""
        self.store = store
        self._votes = Parts(store.at("votes"), VOTES)

    @property
    def location(self) -> str:
        """The folder, local or s3://."""
        return self.store.location

    @property
    def run_id(self) -> str:
        """The folder's name: a digest of what determines the votes of an image."""
        return self.location.rsplit("/", 1)[-1]

    # What the run is ------------------------------------------------------------------------------------

    def manifest(self, *, any_schema: bool = False) -> dict:
        """What was settled when the run began.

        Args:
            any_schema: Whether to read the manifest of a run, too, that this version of raycsr cannot read further.

        Raises:
            UserError: where the folder holds no run, or one of another schema.
        """
        facts = read_manifest(self.store)
        if not any_schema:
            refuse_other_schemas({self.run_id: facts})
        return facts

    def costs(self, spec: str) -> CostMatrix:
        """Resolves a cost spec against the run's classes."""
        manifest = self.manifest()
        return CostMatrix.from_spec(spec, manifest["num_classes"], manifest["class_names"])

    def answers(self, specs: Iterable[str | Answer]) -> list[Answer]:
        """Resolves answers against the run's classes, each once."""
        manifest = self.manifest()
        return parse_answers(specs, manifest["num_classes"], manifest["class_names"])

    def rules(self) -> dict[str, RunRule]:
        """The run's decision rules by id: argmax, then the others by their spec."""
        names = [name for name in self.store.names("rules") if name.endswith(".json")]
        stored = [read_rule(self.store, f"rules/{name}") for name in names]
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
        """The listing: image_id, label, size, version; the source of `num_images` and of "missing".

        Where the data has groups of images that belong together, there is a column `group`; an image without one
        stands alone.

        Raises:
            UserError: where it is damaged.
        """
        try:
            return self.store.read_table("images.parquet").to_pandas()
        except DamagedFile as error:
            raise DamagedFile(error.file, error.fact, _LIST_AGAIN) from error

    def num_images(self) -> int:
        """How many images are listed; 0 where the driver stopped before it listed any."""
        if not self.store.exists("images.parquet"):
            return 0
        try:
            return self.store.num_rows("images.parquet")
        except DamagedFile as error:
            raise DamagedFile(error.file, error.fact, _LIST_AGAIN) from error

    def add_images(
        self,
        images: pd.DataFrame,
        replaced: Callable[[pd.DataFrame], Iterable[str]] | None = None,
        sampled_pixels: Callable[[pd.Series], pd.DataFrame] | None = None,
    ) -> pd.DataFrame:
        """Adds images to the listing and returns it whole; listed ones take the size, version and group they have now.

        An image of another size or version than before was copied, touched or replaced; its pixels tell which. Where it
        has votes, they must be the pixels that were sampled.

        Args:
            images: image_id, label, size and version, and where the data has groups, group.
            replaced: Given rows of image_id and image_sha, of images that have votes, returns the ids of those whose
                pixels have another digest now; without it all count as replaced.
            sampled_pixels: What `sampled_pixels` says, where the votes were read already; by default they are read.

        Raises:
            UserError: where a listed image was replaced since its votes were drawn; or where some of the listed images
                come in other groups than before, and it is not said in which the others do.
        """
        if self.store.exists("images.parquet"):
            before = self.images()
            relisted = Relisted(before, images, self.run_id)
            sampled = (sampled_pixels or self.sampled_pixels)(relisted.touched)
            if len(sampled):
                ids = sampled["image_id"] if replaced is None else pd.Series(list(replaced(sampled)), dtype=object)
                refuse_changed(ids.drop_duplicates(), self.run_id)
            images = relisted.whole()
            if images is before:
                return before
        self.store.write_table("images.parquet", pa.Table.from_pandas(images, preserve_index=False))
        return images

    def sampled_pixels(self, image_ids: pd.Series) -> pd.DataFrame:
        """Rows of image_id and image_sha, each once: the pixels that votes of some images were drawn from."""
        if not len(image_ids):  # as ever, where nobody copied or touched the data
            return pd.DataFrame({"image_id": [], "image_sha": []}, dtype=object)
        return pixels_in(self.rows(["image_id", "image_sha", "error"]), image_ids)

    def with_groups(self, certificates: pd.DataFrame, listed: pd.DataFrame | None = None) -> pd.DataFrame:
        """Certificates, or other rows with image_id, with the column `group` where the listing has groups.

        Args:
            certificates: The rows.
            listed: The listing, where it is at hand; else it is read.
        """
        if listed is None:
            if not self.store.exists("images.parquet"):
                return certificates
            listed = self.images()
        if "group" not in listed or listed["group"].isna().all():
            return certificates
        return certificates.assign(group=certificates["image_id"].map(listed.set_index("image_id")["group"]))

    # Votes ----------------------------------------------------------------------------------------------

    def vote_parts(self) -> list[str]:
        """Names of the committed votes parts."""
        return self._votes.names()

    def write_votes(self, name: str, votes: pa.Table) -> str:
        """Commits one votes part, and returns the digest of its bytes, for its certificates."""
        return self._votes.write(name, votes)

    def committed(self) -> pa.Table:
        """Keys of all committed rows: image_id, rule, continues, error; doubles included."""
        return self._votes.read(["image_id", "rule", "continues", "error"])

    def read_votes(
        self, names: Sequence[str], columns: list[str], then: Callable[[pa.Table], pa.Table]
    ) -> dict[str, pa.Table]:
        """Columns of some votes parts, several read side by side; one that cannot be read is warned of and left out.

        Args:
            names: Names of the parts.
            columns: Columns of VOTES to read, and `part`, the part's name.
            then: Function that each part is passed to as it is read, so that all of them need not be held.
        """
        return self._votes.each(names, columns, then=then)

    def rows(self, columns: list[str]) -> pa.Table:
        """Columns of all committed rows, and `part` where it is among them, in the order of the parts' names."""
        return self._votes.read(columns)

    def devices(self) -> list[str]:
        """The kinds of device that counted the committed votes."""
        return sorted({*self._votes.read(["device"])["device"].to_pylist()} - {None, ""})

    def progress(self, known: dict[str, pa.Table] | None = None) -> ImageCounts:
        """How far the run is: by its note where it is finished and its parts are those of then, else by all rows.

        Args:
            known: What this read of the run's parts before, which it reads no more, and adds to; parts never change.
        """
        images = self.num_images()
        if (note := self._noted_now(images)) is not None:
            errored = min(note.get("num_errors", 0), images)
            return ImageCounts(images, images - errored, 0, errored)
        if not images:
            return ImageCounts(0, 0, 0, 0)
        listing, rules = self.images(), self.rules()
        return ImageCounts.of(listing, self._votes.read(_STANDING, known=known), rules)

    def votes(self, *rules: str) -> pa.Table:
        """All votes, each (image_id, rule) once, of some rules, by their ids, or of all.

        Raises:
            UserError: where two parts hold different votes for one key, or raycsr 0.1 counted votes twice.
        """
        self._refuse_doubled()
        return deduplicated(self._votes.read([*VOTES.names, "part"], rules))

    # Certificates ---------------------------------------------------------------------------------------

    def certificate_sets(self, method: str | None = None) -> dict[str, dict]:
        """Name of each stored certificate set -> what it is of: spec, alpha, answer, bound (its method) and costs.

        Of sets of one cost matrix, alpha and answer but several methods, the newest; or those of the one that is named.
        """
        return certificate_sets(self.store, method)

    def certificate_set(self, name: str) -> CertificateSet:
        """A certificate set, by its name."""
        return CertificateSet(self.store, name, self.manifest()["sigma"])

    def certify(self, spec: str, costs: CostMatrix, alpha: float, answer: Answer = ARGMAX) -> str:
        """Certifies each votes part that has no valid certificates yet, and returns the set's name.

        Raises:
            UserError: where the votes cannot be certified so; what is certified by then stays.
        """
        name = self.open_certificates(spec, costs, alpha, answer)
        self.warn_unreadable(self.certify_parts(name, self.uncertified(name), costs, alpha, answer))
        return name

    def open_certificates(self, spec: str, costs: CostMatrix, alpha: float, answer: Answer = ARGMAX) -> str:
        """Notes what a certificate set is of, where there is none of it yet, and returns its name.

        Raises:
            UserError: where raycsr 0.1 counted votes twice.
        """
        self._refuse_doubled()
        sampling = self.manifest()["sampling"]
        name = certificate_set(spec, costs, alpha, sampling, answer=answer)
        self.certificate_set(name).note(spec, costs, alpha, sampling, answer)
        return name

    def uncertified(self, name: str, among: Iterable[str] | None = None) -> list[str]:
        """Names of the votes parts, of all or of some, that have no valid part in a certificate set."""
        return self.certificate_set(name).lacking(among)

    def certify_parts(
        self, name: str, parts: Iterable[str], costs: CostMatrix, alpha: float, answer: Answer = ARGMAX
    ) -> list[str]:
        """Certifies votes parts into a certificate set; returns names of those that cannot be read.

        Raises:
            UserError: naming a part whose votes cannot be certified; others that are certified by then stay.
        """
        return self.certificate_set(name).certify(parts, costs, alpha, answer)

    def certificates(self, name: str, *rules: str) -> pd.DataFrame:
        """A certificate set, each (image_id, rule) once, of some rules, by their ids, or of all.

        What is not stored, or is of other votes than there are, is made from the votes.

        Raises:
            UserError: naming a part whose votes cannot be certified.
        """
        self._refuse_doubled()
        return deduplicated(self.certificate_set(name).read(rules)).to_pandas()

    def missing(self, certificates: pd.DataFrame) -> list[str]:
        """Listed images that lack a row of a rule that others have a row of."""
        keys = pa.table({name: pa.array(certificates[name], pa.string()) for name in ("image_id", "rule")})
        return missing_images(self.images(), keys, set(certificates["rule"]) or {"argmax"})["image_id"].tolist()

    def finish(self, **facts: float) -> None:
        """Notes that every listed image is sampled under every rule; a new image or rule, or a lost part, undoes it."""
        note = {**facts, "rules": list(self.rules()), "votes": self._votes.stamp()}
        self.store.write(_NOTE, json.dumps(note).encode())

    def finished(self) -> bool:
        """Whether every listed image has been sampled under every rule of the run."""
        images = self.num_images()
        return self._noted(images) is not None and not self.progress().missing

    def is_noted(self) -> bool:
        """Whether `finish` noted that the run is finished as it is now; this reads no votes."""
        return self._noted_now(self.num_images()) is not None

    def _noted_now(self, images: int) -> dict | None:
        """What `finish` wrote, where it is about these images, all rules and the parts that are there now."""
        note = self._noted(images)
        return note if note is not None and note.get("votes") == self._votes.stamp() else None

    def _noted(self, images: int) -> dict | None:
        """What `finish` wrote, where it is about these images and all rules."""
        if not self.store.exists(_NOTE):
            return None
        fields = {"num_images": is_count, "num_errors": is_count, "rules": is_texts}
        try:
            note = read_note(self.store, _NOTE, fields, "", ("num_errors", "rules"))
        except DamagedFile as error:
            warnings.warn(
                f"{error.file} is damaged and counts for nothing; `raycsr sample` writes it again", stacklevel=4
            )
            return None
        is_about = note["num_images"] == images and self.rules().keys() <= set(note.get("rules", ["argmax"]))
        return note if is_about else None

    def _refuse_doubled(self) -> None:
        """Refuses rows of schema 2 whose votes were counted twice.

        raycsr 0.1 topped up an image under the rules that its votes did not decide yet. Where argmax was decided, the
        others' first chunks were drawn again, with the same noise, and added. Such a row stands in a part without a row
        of argmax for its image.

        Raises:
            UserError: naming the part, the image and the rule.
        """
        if self.manifest()["schema_version"] != 2:
            return
        for name in self.vote_parts():  # listed here: a run of the present schema needs no such look
            table = self._votes.one(name, ["image_id", "rule", "continues"])
            if table is None:
                continue
            of_argmax = table.filter(pc.equal(table["rule"], "argmax"))["image_id"]
            alone = pc.invert(pc.is_in(table["image_id"], value_set=of_argmax.combine_chunks()))
            doubled = table.filter(pc.and_(table["continues"].is_valid(), alone))
            if len(doubled):
                raise UserError(
                    f"{self.location}/votes/{name} holds votes that raycsr 0.1 counted twice, as of image "
                    f"{doubled['image_id'][0].as_py()!r} under rule {doubled['rule'][0].as_py()!r}; move this part "
                    "away, from votes/ and from each certificate set, and the votes that it went on from stand, or "
                    "sample the run again with --begin_anew true"
                )

    def warn_unreadable(self, names: Sequence[str]) -> None:
        """Warns of votes parts that cannot be read."""
        self._votes.warn(names)
