"""Cost matrices: what may be said, and what is answered to what may not."""

import dataclasses
import re

import numpy as np
import pytest

from raycsr.class_names import tidy
from raycsr.costs import CostMatrix
from raycsr.errors import UserError

ANIMALS = ["bird", "cat", "dog"]


def refusal(message):
    """Expect a UserError of one line that contains the message."""
    return pytest.raises(UserError, match=r"\A[^\n]*" + re.escape(message) + r"[^\n]*\Z")


@pytest.fixture
def csv(tmp_path):
    def write(text):
        path = tmp_path / "costs.csv"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_uniform_makes_every_mistake_cost_one():
    costs = CostMatrix.uniform(3)
    assert costs.values.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert costs.targets(1).tolist() == [0, 2]
    assert costs.sensitive.all()
    assert costs.target_classes.all()


def test_seedwise_makes_all_mistakes_on_the_seeds_cost():
    costs = CostMatrix.seedwise(4, [2], cost=3.0)
    assert costs.targets(2).tolist() == [0, 1, 3]
    assert costs.targets(0).tolist() == []
    assert costs.values[2, 0] == 3
    assert costs.sensitive.tolist() == [False, False, True, False]
    assert costs.target_classes.tolist() == [True, True, False, True]


def test_pairwise_makes_the_named_mistakes_cost():
    costs = CostMatrix.pairwise(4, {3: [2, 0], 1: [2]}, cost=2.5)
    assert costs.targets(3).tolist() == [0, 2]
    assert costs.targets(1).tolist() == [2]
    assert costs.values.sum() == 7.5


def test_values_are_a_read_only_copy_in_float64():
    mine = np.array([[0, 1], [2, 0]])
    costs = CostMatrix(mine)
    mine[0, 1] = 9
    assert costs.values[0, 1] == 1
    assert costs.values.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        costs.values[0, 1] = 9
    with pytest.raises(dataclasses.FrozenInstanceError):
        costs.values = mine


def test_equality_and_digest_are_of_the_values_alone():
    one, same = CostMatrix([[0, 1], [2, 0]]), CostMatrix([[-0.0, 1.0], [2.0, 0.0]], ["yes", "no"])
    assert one == same
    assert hash(one) == hash(same)
    assert one.digest == same.digest
    assert len(one.digest) == 12
    other = CostMatrix([[0, 1], [3, 0]])
    assert one != other
    assert one.digest != other.digest
    assert one != "a matrix"


def test_repr_names_the_seeds():
    costs = CostMatrix.pairwise(3, {1: [2]}, class_names=ANIMALS)
    assert repr(costs) == f"CostMatrix(3 classes, 1 costly pairs of seeds [cat], {costs.digest})"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0, 1, 2], [1, 0, 2]], "is square, one row and one column a class; this one is (2, 3)"),
        ([[0]], "at least 2 classes; this one has 1"),
        ([[0, 1], [1]], "numbers in rows of equal length"),
        ([[0, "dear"], [1, 0]], "numbers in rows of equal length"),
        ([[0, 1], [np.nan, 0]], "cost at [1, 0] is nan; costs must be finite"),
        ([[0, np.inf], [1, 0]], "cost at [0, 1] is inf; costs must be finite"),
        ([[0, 1], [-2, 0]], "cost at [1, 0] is -2.0; costs must not be negative"),
        ([[0, 1e308], [1, 0]], "cost at [0, 1] is 1e+308; costs that are not 0 are 1e-15 to 1e+15"),
        ([[0, 1], [5e-324, 0]], "cost at [1, 0] is 5e-324; costs that are not 0 are 1e-15 to 1e+15"),
        ([[0, 1], [1, 0.5]], "cost at [1, 1] is 0.5; a right answer costs nothing"),
    ],
)
def test_bad_values_are_refused_with_the_entry(values, message):
    with refusal(message):
        CostMatrix(values)


