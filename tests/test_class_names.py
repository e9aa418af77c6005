"""Names of classes as people have them: how lists of them are read, and what is refused."""

import random

import pytest

from raycsr.class_names import check_class_names, read_classes, read_pairs, read_values
from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.models.rules import parse_rules

IMAGENET = ["tench, Tinca tinca", "CD/DVD player", "cat", "a=b", "crane", "crane, bird", "bird", "crow's nest", "2*x"]
M = len(IMAGENET)


def refused(message):
    return pytest.raises(UserError, match=message)


class TestClasses:
    @pytest.mark.parametrize(
        ("text", "classes"),
        [
            ("tench, Tinca tinca,cat", [0, 2]),
            ("cat, tench, Tinca tinca , CD/DVD player", [2, 0, 1]),
            ('"tench, Tinca tinca",cat', [0, 2]),
            ("'CD/DVD player', 2", [1, 2]),
            ('"crane, bird"', [5]),
            ('"crane",bird', [4, 6]),
            ("crow's nest,cat", [7, 2]),
            ('"0",crow\'s nest', [0, 7]),
        ],
    )
    def test_the_longest_name_or_quotes_say_where_a_name_ends(self, text, classes):
        assert read_classes(text, M, IMAGENET) == classes

    def test_quotes_within_a_name_are_written_twice(self):
        names = ['the "big" one, red', "'s Gravenhage", "cat", '"cat"']
        assert read_classes('"the ""big"" one, red",\'s Gravenhage', 4, names) == [0, 1]
        assert read_classes('the "big" one, red,cat,"""cat"""', 4, names) == [0, 2, 3]
        with refused('can be read in two ways, as class cat in quotes or as class "cat"'):
            read_classes('"cat"', 4, names)

    def test_two_readings_are_refused_by_name(self):
        with refused("'crane, bird' can be read in two ways, by class 'crane' or by class 'crane, bird'; put quotes"):
            read_classes("crane, bird", M, IMAGENET)
        with refused("two ways, by class '1' or by class '1, 2'"):
            read_classes("0,1, 2", 3, ["a", "b", "1, 2"])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("tench", "unknown class 'tench'; nearest names: \"tench, Tinca tinca\""),
            ("cat,Cat", "unknown class 'Cat'; nearest names: cat"),
            ("cat,", "unknown class ''"),
            ("", "unknown class ''"),
            ("cat;bird", "unknown class 'cat;bird'"),
            ("9", "class 9 is not one of the 9 classes; use 0 to 8"),
            ("9" * 5000, r"class 9{60} is not one of the 9 classes"),
            ("x" * 5000, r"unknown class 'x{60}'\.\.\. \(5,000 characters\)"),
        ],
    )
    def test_unknown_ones_are_refused_with_the_nearest(self, text, message):
        with refused(message) as caught:
            read_classes(text, M, IMAGENET)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500

    def test_numbers_that_are_names_are_never_indices(self):
        folders = ["1", "10", "2"]
        assert read_classes("1,10,2", 3, folders) == [0, 1, 2]
        with refused("unknown class '0'; nearest names: 10$"):
            read_classes("0", 3, folders)

    def test_both_ways_to_write_an_accent_are_one_name(self):
        assert read_classes("chaîne", 2, ["chai\u0302ne", "b"]) == [0]
        assert read_classes("chai\u0302ne", 2, ["cha\u00eene", "b"]) == [0]

    def test_a_list_of_all_of_many_classes_is_read_at_once(self):
        names = [f"{k}, the {k}th/{k}" for k in range(10_000)]
        assert read_classes(",".join(reversed(names)), len(names), names) == list(reversed(range(len(names))))


