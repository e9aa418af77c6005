"""Files of a report of which a part cannot be made: the part says so where it would stand, and all others are there."""

import re
from html import unescape

import pytest
from handmade import NO_B, PLAIN, write_photographs, write_run

from raycsr import UserError
from raycsr.cli import main
from raycsr.reports import compared, composition, files, perturbed
from raycsr.results import Run
from raycsr.store import Store
from raycsr.verbs import compare as compare_verb
from raycsr.verbs.compare import compare
from raycsr.verbs.report import report

ARGUMENTS = {"radii": [0.0, 0.5], "pictures": True}
ALL_FILES = ["curves.png", "front.png", "report.html", "report.md", "summary.parquet"]
HEADINGS = ["How sure the answers are", "Certified curves", "Front at radius 0.5", "Recall of each class"]


@pytest.fixture
def run(tmp_path):
    """A run of two rules, and the images that were sampled."""
    photographs = write_photographs(tmp_path / "photographs")
    answers = {"argmax": PLAIN, "offset:1*pair:a/b": NO_B}
    return write_run(tmp_path / "results", "m.pt", answers, certify_under=("pair:a/b",), photographs=photographs)


@pytest.fixture(autouse=True)
def charts(monkeypatch):
    """Charts that take no time."""
    for module in (composition, files):
        for name in [name for name in vars(module) if name.startswith("plot_")]:
            monkeypatch.setattr(module, name, lambda *_, **__: b"<svg/>")


def broken(*_, **__):
    raise ZeroDivisionError("no\nroom s3://AKIA:secret@bucket/x")


def written(tmp_path):
    """Names of the files of the report but for tables of others, and its page."""
    folder = tmp_path / "out"
    names = sorted(file.name for file in folder.iterdir() if file.suffix != ".tsv")
    return names, unescape((folder / "report.html").read_text())


@pytest.mark.parametrize(
    ("where", "what", "named", "absent"),
    [
        (composition, "plot_sureness", "How sure the answers are", None),
        (composition, "plot_curves", "Certified curves under pair:a/b", None),
        (composition, "plot_front", "The picture of the front under pair:a/b", None),
        (composition, "plot_pairwise", "Share of images that no perturbation turns into each other class", None),
        (composition, "plot_recalls", "Recall of each class under pair:a/b", None),
        (composition, "ranking_table", "Ranking at radius 0.5 under pair:a/b", None),
        (composition, "costliest_images", "The costliest images at radius 0.5 under pair:a/b", None),
        (composition, "front_table", "The front under pair:a/b", None),
        (composition, "headlines", "In short", None),
        (composition, "stands_on", "What this stands on", None),
        (composition, "notes_on", "How to read this", None),
        (composition, "summary_table", "All numbers", None),
        (perturbed, "perturbed", "What a radius of 0.5 looks like", None),
        (files, "plot_curves", "curves.png", "curves.png"),
        (files, "plot_front", "front.png", "front.png"),
    ],
)
def test_a_part_that_fails_takes_no_other_with_it(run, tmp_path, monkeypatch, where, what, named, absent):
    monkeypatch.setattr(where, what, broken)
    with pytest.warns(UserWarning, match=re.escape(named)) as said:
        table = report(run=[run.location], out=str(tmp_path / "out"), **ARGUMENTS)
    names, page = written(tmp_path)
    assert names == [name for name in ALL_FILES if name != absent] and len(table) == 4
    lines = [str(one.message) for one in said if "could not be made" in str(one.message)]
    assert lines == table.attrs["lacks"] and all("\n" not in line for line in lines)
    assert all("ZeroDivisionError: no room" in line and "secret" not in line for line in lines)
    assert "secret" not in page
    if absent is None:
        assert named in page and page.count("could not be made") == len(lines)
        assert len([title for title in HEADINGS if f">{title}</h3>" in page or f">{title}</h2>" in page]) >= 2
        assert "0.833 [0.436, 0.970]" in page or what in ("summary_table",)


def test_a_section_with_a_failed_part_is_unfolded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(composition, "plot_front", broken)
    with pytest.warns(UserWarning, match="front"):
        report(run=[run.location], out=str(tmp_path / "out"), **ARGUMENTS)
    page = written(tmp_path)[1]
    assert "<summary><h3>Certified curves</h3>" in page and "<summary><h3>Front at" not in page


