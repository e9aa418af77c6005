"""The Parquet schemas of stored votes and certificates, one comment a field, and their ways in and out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from raycsr.certification import SparseVotes
from raycsr.errors import UserError

SCHEMA_VERSION = 3
"""The version of what a run, a sweep or a training stores.

What may change within one version: files, columns and fields are added, and nothing else. A reader passes over what it
does not know, and takes what is not there as null; so the meaning of what is there may not hang on what is added.
Everything else is a new version. It is said once for a folder, by `schema_version` in manifest.json or sweep.json, or
in the .json beside a checkpoint, and all else there (parts, costs.json, rules, owners, ...) is of it; a folder is
written under the version that began it. A checkpoint says its own as `format` (`raycsr.models`).

Other versions have a reader here, or are refused by name by all that reads: earlier ones and those still to come.
"""

READABLE_SCHEMAS = (2, 3)
"""Version 2 (raycsr 0.1) has the same fields: its runs are read, certified, reported, copied and deleted, but neither
gone on with nor joined to others. Its certificates do not say of which votes they are, and are made again of them. Its
top-ups of several rules may hold votes counted twice; those rows are refused by name (by `Run`). Sweeps and trainings
that note no version are read as of this one.
"""

_HISTOGRAM = pa.list_(pa.struct([("class", pa.int32()), ("count", pa.int64())]))

VOTES = pa.schema(
    [
        ("image_id", pa.string()),  # relative path, `file#row` or `tar#key`: never absolute
        ("label", pa.int32()),
        ("rule", pa.string()),  # decision rule, logits -> class
        ("selection", _HISTOGRAM),  # classes with at least one of the n0 votes, ascending
        ("estimation", _HISTOGRAM),  # the same for the n votes, drawn from other noise
        ("n0", pa.int64()),  # of this row; 0 where it is errored
        ("n", pa.int64()),
        ("sampling", pa.string()),  # `fixed`: n was settled before the first sample; `sequential`: votes may end it
        ("decided", pa.string()),  # the statements (their digest) that stopped it; null where nothing but n did
        ("continues", pa.string()),  # the part whose votes of this row are among these; null where it began here
        ("image_sha", pa.string()),  # sha256 of the decoded pixels
        ("device", pa.string()),  # what counted the votes
        ("batch_size", pa.int32()),  # rows of a forward pass when it did
        ("seconds", pa.float64()),  # of sampling, decoding not included
        ("error", pa.string()),  # null, or why the row certifies nothing
    ]
)

CERTIFICATES = pa.schema(
    [
        ("image_id", pa.string()),
        ("rule", pa.string()),
        ("label", pa.int32()),
        ("prediction", pa.int64()),  # class A, top of the selection votes; null where errored
        ("abstain", pa.bool_()),  # unproven that A is answered: p_a_lower_standard <= 1/2 by argmax and majority
        ("standard_radius", pa.float64()),  # L2, [0, 1] pixel units; 0 where nothing is certified
        ("p_a_lower_standard", pa.float64()),  # at alpha
        ("p_a_lower", pa.float64()),  # at 0.9 alpha, of all pairs together
        ("cost_sensitive_radius", pa.float64()),  # never enters Omega_y; null where Omega_y is empty
        ("p_b_upper", pa.list_(pa.float64())),  # one a target class, ascending
        ("pairwise_radius", pa.list_(pa.float64())),  # aligned with p_b_upper
        ("alpha", pa.float64()),  # failure probability of one statement about the image
        ("n", pa.int64()),  # estimation samples that it stands on
        (
            "continues",
            pa.string(),
        ),  # as that of its votes, as are device and batch_size: by them one row of several stands
        ("device", pa.string()),
        ("batch_size", pa.int32()),
        ("error", pa.string()),
        ("multiclass_radius", pa.float64()),  # answers A, by p_A and the runner-up; null by the first methods
        ("target_radius", pa.list_(pa.float64())),  # as pairwise_radius, but each by itself; the least is the group's
        ("p_a_lower_group", pa.float64()),  # that target_radius stands on
        ("route", pa.string()),  # what target_radius was certified by: `pair`, `set:T` of T classes, `threshold`
        ("method", pa.string()),  # bounds, levels and routes: one of raycsr.certification.METHODS
        ("answer", pa.string()),  # id of what g says, given shares (raycsr.Answer): null in parts older than answers
    ]
)

ADDED = frozenset({"multiclass_radius", "target_radius", "p_a_lower_group", "route", "method", "answer"})
"""Of certificates: what the first parts of version 3 lack; `certificate_sets` says what stands there instead."""

ATTACKS = pa.schema(
    [
        ("image_id", pa.string()),
        ("label", pa.int32()),
        ("radius", pa.float64()),  # L2, [0, 1] pixel units: within it a picture was sought
        ("certified", pa.float64()),  # the certificate's radius that it is a multiple of; null where it was named
        ("alpha", pa.float64()),  # of that certificate
        ("distance", pa.float64()),  # of the picture that was found from the image
        ("target", pa.int32()),  # the costly class that the selection votes on the picture favour
        ("target_votes", pa.int64()),  # its estimation votes
        ("rival", pa.int32()),  # the harmless class with the most estimation votes
        ("rival_votes", pa.int64()),  # those
        ("n", pa.int64()),  # estimation votes in total; 0 where it is errored
        ("broken", pa.bool_()),  # proven at 1e-6: the smoothed classifier answers the picture by a costly class
        ("wrong", pa.bool_()),  # proven at 1e-6: it does not answer it by the label
        ("image_sha", pa.string()),  # sha256 of the image's decoded pixels
        ("picture_sha", pa.string()),  # of the picture's
        ("device", pa.string()),  # what sought and judged it
        ("seconds", pa.float64()),  # of both
        ("error", pa.string()),  # null, or why there is no picture
        ("picture", pa.binary()),  # a PNG, where it is broken, of a few dozen images alone; parts of before have none
    ]
)


def refuse_other_schemas(manifests: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses runs that another version of raycsr has written in another way.

    Args:
        manifests: run_id -> what its manifest says.

    Raises:
        UserError: saying which run has which schema_version.
    """
    versions = {run_id: facts.get("schema_version") for run_id, facts in manifests.items()}
    others = [f"{run_id} has {version}" for run_id, version in versions.items() if version not in READABLE_SCHEMAS]
    if others:
        raise UserError(
            f"this raycsr reads schema_version {' and '.join(map(str, READABLE_SCHEMAS))}, but run "
            f"{', run '.join(others)}; read them by the raycsr that their manifests name"
        )


