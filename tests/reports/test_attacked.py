"""Attacks beside certificates: bounds from both sides in the table, the curves and the document."""

import io

import numpy as np
import pyarrow as pa
import pytest
from handmade import IDS, LABELS, PLAIN, write_photographs, write_run
from PIL import Image

from raycsr import load_attacks
from raycsr.certification.answers import ARGMAX, MAJORITY
from raycsr.costs import CostMatrix
from raycsr.reports import as_markdown, attacked
from raycsr.reports.attacked import attacked_summaries, attacked_table, audited
from raycsr.reports.composition import compose
from raycsr.reports.drawing import Form
from raycsr.reports.files import write_report
from raycsr.reports.findings import find
from raycsr.reports.html import as_html
from raycsr.results.attacks import AttackSet, attack_set
from raycsr.results.schema import ATTACKS
from raycsr.smoothing.options import AttackOptions
from raycsr.store import Store
from raycsr.verbs.certify import certify

BUDGET = AttackOptions()


def write_attacks(run, spec, rows, options=BUDGET, answer=ARGMAX):
    """Rows of (image, radius, distance at which it breaks or None, certified radius or None)."""
    costs = CostMatrix.from_spec(spec, 3, ["a", "b", "c"])
    attacks = AttackSet(run.store, attack_set(spec, costs, "argmax", options, answer))
    attacks.note(spec, costs, "argmax", options, answer)
    table = [
        {"image_id": IDS[i], "label": LABELS[i], "radius": radius, "distance": distance or radius, "n": 1000}
        | {"broken": distance is not None, "wrong": distance is not None, "certified": certified}
        | {"alpha": None if certified is None else 0.01}
        for i, radius, distance, certified in rows
    ]
    attacks.write("0001-a.parquet", pa.Table.from_pylist(table, schema=ATTACKS))


@pytest.fixture
def run(tmp_path):
    """Six images, one a taken for a b, all certified to 1.22 or not at all."""
    return write_run(str(tmp_path / "results"), "m.pt", {"argmax": PLAIN}, certify_under=["pair:a/b", "uniform"])


def summaries(run, costs):
    found = find([run.location], costs=[costs])
    return attacked_summaries(found.sets, found.attacks)


def test_bounds_from_both_sides_at_each_named_radius(run):
    write_attacks(run, "uniform", [(i, 1.5, 1.4 if i in (0, 1) else None, None) for i in range(6)])
    (row,) = summaries(run, "uniform").to_dict("records")
    assert (row["radius"], row["num_images"], row["costs"]) == (1.5, 6, "uniform")
    assert (row["rob_cs"], row["rob_cs_attacked"]) == (0, 4 / 6)  # nothing is certified at 1.5
    assert (row["certified_accuracy"], row["accuracy_attacked"]) == (0, 4 / 6)
    assert row["rob_cs_attacked_low"] < 4 / 6 < row["rob_cs_attacked_high"]


def test_what_broke_nearer_is_broken_at_every_larger_radius(run):
    write_attacks(run, "uniform", [(1, 0.1, 0.1, None), (1, 1.0, None, None), (0, 1.0, None, None)])
    rows = summaries(run, "uniform").set_index("radius")
    assert rows.loc[0.1, "num_images"] == 1 and rows.loc[0.1, "rob_cs_attacked"] == 0
    assert rows.loc[1.0, "num_images"] == 2 and rows.loc[1.0, "rob_cs_attacked"] == 0.5
    assert rows.loc[1.0, "rob_cs"] == 0.5  # of the same two images


def test_attacks_on_an_answer_stand_beside_its_own_certificates(run):
    certify(run=[run.location], costs=["uniform"], answers=["majority"], alpha=0.01)
    write_attacks(run, "uniform", [(0, 1.5, None, None), (1, 1.5, 1.4, None)])
    write_attacks(run, "uniform", [(i, 1.5, None, None) for i in range(3)], answer=MAJORITY)
    found = summaries(run, "uniform").set_index("rule")
    assert found["rob_cs_attacked"].to_dict() == {"argmax": 0.5, "majority": 1.0}
    assert found["num_images"].to_dict() == {"argmax": 2, "majority": 3}


def test_where_some_classes_were_not_attacked_nothing_is_said_of_accuracy(run):
    write_attacks(run, "pair:a/b", [(0, 1.0, None, None), (1, 1.0, 0.9, None)])
    (row,) = summaries(run, "pair:a/b").to_dict("records")
    assert row["rob_cs_attacked"] == 0.5 and np.isnan(row["accuracy_attacked"]) and np.isnan(row["certified_accuracy"])


def test_attacks_of_several_budgets_count_together_and_each_image_once(run):
    write_attacks(run, "uniform", [(0, 1.0, None, None), (1, 1.0, None, None)])
    write_attacks(run, "uniform", [(0, 1.0, 0.8, None), (2, 1.0, None, None)], AttackOptions(steps=50))
    (row,) = summaries(run, "uniform").to_dict("records")
    assert row["num_images"] == 3 and row["rob_cs_attacked"] == pytest.approx(2 / 3)