class TestPairsAndValues:
    def test_slashes_within_names(self):
        assert read_pairs("CD/DVD player/cat, cat/CD/DVD player", M, IMAGENET) == [(1, 2), (2, 1)]
        assert read_pairs("tench, Tinca tinca/crane, bird,3/4", M, IMAGENET) == [(0, 5), (3, 4)]
        with refused("pair 'CD/DVD player' has no target; write seed/target"):
            read_pairs("CD/DVD player", M, IMAGENET)
        with refused("unknown class 'cat/bird'"):
            read_pairs("cat/cat/bird", M, IMAGENET)

    def test_values(self):
        assert read_values("a=b=-2,tench, Tinca tinca=1e1", M, IMAGENET) == {3: -2.0, 0: 10.0}
        with refused("class cat is given twice; give it one number"):
            read_values("cat=1,2=2", M, IMAGENET)
        with refused("'1=2' is no number"):
            read_values("cat=1=2", M, IMAGENET)
        with refused("'cat' has no number; write cat=1.5"):
            read_values("cat", M, IMAGENET)


class TestCostsAndRules:
    def test_costs(self):
        assert CostMatrix.from_spec("seed:tench, Tinca tinca,cat", M, IMAGENET) == CostMatrix.seedwise(M, [0, 2])
        assert CostMatrix.from_spec("pair:CD/DVD player/cat", M, IMAGENET) == CostMatrix.pairwise(M, {1: [2]})
        assert CostMatrix.from_spec("seed:costs.csv", 2, ["costs.csv", "b"]) == CostMatrix.seedwise(2, [0])
        with refused("costs 'seed:crane, bird': 'crane, bird' can be read in two ways"):
            CostMatrix.from_spec("seed:crane, bird", M, IMAGENET)

    def test_rules(self):
        specs = ["offset:1.5*pair:CD/DVD player/cat", "offset:cat=-1.5", "offset:0,1.5*pair:1/2"]
        rules = parse_rules(specs, num_classes=M, class_names=IMAGENET)
        assert len(rules) == 2 and rules[0].offsets[2] == -1.5  # the first two are one
        (rule,) = parse_rules(['offset:tench, Tinca tinca=-1,"2*x"=-2,a=b=-3'], num_classes=M, class_names=IMAGENET)
        assert rule.offsets == (-1, 0, 0, -3, 0, 0, 0, 0, -2)
        assert parse_rules(["offset:cat=-3,2*x=-2"], num_classes=M, class_names=IMAGENET)[0].offsets[8] == -2


def test_names_that_cannot_be_told_apart_are_refused():
    with refused("data: classes 0 and 2 are both named 'cat'"):
        check_class_names(["cat", "dog", "cat"], "data")
    with refused(r"data: class 1 is named ''"):
        check_class_names(["cat", ""], "data")
    with refused(r"data: class 0 is named 'c\\nat'"):
        check_class_names(["c\nat", "dog"], "data")


WORDS = ["cat", "dog", "a", "b", "1", "2", "10", "", "x y"]
MARKS = [",", ", ", "/", "=", "*", '"', "'", " ", ":"]


@pytest.mark.parametrize("cases", [300, pytest.param(20_000, marks=pytest.mark.long)])
def test_what_is_read_is_what_was_written_or_it_is_refused(cases):
    for seed in range(cases):
        rng = random.Random(seed)
        drawn = ("".join(rng.choice(rng.choice([WORDS, MARKS])) for _ in range(rng.randint(1, 5))) for _ in range(6))
        names = list(dict.fromkeys(name.strip() for name in drawn if name.strip()))
        if len(names) < 2:
            continue
        meant = [rng.randrange(len(names)) for _ in range(rng.randint(1, 4))]
        for write in (str, lambda name: '"' + name.replace('"', '""') + '"'):
            written = [write(names[k]) for k in meant]
            try:
                assert read_classes(",".join(written), len(names), names) == meant, seed
                pairs = [f"{one}/{one}" for one in written]
                assert read_pairs(",".join(pairs), len(names), names) == [(k, k) for k in meant], seed
                assert read_values(f"{written[0]}=-1", len(names), names) == {meant[0]: -1.0}, seed
            except UserError as error:
                assert "two ways" in str(error) and "\n" not in str(error), (seed, error)