def test_bad_classes_are_refused():
    with refusal("2 class names for 3 classes"):
        CostMatrix.uniform(3, class_names=["cat", "dog"])
    with refusal("class name 'cat' is given twice"):
        CostMatrix.uniform(3, class_names=["cat", "dog", "cat"])
    with refusal("class 7 is not one of the 3 classes; use 0 to 2"):
        CostMatrix.seedwise(3, [7])
    with refusal("class -1 is not one of the 3 classes"):
        CostMatrix.pairwise(3, {0: [-1]})
    with refusal("cost at [1, 1] is 1.0; a right answer costs nothing"):
        CostMatrix.pairwise(3, {1: [1]})
    with refusal("class 3 is not one of the 3 classes"):
        CostMatrix.uniform(3).targets(3)


TABLE = [[0, 1, 0], [0, 0, 2.5], [0, 0, 0]]  # of bird, cat, dog


@pytest.mark.parametrize(
    ("text", "class_names"),
    [
        ("0,1,0\n0,0,2.5\n0,0,0\n", None),
        ("bird,cat,dog\n0,1,0\n0,0,2.5\n0,0,0\n", tuple(ANIMALS)),
        ("bird,0,1,0\ncat,0,0,2.5\ndog,0,0,0\n", tuple(ANIMALS)),
        (",bird,cat,dog\nbird,0,1,0\ncat,0,0,2.5\ndog,0,0,0\n", tuple(ANIMALS)),
        ("true, bird, cat, dog\nbird, 0, 1, 0\ncat, 0, 0, 2.5\ndog, 0, 0, 0\n\n", tuple(ANIMALS)),
        (",0,1,2\n0,0,1,0\n1,0,0,2.5\n2,0,0,0\n", None),  # as pandas writes a frame without names
        ("class,0,1,2\n0,0,1,0\n1,0,0,2.5\n2,0,0,0\n", None),  # a corner that says what the numbers are
        ("\ufeff0,1,0\r\n0,0,2.5\r\n0,0,0\r\n", None),  # as a spreadsheet writes it
        ("0;1;0\n0;0;2,5\n0;0;0\n", None),  # where the decimal sign is a comma
        ("0\t1\t0\n0\t0\t2,5\n0\t0\t0\n", None),
        ("0\t1\t0\n0\t0\t2.5\n0\t0\t0\n", None),
        ('0,1,0\n0,0,"2,5"\n0,0,0\n', None),
        ("sep=;\n0;1;0\n0;0;2,5\n0;0;0\n", None),  # Excel's own first line
        (",1,0\n0,,2.5\n0,0,\n", None),  # an empty diagonal
        (",bird,cat,dog\nbird,,1,0\ncat,0,,2.5\ndog,0,0,\n", tuple(ANIMALS)),
        ("bird;cat;dog\n;1;0\n0;;2,5\n0;0;\n", tuple(ANIMALS)),
        ("0,1,0,,\n0,0,2.5,,\n0,0,0,,\n,,,,\n,,,,\n", None),  # what was once filled stays around a table
        (",,\n,bird,cat,dog\n,0,1,0\n,0,0,2.5\n,0,0,0\n", tuple(ANIMALS)),
        (",bird,cat,dog\n0,0,1,0\n1,0,0,2.5\n2,0,0,0\n", tuple(ANIMALS)),  # a frame's own index
        ("id,bird,cat,dog\n1,0,1,0\n2,0,0,2.5\n3,0,0,0\n", tuple(ANIMALS)),  # numbered from 1
        (",cat,dog,bird\nbird,1,0,0\ncat,0,2.5,0\ndog,0,0,0\n", tuple(ANIMALS)),  # columns in another order
        ('"bird","cat","dog"\n"0","1","0"\n"0","0","2.5"\n"0","0","0"\n', tuple(ANIMALS)),
        ("0;1;0\n0;0;2,500\n0;0;0,0\n", None),  # the last cell says what the comma is
        ("0,1,0\n0,0,2.500\n0,0,0\n", None),  # between commas a point is decimal
    ],
)
def test_csv_as_people_and_programs_write_it(csv, text, class_names):
    costs = CostMatrix.from_csv(csv(text))
    assert costs.values.tolist() == TABLE
    assert costs.class_names == class_names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (",2,0,1\n0,0,0,1\n1,0,0,0\n2,0,2.5,0\n", ["0", "1", "2"]),  # the rows count, and the columns are named, too
        (",b\u00e4r,c\u00fc,d\nb\u00e4r,0,1,0\nc\u00fc,0,0,0\nd,0,0,0\n", ["ba\u0308r", "cu\u0308", "d"]),
        (",ba\u0308r,c,d\nba\u0308r,0,1,0\nc,0,0,0\nd,0,0,0\n", ["b\u00e4r", "c", "d"]),
    ],
)
def test_classes_are_those_that_a_person_reads(csv, text, names):
    names = [tidy(name) for name in names]
    assert CostMatrix.from_spec(csv(text), 3, names).values[0].tolist() == [0, 1, 0]


