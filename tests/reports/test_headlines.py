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
    assert "on 40 of 80 images of a (99.9% sure: truly on 35 at least), no change of the 8 x 8 picture of" in line
    assert "picture of L2 size up to 0.5 makes the smoothed classifier" in line
    assert "answer b. Unchanged, 83.3% of all 240 images are provably answered rightly." in line
    assert "left to a person" not in line
    # 0.5 * 255 / sqrt(3 * 64) and 0.5 * 255
    assert "9.2 of 255 grey levels at 8 x 8 px" in size and "a single one by 128" in size


def test_a_costly_class_without_an_image_is_not_said_to_be_certified(tmp_path):
    four = {"class_names": ("a", "b", "c", "melanoma"), "num_classes": 4}
    _, (line,) = said(write_run(tmp_path, "m.pt", {"argmax": PLAIN}, certify_under=("pair:a/b,melanoma/b",), **four))
    assert "on 1 of 2 images of a, melanoma (there is none of melanoma)" in line


def test_the_best_is_told_beside_the_most_accurate_argmax(tmp_path):
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B})
    _, (plain, best) = said(run)
    assert plain.startswith("m.pt σ=0.5: on 1 of 2 images of a")
    assert best.startswith("m.pt σ=0.5 · offset:1*pair:a/b: on 2 of 2 images of a")


@pytest.mark.parametrize(
    ("cost", "radius", "worst", "all_of_them"),
    # at .5 one of two images of a may be taken for a b and nothing else can happen; at 9 all that is costly can
    [("30", 0.5, "15", "15"), ("25000", 0.5, "12,500", "12,500"), ("25000", 9.0, "25,000", "25,002")],
)
def test_costs_that_differ_in_size_are_told_as_what_mistakes_can_still_cost(tmp_path, cost, radius, worst, all_of_them):
    """Nobody can lose more of an image than its costliest mistake; an amount of money has no exponent."""
    costs = tmp_path / "costs.csv"
    costs.write_text(f",a,b,c\na,0,{cost},2\nb,0,0,0\nc,0,0,0\n")
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN}, certify_under=())
    run.certify(str(costs), run.costs(str(costs)), 0.01)
    _, (line,) = said(run, radius=radius)
    assert f"comes to {worst} (worst cost)" in line
    assert f"to {all_of_them} (rob_cost)" in line


def test_an_answer_that_abstains_says_who_decides_instead(tmp_path):
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN})
    run.certify("uniform", run.costs("uniform"), 0.01, answer=parse_answer("threshold:0.999*uniform", 3))
    _, lines = said(run, costs=["uniform"])
    assert all(
        re.search(r"and 100.0% at most are left to a person; an attacker can make that more", line) for line in lines
    )


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
    assert "the smoothed classifier does not answer b." in line


@pytest.mark.parametrize(
    ("table", "mistakes", "answer"),
    [
        ("0,1,0\n0,0,1\n0,0,0\n", "a taken for b; of b taken for c", "a class that is costly for them"),
        ("0,0,1\n0,0,1\n1,1,0\n", "any class taken for one of another group: a, b | c", "a class that is costly for"),
        ("0,1,1\n1,0,1\n1,1,0\n", "any class taken for any other class", "any other class"),
        ("0,1,1\n0,0,0\n0,0,0\n", "a taken for any other class", "any other class"),
        ("0,1,1\n0,0,1\n0,0,0\n", "a taken for any other class; of b taken for c", "a class that is costly for them"),
        ("0,1,1\n0,0,1\n0,1,0\n", "a taken for any other class; of b, c taken for b, c", "a class that is"),
        ("0,1,1\n1,0,0\n0,0,0\n", "a taken for any other class; of b taken for a", "a class that is costly for them"),
        ("0,0,1\n0,0,1\n0,0,0\n", "a, b taken for c", "c"),
        ("0,0,2\n0,0,1\n1,3,0\n", "any class taken for one of another group: a, b | c", "a class that is costly for"),
        ("0,1,1\n1,0,1\n0,0,0\n", "a, b taken for any other class", "any other class"),
    ],
)
def test_no_sentence_rules_out_a_mistake_that_costs_nothing(tmp_path, table, mistakes, answer):
    """Of pairs a/b and b/c nothing is said of a taken for c, nor of classes within a group."""
    costs = tmp_path / "costs.csv"
    costs.write_text("a,b,c\n" + table)
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN}, certify_under=())
    run.certify(str(costs), run.costs(str(costs)), 0.01)
    (first, _), (line, *_) = said(run)
    assert first == f"costs.csv: Costly mistakes: images of {mistakes}."
    assert f"makes the smoothed classifier answer {answer}" in line


def test_what_is_picked_among_several_by_these_images_is_as_sure_as_all_of_them_together(tmp_path):
    """Of 100 images 5 may fail of one set; of each of two 6, binom.ppf(1 - .001 / 2, 100, .01)."""
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B}, times=50)
    _, (plain, best) = said(run)
    assert "on 50 of 100 images of a (99.9% sure: truly on 44 at least)" in plain
    assert "on 100 of 100 images of a (99.9% sure: truly on 94 at least)" in best


def test_of_a_run_that_is_not_whole_it_says_of_how_many_images_it_speaks(tmp_path):
    run = write_run(tmp_path, "m.pt", {"argmax": PLAIN}, skip=[("argmax", "c/0.png")])
    _, (line,) = said(run, allow_missing=True)
    assert "80.0% of all 5 certified (of 6) images" in line
