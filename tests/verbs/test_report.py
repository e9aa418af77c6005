import functools
import json
import re
import shutil
from importlib.metadata import version

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from handmade import NEVER_B, NO_B, OFFSETS, PLAIN, write_run

from raycsr import CostMatrix, UserError
from raycsr.certification.answers import parse_answer
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.reports import files
from raycsr.results import Run, read_locuslab_tsv
from raycsr.results.schema import VOTES
from raycsr.store import Store
from raycsr.verbs.certify import certify
from raycsr.verbs.compare import compare
from raycsr.verbs.report import report
from raycsr.verbs.sample import sample


@pytest.fixture(scope="module")
def sampled(make_job, tmp_path_factory):
    (outcome,) = sample(**make_job(tmp_path_factory.mktemp("sampled"), limit=8))
    return outcome.run.location


def rows(text):
    """The cells of the first table in a text, without the header."""
    lines = [line.split("|")[1:-1] for line in text.split("|--", 1)[1].split("\n\n")[0].splitlines()[1:]]
    return [[cell.strip() for cell in line] for line in lines]


@pytest.fixture
def run(sampled, tmp_path):
    """A run of eight digits without certificates, the test's own copy."""
    return Run(Store(shutil.copytree(sampled, tmp_path / "runs" / "0123")))


def test_certify_adds_any_number_of_matrices_without_sampling(run, tmp_path):
    costs = np.zeros((10, 10))
    costs[1, 7], costs[7, 1] = 10, 1
    np.savetxt(tmp_path / "real.csv", costs, delimiter=",")
    made = certify(run=[run.location], costs=["uniform", "seed:3", str(tmp_path / "real.csv")], alpha=0.01)
    assert [name.rsplit("-", 1)[0] for name in made[run.location]] == ["uniform", "seed-3", "real"]
    table = report(run=[run.location], costs=[str(tmp_path / "real.csv")], radii=[0.0, 0.1])
    assert table["rob_cost"].between(0, 10).all() and table["num_images"].tolist() == [8, 8]
    assert table["costs"].tolist() == ["real.csv"] * 2


def test_a_report_covers_runs_and_published_tables_in_one(run, tmp_path, capsys):
    certify(run=[run.location], costs=["uniform", "pair:4/9"], alpha=0.01)
    tsv = tmp_path / "sigma_0.50.tsv"
    tsv.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.5\t1\t0:1\n")
    table = report(run=[run.location, str(tsv)], radii=[0.25], out=str(tmp_path / "out"))
    assert table["costs"].tolist() == ["pair:4/9", "uniform", "(standard)"]
    assert table["certified_accuracy_guaranteed"].isna().tolist() == [False, False, True]
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {"report.md", "report.html", "summary.parquet", "curves.png", "cifar_resnet8-sigma_0.5.tsv"}
    out = capsys.readouterr().out
    assert "8 x 8 px" in out and "fails with probability at most 0.01." in out
    assert "images 8 of 8 listed" in out and "data digits split test" in out
    assert re.search("device cpu .*, fp32 · begun 20", out)
    (of_table,) = [line for line in out.splitlines() if line.startswith("- sigma_0.50.tsv: images 1 ")]
    assert str(tsv) in of_table and "device" not in of_table
    assert "sigma_0.50.tsv: no guaranteed shares" in out and "give it by --table_alpha" in out
    table = report(run=[str(tsv)], radii=[0.25], table_alpha=0.001)
    out = capsys.readouterr().out
    assert table["certified_accuracy_guaranteed"].tolist() == [1.0] and "--table_alpha" not in out
    assert "half a unit of its last digit less than written" in out and "fails with probability at most 0.001." in out
    with pytest.raises(UserError, match="table_alpha is 2.0; give a failure probability"):
        report(run=[str(tsv)], table_alpha=2.0)
    folder = run.store.names("certificates")[-1]
    assert json.loads(run.store.read(f"certificates/{folder}/metrics.json"))[0]["radius"] == 0.25


