"""Parts that are gone or damaged: what lists, reports, certifies and samples agrees on which images lost votes."""

import errno
import json
import os
import warnings

import pandas as pd
import pyarrow as pa
import pytest
from handmade import PLAIN, write_run
from test_merging import ALL, ALPHA, FEW, IMAGES, MORE, SIGMA, N, part

from raycsr import UserError, list_runs, load_certificates, load_votes
from raycsr.certification import Statements
from raycsr.costs import CostMatrix
from raycsr.distributed.sampling.remaining import Remaining
from raycsr.reports import load_certified
from raycsr.results import SCHEMA_VERSION, Run
from raycsr.results.counts import ImageCounts
from raycsr.store import Store
from raycsr.verbs.ls import ls
from raycsr.verbs.report import report

CHAIN = {"0001-a.parquet": FEW, "0002-b.parquet": MORE, "0003-c.parquet": ALL}
OFFSET = {"id": "offset-1", "kind": "offset", "spec": "offset:1*pair:0/1"}


def rows(name, votes, continues, rules):
    tables = []
    for rule in rules:
        table = part(name, votes, continues).drop_columns("part")
        tables.append(table.set_column(table.column_names.index("rule"), "rule", pa.array([rule] * len(table))))
    return pa.concat_tables(tables)


@pytest.fixture(params=[("argmax",), ("argmax", "offset-1")], ids=["one rule", "two rules"])
def run(request, tmp_path):
    """A finished sequential run: three parts, each of which continues the one before."""
    run = Run(Store(tmp_path / "results" / "e" / "runs" / "0123456789abcdef"))
    facts = {"experiment": "e", "model": "m", "sigma": SIGMA, "n0": 64, "n": None, "sampling": "sequential"}
    facts |= {"num_classes": 3, "schema_version": SCHEMA_VERSION, "precision": "fp32"}
    run.store.create("manifest.json", json.dumps(facts).encode())
    run.add_images(pd.DataFrame({"image_id": [f"{i}.png" for i in IMAGES], "label": 0, "size": 1, "version": "v"}))
    run.add_rules([OFFSET] if "offset-1" in request.param else [])
    before = None
    for name, votes in CHAIN.items():
        run.write_votes(name, rows(name, votes, before, request.param))
        before = name
    run.certify("uniform", run.costs("uniform"), ALPHA)
    run.finish(num_images=len(IMAGES), num_errors=0)
    assert run.progress() == ImageCounts(16, 16, 0, 0) and run.finished()
    assert (load_votes(run.location)["n"] == N).all()
    return run


def to_sample(run):
    statements = Statements([CostMatrix.uniform(3)], [0.2, 0.5, 0.9], sigma=SIGMA, alpha=ALPHA, n=N)
    return Remaining(run, statements, N).to_sample(run.images(), list(run.rules()), retry_errors=False)


def lose(run, name, how):
    if how == "missing":
        run.store.remove(f"votes/{name}")
    else:
        data = run.store.read(f"votes/{name}")
        run.store.write(f"votes/{name}", data[:300] + bytes([data[300] ^ 1]) + data[301:])


@pytest.mark.parametrize("how", ["missing", "damaged"])
@pytest.mark.filterwarnings("ignore")
def test_the_first_part_of_a_chain_is_sampled_again_and_so_is_what_stood_on_it(run, how):
    lose(run, "0001-a.parquet", how)
    rules = tuple(run.rules())
    assert run.progress() == ImageCounts(16, 0, 16, 0) and not run.finished()
    assert list_runs(run.location)["state"].tolist() == ["stopped"] and ls(run.location)["missing"].tolist() == [16]
    assert len(load_votes(run.location)) == len(load_certificates(run.location)) == 0
    with pytest.raises(UserError, match="lacks 16 of 16 images .* finish it with `raycsr sample`"):
        report(run=[run.location])
    lacking = to_sample(run)
    assert len(lacking) == 16 and set(lacking["continues"]) == {""} and set(lacking["rules"]) == {" ".join(rules)}

    run.write_votes("0004-d.parquet", rows("0004-d.parquet", ALL, None, rules))
    run.certify("uniform", run.costs("uniform"), ALPHA)
    assert run.progress() == ImageCounts(16, 16, 0, 0) and len(to_sample(run)) == 0
    for read in (load_votes, load_certificates):
        assert (read(run.location)["n"] == N).all() and set(read(run.location)["part"]) == {"0004-d.parquet"}
    (sets, _) = load_certified([run.location])
    assert [len(one.certificates) for one in sets] == [16] * len(rules)


