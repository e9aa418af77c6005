"""No Parquet file and no tar, however broken, is answered by a traceback: an image is read, or it says why not.

pytest -m long tests/fuzz/test_fuzzed_data.py
"""

import io
import json
import signal
import tarfile
import warnings
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import answer, each_block, mutated, randomness
from PIL import Image

from raycsr.data.decode import read_decoded
from raycsr.data.options import DataOptions
from raycsr.data.sources import Listing, open_source
from raycsr.models.spec import Preprocessing

SECONDS = 10  # of this process that a case may take, whatever else the machine does
EIGHT = Preprocessing((8, 8), "bilinear", 1.0, "center")


def picture(seed, kind):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10, 3), np.uint8)).save(file, kind)
    return file.getvalue()


PICTURES = [picture(seed, kind) for seed, kind in enumerate(["png", "jpeg", "webp", "png", "jpeg"] * 4)]
NUMBERS = [seed % 3 for seed in range(len(PICTURES))]


def parquet(columns, names=None, **options):
    table = pa.table(columns)
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def tar(*fields, kind=tarfile.PAX_FORMAT, key="a/{}"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for i, content in enumerate(PICTURES):
            for field, member in (("jpg", content), *((field, write(i)) for field, write in fields)):
                info = tarfile.TarInfo(f"{key.format(i)}.{field}")
                info.size = len(member)
                archive.addfile(info, io.BytesIO(member))
    return file.getvalue()


STRUCTS = [{"bytes": content, "path": f"{i}.jpg"} for i, content in enumerate(PICTURES)]
TEXTS = [["ant", "cat", "dog"][label] for label in NUMBERS]
SMALL = {"row_group_size": 7, "data_page_size": 1, "write_batch_size": 2}
FILES = {
    "hub.parquet": parquet({"image": STRUCTS, "label": NUMBERS}, ["ant", "cat", "dog"], row_group_size=7),
    "plain.parquet": parquet({"image": PICTURES, "label": NUMBERS}, compression="none", use_dictionary=False, **SMALL),
    "text.parquet": parquet({"image": PICTURES, "label": TEXTS, "group": TEXTS}, compression="zstd", **SMALL),
    "checked.parquet": parquet({"image": PICTURES, "label": NUMBERS}, write_page_checksum=True, **SMALL),
    "v2.parquet": parquet({"image": STRUCTS, "label": NUMBERS}, compression="gzip", data_page_version="2.0", **SMALL),
    "classes.tar": tar(("cls", lambda i: b"%d" % (i % 3))),
    "json.tar": tar(("json", lambda i: json.dumps({"label": i % 3}).encode()), kind=tarfile.GNU_FORMAT),
    "long.tar": tar(("cls", lambda i: b"1"), kind=tarfile.USTAR_FORMAT, key="a" * 90 + "/{}"),
    "names.tar": tar(("cls", lambda i: b"1"), kind=tarfile.GNU_FORMAT, key="ü" * 120 + "/{}"),
}


def written_over(content, rng):
    """Bytes of the same number with a few others in their place, as of a disk or a network that fails."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        start, length = rng.randrange(len(content)), rng.choice([1, 1, 4, 64])
        content[start : start + length] = rng.randbytes(len(content[start : start + length]))
    return bytes(content)


def in_footer(content, rng):
    """Bytes that are mutated in the last part, where Parquet says what is where."""
    start = max(len(content) - 3000, 0)
    return content[:start] + rng.choice([mutated, written_over])(content[start:], rng)


@contextmanager
def limited(case):
    """Fails a case that takes too long."""

    def stop(*_):
        raise AssertionError(f"case {case} takes over {SECONDS} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def opened(path):
    return open_source(DataOptions(source="parquet" if path.suffix == ".parquet" else "webdataset", path=str(path)))


def decoded(source, ids):
    """How many of the images can be decoded; of the others each has an error in a line."""
    found = read_decoded(source, ids, EIGHT)
    assert found["image"].shape == (len(ids), 8, 8, 3)
    for image, sha, error in zip(found["image"], found["image_sha"], found["error"], strict=True):
        assert (error is None and sha) or (error and "\n" not in error and sha is None and not image.any())
    return sum(error is None for error in found["error"])


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_good_before_they_are_broken(name, tmp_path):
    (tmp_path / name).write_bytes(FILES[name])
    listing = opened(tmp_path / name).list()
    assert decoded(opened(tmp_path / name), listing.images.image_id.tolist()) == len(PICTURES)
    assert len(listing.class_names) in (2, 3)


@each_block
@pytest.mark.parametrize("suffix", [".parquet", ".tar"])
def test_broken_files(seeds, suffix, tmp_path):
    warnings.simplefilter("ignore")
    names, outcomes = [name for name in FILES if name.endswith(suffix)], {"listed": 0, "decoded": 0, "refused": 0}
    for seed in seeds:
        rng = randomness(seed)
        name = rng.choice(names)
        good, path = FILES[name], tmp_path / f"{seed}-{name}"
        path.write_bytes(good)
        source = opened(path)
        ids = source.list().images.image_id.tolist()
        path.write_bytes(rng.choice([mutated, written_over, written_over, in_footer])(good, rng))
        with limited(seed):
            listing = answer(seed, source.list)
            if isinstance(listing, Listing):
                now = listing.images.image_id.tolist()[:100]
                count = answer(seed, lambda s=source, i=now: decoded(s, i))
                outcomes["listed"] += 1
                outcomes["decoded"] += count if isinstance(count, int) else 0
            else:
                outcomes["refused"] += 1
            answer(seed, lambda s=source, i=ids: decoded(s, i))  # what was listed before it broke
        path.unlink()
    assert all(outcomes.values()), outcomes
