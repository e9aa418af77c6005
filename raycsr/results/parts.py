"""The Parquet parts of a folder, votes or a set of certificates: each is read whole, or counts for nothing."""

import json
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5, sha256

import pyarrow as pa
import pyarrow.compute as pc

from raycsr import sealed
from raycsr.store import READERS, Store


class Parts:
    """The parts of one folder.

    Attributes:
        store: Folder of the parts.
        schema: Schema of the parts; a file of another schema is no part.
        added: Columns of it that parts of before may lack: they are read as null.
    """

    def __init__(self, store: Store, schema: pa.Schema, added: frozenset[str] = frozenset()) -> None:
        """Opens the folder; nothing is read yet."""
        self.store, self.schema, self.added = store, schema, added

    def names(self) -> list[str]:
        """Names of the parts, sorted."""
        return [name for name in self.store.names("") if name.endswith(".parquet")]

    def stamp(self) -> str:
        """Tells whether files came, went or were written since: a digest of their names, sizes and versions."""
        files = sorted(self.store.walk()) if self.store.names("") else []
        return sha256(json.dumps([file for file in files if not file.path.startswith(".")]).encode()).hexdigest()[:16]

    def write(self, name: str, table: pa.Table, texts: dict[str, str] | None = None) -> str:
        """Commits a part, with texts in its schema's metadata; returns the digest of its bytes."""
        data = sealed.to_bytes(table, texts)
        self.store.write(name, data)
        return digest(data)

    def read(self, columns: list[str], rules: Sequence[str] = (), known: dict[str, pa.Table] | None = None) -> pa.Table:
        """Rows of all parts in the order of their names; warns of a part that cannot be read.

        Args:
            columns: Columns of the schema to read, and `part`, the part's name.
            rules: Ids of the decision rules whose rows are wanted; by default all.
            known: Parts by their names as this read them before, with the same columns and rules; it adds the others.
        """
        known, names = {} if known is None else known, self.names()
        known |= self.each([name for name in names if name not in known], columns, rules)
        schema = self.schema.append(pa.field("part", pa.string()))
        empty = pa.schema([schema.field(column) for column in columns]).empty_table()
        return pa.concat_tables([empty, *(known[name] for name in names if name in known)])

    def each(
        self,
        names: Sequence[str],
        columns: list[str],
        rules: Sequence[str] = (),
        then: Callable[[pa.Table], pa.Table] | None = None,
    ) -> dict[str, pa.Table]:
        """The readable ones of some parts by their names, each as `then` makes it; warns of the others."""

        def read(name: str) -> pa.Table | None:
            table = self.one(name, columns, rules)
            return table if table is None or then is None else then(table)

        with ThreadPoolExecutor(READERS) as pool:
            tables = dict(zip(names, pool.map(read, names), strict=True))
        self.warn([name for name, table in tables.items() if table is None])
        return {name: table for name, table in tables.items() if table is not None}

    def one(self, name: str, columns: list[str], rules: Sequence[str] = ()) -> pa.Table | None:
        """One part's rows, of some rules or of all, or None where it cannot be read."""
        table = self.with_digest(name, [column for column in columns if column != "part"], rules)[0]
        if table is None:
            return None
        return table.append_column("part", pa.repeat(name, len(table))).select(columns) if "part" in columns else table

    def with_digest(self, name: str, columns: list[str], rules: Sequence[str] = ()) -> tuple[pa.Table | None, str]:
        """Columns of a part, of some rules or of all, None where it cannot be read, and the digest of its bytes."""
        data = self.store.read(name)
        try:
            table = sealed.from_bytes(data, columns, self.added)
        except sealed.Damaged:
            return None, digest(data)
        for column in self.added.intersection(columns).difference(table.column_names):
            table = table.append_column(self.schema.field(column), pa.nulls(len(table), self.schema.field(column).type))
        table = table.select(columns)
        is_ours = all(table.schema.field(column).type == self.schema.field(column).type for column in columns)
        if not is_ours:
            return None, digest(data)
        if rules:  # here, not when all is read: a run of many rules is as many times as large
            table = table.filter(pc.is_in(table["rule"], value_set=pa.array(rules, pa.string())))
        return table, digest(data)

    def with_digests(self, digests: dict[str, str]) -> set[str]:
        """The parts that are there and have the given digests.

        S3 lists the digest of an object beside its name, unless it was encrypted or came in pieces: then, and locally,
        bytes are read.
        """
        there = {file.path: file.version for file in self.store.walk()} if self.store.names("") else {}
        same = {name for name, wanted in digests.items() if self.store.remote and there.get(name) == wanted}
        left = [name for name in digests if name in there and name not in same]
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda name: digest(self.store.read(name)), left)
            return same | {name for name, one in zip(left, found, strict=True) if one == digests[name]}

    def warn(self, unreadable: Sequence[str]) -> None:
        """Warns of parts that cannot be read."""
        for name in unreadable:
            warnings.warn(
                f"{self.store.location}/{name} cannot be read and counts for nothing; delete it", stacklevel=3
            )


def digest(data: bytes) -> str:
    """The MD5 of a part's bytes, which S3 knows as well: it tells two versions apart, and withstands no attack."""
    return md5(data, usedforsecurity=False).hexdigest()
