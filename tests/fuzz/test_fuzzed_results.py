"""No file of a run, however broken, is answered by a traceback, and one damaged run never hides the others.

pytest -m long tests/fuzz/test_fuzzed_results.py
"""

import json
import time
import warnings

import pytest
from fuzzing import answer, blocks, mutated, randomness
from handmade import NO_B, PLAIN, write_run
from test_fuzzed_configs import with_values

from raycsr import collect_certificates, list_runs, load_certificates, load_votes
from raycsr.errors import UserError
from raycsr.reports import load_certified
from raycsr.results import Ownership, resolve_run
from raycsr.results.image_sets import note_known_sets, seen_images_of
from raycsr.verbs.ls import ls
from raycsr.verbs.report import report

SLOW = 10.0  # seconds of this process, whatever else the machine does


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    run = write_run(folder, "a.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B}, data={"images": "0123"}, n0=1000)
    with Ownership(run.store):
        pass
    run.finish(num_images=6, num_errors=0)
    known = {"what": "the model was trained on", "rule": None, "listing": {}, "num_images": 1, "hashes": "AAAAAAAAAAA="}
    note_known_sets(run, [known])
    return run, write_run(folder, "b.pt", {"argmax": PLAIN})


def files(run):
    (name,) = run.certificate_sets()
    (rule,) = run.store.names("rules")
    (known,) = run.store.names("known_sets")
    return {
        "manifest": "manifest.json",
        "owner": "owners/0001.json",
        "rule": f"rules/{rule}",
        "finished": "finished.json",
        "costs": f"certificates/{name}/costs.json",
        "known set": f"known_sets/{known}",
    }


def broken(data, rng):
    """Bytes or values replaced."""
    if rng.random() < 0.5:
        return mutated(data, rng)
    try:
        return json.dumps(with_values(json.loads(data), rng)).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return b""


READERS = {
    "list_runs": lambda run, all_of: list_runs(all_of),
    "ls": lambda run, all_of: ls(all_of),
    "collect": lambda run, all_of: collect_certificates(all_of),
    "votes": lambda run, all_of: load_votes(run.location),
    "votes of a rule": lambda run, all_of: load_votes(run.location, "offset:1*pair:a/b"),
    "certificates": lambda run, all_of: load_certificates(run.location, alpha=0.01),
    "certificates in memory": lambda run, all_of: load_certificates(run.location, "seed:a"),
    "report": lambda run, all_of: load_certified([run.location]),
    "seen": lambda run, all_of: seen_images_of(run, ["argmax"]),
    "certify": lambda run, all_of: run.certify("pair:a/b", run.costs("pair:a/b"), 0.01),
    "claim": lambda run, all_of: Ownership(run.store),
    "prefix": lambda run, all_of: resolve_run(run.location[:-1]),
}


@pytest.mark.parametrize("kind", ["manifest", "owner", "rule", "finished", "costs", "known set"])
@blocks(8, 504, 248)  # of each kind
def test_broken_files_of_a_run(seeds, kind, results, capsys):
    run, other = results
    name = files(run)[kind]
    whole = {file: run.store.read(file) for file in [*files(run).values()]}
    for seed in seeds:
        run.store.write(name, broken(whole[name], randomness(f"{kind} {seed}")))
        try:
            _read_all(run, other, seed)
        finally:  # or the next case would begin with what this one broke
            for owner in run.store.names("owners"):
                if owner != "0001.json":
                    run.store.remove(f"owners/{owner}")
            for file, data in whole.items():
                if run.store.read(file) != data:
                    run.store.write(file, data)


def _read_all(run, other, seed):
    all_of = run.location.rsplit("/", 3)[0]
    for reader, read in READERS.items():
        start = time.process_time()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = answer(f"{seed} {reader}", lambda read=read: read(run, all_of))
        assert time.process_time() - start < SLOW, (seed, reader)
        assert all("\n" not in str(one.message) for one in said), (seed, reader)
        if reader in ("list_runs", "ls"):
            assert other.location in found["location"].tolist(), (seed, reader)
        if reader == "collect" and not isinstance(found, UserError):
            assert (found["model"] == "b.pt").sum() == 6, (seed, reader)


def test_foreign_files_are_passed_over(results):
    run, _ = results
    for name in (
        "votes/notes.txt",
        "owners/notes.txt",
        "owners/0002.json.tmp",
        "rules/notes.txt",
        "certificates/x.txt",
    ):
        run.store.write(name, b"mine")
    assert len(list_runs(run.location.rsplit("/", 3)[0])) == 2 and len(load_votes(run.location)) == 12
    assert len(load_certificates(run.location)) == 12 and list(run.rules()) == ["argmax", "offset-0000000002"]
    with Ownership(run.store) as owner:
        assert owner.number == 2


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("manifest.json", "put back the run from a copy, or move its folder away"),
        ("rules/offset-0000000002.json", "move it away, and `raycsr sample`"),
        ("images.parquet", "delete it, and `raycsr sample` lists the images again"),
    ],
)
def test_a_damaged_run_is_named_and_the_others_are_listed(results, capsys, name, fix):
    run, other = results
    all_of, data = run.location.rsplit("/", 3)[0], run.store.read(name)
    run.store.write(name, data[: len(data) // 2])
    for read in (list_runs, ls, collect_certificates):
        with pytest.warns(UserWarning, match=f"a run is left out: {run.location}/{name} is damaged .*{fix}"):
            found = read(all_of)
        assert found["run_id"].unique().tolist() == [other.run_id] or read is collect_certificates
    with pytest.raises(UserError, match=f"{name} is damaged"):
        report(run=[run.location])
    run.store.write(name, data)