def refuse_other_schema(facts: Mapping[str, Any], where: str) -> None:
    """Refuses what another version of raycsr wrote of a sweep or a training in another way.

    Args:
        facts: Facts that its file states.
        where: Location of the file.

    Raises:
        UserError: naming the file and its version.

    Example:
        >>> refuse_other_schema({"schema_version": 99}, "sweep.json")
        Traceback (most recent call last):
        raycsr.errors.UserError: sweep.json has schema_version 99, and this raycsr reads 3; use the one that wrote it
    """
    version = facts.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{where} has schema_version {version}, and this raycsr reads {SCHEMA_VERSION}; use the one that wrote it"
        )


def histograms(counts: np.ndarray | SparseVotes) -> pa.Array:
    """Votes, sparse or dense (N, m) -> one sparse histogram a row.

    Example:
        >>> histograms(np.array([[90, 0, 10]])).to_pylist()
        [[{'class': 0, 'count': 90}, {'class': 2, 'count': 10}]]
    """
    sparse = counts if isinstance(counts, SparseVotes) else SparseVotes.from_dense(counts)
    entries = pa.StructArray.from_arrays(
        [pa.array(sparse.classes, pa.int32()), pa.array(sparse.counts, pa.int64())], ["class", "count"]
    )
    return pa.ListArray.from_arrays(pa.array(sparse.offsets, pa.int32()), entries)


def sparse_votes(column: pa.ChunkedArray) -> SparseVotes:
    """A column of sparse histograms -> SparseVotes, without a copy of each row.

    Example:
        >>> sparse_votes(pa.chunked_array([histograms(np.array([[90, 0, 10]]))])).dense(3)
        array([[90,  0, 10]])
    """
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # what combine_chunks gives for zero chunks
        array = pa.array([], column.type)
    entries = array.flatten()
    offsets = array.offsets.to_numpy().astype(np.int64)
    return SparseVotes(
        offsets=offsets - offsets[0],
        classes=entries.field("class").to_numpy(),
        counts=entries.field("count").to_numpy(),
    )


def votes_table(columns: dict[str, Sequence | np.ndarray | pa.Array]) -> pa.Table:
    """Columns of a votes part -> a table of the VOTES schema; `decided` and `continues` may be left out for null."""
    rows = len(columns["image_id"])
    columns = {"decided": pa.nulls(rows, pa.string()), "continues": pa.nulls(rows, pa.string()), **columns}
    return pa.table({name: columns[name] for name in VOTES.names}, schema=VOTES)


def certificates_table(certificates: pd.DataFrame) -> pa.Table:
    """What `certify_votes` returns -> a table of the CERTIFICATES schema."""
    return pa.table(
        {
            name: _lists(certificates[name])
            if pa.types.is_list(CERTIFICATES.field(name).type)
            else pa.array(certificates[name], CERTIFICATES.field(name).type, from_pandas=True)
            for name in CERTIFICATES.names
        },
        schema=CERTIFICATES,
    )


def _lists(column: pd.Series) -> pa.Array:
    lengths = np.fromiter((len(row) for row in column), np.int64, len(column))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.concatenate([np.asarray(row, np.float64) for row in column]) if len(column) else np.empty(0)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat, pa.float64()))