@pytest.mark.parametrize("how", ["missing", "damaged"])
@pytest.mark.filterwarnings("ignore")
def test_a_part_in_the_middle_is_drawn_again_from_the_one_before(run, how):
    lose(run, "0002-b.parquet", how)
    rules = tuple(run.rules())
    lost = [i for i in IMAGES if FEW[i][1].sum() < N]
    assert run.progress() == ImageCounts(16, 16 - len(lost), len(lost), 0) and not run.finished()
    votes, certificates = load_votes(run.location), load_certificates(run.location)
    assert set(votes["part"]) == set(certificates["part"]) == {"0001-a.parquet"}
    assert sorted(votes["n"]) == sorted(certificates["n"])
    lacking = to_sample(run)
    assert len(lacking) and set(lacking["continues"]) == {"0001-a.parquet"}

    run.write_votes("0004-d.parquet", rows("0004-d.parquet", ALL, "0001-a.parquet", rules))
    run.certify("uniform", run.costs("uniform"), ALPHA)
    assert run.progress() == ImageCounts(16, 16, 0, 0) and run.finished() and len(to_sample(run)) == 0
    assert (load_votes(run.location)["n"] == N).all() and (load_certificates(run.location)["n"] == N).all()


@pytest.mark.parametrize("how", ["missing", "damaged"])
@pytest.mark.filterwarnings("ignore")
def test_without_the_last_part_votes_are_those_before_it(run, how):
    lose(run, "0003-c.parquet", how)
    for read in (load_votes, load_certificates):
        found = read(run.location).drop_duplicates("image_id").set_index("image_id")["n"]
        assert found.to_dict() == {f"{i}.png": max(FEW[i][1].sum(), MORE[i][1].sum()) for i in IMAGES}


def test_certificates_of_images_that_are_not_listed_are_left_out_of_a_report(tmp_path):
    run = write_run(tmp_path, "a.pt", {"argmax": PLAIN})
    listed = run.images()
    run.store.write("images.parquet", b"PAR1 cut off")
    with pytest.raises(UserError, match="images.parquet is damaged .*; delete it, and `raycsr sample` lists"):
        report(run=[run.location])
    run.store.remove("images.parquet")
    run.add_images(listed.iloc[:2])  # a smaller --limit
    with pytest.warns(UserWarning, match="votes of 4 images that its listing has not"):
        ((one,), _) = load_certified([run.location])
    assert (len(one.certificates), one.missing) == (2, 0)
    assert run.progress() == ImageCounts(2, 2, 0, 0) and len(load_votes(run.location)) == 6
    run.add_images(listed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((one,), _) = load_certified([run.location])
    assert (len(one.certificates), one.missing) == (6, 0)


def test_a_full_disk_leaves_nothing_behind_and_what_was_there_is_read(tmp_path, monkeypatch):
    run = write_run(tmp_path, "a.pt", {"argmax": PLAIN})
    before = sorted(str(path) for path in tmp_path.rglob("*"))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left"):
        run.certify("uniform", run.costs("uniform"), 0.01)
    with pytest.raises(UserError, match="no space left"):
        run.finish(num_images=6)
    made = set(map(str, tmp_path.rglob("*"))) - set(before)
    assert made == set()
    assert len(load_certificates(run.location)) == 6  # read, and certified in memory
    assert len(load_certificates(run.location, "seed:c")) == 6 and len(ls(str(tmp_path))) == 1
    monkeypatch.undo()
    run.certify("uniform", run.costs("uniform"), 0.01)
    assert len(run.certificate_sets()) == 2


def test_results_that_may_only_be_read_are_certified_in_memory_and_reported_elsewhere(tmp_path, monkeypatch):
    run = write_run(tmp_path / "results", "a.pt", {"argmax": PLAIN})
    run.store.remove(f"certificates/{next(iter(run.certificate_sets()))}/argmax.parquet")
    write = Store.write

    def only_elsewhere(self, name, data):
        if self.location.startswith(f"{tmp_path}/results"):
            raise UserError(f"cannot use {self.location}/{name}: permission denied")
        write(self, name, data)

    monkeypatch.setattr(Store, "write", only_elsewhere)
    with pytest.warns(UserWarning, match="nothing is stored beside the certificates: .*permission denied"):
        report(run=[run.location], out=str(tmp_path / "elsewhere"))
    assert Store(tmp_path / "elsewhere").exists("report.html")
    assert len(load_certificates(run.location, "seed:c")) == 6 and len(ls(str(tmp_path / "results"))) == 1
