"""A run's sets of certificates, each of one cost matrix, alpha, answer and method, with a part for each part of votes.

A part of certificates says of which bytes it was made. Where its votes part has other bytes by now, or is gone, it
counts for nothing: it is made again, in memory by those who read and in its place by those who certify. So are parts
of earlier versions, which do not say it.

A set of an older method stays what it is: what it lacks is made by its own method, and a run that is certified now gets
another set, of the newest. Where a run has both, the newest stands for its costs, alpha and answer.
"""

import json
import re
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import PurePath

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from raycsr.certification import METHODS, NEWEST, certify_votes
from raycsr.certification.answers import ARGMAX, Answer
from raycsr.costs import CostMatrix
from raycsr.costs.files import is_cost_file
from raycsr.errors import UserError
from raycsr.results.parts import Parts
from raycsr.results.schema import ADDED, CERTIFICATES, VOTES, certificates_table, sparse_votes
from raycsr.store import READERS, Store

_MADE_OF = "raycsr.votes_md5"  # in a part: the digest of its votes part
OF_VOTES = ["continues", "device", "batch_size"]  # of a row of votes, kept with its certificate


class CertificateSet:
    """One set.

    Attributes:
        name: Name of the set's folder.
    """

    def __init__(self, run: Store, name: str, sigma: float) -> None:
        """Opens a set; nothing is read yet.

        Args:
            run: The run's folder.
            name: Name of the set, as `certificate_set` returns it.
            sigma: Noise level of the run, in [0, 1] pixel units.
        """
        self.name, self._run, self._sigma = name, run, sigma
        self._votes = Parts(run.at("votes"), VOTES)
        self._parts = Parts(run.at(f"certificates/{name}"), CERTIFICATES, ADDED)

    def note(self, spec: str, costs: CostMatrix, alpha: float, sampling: str, answer: Answer = ARGMAX) -> None:
        """Writes down what the set is of, where that is not there."""
        if _facts(self._run, self.name) is None:
            facts: dict = {"spec": spec, "alpha": alpha, "bound": NEWEST[sampling].name}
            facts |= costs.to_json() | ({} if answer.is_argmax else {"answer": answer.to_dict()})
            self._parts.store.write("costs.json", json.dumps(facts, separators=(",", ":")).encode())

    def write(self, part: str, certificates: pd.DataFrame, votes_digest: str) -> None:
        """Commits the certificates of a votes part whose bytes have a digest, under its name."""
        self._parts.write(part, certificates_table(certificates), {_MADE_OF: votes_digest})

    def lacking(self, among: Iterable[str] | None = None) -> list[str]:
        """Names of the votes parts that have no valid certificates, of all or of some."""
        parts = self._votes.names() if among is None else list(among)
        valid = self._valid(parts, ["image_id"])
        return [part for part in parts if part not in valid]

    def certify(self, parts: Iterable[str], costs: CostMatrix, alpha: float, answer: Answer = ARGMAX) -> list[str]:
        """Certifies votes parts, each by itself, several side by side.

        Returns:
            Names of the parts that cannot be read.

        Raises:
            UserError: naming a part whose votes cannot be certified; others that are certified by then stay.
        """

        def certify(part: str) -> str | None:
            made = self._made(part, costs, alpha, answer)
            if made is None:
                return part
            self.write(part, *made)
            return None

        with ThreadPoolExecutor(READERS) as pool:
            return [part for part in pool.map(certify, parts) if part is not None]

    def read(self, rules: Sequence[str] = ()) -> pa.Table:
        """Certificates of all votes parts, of some rules, by their ids, or of all; those that lack are made in memory.

        Raises:
            UserError: naming a part whose votes cannot be certified.
        """
        names, columns = self._votes.names(), [*CERTIFICATES.names, "part"]
        tables = self._valid(names, columns, rules)
        lacking = [name for name in names if name not in tables]
        if lacking:
            tables |= self._in_memory(lacking, rules)
        schema = CERTIFICATES.append(pa.field("part", pa.string()))
        rows = [tables[name].replace_schema_metadata() for name in names if name in tables]
        whole = pa.concat_tables([schema.empty_table(), *rows])
        if not (whole["method"].null_count or whole["answer"].null_count):
            return whole
        return _filled(whole, _facts(self._run, self.name))

    def _valid(self, parts: Sequence[str], columns: list[str], rules: Sequence[str] = ()) -> dict[str, pa.Table]:
        """Columns of the certificates, of some votes parts, that were made of the very bytes that are there."""
        there = set(self._parts.names())
        with ThreadPoolExecutor(READERS) as pool:
            names = [part for part in parts if part in there]
            read = dict(zip(names, pool.map(lambda name: self._parts.one(name, columns, rules), names), strict=True))
        texts = {name: table.schema.metadata or {} for name, table in read.items() if table is not None}
        digests = {name: text[_MADE_OF.encode()].decode() for name, text in texts.items() if _MADE_OF.encode() in text}
        valid = self._votes.with_digests(digests) if digests else set()
        return {name: table for name, table in read.items() if name in valid}

    def _in_memory(self, parts: Sequence[str], rules: Sequence[str]) -> dict[str, pa.Table]:
        facts = _facts(self._run, self.name)
        if facts is None:
            raise UserError(f"{self._parts.store.location} is no set of certificates; make one with `raycsr certify`")
        of = facts["costs"], facts["alpha"], facts["answer"]
        with ThreadPoolExecutor(READERS) as pool:
            made = dict(zip(parts, pool.map(lambda part: self._made(part, *of, rules), parts), strict=True))
        self._votes.warn([part for part, one in made.items() if one is None])
        tables = {part: certificates_table(one[0]) for part, one in made.items() if one is not None}
        if tables:
            present = NEWEST[METHODS[facts["bound"]].design].name
            them = "them" if facts["bound"] == present else f"a set of method {present}, not of {facts['bound']}"
            warnings.warn(
                f"{self._parts.store.location} lacks certificates of the votes in {len(tables)} parts, or has them of "
                f"other votes, the first {next(iter(tables))}: they are made in memory; `raycsr certify` stores {them}",
                stacklevel=5,
            )
        return {part: table.append_column("part", pa.repeat(part, len(table))) for part, table in tables.items()}

    def _made(
        self, part: str, costs: CostMatrix, alpha: float, answer: Answer, rules: Sequence[str] = ()
    ) -> tuple[pd.DataFrame, str] | None:
        """The certificates of a votes part, of some rules or of all, and its digest; None where it cannot be read."""
        votes, digest = self._votes.with_digest(part, VOTES.names, rules)
        if votes is None:
            return None
        try:
            method = _method_in(self.name, costs, alpha, answer)
            return certify_table(votes, costs, self._sigma, alpha, method=method, answer=answer), digest
        except UserError as error:
            raise UserError(f"{self._votes.store.location}/{part}: {error}") from None  # it says it all