def test_a_report_on_a_run_with_missing_images_is_refused_unless_told_otherwise(run, capsys):
    certify(run=[run.location], costs=["uniform"])
    listing = run.images()
    listing.loc[len(listing)] = ["test#700", 1, 1, "v"]
    run.add_images(listing)
    with pytest.raises(UserError, match=r"lacks 1 of 9 images under 'uniform' \(the first 'test#700'\)"):
        report(run=[run.location])
    report(run=[run.location], allow_missing=True)
    assert "INCOMPLETE: up to 1 listed images" in capsys.readouterr().out


def test_a_run_without_certificates_says_how_to_make_them(run):
    with pytest.raises(
        UserError, match=r"has no certificates for uniform \(stored: none\); make them with `raycsr certify"
    ):
        report(run=[run.location], costs=["uniform"])


@pytest.mark.parametrize("radii", [[-1.0], [float("nan")]])
def test_radii_are_non_negative_numbers(run, radii):
    with pytest.raises(UserError, match="radii must be non-negative"):
        report(run=[run.location], radii=radii)


def test_certify_checks_everything_before_it_writes(run):
    with pytest.raises(UserError, match="cat"):
        certify(run=[run.location], costs=["uniform", "seed:cat"])
    assert run.certificate_sets() == {}
    with pytest.raises(UserError, match="alpha is 0; give a failure"):
        certify(run=[run.location], costs=["uniform"], alpha=0)


# Several decision rules: runs of six images of three classes, made by hand ---------------------------------------


@pytest.fixture
def make_run(tmp_path):
    """`make_run("model/path.pt", {rule: answers to the six images})`: all votes agree, so all radii are alike."""
    return functools.partial(write_run, tmp_path / "results")