def test_numbers_that_name_other_classes_are_no_indices(csv):
    """Of classes 1, 2 and 3 the file's 1 is the class 1, and it has a 0, too; so is it for a list of classes."""
    for text in (",0,1,2\n0,0,1,2\n1,3,0,5\n2,6,7,0\n", ",0,1,2\n1,0,1,2\n2,3,0,5\n3,6,7,0\n"):
        with refusal("class '0'"):
            CostMatrix.from_spec(csv(text), 3, ["1", "2", "3"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_csv_in_the_encodings_of_spreadsheets(tmp_path, encoding):
    mark = "\ufeff" if encoding.startswith("utf-16-") else ""
    (tmp_path / "costs.csv").write_bytes(f"{mark};bär;löwe\nbär;0;1,5\nlöwe;2;0\n".encode(encoding))
    costs = CostMatrix.from_csv(tmp_path / "costs.csv")
    assert costs.class_names == ("bär", "löwe") and costs.values.tolist() == [[0, 1.5], [2, 0]]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".npy", ".CSV", ".Tsv"])
def test_a_file_is_known_by_its_suffix(tmp_path, suffix):
    path = tmp_path / f"costs{suffix}"
    if suffix == ".npy":
        np.save(path, np.array(TABLE))
    else:
        path.write_text("0\t1\t0\n0\t0\t2.5\n0\t0\t0\n")
    assert CostMatrix.from_spec(str(path), 3).values.tolist() == TABLE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        (",,\n,,\n", "the file is empty"),
        ("0,1\n1,x\n", "cell 'x' is not a number"),
        ("0,1,2\n1,0,2\n", "this one is (2, 3)"),
        ("0,1\n1,-4\n", "cost at [1, 1] is -4.0"),
        ("0,1\n1,0\n5,5\n", "this one is (3, 2)"),
        (",a,b\na,0,1\nc,1,0\n", "class 'b' is 1 times in the header and 0 times in the first column"),
        (",a,a\na,0,1\nb,1,0\n", "class 'a' is 2 times in the header and 1 times in the first column"),
        ("a,a\n0,1\n1,0\n", "class name 'a' is given twice"),
        (",a,b\n1,0,1\n0,1,0\n", "class 'a' is 1 times in the header and 0 times"),  # no order of rows
        ("0,\n1,0\n", "cell [0, 1] is empty; only the diagonal may be"),
        ("0;1 000\n1;0\n", "cell '1 000' seems to have thousands apart, at [0, 1]; write it without, as 1000"),
        ("0;1.000,50\n1;0\n", "cell '1.000,50' seems to have thousands apart"),
        ("0;1.000.000\n1;0\n", "cell '1.000.000' seems to have thousands apart"),
        ("0;1\u202f000\n1;0\n", "seems to have thousands apart"),
        ("0;1.000\n1;0\n", "cell '1.000' may be a fraction or thousands; write 1.0000 or 1000"),
        ("0;1,000\n1;0\n", "cell '1,000' may be a fraction or thousands; write 1,0000 or 1000"),
        ('0,"1,000"\n1,0\n', "cell '1,000' may be a fraction or thousands"),
        ("0;1,5\n2.5;0\n", "cells '1,5' and '2.5' have different decimal signs"),
        (",0,1\n0,,5\n1,2,\n", "its first row and column may be numbers of classes or costs"),
        ("0,10 %\n1,0\n", "cell '10 %' is not a number"),
        ("0,nan\n1,0\n", "cell 'nan' is not a number"),
        ("0,1_0\n1,0\n", "cell '1_0' is not a number"),
        ("0,1e999\n1,0\n", "cost at [0, 1] is inf; costs must be finite"),
        ("0," + "9" * 5000 + "\n1,0\n", "cost at [0, 1] is inf; costs must be finite"),
        ("0,1,2\n1,0,2\n2," + "x" * 5000 + ",0\n", "(5,000 characters) is not a number"),
        ('0,"' + "9" * 200_000 + '"\n1,0\n', "cannot be read: field larger than field limit"),
    ],
    ids=lambda text: re.sub(r"\W+", " ", text[:20]),
)
def test_bad_csv_is_refused_with_its_path(csv, text, message):
    path = csv(text)
    with refusal(message) as raised:
        CostMatrix.from_csv(path)
    assert path in str(raised.value) and len(str(raised.value)) < len(path) + 250