def test_the_command_ends_with_what_failed_and_a_status(run, tmp_path, monkeypatch, capsys):
    arguments = ["report", "--run", run.location, "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    capsys.readouterr()
    monkeypatch.setattr(composition, "plot_curves", broken)
    with pytest.warns(UserWarning, match="^Certified curves under pair:a/b could not be made: ZeroDivisionError"):
        assert main(arguments) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("wrote ")


def test_tables_of_others_are_named_in_the_letters_of_their_models(tmp_path):
    run = write_run(tmp_path / "results", "模型.pt", {"argmax": PLAIN})
    report(run=[run.location], out=str(tmp_path / "out"))
    assert (tmp_path / "out" / "模型.pt-sigma_0.5.tsv").exists()


def test_numbers_are_stored_beside_certificates_whose_picture_fails(run, monkeypatch):
    monkeypatch.setattr(files, "plot_curves", broken)
    with pytest.warns(UserWarning, match=r"certificates/pair-a-b-.*curves.png could not be made"):
        report(run=[run.location])
    (name,) = run.certificate_sets()
    assert run.store.exists(f"certificates/{name}/metrics.json")


def test_a_comparison_whose_picture_fails_has_its_numbers(run, tmp_path, monkeypatch):
    monkeypatch.setattr(compared, "plot_differences", broken)
    monkeypatch.setattr(compare_verb, "plot_differences", broken)
    with pytest.warns(UserWarning, match="^Differences of .* could not be made: ZeroDivisionError"):
        table = compare(
            run=[run.location], rules=["argmax", "offset:1*pair:a/b"], radius=0.5, out=str(tmp_path / "out")
        )
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == [f"comparison.{end}" for end in ("html", "json", "md", "parquet")]
    assert len(table) > 1 and len(table.attrs["lacks"]) == 2
    assert "could not be made" in (tmp_path / "out" / "comparison.html").read_text()


# One run of several that cannot be read ------------------------------------------------------------------------


def cut(run, name):
    run.store.write(name, run.store.read(name)[:40])


def other_schema(run):
    run.store.write("manifest.json", run.store.read("manifest.json").replace(b'_version": 3', b'_version": 9'))


DAMAGE = {
    "manifest.json": lambda run: cut(run, "manifest.json"),
    "images.parquet": lambda run: cut(run, "images.parquet"),
    "schema_version": other_schema,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_run_that_cannot_be_read_is_left_out_by_name_and_the_others_are_reported(tmp_path, capsys, name):
    whole = [write_run(tmp_path / "results", f"{model}.pt", {"argmax": PLAIN}) for model in "ab"]
    bad = write_run(tmp_path / "results", "c.pt", {"argmax": NO_B})
    DAMAGE[name](bad)
    arguments = ["report", "--run", str(tmp_path / "results"), "--out", str(tmp_path / "out")]
    with pytest.warns(UserWarning, match=rf"^LEFT OUT: {bad.location} .*{name}") as said:
        assert main(arguments) == 1
    names, page = written(tmp_path)
    assert names == ALL_FILES and str(said[-1].message) in page and "LEFT OUT" in capsys.readouterr().out
    assert [f"{model}.pt σ=0.5" in page for model in "abc"] == [True, True, False]
    with pytest.raises(UserError, match=name):
        report(run=[bad.location])
    assert report(run=[one.location for one in whole]).attrs["lacks"] == []


def test_where_no_run_can_be_read_each_is_named(tmp_path):
    runs = [write_run(tmp_path, f"{model}.pt", {"argmax": PLAIN}).location for model in "ab"]
    for location in runs:
        cut(Run(Store(location)), "manifest.json")
    with pytest.raises(UserError, match=rf"2 mistakes: .*{runs[0]}.*{runs[1]}"):
        report(run=runs)


def test_a_run_that_lacks_what_was_asked_for_is_refused_and_never_left_out(tmp_path):
    runs = [write_run(tmp_path, f"{model}.pt", {"argmax": PLAIN}).location for model in "ab"]
    certified = write_run(tmp_path, "c.pt", {"argmax": PLAIN}, certify_under=("seed:c",)).location
    with pytest.raises(UserError, match=r"no certificates for seed:c"):
        report(run=[*runs, certified], costs=["seed:c"])
    with pytest.raises(UserError, match="no run at"):
        report(run=[*runs, f"{tmp_path}/away"])