def test_each_rule_has_its_rows_and_its_front(make_run, tmp_path, capsys):
    run = make_run("m.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B, "offset:2*pair:a/b": NEVER_B})
    table = report(run=[run.location], radii=[0.0, 0.5], out=str(tmp_path / "out"))
    at = table[table["radius"] == 0.5].set_index("rule")
    assert at["accuracy"].round(4).to_dict() == {
        "argmax": 0.8333,
        "offset:1*pair:a/b": 0.8333,
        "offset:2*pair:a/b": 0.6667,
    }
    assert at["rob_cs"].tolist() == [0.5, 1, 1]
    assert at["target_recall"].tolist() == [1, 0.5, 0]
    assert pd.read_parquet(tmp_path / "out" / "summary.parquet")["rule_id"].unique().tolist() == [
        "argmax",
        "offset-0000000002",
        "offset-0000000004",
    ]
    assert (tmp_path / "out" / "front.png").read_bytes().startswith(b"\x89PNG")
    written = (tmp_path / "out" / "report.md").read_text()
    for text in (capsys.readouterr().out, written):
        (point,) = rows(text.split("Front at radius 0.5")[1].split("At equal accuracy")[0])
        # 2 of 2 by Wilson
        assert point[1:7] == ["offset:1*pair:a/b", "6", "0.833", "1.000", "2", "1.000 [0.342, 1.000]"]
    assert "has no valid alpha" in written and "of each rule and cost matrix" in written
    assert "different numbers of images" not in written
    (name,) = run.certificate_sets()
    assert len(json.loads(run.store.read(f"certificates/{name}/metrics.json"))) == 6


def test_a_selection_of_rules_is_by_spec_or_id_and_leaves_the_stored_numbers_alone(make_run, capsys):
    run = make_run("m.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B, "offset:2*pair:a/b": NEVER_B})
    asked = ["offset:2*pair:a/b", OFFSETS["offset:1*pair:a/b"]]
    table = report(run=[run.location], radii=[0.5], rules=asked)
    assert table["rule"].tolist() == ["offset:1*pair:a/b", "offset:2*pair:a/b"]
    (name,) = run.certificate_sets()
    assert not run.store.exists(f"certificates/{name}/metrics.json")
    capsys.readouterr()
    report(run=[run.location], radii=[0.5], rules=["argmax"])
    out = capsys.readouterr().out
    assert "| rule" not in out and "front" not in out.lower()
    with pytest.raises(UserError, match=r"no run has a rule 'offset:1\*pair:a/c'; did you mean offset:1\*pair:a/b"):
        report(run=[run.location], rules=["argmax", "offset:1*pair:a/c"])


def test_a_run_that_has_none_of_the_rules_is_named_and_left_out(make_run, capsys):
    runs = [make_run("a.pt", {"argmax": PLAIN}), make_run("b.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B})]
    table = report(run=[run.location for run in runs], rules=["offset:1*pair:a/b"])
    assert table["run"].unique().tolist() == ["b.pt σ=0.5"]
    assert "a.pt σ=0.5: no certificates of these costs and rules, left out." in capsys.readouterr().out


def test_a_rule_that_lacks_images_is_refused_or_reported_as_far_as_it_goes(make_run, capsys):
    answers = {"argmax": PLAIN, "offset:1*pair:a/b": NO_B}
    run = make_run("m.pt", answers, skip=[("offset:1*pair:a/b", "c/1.png")])
    with pytest.raises(UserError, match=r"lacks 1 of 6 images under 'pair:a/b' by rule 'offset:1.*first 'c/1.png'"):
        report(run=[run.location])
    table = report(run=[run.location], radii=[0.5], allow_missing=True)
    assert table["num_images"].tolist() == [6, 5]
    out = capsys.readouterr().out
    assert "INCOMPLETE: up to 1 listed images" in out and "different numbers of images" in out
    assert report(run=[run.location], rules=["argmax"])["rule"].unique().tolist() == ["argmax"]


def test_several_models_are_told_apart_and_compared_at_equal_accuracy(make_run, tmp_path):
    one = make_run("x/gaussian/last.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B})
    other = make_run("x/margin_cs/last.pt", {"argmax": NEVER_B})
    table = report(run=[one.location, other.location, one.location], radii=[0.5], out=str(tmp_path / "out"))
    assert table["run"].tolist() == ["gaussian/last.pt σ=0.5"] * 2 + ["margin_cs/last.pt σ=0.5"]
    reference, other = rows((tmp_path / "out" / "report.md").read_text().split("At equal accuracy")[1])
    assert reference[:3] == ["gaussian/last.pt σ=0.5 (reference)", "2", "1.000 [0.342, 1.000]"]
    assert other[:3] == ["margin_cs/last.pt σ=0.5", "-", "-"]


def test_of_many_rules_the_curves_show_argmax_and_the_best_of_each_kind(make_run, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(files, "plot_curves", lambda curves: drawn.append(list(curves)) or b"")
    few = {spec: NEVER_B for spec in list(OFFSETS)[:4]}
    report(run=[make_run("m.pt", {"argmax": PLAIN, **few}).location], radii=[0.5])
    assert len(drawn[0]) == 5
    assert "Curves:" not in capsys.readouterr().out
    many = {spec: NEVER_B for spec in OFFSETS} | {"offset:1.5*pair:a/b": NO_B}
    report(run=[make_run("m.pt", {"argmax": PLAIN, **many}).location], radii=[0.5])
    assert [rule for _, _, rule in drawn[1]] == ["argmax", "offset:1.5*pair:a/b"]
    assert "Curves: where a run has more than 4 rules" in capsys.readouterr().out


def test_rules_without_an_image_to_tell_them_apart_have_no_front(make_run, tmp_path):
    run = make_run("m.pt", {"argmax": PLAIN, **dict.fromkeys(OFFSETS, NO_B)}, certify_under=())
    run.certify("nothing.csv", CostMatrix(np.zeros((3, 3))), 0.01)
    table = report(run=[run.location], radii=[0.5], out=str(tmp_path / "out"))
    assert table["rob_cs"].isna().all() and len(table) == 6
    assert not (tmp_path / "out" / "front.png").exists()


def test_the_standard_certificates_are_written_as_locuslab_writes_them(make_run, tmp_path, capsys):
    run = make_run("x/m.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B}, certify_under=("pair:a/b", "uniform"))
    other = make_run("x m.pt", {"argmax": NEVER_B}, sigma=0.25)
    other.certify("uniform", other.costs("uniform"), 0.05)
    other.certify("pair:a/b", other.costs("pair:a/b"), 0.05)
    report(run=[run.location, other.location], radii=[0.5], out=str(tmp_path))
    names = [
        "m.pt-sigma_0.5",
        "m.pt-sigma_0.5-offset-0000000002",
        *(f"x-m.pt-sigma_0.25-alpha_{a}" for a in (0.01, 0.05)),
    ]
    assert sorted(file.stem for file in tmp_path.glob("*.tsv")) == names
    assert "front.png, m.pt-sigma_0.5.tsv, m.pt" in capsys.readouterr().out
    certificates = read_locuslab_tsv(str(tmp_path / f"{names[1]}.tsv"))
    assert certificates["image_id"].tolist() == ["0", "1", "2", "3", "4", "5"]  # positions in the listing
    assert certificates["label"].tolist() == [0, 0, 1, 1, 2, 2]
    assert certificates["prediction"].tolist() == NO_B
    stored = run.certificates(run.certify("uniform", run.costs("uniform"), 0.01), OFFSETS["offset:1*pair:a/b"])
    # but for half a unit of the last digit
    assert certificates["standard_radius"].tolist() == pytest.approx(stored["standard_radius"].tolist(), rel=1e-15)


def test_runs_whose_labels_make_the_same_file_name_have_a_file_each(make_run, tmp_path):
    runs = [make_run("a+b.pt", {"argmax": PLAIN}), make_run("a b.pt", {"argmax": NEVER_B})]
    report(run=[run.location for run in runs], radii=[0.5], out=str(tmp_path))
    assert read_locuslab_tsv(str(tmp_path / "a-b.pt-sigma_0.5.tsv"))["prediction"].tolist() == PLAIN
    assert read_locuslab_tsv(str(tmp_path / "a-b.pt-sigma_0.5_.tsv"))["prediction"].tolist() == NEVER_B


def test_one_spec_at_two_alphas_is_two_certificate_sets_in_the_table(make_run):
    run = make_run("m.pt", {"argmax": PLAIN})
    run.certify("pair:a/b", run.costs("pair:a/b"), 0.05)
    table = report(run=[run.location], radii=[0.5])
    assert sorted(spec.split(",")[0] for spec in table["costs"]) == ["pair:a/b (alpha 0.01", "pair:a/b (alpha 0.05"]


def test_costs_are_those_that_a_spec_means_now_however_they_were_written(make_run, tmp_path, monkeypatch):
    """`certify --costs /a/costs.csv` took the set of costs.csv for done, and `report` by the same name refused it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "costs.csv").write_text(",a,b,c\na,0,5,0\nb,0,0,0\nc,0,0,0\n")
    run = make_run("m.pt", {"argmax": PLAIN}, certify_under=("costs.csv", "seed:b"))
    for spec, costs in ((str(tmp_path / "costs.csv"), "costs.csv"), ("costs.csv",) * 2, ("seed:1", "seed:b")):
        assert set(report(run=[run.location], costs=[spec], radii=[0.5])["costs"]) == {costs}
    (tmp_path / "costs.csv").write_text(",a,b,c\na,0,7,0\nb,0,0,0\nc,0,0,0\n")
    with pytest.raises(UserError, match="costs.csv has other costs than when .* certify --run .* --costs costs.csv"):
        report(run=[run.location], costs=["costs.csv"], radii=[0.5])
    certify(run=[run.location], costs=["costs.csv"], alpha=0.01)
    assert report(run=[run.location], costs=["costs.csv"], radii=[0.5])["rob_cost"].tolist() == [3.5]
    both = report(run=[run.location], radii=[0.5]).set_index("costs")["rob_cost"].drop("seed:b")
    assert sorted(both) == [2.5, 3.5]
    for called, rob_cost in both.items():  # as the report tells them apart
        assert report(run=[run.location], costs=[called], radii=[0.5])["rob_cost"].tolist() == [rob_cost]
    (tmp_path / "costs.csv").unlink()
    assert len(report(run=[run.location], costs=["costs.csv"], radii=[0.5])) == 2, "as the sets are called"


def test_a_report_says_what_it_stands_on(make_run, tmp_path, capsys):
    run = make_run(
        "x/m.pt",
        {"argmax": PLAIN},
        certify_under=("pair:a/b", "uniform"),
        times=2,
        begun="2026-11-25T18:00:00+00:00",
        versions={"raycsr": "9.9"},
        data={"source": "imagefolder", "images": "0123456789abcdef" * 4},
        config={"data": {"source": "imagefolder", "path": "s3://b/photographs", "split": "test"}},
    )
    report(run=[run.location], radii=[0.5], out=str(tmp_path / "out"))
    (brief,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("- m.pt σ=0.5: images ")]
    facts = ["12 of 12 listed", "imagefolder s3://b/photographs split test", "0123456789ab", "1,000 (fixed)", "0.01"]
    facts += ["cpu, fp32", "2026-11-25T18:00:00+00:00", "9.9", run.location]
    facts += ["pair:a/b: 4; uniform: 12", "x/m.pt", f"by raycsr {version('raycsr')}"]
    assert [fact for fact in facts if fact not in brief] == []
    written = (tmp_path / "out" / "report.md").read_text().split("## What this stands on")[1].split("## ")[0]
    assert [fact for fact in facts if fact not in written] == []
    page = (tmp_path / "out" / "report.html").read_text().split("<h2>What this stands on</h2>")[1].split("<h2>")[0]
    assert [fact for fact in facts if fact not in page] == []


def test_runs_that_differ_in_their_denoisers_alone_are_told_apart(make_run, tmp_path, capsys):
    def behind(file, told=None, sigma=0.5):
        denoiser = {"name": "drunet", "pretrained": file, "levels": told, "sigma": sigma}
        noted = {"name": "m.pt", "denoiser": denoiser}
        levels = {} if told is None else {"levels": told}
        part = {"kind": "denoiser", "arch": "drunet", "sigma": 0.5, "input_size": [8, 8], "sha256": file * 9}
        components = [{**part, **levels}, {"kind": "classifier", "arch": "resnet50"}]
        label = ModelOptions("x/m.pt", denoiser=DenoiserOptions("drunet", file, levels=told)).label
        config = {"data": {"source": "digits"}, "model": noted}
        return make_run(label, {"argmax": PLAIN}, components=components, config=config).location

    runs = [behind("p/mse/d.pt"), behind("p/stab/d.pt"), behind("p/mse/d.pt", [0.4, 0.5])]
    table = report(run=runs, radii=[0.5], out=str(tmp_path / "out"))
    labels = [f"m.pt (behind {name}) σ=0.5" for name in ("mse/d.pt", "stab/d.pt", "d.pt at 0.4+0.5")]
    assert sorted(table["run"]) == sorted(labels)
    out = capsys.readouterr().out
    assert "(behind d.pt); denoiser of p/stab/d.pt; drunet, for sigma 0.5, size 8 x 8, sha256 p/stab/d.ptp" in out
    assert "drunet, for sigma 0.5, told 0.4, 0.5, size 8 x 8, sha256 p/mse/d.ptp/" in out
    compare(run=runs[:2], radius=0.5)
    said = capsys.readouterr().out
    assert labels[0] in said and labels[1] in said
    compare(run=[runs[0], behind("p/mse/d.pt", sigma=0.25)], radius=0.5)
    said = capsys.readouterr().out
    assert all(f"m.pt (behind d.pt) σ=0.5 denoiser of σ={sigma}" in said for sigma in (0.5, 0.25))


def test_of_a_sequential_run_the_samples_are_said_that_were_drawn(make_run, capsys):
    config = {"sampling": {"radii": [0.25, 0.5]}}
    run = make_run("m.pt", {"argmax": PLAIN}, sampling="sequential", config=config, certify_under=())
    votes = run.votes().to_pandas()
    votes["n"], votes["sampling"] = [256, 512, 1024, 1024, 1024, 4096], "sequential"
    votes["estimation"] = [[{"class": y, "count": n}] for y, n in zip(PLAIN, votes["n"], strict=True)]
    run.write_votes("argmax.parquet", pa.Table.from_pandas(votes.drop(columns="part"), VOTES, preserve_index=False))
    run.certify("uniform", run.costs("uniform"), 0.01, answer=parse_answer("threshold:0.999*uniform", 3))
    report(run=[run.location], radii=[0.1])
    printed = capsys.readouterr().out
    assert "n 256 to 4,096, median 1,024, mean 1,323 (sequential)" in printed
    assert "m.pt σ=0.5: sampling of an image ended" in printed, "for that alone curves fall beyond"
    assert "(0.25, 0.5 when it was begun)" in printed
    assert "at most are left to a person, for sampling ended before that was known of all" in printed


def test_an_image_with_an_error_is_counted_once_whatever_its_rules_and_costs(make_run, capsys):
    run = make_run("m.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B}, certify_under=())
    broken = run.votes().to_pandas()
    broken.loc[broken["image_id"] == "a/0.png", ["n0", "n", "error"]] = 0, 0, "truncated"
    for column in ("selection", "estimation"):
        broken[column] = [[] if n == 0 else votes for votes, n in zip(broken[column], broken["n"], strict=True)]
    for rule, rows in broken.drop(columns="part").groupby("rule"):
        run.write_votes(f"{rule}.parquet", pa.Table.from_pandas(rows, VOTES, preserve_index=False))
    for spec in ("pair:a/b", "uniform"):
        run.certify(spec, run.costs(spec), 0.01)
    report(run=[run.location], radii=[0.5])
    printed = capsys.readouterr().out
    assert "m.pt σ=0.5: 1 image has an error" in printed, "of 2 rules x 2 costs"
    assert "sampling of an image ended" not in printed, "n is fixed"


def test_too_few_images_to_see_a_collapse_are_said(make_run, tmp_path):
    run = make_run("m.pt", {"argmax": NEVER_B})  # b 0 of 2
    report(run=[run.location], radii=[0.5], out=str(tmp_path / "out"))
    written = (tmp_path / "out" / "report.md").read_text()
    assert "†" not in written and "3, 3 of them with fewer than 4 images: too few to tell a collapsed recall" in written


def test_a_model_that_always_says_malignant_is_marked_wherever_it_looks_good(make_run, tmp_path, capsys):
    names = ("malignant", "benign", "other")
    run = make_run("m.pt", {"argmax": [0] * 6}, class_names=names, certify_under=("pair:malignant/benign",), times=20)
    table = report(run=[run.location], radii=[0.5], out=str(tmp_path / "out"))
    assert table["rob_cs"].tolist() == [1.0]
    assert table["collapsed"].tolist() == ["benign 0 of 40 right, other 0 of 40 right"]
    for text in (
        capsys.readouterr().out,
        *((tmp_path / "out" / f"report.{end}").read_text() for end in ("md", "html")),
    ):
        assert "1.000 [0.912, 1.000] †" in text and "benign 0 of 40 right" in text


def test_a_metric_that_goes_by_costs_is_said_in_the_titles(make_run, tmp_path):
    run = make_run("m.pt", {"argmax": PLAIN, "offset:1*pair:a/b": [2, 2, 1, 1, 2, 2]}, certify_under=("uniform",))
    run.certify("dear.csv", CostMatrix([[0, 10, 1], [0, 0, 0], [0, 0, 0]]), 0.01)
    report(run=[run.location], radii=[0.5], out=str(tmp_path / "out"))
    for end, heading in (("md", "## "), ("html", "<h2>")):
        uniform, dear = (tmp_path / "out" / f"report.{end}").read_text().split(f"{heading}Costs: ")[-2:]
        if not uniform.startswith("uniform"):
            uniform, dear = dear, uniform
        assert "both accuracy and rob_cs." in uniform and "less is better" not in uniform
        assert "both accuracy and rob_cost (less is better; the costs differ in size)." in dear
        assert "offset:1*pair:a/b" in dear
    assert (
        "By rob_cost (less is better; the costs differ in size), among those" in dear and "By rob_cs, among" in uniform
    )
