"""Tables as sealed Parquet: readable by everything that reads Parquet, and a bit that changed anywhere is noticed.

Pages carry checksums, but page headers and the footer do not: a changed bit there gives other numbers, or a reader that
crashes. So the footer holds a seal, one more entry of its metadata: a digest of all bytes before the footer, then one
of the footer itself and of what follows it, taken with zeros in its own place. Files without a seal, as earlier
versions wrote them, are read whole, by the checks that Parquet has.
"""

import io
import re
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

_KEY = "raycsr.seal"
_HALF = 32  # hexadecimal digits of each digest
_SEAL = re.compile(_KEY.encode() + b"\x18\x40([0-9a-f]{64})")  # a name and a text of 64, as Thrift writes them
_LARGE = 1 << 20  # bytes of a file that several threads read faster; parts are small, and read side by side
_END = 8  # bytes: the footer's length and PAR1


class Damaged(Exception):
    """Bytes that are not what was written, or never were a table of plain columns; says why."""


def to_bytes(table: pa.Table, metadata: Mapping[str, str] | None = None) -> bytes:
    """A table as sealed Parquet.

    Args:
        table: Table of plain columns.
        metadata: Texts to keep beside the table, in its schema's metadata.
    """
    file = io.BytesIO()
    table = _without_seal(table)
    with pq.ParquetWriter(file, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({**(metadata or {}), _KEY: "0" * 2 * _HALF})
    data = file.getvalue()
    footer = footer_size(data)
    before, after = data[:-footer], data[-footer:]
    start = _seal_in(after)
    if start is None:
        raise AssertionError("the Parquet writer keeps no metadata")
    after = _replaced(after, start, _digest(before))
    return before + _replaced(after, start + _HALF, _digest(after))


def from_bytes(data: bytes, columns: Sequence[str] | None = None, optional: Collection[str] = frozenset()) -> pa.Table:
    """The table in the bytes of a Parquet file.

    Args:
        data: All bytes of the file.
        columns: The wanted ones, by default all.
        optional: Those of them that may be absent, and are left out then.

    Raises:
        Damaged: the bytes are not those of a whole file of plain columns, or of one that has these.
    """
    footer = footer_size(data)
    is_sealed = check_footer(data[-footer:], memoryview(data)[:-footer])
    try:
        file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        schema = file.schema_arrow  # made anew each time
        if any(_has_extension(field.type) for field in schema):
            raise Damaged("a column of an extension type, whose values could run code when they are read")
        if columns is not None:
            columns = [name for name in columns if name in schema.names or name not in optional]
        absent = [name for name in columns or [] if name not in schema.names]
        if absent:
            raise Damaged(f"there is no column {absent[0]!r}")
        if is_sealed:
            return _without_seal(file.read(columns=columns, use_threads=len(data) > _LARGE))
        table = file.read()  # damage may show in the other columns alone, and a file counts or it does not
        table.validate(full=True)
        return table if columns is None else table.select(columns)
    except Damaged:
        raise
    except Exception as error:  # pyarrow's own, and what its conversions raise of bytes that make no sense
        raise Damaged(" ".join(str(error).split()) or type(error).__name__) from error


def footer_rows(tail: bytes) -> int:
    """How many rows a Parquet file has, by its footer, which `tail`, the last bytes of the file, must hold.

    Raises:
        Damaged: it is not whole.
    """
    footer = footer_size(tail)
    check_footer(tail[-footer:])
    try:
        return pq.read_metadata(io.BytesIO(tail)).num_rows
    except Exception as error:
        raise Damaged(" ".join(str(error).split()) or type(error).__name__) from error


def check_footer(footer: bytes, before: bytes | memoryview | None = None) -> bool:
    """Compares a footer, and where they are given the bytes before it, with the seal; returns whether there is one.

    Raises:
        Damaged: they differ from what was written.
    """
    start = _seal_in(footer)
    if start is None:
        return False
    seal = footer[start : start + 2 * _HALF]
    if _digest(_replaced(footer, start + _HALF, b"0" * _HALF)) != seal[_HALF:]:
        raise Damaged("its footer is not what was written")
    if before is not None and _digest(before) != seal[:_HALF]:
        raise Damaged("its bytes are not what was written")
    return True


def _without_seal(table: pa.Table) -> pa.Table:
    kept = {key: value for key, value in (table.schema.metadata or {}).items() if key != _KEY.encode()}
    return table.replace_schema_metadata(kept or None)


def footer_size(tail: bytes) -> int:
    """Bytes of a footer with what follows it, by the last bytes of a file."""
    return int.from_bytes(tail[-_END:-4], "little") + _END


def _seal_in(footer: bytes) -> int | None:
    """Where the seal begins; the last is the one: names in statistics come before it."""
    found = list(_SEAL.finditer(footer))
    return found[-1].start(1) if found else None


def _replaced(data: bytes, start: int, by: bytes) -> bytes:
    return data[:start] + by + data[start + len(by) :]


def _digest(data: bytes | memoryview) -> bytes:
    return sha256(data).hexdigest()[:_HALF].encode()


def _has_extension(kind: pa.DataType) -> bool:
    """Whether a type, or one within it, is an extension: Ray registers one whose values are unpickled."""
    if isinstance(kind, pa.BaseExtensionType):
        return True
    within = [kind.value_type] if pa.types.is_dictionary(kind) else [kind.field(i).type for i in range(kind.num_fields)]
    return any(_has_extension(one) for one in within)