def certificate_sets(run: Store, method: str | None = None) -> dict[str, dict]:
    """Name of each set of a run -> what it is of: spec, alpha, answer, bound (the method) and costs (a `CostMatrix`).

    It warns of what is damaged. Of several methods the newest stands, for one run is certified by one method under a
    cost matrix, an alpha and an answer; or the one that is named.
    """
    found = {name: _facts(run, name, aloud=True) for name in run.names("certificates")}
    sets = {name: facts for name, facts in found.items() if facts is not None}
    if method is not None:
        return {name: facts for name, facts in sets.items() if facts["bound"] == method}
    if len({facts["bound"] for facts in sets.values()}) < 2:
        return sets
    newest: dict[tuple[str, float, str], str] = {}
    for name in sorted(sets, key=lambda name: _age(sets[name]["bound"])):
        facts = sets[name]
        newest[facts["costs"].digest, facts["alpha"], facts["answer"].id] = name
    return {name: facts for name, facts in sets.items() if name in newest.values()}


def _age(method: str) -> int:
    """Orders methods, the newest last; one that is not known here is of a raycsr to come."""
    return [*METHODS, method].index(method)


def _facts(run: Store, name: str, *, aloud: bool = False) -> dict | None:
    """What a set is of; None where nothing says so, as in a folder that a full disk left empty, or wrongly."""
    file = f"certificates/{name}/costs.json"
    if not run.exists(file):
        return None
    try:
        facts = json.loads(run.read(file))
        facts["answer"] = Answer.of_dict(facts["answer"]) if "answer" in facts else ARGMAX
        facts["costs"] = CostMatrix.of_json(facts)
        of_name = _digest(facts["costs"], facts["alpha"], facts["bound"], facts["answer"])
        if isinstance(facts["spec"], str) and name.endswith(f"-{of_name}"):
            return {field: facts[field] for field in ("spec", "alpha", "bound", "answer", "costs")}
    except (UserError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        pass
    if aloud:
        warnings.warn(
            f"{run.location}/{file} is damaged, and the set counts for nothing; `raycsr certify` with its costs writes "
            "it again",
            stacklevel=4,
        )
    return None


def certificate_set(
    spec: str, costs: CostMatrix, alpha: float, sampling: str, method: str | None = None, answer: Answer = ARGMAX
) -> str:
    """Names a certificate set: a legible slug, and a digest of what the certificates depend on.

    Args:
        spec: Cost matrix as a person writes it.
        costs: Values of the cost matrix.
        alpha: Failure probability of one statement about an image.
        sampling: Sampling design of the votes.
        method: Name of the method that certifies them, by default the newest of the design.
        answer: What the smoothed classifier says, given shares.
    """
    says = "" if answer.is_argmax else f"-{answer.id.partition('-')[0]}"
    return f"{slug(spec)}{says}-{_digest(costs, alpha, method or NEWEST[sampling].name, answer)}"


def slug(spec: str) -> str:
    """How the name of a set begins that is of a cost matrix: the spec in letters that any storage takes."""
    stem = PurePath(spec).stem if is_cost_file(spec) else spec
    return re.sub(r"[^A-Za-z0-9]+", "-", stem)[:40]


def _method_in(name: str, costs: CostMatrix, alpha: float, answer: Answer) -> str:
    """The method of a set of these costs, alpha and answer, by the set's name.

    Raises:
        UserError: a method that this raycsr does not know.
    """
    for method in METHODS:
        if name.endswith(f"-{_digest(costs, alpha, method, answer)}"):
            return method
    raise UserError(
        f"certificates {name} are of a method that this raycsr does not know; it certifies by {', '.join(METHODS)}"
    )


def _filled(certificates: pa.Table, facts: dict | None) -> pa.Table:
    """Certificates of before, with what was added since: a target alone was certified as all together were.

    Args:
        certificates: Rows of one set.
        facts: What the set is of, where that is known.
    """
    method, answer = (None, ARGMAX) if facts is None else (facts["bound"], facts["answer"])
    instead = {
        "target_radius": certificates["pairwise_radius"],
        "p_a_lower_group": certificates["p_a_lower"],
        "route": pa.repeat("pair", len(certificates)),
        "method": pa.repeat(pa.scalar(method, pa.string()), len(certificates)),
        "answer": pa.repeat(answer.id, len(certificates)),
    }
    for name, column in instead.items():
        place = certificates.schema.get_field_index(name)
        certificates = certificates.set_column(place, name, pc.coalesce(certificates[name], column))
    return certificates


def _digest(costs: CostMatrix, alpha: float, bound: str, answer: Answer) -> str:
    of = [costs.digest, alpha, bound]  # sets of argmax had their names before there were others
    of += [] if answer.is_argmax else [answer.id]
    return sha256(json.dumps(of).encode()).hexdigest()[:10]


def certify_table(
    votes: pa.Table,
    costs: CostMatrix,
    sigma: float,
    alpha: float,
    *,
    method: str | None = None,
    answer: Answer | str = ARGMAX,
) -> pd.DataFrame:
    """Certifies stored votes (`certify_votes` on a table of the VOTES schema).

    Raises:
        UserError: where a row holds fewer or more votes than samples were drawn, or cannot be certified.
    """
    selection, estimation = sparse_votes(votes["selection"]), sparse_votes(votes["estimation"])
    for histograms, drawn in ((selection, votes["n0"]), (estimation, votes["n"])):
        wrong = np.flatnonzero(histograms.totals() != drawn.to_numpy())
        if len(wrong):
            image_id = votes["image_id"][int(wrong[0])].as_py()
            raise UserError(
                f"the votes of image {image_id!r} do not add up to its samples; move its part away and sample it again"
            )
    sampling = votes["sampling"].to_pylist()
    certificates = certify_votes(
        selection,
        estimation,
        votes["label"].to_numpy(),
        costs=costs,
        sigma=sigma,
        alpha=alpha,
        sampling=sampling[0] if len(set(sampling)) == 1 else sampling,
        method=method,
        answer=answer,
        image_ids=votes["image_id"].to_pylist(),
        rules=votes["rule"].to_pylist(),
        errors=votes["error"].to_pylist(),
    )
    return certificates.assign(n=votes["n"].to_numpy(), **{name: votes[name].to_pandas() for name in OF_VOTES})