def test_csv_that_cannot_be_read_is_refused(tmp_path):
    with refusal("absent.csv cannot be read: No such file"):
        CostMatrix.from_csv(tmp_path / "absent.csv")
    with refusal("cannot be read: Is a directory"):
        CostMatrix.from_csv(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"\x00\x01\x02", "it is no text"),
        ("a.csv", b"\x81,\xff", "can't decode byte 0x81"),
        ("a.csv", b"\xff\xfe0", "cannot be read"),  # half a character of UTF-16
        ("a.csv", b"PK\x03\x04...", "it is no Excel workbook that can be read"),
        ("a.xlsx", b"PK\x03\x04...", "it is no Excel workbook that can be read"),
        ("a.xls", b"\xd0\xcf\x11\xe0...", "save it as .xlsx or CSV"),
        ("a.npy", b"0,1\n1,0\n", "it is no array that numpy.save wrote"),
        ("a.npy", b"\x93NUMPY\x01\x00", "it is no array of numbers"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with refusal(message):
        CostMatrix.from_spec(str(tmp_path / name), 2)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3)), "is square"),
        (np.zeros(4), "is square"),
        (np.array([["0", "1"], ["1", "0"]]), "an array of <U1"),
        (np.array([[0, 1j], [1, 0]]), "an array of complex128"),
        (np.array([[0, len], [1, 0]], dtype=object), "no array of numbers"),
    ],
)
def test_an_array_that_is_no_matrix_is_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with refusal(message):
        CostMatrix.from_csv(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        ("uniform", CostMatrix.uniform(3)),
        ("seed:cat,dog", CostMatrix.seedwise(3, [1, 2])),
        ("seed:1, 2", CostMatrix.seedwise(3, [1, 2])),
        ("pair:cat/dog,0/1,cat/bird", CostMatrix.pairwise(3, {1: [0, 2], 0: [1]})),
    ],
)
def test_specs_name_classes_or_number_them(spec, same):
    costs = CostMatrix.from_spec(spec, 3, ANIMALS)
    assert costs == same
    assert costs.class_names == tuple(ANIMALS)


def test_a_name_goes_before_an_index():
    assert CostMatrix.from_spec("seed:2", 3, ["2", "1", "0"]) == CostMatrix.seedwise(3, [0])


