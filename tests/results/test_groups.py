"""Groups of images through a run: from its listing to its certificates, its summary and its report."""

import pandas as pd
import pytest
from handmade import IDS, NO_B, PLAIN, write_run

from raycsr import UserError, certify_stored, collect_certificates, load_certificates, load_votes, summarize
from raycsr.reports import load_certified, summaries
from raycsr.verbs.report import report

GROUPS = ["p", "p", "q", "q", "r", None]


def listing(groups, ids=IDS):
    images = pd.DataFrame({"image_id": IDS, "label": [0, 0, 1, 1, 2, 2], "size": 1, "version": "v", "group": groups})
    return images[images["image_id"].isin(ids)]


@pytest.fixture
def run(tmp_path):
    """A run that an earlier version listed, or that had no groups yet."""
    return write_run(tmp_path, "m.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B})


def test_certificates_have_the_groups_of_the_listing(run):
    assert "group" not in load_certificates(run.location, "pair:a/b", 0.01)
    run.add_images(listing(GROUPS))
    for costs in ("pair:a/b", "uniform"):  # stored, and made from votes
        certificates = load_certificates(run.location, costs, 0.01, rule="argmax")
        assert dict(zip(certificates["image_id"], certificates["group"].fillna(""), strict=True)) == dict(
            zip(IDS, ["p", "p", "q", "q", "r", ""], strict=True)
        )
        assert summarize(certificates, costs=run.costs(costs), radii=[0.5])["num_groups"].tolist() == [4]
    stored = certify_stored(load_votes(run.location, rule="argmax"), run.costs("pair:a/b"))
    assert summarize(stored, costs=run.costs("pair:a/b"), radii=[0.5])["num_groups"].tolist() == [4]
    collected = collect_certificates(run.location)
    assert collected["group"].value_counts().to_dict() == {"p": 4, "q": 4, "r": 2}
    sets, _ = load_certified([run.location])
    assert summaries(sets, [0.5])["num_groups"].tolist() == [4, 4]


def test_a_report_over_groups_has_wider_intervals_and_says_so(run, capsys):
    alone = report(run=[run.location], radii=[0.5])
    assert "over groups" not in capsys.readouterr().out
    run.add_images(listing(GROUPS))
    grouped = report(run=[run.location], radii=[0.5])
    said = capsys.readouterr().out
    assert "The images of m.pt σ=0.5 come in 4 groups" in said and "95 % interval over images" not in said
    assert (grouped["rob_cs_low"] <= alone["rob_cs_low"]).all()
    assert (
        grouped["accuracy_high"][0] - grouped["accuracy_low"][0] > alone["accuracy_high"][0] - alone["accuracy_low"][0]
    )
    assert grouped["accuracy"].equals(alone["accuracy"])


def test_groups_of_a_listing_that_grows_or_is_grouped_anew(run):
    votes = run.votes()
    assert run.add_images(listing(GROUPS))["group"].notna().sum() == 5
    with pytest.warns(UserWarning, match="keeps the groups that its images were listed in"):
        assert run.add_images(listing(GROUPS).drop(columns="group"))["group"].notna().sum() == 5
    assert run.add_images(listing(GROUPS, IDS[:2]))["group"].notna().sum() == 5
    with pytest.raises(UserError, match=r"2 images of run 0{16} are in other groups.* 'a/0.png', and 3 others are not"):
        run.add_images(listing(["s"] * 6, IDS[:2]))
    assert set(run.add_images(listing(["s"] * 6))["group"]) == {"s"} == set(run.images()["group"])
    more = pd.concat([listing(["s"] * 6), listing(["t"] * 6, IDS[:1]).assign(image_id="new.png")])
    assert run.add_images(more)["group"].tolist() == ["s"] * 6 + ["t"]
    assert run.votes().equals(votes)


def test_a_run_that_began_with_groups_of_none_of_its_images(store):
    run = write_run(store.location, "m.pt", {"argmax": PLAIN})
    run.add_images(listing([None] * 6))
    assert "group" not in load_certificates(run.location)
    assert run.add_images(listing(GROUPS))["group"].notna().sum() == 5
