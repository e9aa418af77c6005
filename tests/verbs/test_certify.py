import handmade
import pyarrow as pa
import pytest

from jobs.bench_scale import write_run
from raycsr.cli import main
from raycsr.distributed import certify_run as module
from raycsr.distributed.certify_run import FEW_PARTS
from raycsr.verbs.certify import certify
from raycsr.verbs.report import report

MANY = FEW_PARTS + 44


@pytest.fixture
def connections(monkeypatch):
    """How often Ray was asked for."""
    asked, connect = [], module.connect
    monkeypatch.setattr(module, "connect", lambda: asked.append(connect()))
    return asked


@pytest.fixture
def run(tmp_path):
    return write_run(str(tmp_path), images=2 * MANY, parts=MANY, rules=("argmax",))


def test_many_parts_are_certified_on_ray_and_are_the_same_bytes(cluster, run, connections):
    (name,) = certify(run=[run.location], costs=["pair:1/2,3/4"], alpha=0.01)[run.location]
    assert len(connections) == 1 and run.uncertified(name) == []
    on_ray = [run.store.read(f"certificates/{name}/{part}") for part in run.vote_parts()]
    assert run.certify_parts(name, run.vote_parts(), run.costs("pair:1/2,3/4"), 0.01) == []
    assert [run.store.read(f"certificates/{name}/{part}") for part in run.vote_parts()] == on_ray


def test_few_parts_need_no_ray(tmp_path, connections):
    run = write_run(str(tmp_path), images=6, parts=3, rules=("argmax",))
    (name,) = certify(run=[run.location], costs=["uniform"])[run.location]
    assert connections == [] and len(run.certificates(name)) == 4  # of two parts; the benchmark leaves its last one out


@pytest.mark.parametrize("few", [FEW_PARTS, MANY])
def test_a_part_that_cannot_be_read_is_a_warning(cluster, run, monkeypatch, few):
    monkeypatch.setattr(module, "FEW_PARTS", few)
    damaged = run.vote_parts()[7]
    run.store.write(f"votes/{damaged}", b"PAR1 cut off")
    with pytest.warns(UserWarning, match=f"votes/{damaged} cannot be read and counts for nothing; delete it"):
        (name,) = certify(run=[run.location], costs=["uniform"])[run.location]
    assert run.uncertified(name) == [damaged]


def test_damaged_votes_are_one_line_that_names_the_part_and_the_rest_stays(cluster, run, capsys):
    damaged = run.vote_parts()[-1]
    votes = run.store.read_table(f"votes/{damaged}")
    run.write_votes(damaged, votes.set_column(votes.column_names.index("n"), "n", pa.array([1000, 999])))
    command = ["certify", "--run", run.location, "--costs", "uniform"]
    assert main(command) == 2
    image_id = votes["image_id"][1].as_py()
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"raycsr certify: {run.location}/votes/{damaged}: the votes of image {image_id!r} do not add up to its "
        "samples; move its part away and sample it again; what is committed is kept, run the same command to go on"
    )
    (name,) = run.certificate_sets()
    certified = len(run.store.names(f"certificates/{name}"))
    assert 1 < certified <= MANY


def test_what_a_command_line_gives_as_one_a_program_may_too(tmp_path):
    run = handmade.write_run(tmp_path, "a.pt", {"argmax": handmade.PLAIN})
    names = certify(run=str(tmp_path), costs="uniform", alpha=0.01)
    assert list(names) == [run.location] and len(names[run.location]) == 1
    table = report(run=str(tmp_path), costs="uniform", radii=0.25, rules="argmax")
    assert table["radius"].tolist() == [0.25] and table["costs"].tolist() == ["uniform"]


def test_all_that_is_wrong_is_said_at_once(tmp_path, capsys):
    run = handmade.write_run(tmp_path, "m.pt", {"argmax": handmade.PLAIN})
    words = ["--costs", "seed:cow", "seed:a", "sed:a", "--answers", "plurality", "--alpha", "2"]
    assert main(["certify", "--run", run.location, *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [any(word in line for line in lines) for word in ("alpha is 2", "cow", "sed:a", "plurality")] == [True] * 4
    assert len(lines) == 4 and len(run.certificate_sets()) == 1
