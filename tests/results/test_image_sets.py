"""Images of a training or a tuning are recognised in a run's listing, and a report says so."""

import numpy as np
import pandas as pd
import pytest
from handmade import IDS, OFFSETS, PLAIN, write_run

from raycsr.errors import UserError
from raycsr.results import ImageSet, image_sets, known_sets, note_known_sets, seen_images, seen_images_of
from raycsr.verbs.report import report

LISTING, OTHER = {"source": "imagefolder", "images": "one"}, {"source": "imagefolder", "images": "other"}


def images(names, size=100):
    return pd.DataFrame({"image_id": list(names), "size": size})


def lines(of, listing=OTHER, images_=None):
    """What is said of images of another listing, by default those of `of` themselves."""
    known = known_sets({"trained_on": [ImageSet.of(of, LISTING).to_dict()]}, [])
    return seen_images(known, lambda: of if images_ is None else images_, listing)


def test_images_are_recognised_by_id_and_size():
    some = images(["cat/1.png", "cat/2.png", "dog/1.png"])
    assert lines(some, images_=images(["cat/2.png", "cat/3.png"])) == [
        "1 of 2 images are, by name and size, among those that the model was trained on: "
        "numbers on them say nothing about other images"
    ]
    assert lines(some, images_=images(["cat/2.png"], size=101)) == []
    assert lines(some, images_=images(["cat/3.png"])) == []


def test_other_images_of_the_same_listing_are_said_too():
    (line,) = lines(images(["cat/1.png"]), LISTING, images(["cat/2.png"]))
    assert line == "these are the data that the model was trained on, though other images of them"


def test_of_many_images_a_sample_is_kept_and_shares_are_estimated(monkeypatch):
    monkeypatch.setattr(image_sets, "KEPT", 1000)
    many = images(f"{i}.png" for i in range(20_000))
    seen = ImageSet.of(many, LISTING)
    assert len(seen.hashes) == 1000 and len(str(seen.to_dict())) < 12_000
    assert (np.diff(seen.hashes.astype(object)) > 0).all()
    half = images(f"{i}.png" for i in range(10_000, 30_000))
    assert seen.share_of(image_sets.hashes_of(half)) == pytest.approx(0.5, abs=0.05)
    assert seen.share_of(image_sets.hashes_of(many)) == 1
    assert seen.share_of(image_sets.hashes_of(images(["a", "b"]))) == 0
    (line,) = lines(many, images_=half)
    assert line.startswith("about ") and "% of 20,000 images are" in line
    (line,) = lines(many, images_=many)
    assert line.startswith("about 100 % of 20,000 images are")
    assert lines(many, LISTING, images("a")) == ["these are the data that the model was trained on"]


def test_a_set_is_the_same_after_it_was_written():
    seen = ImageSet.of(images("abc"), LISTING)
    again = ImageSet.from_dict(seen.to_dict())
    assert again.hashes.tolist() == seen.hashes.tolist() and again.listing == LISTING and again.num_images == 3
    assert seen.hashes.tolist() == sorted(seen.hashes.tolist())
    # of earlier checkpoints, which must be recognised for ever
    assert ImageSet.of(images("a"), LISTING).to_dict()["hashes"] == "R1kmf1qKI4k="


def test_earlier_checkpoints_say_nothing():
    assert known_sets({}, [("argmax", "argmax")]) == []
    assert known_sets({"tuned_rules": [{"id": "offset-1"}]}, [("offset-1", "offset:1*seed:0")]) == []
    assert seen_images([], lambda: pytest.fail("nothing is known, so nothing is to be hashed"), LISTING) == []


def test_a_rule_that_was_tuned_twice_under_two_answers_knows_the_images_of_both():
    sets = [ImageSet.of(images(names), LISTING).to_dict() for names in ("ab", "cd")]
    info = {"tuned_rules": [{"id": "offset-1", "tuned_on": one} for one in sets]}
    known = known_sets(info, [("offset-1", "offset:1*seed:0"), ("argmax", "argmax")])
    assert [{key: one[key] for key in sets[0]} for one in known] == sets
    assert {one["what"] for one in known} == {"rule offset:1*seed:0 was tuned on"}


@pytest.mark.parametrize(
    "damage",
    [{"hashes": "!"}, {"hashes": ""}, {"hashes": None}, {"num_images": 1}, {"listing": 3}, {"num_images": "x"}],
)
def test_what_is_damaged_is_refused(damage):
    stored = ImageSet.of(images("abc"), LISTING).to_dict() | damage
    with pytest.raises(UserError, match="write the checkpoint again") as caught:
        seen_images(known_sets({"trained_on": [stored]}, []), lambda: images("abc"), LISTING)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "info",
    [{"trained_on": "nonsense"}, {"trained_on": [1]}, {"tuned_rules": 1}, {"tuned_rules": [{"tuned_on": 1}]}],
)
def test_so_is_what_has_no_such_note_at_all(info):
    with pytest.raises(UserError, match="write the checkpoint again"):
        known_sets(info, [])


class TestReport:
    RULE = "offset:1*pair:a/b"

    @pytest.fixture
    def run(self, tmp_path):
        """A run whose rule was tuned on two of its images, and whose model was trained on all of them."""
        run = write_run(tmp_path, "m.pt", {"argmax": PLAIN, self.RULE: PLAIN}, data=OTHER)
        trained = ImageSet.of(images(IDS, size=1), LISTING).to_dict()
        tuned = ImageSet.of(images(IDS[:2], size=1), LISTING).to_dict()
        info = {"trained_on": [trained], "tuned_rules": [{"id": OFFSETS[self.RULE], "tuned_on": tuned}]}
        for _ in range(2):  # as when the run grows
            note_known_sets(run, known_sets(info, [("argmax", "argmax"), (OFFSETS[self.RULE], self.RULE)]))
        return run

    def test_a_run_says_it_of_the_rules_that_are_asked_for(self, run):
        both = seen_images_of(run, ["argmax", OFFSETS[self.RULE]])
        assert sorted(line.split(",")[0] for line in both) == ["2 of 6 images are", "6 of 6 images are"]
        assert f"among those that rule {self.RULE} was tuned on" in " ".join(both)
        assert [line[:6] for line in seen_images_of(run, ["argmax"])] == ["6 of 6"]

    def test_report_and_page_say_it(self, run, tmp_path, capsys):
        report(run=[run.location], out=str(tmp_path / "out"))
        for text in (
            capsys.readouterr().out,
            *((tmp_path / "out" / f"report.{e}").read_text() for e in ("md", "html")),
        ):
            assert "6 of 6 images are, by name and size, among those that the model was trained on" in text

    def test_of_a_run_of_an_earlier_version_nothing_is_said(self, tmp_path, capsys):
        run = write_run(tmp_path, "m.pt", {"argmax": PLAIN})
        report(run=[run.location])
        assert "trained on" not in capsys.readouterr().out
