import re

import pytest
from handmade import NO_B, PLAIN, write_run

from raycsr.certification.answers import parse_answer
from raycsr.reports.comparison import reference_and_best
from raycsr.reports.document import Notes
from raycsr.reports.findings import find
from raycsr.reports.headlines import headlines


def said(*runs, radius=0.5, **more):
    """The paragraphs and the notes of some runs at a radius."""
    found = find([run.location for run in runs], radii=[0.0, radius], **more)
    blocks = headlines(reference_and_best(found.sets, found.points), found.points, found.radius)
    notes = [line for block in blocks if isinstance(block, Notes) for line in block.lines]
    return [block.text for block in blocks if not isinstance(block, Notes)], notes


def test_a_sentence_has_the_images_the_radius_the_mistake_and_what_it_costs(tmp_path):
    """Of 80 images of a half are taken for a b; of 240, two thirds of a sixth are wrong."""
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN}, times=40)
    (mistakes, size), (line,) = said(run)
    assert mistakes == "pair:a/b: Costly mistakes: images of a taken for b."
    # binom.ppf(.999, 80, .01) = 5 certificates may fail
    assert "on 40 of 80 images of a (99.9% sure: truly on 35 at least), no change of L2 size up to 0.5" in line
    assert "answer b. Unchanged, 83.3% of all 240 images are provably answered rightly." in line
    assert "left to a person" not in line
    # 0.5 * 255 / sqrt(3 * 64) and 0.5 * 255
    assert "9.2 of 255 grey levels at 8 x 8 px" in size and "a single one by 128" in size


def test_the_best_is_told_beside_the_most_accurate_argmax(tmp_path):
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B})
    _, (plain, best) = said(run)
    assert plain.startswith("m.pt σ=0.5: on 1 of 2 images of a")
    assert best.startswith("m.pt σ=0.5 · offset:1*pair:a/b: on 2 of 2 images of a")


def test_costs_that_differ_in_size_are_told_as_what_mistakes_can_still_cost(tmp_path):
    """On one of two images of a, an a is taken for a b, which costs 30, and nothing else can happen."""
    costs = tmp_path / "costs.csv"
    costs.write_text(",a,b,c\na,0,30,2\nb,0,0,0\nc,0,0,0\n")
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN}, certify_under=())
    run.certify(str(costs), run.costs(str(costs)), 0.01)
    _, (line,) = said(run)
    assert "The costs of the mistakes that are not ruled out come to 15 an image on average." in line


def test_an_answer_that_abstains_says_who_decides_instead(tmp_path):
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN})
    run.certify("uniform", run.costs("uniform"), 0.01, answer=parse_answer("threshold:0.999*uniform", 3))
    _, lines = said(run, costs=["uniform"])
    assert all(re.search(r"and 100.0% are left to a person; an attacker can make that more", line) for line in lines)


def test_without_costly_mistakes_it_is_about_right_answers(tmp_path):
    tsv = tmp_path / "sigma_0.50.tsv"
    tsv.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.7\t1\t0:1\n3\t0\t-1\t0.0\t0\t0:1\n")

    class Table:
        location = str(tsv)

    paragraphs, (line,) = said(Table)
    assert "on 1 of 2 images, the answer is right, and no change of L2 size up to 0.5 makes it another" in line
    assert "sure" not in line and len(paragraphs) == 1  # it says neither its alpha nor its size


@pytest.mark.parametrize("radius", [0.0])
def test_where_nothing_is_certified_beyond_noise_it_says_so(tmp_path, radius):
    _, (line,) = said(write_run(tmp_path, "m.pt", {"argmax": PLAIN}), radius=radius)
    assert "nothing but noise" in line
