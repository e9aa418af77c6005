"""No bit of a stored part can change without notice: each is found damaged, in a line, or gives the very same rows.

pytest -m long tests/fuzz/test_flipped_bits.py
"""

import random
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import PLAIN, write_run

from raycsr import load_certificates, load_votes, sealed
from raycsr.errors import DamagedFile
from raycsr.store import Store

FEW, MANY = 200, 7000  # flips by default, and where long tests are asked for


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two rules, with certificates; each of its four parts has all types of columns that parts have."""
    answers = {"argmax": PLAIN, "offset:1*pair:a/b": PLAIN[::-1]}
    return write_run(tmp_path_factory.mktemp("results"), "a.pt", answers, times=20)


@pytest.fixture(scope="module")
def parts(run):
    (name,) = run.certificate_sets()
    return [f"{folder}/{part}" for folder in ("votes", f"certificates/{name}") for part in run.vote_parts()]


@pytest.mark.parametrize("flips", [FEW, pytest.param(MANY, marks=pytest.mark.long)])
def test_flipped_bits_are_found_or_change_nothing(run, parts, flips):
    whole = {part: (run.store.read(part), run.store.read_table(part)) for part in parts}
    rng, found = random.Random(flips), 0
    for flip in range(flips):
        data, table = whole[rng.choice(parts)]
        bit = rng.randrange(8 * len(data))
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            read = sealed.from_bytes(bytes(changed), table.column_names[:: rng.choice([1, 2])])
        except sealed.Damaged:
            found += 1
        else:  # the name of the seal, without which a part is as those of earlier versions
            assert read.equals(table.select(read.column_names)), (flip, bit)
    assert found > 0.97 * flips


@pytest.mark.parametrize("flips", [FEW // 10, pytest.param(FEW, marks=pytest.mark.long)])
def test_readers_leave_out_a_part_with_a_flipped_bit_and_name_it(run, parts, flips):
    votes, certificates = load_votes(run.location), load_certificates(run.location)
    rng = random.Random(flips)
    for flip in range(flips):
        part = rng.choice(parts)
        data = run.store.read(part)
        bit = rng.randrange(8 * len(data))
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        run.store.write(part, bytes(changed))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            read = {"votes": load_votes(run.location), "certificates": load_certificates(run.location)}
        run.store.write(part, data)
        for kind, before in (("votes", votes), ("certificates", certificates)):
            left = before[before["part"].isin(read[kind]["part"])].reset_index(drop=True)
            assert read[kind].astype(str).equals(left.astype(str)), (flip, part, bit)
            assert len(left) == len(before) or any(part in str(one.message) for one in said), (flip, part, bit)


def test_a_seal_costs_few_bytes(run, parts):
    """Of a block of 256 images, as an actor commits: digests of pixels and seconds are alike in no two."""
    rng, table = random.Random(0), run.store.read_table(parts[0])
    table = pa.concat_tables([table] * 3).slice(0, 256)
    for name, value in (("image_sha", lambda: f"{rng.getrandbits(256):064x}"), ("seconds", rng.random)):
        table = table.set_column(table.column_names.index(name), name, pa.array([value() for _ in range(len(table))]))
    plain = pa.BufferOutputStream()
    pq.write_table(table, plain, compression="zstd")
    assert len(sealed.to_bytes(table)) < 1.03 * plain.tell()


def test_parts_without_a_seal_are_read_or_refused_whole(tmp_path, run, parts):
    store, table = Store(tmp_path), run.store.read_table(parts[0])
    pq.write_table(table, tmp_path / "old.parquet", compression="zstd")
    assert store.read_table("old.parquet").equals(table) and store.num_rows("old.parquet") == len(table)
    data = (tmp_path / "old.parquet").read_bytes()
    place = data.rindex(b"\x28\xb5\x2f\xfd")  # the last page, of zstd
    store.write("old.parquet", data[:place] + b"\0" * 8 + data[place + 8 :])
    for columns in (None, ["image_id"], ["seconds"]):
        with pytest.raises(DamagedFile, match="old.parquet is damaged .*; move it away"):
            store.read_table("old.parquet", columns)


def test_the_number_of_rows_is_sealed_too(tmp_path):
    store = Store(tmp_path)
    many = pa.table({f"column {i} {'x' * 100}": [1, 2, 3] for i in range(400)})  # a footer beyond the first look
    for name, table in (("small", pa.table({"image_id": ["x"]})), ("large", many)):
        store.write_table(name, table)
        assert store.num_rows(name) == len(table)
        data = store.read(name)
        for byte in range(len(data) - 60, len(data)):
            store.write(name, data[:byte] + bytes([data[byte] ^ 4]) + data[byte + 1 :])
            with pytest.raises(DamagedFile):
                store.num_rows(name)


def test_texts_are_kept_beside_a_table(tmp_path):
    store = Store(tmp_path)
    store.write_table("part", pa.table({"image_id": ["x"]}), {"of": "votes"})
    assert store.read_table("part").schema.metadata == {b"of": b"votes"}
    store.write_table("again", store.read_table("part"))
    assert store.read_table("again").schema.metadata == {b"of": b"votes"}
