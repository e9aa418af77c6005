"""Which class a label is: by name wherever both know names, by position only where that is said."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raycsr.class_names import read_classes
from raycsr.costs import CostMatrix
from raycsr.data.sources import Source
from raycsr.errors import UserError
from raycsr.models.rules import parse_rules


@pytest.fixture
def folders(tmp_path: Path) -> Callable[..., Path]:
    """`folders(*classes)` makes an imagefolder of one image a class."""

    def make(*classes: str) -> Path:
        for name in classes:
            (tmp_path / "photos" / name).mkdir(parents=True)
            (tmp_path / "photos" / name / "0.png").write_bytes(b"an image")
        return tmp_path / "photos"

    return make


def labels(source: Source) -> dict[str, int]:
    images = source.list().images
    return dict(zip(images.image_id, images.label.tolist(), strict=True))


class TestByName:
    def test_folders_in_the_order_of_class_names(
        self, source: Callable[..., Source], folders: Callable[..., Path]
    ) -> None:
        photos = source("imagefolder", folders("benign", "malignant"), class_names=["malignant", "benign"])
        assert labels(photos) == {"benign/0.png": 1, "malignant/0.png": 0}
        (note,) = photos.list().notes
        assert "'benign' is 1, 'malignant' is 0" in note
        chosen = source("imagefolder", photos.options.path, class_names=["malignant", "benign"], classes=["malignant"])
        assert labels(chosen) == {"malignant/0.png": 0}

    def test_every_kind_that_knows_names(
        self, source: Callable[..., Source], write_parquet: Callable[..., Path], tmp_path: Path
    ) -> None:
        write_parquet(tmp_path / "0.parquet", [0, 1, 2], ["ant", "cat", "dog"])
        assert list(labels(source("parquet", tmp_path, class_names=["dog", "ant", "cat"])).values()) == [1, 2, 0]
        before = source("digits").list().images.label
        turned = source("digits", class_names=list("9876543210")).list().images.label
        assert (turned == 9 - before).all()

    def test_case_and_the_two_ways_to_write_an_accent_do_not_matter(
        self, source: Callable[..., Source], folders: Callable[..., Path]
    ) -> None:
        photos = source("imagefolder", folders("Ant", "cha\u0302t"), class_names=["CH\u00c2T", "ant"])
        assert labels(photos) == {"Ant/0.png": 1, "cha\u0302t/0.png": 0}

    def test_case_matters_where_it_tells_classes_apart(
        self, source: Callable[..., Source], folders: Callable[..., Path]
    ) -> None:
        photos = source("imagefolder", folders("a", "A"), class_names=["a", "A"])
        assert labels(photos) == {"A/0.png": 1, "a/0.png": 0}

    def test_a_missing_label_is_not_the_last_of_more_names(
        self, source: Callable[..., Source], write_parquet: Callable[..., Path], tmp_path: Path
    ) -> None:
        write_parquet(tmp_path / "0.parquet", [0, -1], ["ant", "cat"])
        with pytest.raises(UserError, match=r"1 labels are outside 0\.\.1, the first is -1"):
            source("parquet", tmp_path, class_names=["ant", "cat", "dog"]).list()
        write_parquet(tmp_path / "0.parquet", [0, 2], ["ant", "cat"])
        with pytest.raises(UserError, match=r"1 labels are outside 0\.\.1, the first is 2"):
            source("parquet", tmp_path, class_names=["ant", "cat", "dog"]).list()


class TestByPosition:
    def test_other_names_rename_in_place_and_that_is_said(
        self, source: Callable[..., Source], folders: Callable[..., Path]
    ) -> None:
        photos = source("imagefolder", folders("n01", "n02", "cat"), class_names=["cat", "tench", "goldfish"])
        assert labels(photos) == {"cat/0.png": 0, "n01/0.png": 1, "n02/0.png": 2}
        (note,) = photos.list().notes
        assert "renamed by position" in note and "'n01' -> 'tench', 'n02' -> 'goldfish'" in note and "cat" not in note

    def test_a_name_that_both_have_stays_with_its_class(
        self, source: Callable[..., Source], folders: Callable[..., Path]
    ) -> None:
        with pytest.raises(UserError, match=r"class_names has 'cat' at 1 and .*photos' has it at 0; .* 'cat', 'dog'"):
            source("imagefolder", folders("cat", "dog"), class_names=["hound", "cat"]).list()

    def test_a_source_of_numbers_says_that_names_are_by_position(
        self, source: Callable[..., Source], write_parquet: Callable[..., Path], tmp_path: Path
    ) -> None:
        write_parquet(tmp_path / "0.parquet", [0, 1])
        *_, note = source("parquet", tmp_path, class_names=["ant", "bee", "cat", "dog"]).list().notes
        assert "by position" in note and "0 -> 'ant', 1 -> 'bee', 2 -> 'cat' and 1 more" in note
        assert not any("position" in one for one in source("parquet", tmp_path).list().notes)


class TestNumbersAsNames:
    def test_text_order_is_said_and_what_to_do(
        self, source: Callable[..., Source], folders: Callable[..., Path]
    ) -> None:
        photos = folders("1", "2", "10")
        (note,) = source("imagefolder", photos).list().notes
        assert "'10' is 1, '2' is 2" in note and "data.class_names: '1', '2', '10'" in note
        counted = source("imagefolder", photos, class_names=["1", "2", "10"])
        assert labels(counted) == {"1/0.png": 0, "2/0.png": 1, "10/0.png": 2}

    def test_numbers_in_order_say_nothing(self, source: Callable[..., Source], folders: Callable[..., Path]) -> None:
        assert source("imagefolder", folders("01", "02", "10")).list().notes == ()
        assert source("digits").list().notes == ()

    def test_a_number_in_classes_is_a_name(self, source: Callable[..., Source], folders: Callable[..., Path]) -> None:
        photos = folders("1", "2", "10")
        assert labels(source("imagefolder", photos, classes=[10])) == {"10/0.png": 1}
        with pytest.raises(UserError, match=r"unknown class '0'"):
            source("imagefolder", photos, classes=[0]).list()


class TestRefused:
    def test_a_name_twice(
        self, source: Callable[..., Source], write_parquet: Callable[..., Path], tmp_path: Path
    ) -> None:
        with pytest.raises(UserError, match=r"data.class_names: classes 0 and 1 are both named 'x'"):
            source("digits", class_names=["x", "x", *"23456789"]).list()
        write_parquet(tmp_path / "0.parquet", [0, 1], ["crane", "crane"])
        with pytest.raises(UserError, match=r"classes 0 and 1 are both named 'crane'; .* in data.class_names"):
            source("parquet", tmp_path).list()
        assert source("parquet", tmp_path, class_names=["crane (bird)", "crane (machine)"]).list().class_names

    def test_too_few_names_with_those_that_are_missing(
        self, source: Callable[..., Source], folders: Callable[..., Path]
    ) -> None:
        with pytest.raises(UserError, match=r"class_names has 1 names, .* has 2 classes, .*: 'cat'"):
            source("imagefolder", folders("ant", "cat"), class_names=["ant"]).list()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"ant\n\ncat\n", "has no name in line 2"),
            (b"", "has no name in line 1"),
            (b"ant\n\xe9\n", "cannot read class_names .*utf-8"),
            (b"x" * (2**24 + 1), "has 16,777,217 bytes, too many"),
        ],
    )
    def test_files(self, source: Callable[..., Source], tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "names.txt").write_bytes(content)
        with pytest.raises(UserError, match=message):
            source("digits", class_names=str(tmp_path / "names.txt")).list()

    def test_paths(self, source: Callable[..., Source], tmp_path: Path) -> None:
        for path in ("", "nul\0", str(tmp_path), "ant,cat"):
            with pytest.raises(UserError, match="cannot read class_names .*give a list"):
                source("digits", class_names=path).list()
        with pytest.raises(UserError, match="are not all text; put quotes"):  # as the command line hands it over
            source("digits", class_names="[1, 2]").list()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_as_editors_write_it(
    source: Callable[..., Source], folders: Callable[..., Path], tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "names.txt").write_bytes("küken\r\nant\r\n\r\n".encode(encoding))
    photos = source("imagefolder", folders("ant", "küken"), class_names=str(tmp_path / "names.txt"))
    assert labels(photos) == {"ant/0.png": 1, "küken/0.png": 0}


def fuzzed(rng: random.Random, own: list[str]) -> bytes:
    """A file of class names, and what may happen to one."""
    names = rng.sample([*own, "tench, Tinca tinca", "CD/DVD player", '"', "0", "a=b", "é", "e\u0301", "x*"], len(own))
    if rng.random() < 0.6:
        names = rng.sample(own, len(own))
    for _ in range(rng.choice([0, 0, 1, 3])):
        at = rng.randrange(len(names) + 1)
        odd = ["", " ", "\0", "9" * 5000, "\u2028", "x" * 300, "ß", "SS", "\ufeff", "1\t2", *names]
        names[at : at + rng.randrange(2)] = [rng.choice(odd)]
        names = names or [""]
    content = bytearray(
        rng.choice(["\n", "\r\n", "\r"]).join(names).encode(rng.choice(["utf-8", "utf-8-sig", "utf-16"]))
    )
    for _ in range(rng.choice([0, 0, 0, 3])):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content[: rng.randrange(len(content) + 1)] if rng.random() < 0.1 else content)


@pytest.mark.parametrize("cases", [60, pytest.param(2_000, marks=pytest.mark.long)])
def test_any_file_of_names_is_used_or_refused_in_one_line(
    source: Callable[..., Source], folders: Callable[..., Path], tmp_path: Path, cases: int
) -> None:
    own = ["cat", "dog", "1", "10", "2", "crane, bird"]
    photos, used = folders(*own), 0
    for seed in range(cases):
        rng = random.Random(seed)
        (tmp_path / "names.txt").write_bytes(fuzzed(rng, own))
        try:
            listing = source("imagefolder", photos, class_names=str(tmp_path / "names.txt")).list()
            names, m = listing.class_names, len(listing.class_names)
            assert len(set(names)) == m and all("\n" not in note for note in listing.notes), seed
            of_folder = {image_id.split("/")[0]: names[k] for image_id, k in
                         zip(listing.images.image_id, listing.images.label, strict=True)}  # fmt: skip
            assert all(of_folder[name] == name for name in own if name in names), seed  # never another's name
            k = rng.randrange(m)
            quoted = '"' + names[k].replace('"', '""') + '"'
            assert read_classes(quoted, m, names) == [k], seed
            assert CostMatrix.from_spec(f"seed:{quoted}", m, names).sensitive.tolist() == [i == k for i in range(m)]
            for spec in (f"offset:{names[k]}=1", f"expected_cost:1*seed:{names[k]},{rng.choice(names)}"):
                parse_rules([spec], num_classes=m, class_names=names)
            used += 1
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 1000, (seed, error)
    assert used > cases / 10


def test_names_of_many_classes_are_matched_at_once(source: Callable[..., Source], tmp_path: Path) -> None:
    from raycsr.data.images import Found, frame
    from raycsr.data.naming import name_classes
    from raycsr.data.options import DataOptions

    names: list[Any] = [f"class {k}" for k in range(20_000)]
    found = Found(frame(["a"], [7], [1], ""), names, None)  # type: ignore[arg-type]
    naming = name_classes(DataOptions("parquet", class_names=names[::-1]), found, "x")
    assert naming.labels.tolist() == [19_992]
