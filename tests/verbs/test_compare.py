"""`raycsr compare`: which two sets are meant, what is said of them, and what is written for people and programs."""

import json
import re
import subprocess
import sys

import browser
import pandas as pd
import pytest
from handmade import IDS, NEVER_B, NO_B, PLAIN, write_run

import raycsr
from raycsr import UserError
from raycsr.results import Run
from raycsr.store import Store
from raycsr.verbs.compare import compare

OFFSET = "offset:1*pair:a/b"


@pytest.fixture
def plain(tmp_path):
    """60 images, of which ten of class a are taken for b; and a rule under which none is."""
    return write_run(tmp_path, "m.pt", {"argmax": PLAIN, OFFSET: NO_B}, times=10).location


def metric(table, name):
    return table.set_index("metric").loc[name]


def test_two_runs_are_compared_on_the_images_that_both_have(plain, tmp_path, capsys):
    other = write_run(tmp_path, "n.pt", {"argmax": NEVER_B}, times=12, certify_under=("pair:a/b", "uniform")).location
    table = compare(run=[plain, other], rules=["argmax"], radius=0.5, margin=0.02, out=str(tmp_path / "out"))
    rob_cs = metric(table, "rob_cs")
    assert rob_cs[["num_images", "a", "b", "b_better"]].tolist() == [20, 0.5, 1.0, 10]
    assert rob_cs["p"] == 2 / 2**10 and rob_cs["better"] == "b" and rob_cs["no_worse"]
    assert metric(table, "target_recall")["better"] == "a"
    said = capsys.readouterr().out
    assert "A has 0 and B has 12" in said and "A: m.pt" in said and "B: n.pt" in said
    assert re.search(r"rob_cs .* \+0\.500 \[.*B is better; no worse", said)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {f"comparison.{end}" for end in ("html", "md", "png", "parquet", "json")}
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / "comparison.parquet"), table)
    facts = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert facts["a"] == ["m.pt σ=0.5", "pair:a/b", "argmax"] and facts["radius"] == 0.5
    assert {one["metric"]: one["p"] for one in facts["metrics"]}["rob_cs"] == 2 / 2**10


def test_two_rules_of_a_run_are_compared(plain):
    table = compare(run=[plain], rules=["argmax", OFFSET], radius=0.5)
    assert metric(table, "rob_cs")["better"] == "b"
    table = compare(run=[plain, plain], rules=[OFFSET, "argmax"], radius=0.5)
    assert metric(table, "rob_cs")["better"] == "a"


def test_published_tables_are_compared(tmp_path):
    head = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
    for name, right in (("a", 1), ("b", 0)):
        rows = [f"{i}\t1\t{right}\t0.6\t{right}\t0:1\n" for i in range(8)]
        (tmp_path / f"{name}.tsv").write_text(head + "".join(rows))
    table = compare(run=[str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv")], radius=0.5)
    assert metric(table, "certified_accuracy")["p"] == 2 / 2**8
    assert set(table["metric"]) == {"accuracy", "coverage", "certified_accuracy", "acr"} | {
        "seed_recall",
        "target_recall",
    }


def test_groups_of_a_table_make_images_count_together(plain, tmp_path):
    table = tmp_path / "groups.csv"
    ids = [f"{name}.{time}" if time else name for time in range(10) for name in IDS]
    table.write_text(
        "image_id,group\n" + "".join(f"{one},{'p' if time < 30 else 'q'}\n" for time, one in enumerate(ids))
    )
    shown = compare(run=[plain], rules=["argmax", OFFSET], radius=0.5, groups=str(table))
    assert metric(shown, "rob_cs")["p"] == 0.5  # two patients, alike
    for text, says in (("a,b\n1,2\n", "image_id,group"), ("image_id,group\nx,1\nx,2\n", "'x' twice")):
        table.write_text(text)
        with pytest.raises(UserError, match=says):
            compare(run=[plain], rules=["argmax", OFFSET], groups=str(table))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "has the rules argmax, offset.*--rules"),
        ({"rules": ["argmax"]}, "both sides are m.pt"),
        ({"rules": ["argmax", OFFSET, "argmax"]}, "3 rules"),
        ({"rules": ["argmax", "offset:2*pair:a/b"]}, "no run has a rule .*did you mean offset:1"),
        (
            {"rules": ["argmax", OFFSET], "costs": "uniform"},
            "0 certificates .* under uniform; .*raycsr certify",
        ),
        ({"rules": ["argmax", OFFSET], "margin": 2.0}, "margin 2"),
        ({"rules": ["argmax", OFFSET], "radius": -1.0}, "-1"),
        ({"rules": ["argmax", OFFSET], "groups": "/absent.csv"}, "absent.csv"),
    ],
)
def test_what_does_not_mean_two_sets_is_refused(plain, options, says):
    with pytest.raises(UserError, match=says):
        compare(run=[plain], **options)


def test_costs_are_named_where_both_have_several(plain, tmp_path):
    several = ("pair:a/b", "uniform")
    runs = [write_run(tmp_path, name, {"argmax": NO_B}, certify_under=several).location for name in ("x", "y")]
    with pytest.raises(UserError, match="--costs; .*pair:a/b, uniform"):
        compare(run=runs)
    assert metric(compare(run=runs, costs="uniform"), "rob_cs")["num_images"] == 6


def test_sets_of_several_alphas_are_not_taken_for_one(plain):
    run = Run(Store(plain))
    run.certify("pair:a/b", run.costs("pair:a/b"), 0.001)
    with pytest.raises(UserError, match=r"alpha 0\.001.*load_certificates\(run, costs=\.\.\., alpha=\.\.\.\)"):
        compare(run=[plain], rules=["argmax", OFFSET], costs="pair:a/b")
    sides = [raycsr.load_certificates(plain, "pair:a/b", 0.001, rule) for rule in ("argmax", OFFSET)]
    table = raycsr.compare(*sides, costs=run.costs("pair:a/b"), radius=0.5)
    assert metric(table, "rob_cs")["better"] == "b"


def test_a_side_without_certificates_of_these_costs_is_named(plain, tmp_path):
    other = write_run(tmp_path, "n.pt", {"argmax": NO_B}, certify_under=("uniform",)).location
    with pytest.raises(UserError, match=f"{other} has no certificates under pair:a/b.*raycsr certify"):
        compare(run=[plain, other], rules=["argmax"], costs="pair:a/b")


def test_comparing_loads_neither_torch_nor_ray(plain):
    code = "import sys; from raycsr.cli import main; main(sys.argv[1:]); "
    code += "print(sorted({'torch', 'ray', 'torchvision', 'scipy.stats'} & set(sys.modules)))"
    words = ["compare", "--run", plain, "--rules", "argmax", OFFSET]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.skipif(browser.MISSING, reason="no chromium")
def test_no_text_of_the_page_is_cut_or_over_another_or_faint(plain, tmp_path):
    compare(run=[plain], rules=["argmax", OFFSET], radius=0.5, out=str(tmp_path / "out"))
    page = tmp_path / "out" / "comparison.html"
    for width, dark in ((1200, True), (390, False)):
        assert browser.faults(page, width=width, dark=dark) == [], (width, dark)