def test_spec_of_a_csv_takes_the_names_of_the_data(csv):
    path = csv("0,1\n1,0\n")
    assert CostMatrix.from_spec(path, 2).class_names is None
    assert CostMatrix.from_spec(path, 2, ["cat", "dog"]).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sead:cat", "costs 'sead:cat' not understood; did you mean seed:cat,dog?"),
        ("uniform:cat", "costs 'uniform:cat' not understood; did you mean uniform?"),
        ("zzz", "use uniform, seed:cat,dog, pair:cat/dog,3/8, groups:superclasses.csv or a path to a .csv"),
        ("seed:cart", "unknown class 'cart'; nearest names: cat"),
        ("seed:zzz", "unknown class 'zzz'; nearest names: bird, cat, dog (or use 0 to 2)"),
        ("seed:3", "class 3 is not one of the 3 classes"),
        ("seed:", "unknown class ''"),
        ("pair:cat", "costs 'pair:cat': pair 'cat' has no target; write seed/target"),
        ("pair:cat/cat", "cost at [1, 1] is 1.0"),
    ],
)
def test_bad_specs_are_refused_with_the_fix(spec, message):
    with refusal(message):
        CostMatrix.from_spec(spec, 3, ANIMALS)


def test_a_name_is_refused_where_the_data_has_none():
    with refusal("class 'cat' given by name, but the data has no class names; use 0 to 2"):
        CostMatrix.from_spec("seed:cat", 3)


def test_a_csv_that_does_not_fit_the_data_is_refused(csv):
    path = csv("cat,dog\n0,1\n1,0\n")
    with refusal("has 2 classes, the data has 3"):
        CostMatrix.from_spec(path, 3, ANIMALS)
    with refusal("has a class 'cat', the data has none; choose from dog, frog"):
        CostMatrix.from_spec(path, 2, ["dog", "frog"])


@pytest.mark.parametrize(
    "text",
    [
        "dog,bird,cat\n0,0,0\n0,0,1\n2.5,0,0\n",  # the header says the order of the rows, too
        "dog,0,0,0\nbird,0,0,1\ncat,2.5,0,0\n",  # as does a first column
        ",dog,bird,cat\ndog,0,0,0\nbird,0,0,1\ncat,2.5,0,0\n",
        ",dog,cat,bird\ncat,2.5,0,0\nbird,0,1,0\ndog,0,0,0\n",  # rows and columns differ
        ",2,0,1\n2,0,0,0\n0,0,0,1\n1,2.5,0,0\n",  # by index, which is no class's name here
    ],
)
def test_a_csv_in_another_order_is_put_in_that_of_the_data(csv, text):
    costs = CostMatrix.from_spec(csv(text), 3, ANIMALS)
    assert costs.values.tolist() == TABLE and costs.class_names == tuple(ANIMALS)


def test_digits_in_a_csv_are_names_where_the_data_has_such_names(csv):
    path = csv(",0,1,2\n0,0,1,0\n1,0,0,2.5\n2,0,0,0\n")
    assert CostMatrix.from_spec(path, 3, ["2", "0", "1"]).values.tolist() == [[0, 0, 0], [0, 0, 1], [2.5, 0, 0]]
    assert CostMatrix.from_spec(csv(",1,2\n1,0,3\n2,4,0\n"), 2, ["2", "1"]).values.tolist() == [[0, 4], [3, 0]]
    assert CostMatrix.from_spec(csv(",1,0\n1,0,3\n0,4,0\n"), 2).values.tolist() == [[0, 4], [3, 0]]


def test_names_with_commas_stand_in_quotes(csv):
    names = ["tench, Tinca tinca", "CD/DVD player"]
    text = ',"CD/DVD player","tench, Tinca tinca"\n"tench, Tinca tinca",1,0\nCD/DVD player,0,2\n'
    assert CostMatrix.from_spec(csv(text), 2, names).values.tolist() == [[0, 1], [2, 0]]


def test_a_wrong_cost_is_named_by_its_classes(csv):
    """Its place alone was that in the order of the rows, which a sheet's columns need not have."""
    with refusal("cost at [0, 2] is -5.0 (bird answered as cat); costs must not be negative"):
        CostMatrix.from_csv(csv(",cat,dog,bird\nbird,-5,0,0\ndog,1,0,0\ncat,0,2,0\n"))
