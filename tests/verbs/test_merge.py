"""`raycsr merge`, end to end: what was sampled apart is what sampling at once gives."""

from test_sample import comparable

from raycsr import load_votes
from raycsr.cli import main
from raycsr.data.options import DataOptions
from raycsr.data.packaged import digits_arrays
from raycsr.results.transfer import RunFiles
from raycsr.verbs.sample import sample

COSTS = ["uniform", "pair:4/9"]
RULE = "offset:1*pair:4/9"


def contents(run):
    return {name: run.store.read(name) for name in RunFiles.of(run.store).stored}


def reported(run, capsys):
    """The table that is printed of a run."""
    capsys.readouterr()
    assert main(["report", "--run", run.location, "--radii", "0,0.1,0.3"]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]


def test_halves_that_were_sampled_apart_are_merged_to_what_sampling_at_once_gives(job, tmp_path, capsys):
    low, high = [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]
    is_low = digits_arrays("test")[1][:12] < 5
    halves = {
        "one": DataOptions("digits", classes=low, limit=int(is_low.sum())),
        "other": DataOptions("digits", classes=high, limit=int((~is_low).sum())),
    }
    one, other = (
        sample(**job(results=str(tmp_path / place), data=data, costs=[costs], rules=[RULE]))[0].run
        for (place, data), costs in zip(halves.items(), COSTS, strict=True)
    )
    (at_once,) = sample(**job(results=str(tmp_path / "at once"), costs=COSTS, rules=[RULE]))
    assert one.run_id == other.run_id == at_once.run.run_id and not {*one.vote_parts()} & {*other.vote_parts()}
    capsys.readouterr()
    assert main(["merge", "--run", one.location, "--into", other.location]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == other.location
    assert comparable(load_votes(other.location)) == comparable(load_votes(at_once.run.location))
    assert reported(other, capsys) == reported(at_once.run, capsys)
    assert other.finished()
    merged = contents(other)
    assert main(["merge", "--run", one.location, "--into", other.location]) == 0
    assert contents(other) == merged
    (again,) = sample(**job(results=str(tmp_path / "other"), costs=COSTS, rules=[RULE]))
    assert again.run.location == other.location and again.sampled == 0


def test_what_was_sampled_twice_counts_once_and_what_is_missing_is_sampled(job, tmp_path):
    (one,) = sample(**job(results=str(tmp_path / "one"), data=DataOptions("digits", skip=2, limit=6), rules=[RULE]))
    (other,) = sample(**job(results=str(tmp_path / "other"), limit=8))
    assert main(["merge", "--run", one.run.location, "--into", other.run.location]) == 0
    counts = other.run.progress()
    assert (counts.images, counts.done, counts.missing) == (10, 6, 4)  # 1, 3, 5 and 7 lack the rule
    (after,) = sample(**job(results=str(tmp_path / "other"), limit=12, rules=[RULE]))
    assert after.run.location == other.run.location and after.sampled == 6
    (at_once,) = sample(**job(results=str(tmp_path / "at once"), rules=[RULE]))
    votes = [load_votes(run.location).sort_values(["rule", "image_id"]) for run in (after.run, at_once.run)]
    assert comparable(votes[0]) == comparable(votes[1])
