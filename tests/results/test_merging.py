"""Which row stands: of parts as the engine draws them, and of any tangle of parts as a plain loop would choose."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raycsr import UserError
from raycsr.certification import Statements, looks
from raycsr.costs import CostMatrix
from raycsr.models.rules import ARGMAX
from raycsr.results import histograms, votes_table
from raycsr.results.merging import deduplicated, whole
from raycsr.smoothing.engine import Request, Sampler
from raycsr.smoothing.options import CHUNK, Draws

N, SIGMA, ALPHA = 1024, 0.5, 0.001


class _Towards(torch.nn.Module):
    """Logits that lean to class 0 the more, the brighter the image: radii of all sizes."""

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        return torch.stack([8 * mean, 1 + 4 * x[:, 0, 0, 0], 0.5 + 4 * x[:, 1, 0, 0]], dim=1)


def drawn(images, radii):
    """image -> (selection votes, estimation votes) of the engine, all N or until statements about radii are decided."""
    statements = Statements([CostMatrix.uniform(3)], radii or [1.0], sigma=SIGMA, alpha=ALPHA, n=N)
    sampler = Sampler(
        _Towards(),
        Draws(SIGMA, 64, N),
        rules=(ARGMAX,),
        device="cpu",
        checks=looks(N, CHUNK) if radii else (),
        enough=statements.rows_are_decided if radii else None,
    )
    requests = [Request(torch.full((3, 4, 4), 16 * i, dtype=torch.uint8), f"{i}.png", 0) for i in images]
    return {images[one.position]: (one.counts0[0], one.counts[0]) for one in sampler.sample(requests)}


def part(name, votes, continues=None, device="cpu"):
    """A part as `Run._read` gives it."""
    selection, estimation = (np.array([both[i] for both in votes.values()]) for i in (0, 1))
    alike = {"rule": "argmax", "sampling": "sequential", "image_sha": "0", "device": device, "batch_size": 64}
    table = votes_table(
        {
            "image_id": [f"{i}.png" for i in votes],
            "label": [0] * len(votes),
            "selection": histograms(selection),
            "estimation": histograms(estimation),
            "n0": selection.sum(axis=1),
            "n": estimation.sum(axis=1),
            "seconds": np.random.rand(len(votes)),
            "continues": [continues] * len(votes),
            "error": [None] * len(votes),
            **{name: [value] * len(votes) for name, value in alike.items()},
        }
    )
    return table.append_column("part", pa.repeat(name, len(table)))


def stands(*parts):
    rows = deduplicated(pa.concat_tables(sorted(parts, key=lambda one: one["part"][0].as_py()))).to_pylist()
    return {row["image_id"]: (row["part"], row["n"]) for row in rows}


IMAGES = list(range(16))
FEW, MORE, ALL = (drawn(IMAGES, radii) for radii in ([0.2], [0.2, 0.5], None))


def test_of_two_drivers_that_asked_for_other_radii_the_longer_row_stands():
    lengths = {i: (FEW[i][1].sum(), MORE[i][1].sum()) for i in IMAGES}
    assert sum(more > few for few, more in lengths.values()) > 1  # there is something to choose
    for few, more in (("0001-a", "0002-b"), ("0002-b", "0001-a")):
        for name, (part_name, n) in stands(part(few, FEW), part(more, MORE)).items():
            short, long = lengths[int(name.split(".")[0])]
            assert n == max(short, long) and part_name == (more if long > short else min(few, more))


def test_chains_of_both_drivers_are_followed_wherever_they_lead():
    begun, again = part("0001-a", FEW), part("0002-b", FEW)
    of_first, of_second = part("0003-c", MORE, "0001-a"), part("0004-d", ALL, "0002-b")
    found = stands(begun, again, of_first, of_second)
    for i in IMAGES:
        n = {"0001-a": FEW[i][1].sum(), "0003-c": MORE[i][1].sum(), "0004-d": ALL[i][1].sum()}
        assert found[f"{i}.png"] == max(((name, size) for name, size in n.items()), key=lambda one: one[1])
    further = stands(begun, of_first, part("0005-e", ALL, "0003-c"))
    assert {n for _, n in further.values()} == {N}
    assert stands(begun, again, of_first) == stands(again, begun, of_first)


def test_what_goes_on_from_a_part_that_is_gone_counts_for_nothing_and_its_images_lost_votes():
    begun, further = part("0001-a", FEW), part("0003-c", ALL, "0002-b")
    rows = pa.concat_tables([begun, further])
    assert stands(begun, further) == stands(begun)
    longer = {f"{i}.png" for i in IMAGES if ALL[i][1].sum() > FEW[i][1].sum()}
    assert {row["image_id"] for row in whole(rows).to_pylist()} == {f"{i}.png" for i in IMAGES} - longer
    mended = pa.concat_tables([begun, further, part("0004-d", ALL, "0001-a")])
    assert len(whole(mended)) == len(IMAGES)
    assert stands(further) == {}


def test_rows_of_another_device_are_never_chosen_for_their_length():
    here, there = part("0001-a", FEW, device="cpu"), part("0002-b", MORE, device="cpu, other")
    further = part("0003-c", ALL, "0002-b", device="cpu, other")
    assert stands(here, there, further) == stands(here)


def test_rivals_that_cannot_be_of_one_noise_are_refused_naming_both_parts():
    tampered = {i: (first, second[::-1]) for i, (first, second) in MORE.items()}
    with pytest.raises(UserError, match="different votes in '0001-a' and '0002-b', counted alike; one of the parts"):
        stands(part("0001-a", FEW), part("0002-b", tampered))
    with pytest.raises(UserError, match="'0003-c', counted alike"):
        stands(part("0001-a", FEW), part("0002-b", MORE, "0001-a"), part("0003-c", tampered, "0001-a"))


ROW = st.tuples(
    st.sampled_from("xy"),
    st.sampled_from(["cpu", "gpu"]),
    st.sampled_from([None, None, "broken"]),
    st.integers(1, 4),  # n
    st.one_of(st.none(), st.integers(0, 5)),  # the part that it continues, which may not be there
)


@given(st.lists(ROW, max_size=6))
def test_any_tangle_of_parts_is_merged_as_by_a_plain_loop(rows):
    rows = [(*row[:4], None if row[4] is None else f"part {row[4]}", f"part {i}") for i, row in enumerate(rows)]
    names = ["image_id", "device", "error", "n", "continues", "part"]
    types = [pa.string(), pa.string(), pa.string(), pa.int64(), pa.string(), pa.string()]
    table = pa.table([pa.array([row[i] for row in rows], kind) for i, kind in enumerate(types)], names)
    table = table.append_column("rule", pa.array(["argmax"] * len(rows), pa.string()))
    table = table.append_column("batch_size", pa.array([64] * len(rows), pa.int32()))
    expected, expected_whole = set(), set()
    for image in "xy":
        mine = [dict(zip(names, row, strict=True)) for row in rows if row[0] == image]
        begun = sorted((row for row in mine if row["continues"] is None), key=lambda row: row["error"] is not None)
        if not begun:
            continue
        counts = [row for row in begun if row["error"] is None and row["device"] == begun[0]["device"]]
        rooted = {row["part"] for row in begun}
        for _ in mine:  # as deep as chains may be
            for row in mine:
                if row["error"] is None and row["continues"] is not None and row not in counts:
                    counts += [row] if row["continues"] in [one["part"] for one in counts] else []
                    rooted |= {row["part"]} if row["continues"] in rooted else set()
        stands = max(sorted(counts, key=lambda row: row["part"]), key=lambda row: row["n"], default=begun[0])
        expected.add(stands["part"])
        lost = [row["n"] for row in mine if row["error"] is None and row["part"] not in rooted]
        if stands["n"] >= max(lost, default=0):
            expected_whole.add(stands["part"])
    assert set(deduplicated(table)["part"].to_pylist()) == expected
    assert set(whole(table)["part"].to_pylist()) == expected_whole


def test_the_order_of_parts_changes_no_length():
    parts = [("a", FEW, None), ("b", MORE, None), ("c", ALL, "a"), ("d", MORE, "b")]
    found = set()
    for order in itertools.permutations(range(4)):
        names = {name: f"{place}-{name}" for place, (name, *_) in zip(order, parts, strict=True)}
        tables = [part(names[name], votes, continues and names[continues]) for name, votes, continues in parts]
        found.add(tuple(sorted((image, n) for image, (_, n) in stands(*tables).items())))
    assert len(found) == 1