def test_attacks_on_certificates_are_a_sentence_and_bound_no_share(run):
    """Only certified images were attacked so: a share of them would be of chosen ones."""
    write_attacks(run, "uniform", [(0, 0.99, 0.9, 1.0), (2, 0.99, None, 1.0), (3, 1.5, 1.4, 1.0)])
    found = find([run.location], costs=["uniform"])
    assert len(attacked_summaries(found.sets, found.attacks)) == 0
    (line,) = audited(found.sets, found.attacks)
    assert "Of 2 certificates of m.pt σ=0.5 under uniform" in line and line.endswith("1 broke.")


def test_what_was_not_attacked_has_no_column_and_no_empty_panel(run, monkeypatch):
    write_attacks(run, "pair:a/b", [(0, 1.5, 1.4, None), (1, 1.5, None, None)])
    found = find([run.location])
    shares = found.attacked.assign(certified_accuracy=np.nan, accuracy_attacked=np.nan)
    titles = [column.title for column in attacked_table(shares).columns]
    assert titles == ["run", "rule", "radius", "images", "rob_cs", "not broken"]
    drawn = []
    monkeypatch.setattr(attacked, "rendered", lambda figure, form: drawn.append(len(figure.axes)) or b"")
    for form in Form:
        attacked.plot_attacked(shares, found.curves, form)
    assert drawn == [1] * 3


def test_a_report_has_both_curves_where_there_are_attacks_and_nothing_where_there_are_none(run, tmp_path):
    without = compose(find([run.location]))
    assert "ttack" not in as_markdown(without)
    pictures = as_html(without).count("<img")
    write_attacks(run, "uniform", [(i, 1.5, 1.4 if i == 1 else None, None) for i in range(6)])
    found = find([run.location])
    document = compose(found)
    assert "0.833" in as_markdown(document) and "not broken" in as_markdown(document)
    assert as_html(document).count("<img") == pictures + 1
    names = write_report(found, document, Store(str(tmp_path / "out"))).names
    assert "attacked.png" in names
    picture = Image.open(io.BytesIO(Store(str(tmp_path / "out")).read("attacked.png")))
    assert picture.width > picture.height > 100


def test_the_worst_pictures_stand_beside_their_images(tmp_path):
    photographs = write_photographs(tmp_path / "photographs")
    run = write_run(str(tmp_path), "m.pt", {"argmax": PLAIN}, certify_under=["uniform"], photographs=photographs)
    write_attacks(run, "uniform", [(0, 1.5, 1.4, None), (2, 1.5, 1.2, None), (3, 1.5, None, None)])
    (name,) = run.store.names("attacks")
    pictures = as_html(compose(find([run.location]), pictures=True)).count(
        "<img"
    )  # of parts of before, which keep none
    folder = run.store.at(f"attacks/{name}")
    part, buffer = folder.read_table("0001-a.parquet"), io.BytesIO()
    Image.new("RGB", (8, 8), (84, 80, 80)).save(buffer, "PNG")  # b/0.png is grey at 80: one channel of all is 4 more
    kept = part.to_pandas().assign(target=0, picture=[None, buffer.getvalue(), None])
    AttackSet(run.store, name).write("0001-a.parquet", pa.Table.from_pandas(kept, ATTACKS, preserve_index=False))
    page = as_html(compose(find([run.location]), pictures=True))
    assert page.count("<img") == pictures + 3
    # 4 grey levels of 64 values: L2 8 * 4 / 255
    assert "<b>b → a</b><br>L2 0.1255, PSNR 40.9 dB<br>largest change 4 of 255" in page
    assert "picture" not in load_attacks(run.location)


def test_each_run_and_rule_has_its_own_attacks_and_a_run_is_looked_at_once(run, tmp_path, monkeypatch):
    rules = {"argmax": PLAIN, "offset:1*pair:a/b": PLAIN}
    other = write_run(str(tmp_path / "results"), "other.pt", rules, certify_under=["pair:a/b", "uniform"])
    write_attacks(run, "uniform", [(0, 1.0, 0.9, None)])
    write_attacks(other, "uniform", [(0, 1.0, None, None), (1, 1.0, None, None)])
    looked, names = [], Store.names
    monkeypatch.setattr(Store, "names", lambda self, folder: looked.append(folder) or names(self, folder))
    found = find([run.location, other.location])
    looked.clear()
    assert found.attacked[["run", "costs", "rule", "num_images", "rob_cs_attacked"]].values.tolist() == [
        ["m.pt σ=0.5", "uniform", "argmax", 1, 0.0],
        ["other.pt σ=0.5", "uniform", "argmax", 2, 1.0],
    ]
    assert looked.count("attacks") == 2  # of six sets


def test_a_damaged_set_is_left_out_with_a_warning(run):
    write_attacks(run, "uniform", [(0, 1.0, None, None)])
    (name,) = run.store.names("attacks")
    run.store.write(f"attacks/{name}/attack.json", b'{"spec": "uniform"}')
    with pytest.warns(UserWarning, match=r"attacks are left out: .*attack\.json is damaged"):
        assert len(load_attacks(run.location)) == 0
    with pytest.warns(UserWarning, match="attacks are left out"):
        assert all(rows.empty for rows in find([run.location], costs=["uniform"]).attacks.values())
