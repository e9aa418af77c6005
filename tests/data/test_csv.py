"""The source csv: tables as people have them, the files that their rows mean, and what is refused."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raycsr.data.decode import decode_images
from raycsr.data.sources import Source
from raycsr.errors import UserError
from raycsr.models.spec import Preprocessing


@pytest.fixture
def ham(tmp_path: Path) -> Path:
    """HAM10000 as Kaggle has it, of seven images: two parts, image_id without extension, lesions of several images."""
    rows = [
        ("HAM_0000118", "ISIC_0027419", "bkl", 1),
        ("HAM_0000118", "ISIC_0025030", "bkl", 2),
        ("HAM_0002730", "ISIC_0026769", "mel", 1),
        ("HAM_0002730", "ISIC_0025661", "mel", 2),
        ("HAM_0001466", "ISIC_0031633", "nv", 2),
        ("HAM_0002761", "ISIC_0029176", "nv", 1),
        ("HAM_0005132", "ISIC_0025837", "akiec", 2),
    ]
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for i, (lesion, image, dx, part) in enumerate(rows):
        folder = tmp_path / "ham" / f"HAM10000_images_part_{part}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 9), (30 * i, 0, 0)).save(folder / f"{image}.jpg", quality=100)
        lines.append(f"{lesion},{image},{dx},histo,{60 + i}.0,male,scalp")
    (tmp_path / "ham" / "HAM10000_metadata.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "ham"


PARTS = ["HAM10000_images_part_1", "HAM10000_images_part_2"]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """`table(text)` writes a CSV beside the images a.jpg, b.png and sub/c.jpg."""
    for name in ("a.jpg", "b.png", "sub/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(f"bytes of {name}".encode())

    def write(text: str | bytes, encoding: str = "utf-8") -> Path:
        path = tmp_path / "images.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return write


class TestHam:
    def test_as_kaggle_has_it(self, source: Callable[..., Source], ham: Path) -> None:
        opened = source("csv", ham / "HAM10000_metadata.csv", image_roots=PARTS)
        listing = opened.list()
        assert listing.class_names == ["akiec", "bkl", "mel", "nv"]
        ids = [f"ISIC_00{number}.jpg" for number in (25030, 25661, 25837, 26769, 27419, 29176, 31633)]
        assert listing.images.image_id.tolist() == ids
        assert listing.images.label.tolist() == [1, 2, 0, 2, 1, 3, 3]
        assert listing.images.group.tolist()[:3] == ["HAM_0000118", "HAM_0002730", "HAM_0005132"]
        assert (listing.images["size"] > 0).all()
        read = decode_images(opened.read(ids), Preprocessing((9, 12), "bilinear", 1.0, "center"))
        assert read["error"].tolist() == [None] * 7
        assert np.allclose(read["image"][:, 4, 6, 0], [30, 90, 180, 60, 0, 150, 120], atol=6)

    def test_its_identity_is_not_where_it_lies(self, source: Callable[..., Source], ham: Path, tmp_path: Path) -> None:
        before = source("csv", ham / "HAM10000_metadata.csv", image_roots=PARTS).list()
        together = ham.rename(tmp_path / "moved")
        for file in (together / PARTS[1]).iterdir():
            file.rename(together / PARTS[0] / file.name)
        absolute = str(together / PARTS[0])
        after = source("csv", together / "HAM10000_metadata.csv", image_roots=[absolute]).list()
        assert after.identity == before.identity
        assert after.images.drop(columns="version").equals(before.images.drop(columns="version"))

    def test_without_roots_the_message_names_them(self, source: Callable[..., Source], ham: Path) -> None:
        with pytest.raises(
            UserError, match=r"7 of 7 images.*'ISIC_0027419' in line 2: give data.image_roots"
        ) as caught:
            source("csv", ham / "HAM10000_metadata.csv").list()
        assert ", ".join(PARTS) in str(caught.value) and "\n" not in str(caught.value)

    def test_images_may_be_taken_as_independent_or_grouped_by_another_column(
        self, source: Callable[..., Source], ham: Path
    ) -> None:
        options = {"image_roots": PARTS, "limit": 2}
        assert "group" not in source("csv", ham / "HAM10000_metadata.csv", group_column="none", **options).list().images
        by_age = source("csv", ham / "HAM10000_metadata.csv", group_column="age", **options).list()
        assert by_age.images.group.tolist() == ["61.0", "63.0"]

    def test_labels_by_another_column_are_in_the_order_of_the_users_names(
        self, source: Callable[..., Source], ham: Path
    ) -> None:
        names = ["nv", "mel", "bkl", "akiec", "bcc"]
        listing = source("csv", ham / "HAM10000_metadata.csv", image_roots=PARTS, class_names=names).list()
        assert [names[label] for label in listing.images.label] == ["bkl", "mel", "akiec", "mel", "bkl", "nv", "nv"]

    def test_on_s3(self, source: Callable[..., Source], ham: Path, s3: Any) -> None:
        bucket = s3.new_bucket()
        for file in ham.rglob("*"):
            if file.is_file():
                s3.client.put_object(Bucket=bucket, Key=f"x/{file.relative_to(ham)}", Body=file.read_bytes())
        local = source("csv", ham / "HAM10000_metadata.csv", image_roots=PARTS)
        remote = source("csv", f"s3://{bucket}/x/HAM10000_metadata.csv", image_roots=PARTS)
        assert remote.options.image_roots == [f"s3://{bucket}/x/{part}" for part in PARTS]
        assert remote.list().identity == local.list().identity
        ids = ["ISIC_0025030.jpg", "ISIC_0027419.jpg"]
        assert remote.read(ids) == local.read(ids)
        with pytest.raises(UserError, match=r"s3://bucket-.*/x/other.csv' is no file"):
            source("csv", f"s3://{bucket}/x/other.csv").list()


class TestIlsvrc:
    @pytest.fixture
    def val(self, tmp_path: Path) -> Path:
        (tmp_path / "val").mkdir()
        for i in (1, 2, 3):
            (tmp_path / "val" / f"ILSVRC2012_val_0000000{i}.JPEG").write_bytes(b"jpg")
        return tmp_path

    def test_kaggles_solution_file(self, source: Callable[..., Source], val: Path) -> None:
        lines = ["ImageId,PredictionString", "ILSVRC2012_val_00000002,n01751748 111 108 306 356"]
        lines += [
            "ILSVRC2012_val_00000001,n01440764 1 2 3 4 n01440764 5 6 7 8 ",
            "ILSVRC2012_val_00000003,n01751748 9 9 9 9",
        ]
        (val / "LOC_val_solution.csv").write_text("\n".join(lines))
        listing = source("csv", val / "LOC_val_solution.csv", image_roots=["val"]).list()
        assert listing.class_names == ["n01440764", "n01751748"] and listing.images.label.tolist() == [0, 1, 1]

    @pytest.mark.parametrize("name", ["ILSVRC2012_val_0000000{}.JPEG {}\n", "ILSVRC2012_val_0000000{}.JPEG,{}\r\n"])
    def test_lines_of_path_and_label_without_a_header(
        self, source: Callable[..., Source], val: Path, name: str
    ) -> None:
        (val / "val.txt").write_text("".join(name.format(i, label) for i, label in [(1, 65), (2, 970), (3, 0)]))
        listing = source("csv", val / "val.txt", image_roots=["val"]).list()
        assert listing.images.label.tolist() == [65, 970, 0] and len(listing.class_names) == 971

    def test_numbers_alone_are_refused_for_they_count_another_order(
        self, source: Callable[..., Source], val: Path
    ) -> None:
        (val / "ILSVRC2012_validation_ground_truth.txt").write_text("490\n361\n171\n")
        with pytest.raises(UserError, match=r"one column.*nor do they count classes by sorted wnid.*give path,label"):
            source("csv", val / "ILSVRC2012_validation_ground_truth.txt", image_roots=["val"]).list()


class TestTable:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
    def test_delimiters_and_encodings(
        self, source: Callable[..., Source], table: Callable[..., Path], delimiter: str, encoding: str
    ) -> None:
        rows = [("Label", "Path"), ("Kätzchen", "a.jpg"), ("ant", "b.png"), ("Kätzchen", "sub\\c.jpg")]
        text = "\r\n".join(delimiter.join(row) for row in rows)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            listing = source("csv", table(text, encoding)).list()
        assert listing.class_names == ["Kätzchen", "ant"]
        assert listing.images.image_id.tolist() == ["a.jpg", "b.png", "sub/c.jpg"]
        assert [str(one.message).split("'")[-1] for one in caught] == (
            [" is not UTF-8 and is read as cp1252: look at its class names"] if encoding == "cp1252" else []
        )

    def test_whole_numbers_are_indices(self, source: Callable[..., Source], table: Callable[..., Path]) -> None:
        listing = source("csv", table("path,label\na.jpg,10\nb.png,2.0\nsub/c.jpg,0\n")).list()
        assert listing.images.label.tolist() == [10, 2, 0]
        assert listing.class_names == [str(i) for i in range(11)]

    def test_columns_by_name(self, source: Callable[..., Source], table: Callable[..., Path]) -> None:
        path = table("path,label,other image,other label\nno.jpg,x,a.jpg,7\nno.jpg,y,b.png,3\n")
        listing = source("csv", path, image_column="other image", label_column="other label").list()
        assert listing.images[["image_id", "label"]].to_numpy().tolist() == [["a.jpg", 7], ["b.png", 3]]

    def test_absolute_paths_below_a_root(self, source: Callable[..., Source], table: Callable[..., Path]) -> None:
        folder = table("").parent
        listing = source("csv", table(f"path,label\n{folder}/a.jpg,0\n./sub/../b.png,1\n{folder}/sub/c.jpg,1\n")).list()
        assert listing.images.image_id.tolist() == ["a.jpg", "b.png", "sub/c.jpg"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "has no rows"),
            ("path,label\n", "has no rows"),
            ("path,label\na.jpg,0\nb.png\n", "line 3 of .* has 1 cells and the first has 2"),
            ("path,label\na.jpg,0,\n", "line 2 of .* has 3 cells and the first has 2"),
            ('path,label\na.jpg,"0\nb.png,1\n', "cannot be read as CSV below line 1: unexpected end of data"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\x81", "is no text: save it as CSV in UTF-8"),
            (b"PK\x03\x04\x14\0\x06\0\x08\0\0\0", "is no text: save it as CSV in UTF-8"),
            ("name,label\na.jpg,0\n", "no column known to be the image: name one by .*_column, of 'name', 'label'"),
            ("path,dx,target\na.jpg,x,0\n", "several columns that may be the label: name one .* of 'dx', 'target'"),
            ("path,label,patient,lesion_id\na.jpg,x,0,1\n", "may be the group: name one by .*group_column, or none"),
            ("path,label,label\na.jpg,x,0\n", "several columns that may be the label"),
            ("path,label\na.jpg,0\nb.png,\n", "1 of 2 images of .* no label in column 'label', the first in line 3"),
            ("path,label\na.jpg,0\nb.png,cat\n", r"whole numbers \('0' in line 2\) and names \('cat' in line 3\)"),
            ("path,label\na.jpg,-1\nb.png,0\n", "1 labels are outside 0..0, the first is -1 of 'a.jpg'"),
            (f"path,label\na.jpg,{'9' * 5000}\n", "has '999999999999' in line 2, which is no class index"),
            ("path,label\na.jpg,0\nb.png,1\na.jpg,1\n", "1 rows .* an image again, the first 'a.jpg' in lines 2 and 4"),
            ("path,label\na.jpg,0\na,1\n", "name an image again, the first 'a.jpg' in lines 2 and 3"),
            ("path,label\na.jpg,0\nd.jpg,1\n", r"1 of 2 images .* are not in '.*', the first 'd.jpg' in line 3: mend"),
            ("path,label\nc.jpg,0\n", r"1 of 1 images .* in line 2: give data.image_roots \[sub\]"),
            ("path,label\n../a.jpg,0\n", "1 of 1 images .* the first '../a.jpg' in line 2"),
            ("path,label\n,0\na.jpg,0\n", "1 of 2 images .* the first '' in line 2"),
        ],
    )  # fmt: skip
    def test_mistakes_are_one_line(
        self, source: Callable[..., Source], table: Callable[..., Path], text: str | bytes, message: str
    ) -> None:
        with pytest.raises(UserError, match=message) as caught:
            source("csv", table(text)).list()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600

    def test_columns_that_are_not_there(self, source: Callable[..., Source], table: Callable[..., Path]) -> None:
        path = table("path,label\na.jpg,0\n")
        for kind in ("image", "label", "split", "group"):
            with pytest.raises(UserError, match=rf"no column 'x' for data.{kind}_column: choose from 'path', 'label'"):
                source("csv", path, **{f"{kind}_column": "x"}).list()

    def test_two_files_that_a_path_may_mean(self, source: Callable[..., Source], table: Callable[..., Path]) -> None:
        path = table("path,label\na,0\n")
        (path.parent / "a.png").write_bytes(b"another")
        with pytest.raises(
            UserError, match=r"image 'a' in line 2 of .* may be .*a\.\w+ or .*a\.\w+: write its extension"
        ):
            source("csv", path).list()
        (path.parent / "a.png").unlink()
        (path.parent / "sub" / "a.jpg").write_bytes(b"another")
        roots = [str(path.parent / "sub"), str(path.parent / "other")]
        (path.parent / "other").mkdir()
        (path.parent / "other" / "a.jpg").write_bytes(b"another")
        with pytest.raises(UserError, match=r"may be .*/sub/a.jpg or .*/other/a.jpg.* drop one of"):
            source("csv", path, image_roots=roots).list()


class TestSplits:
    TEXT = "path,label,split,patient_id\na.jpg,cat,train,p1\nb.png,dog,test,p2\nsub/c.jpg,ant,train,p1\n"

    def test_a_split_is_a_value_of_the_column_and_classes_are_those_of_all(
        self, source: Callable[..., Source], table: Callable[..., Path]
    ) -> None:
        path = table(self.TEXT)
        test, train = (source("csv", path, split=split).list() for split in ("test", "train"))
        assert test.class_names == train.class_names == ["ant", "cat", "dog"]
        assert test.images.image_id.tolist() == ["b.png"] and train.images.label.tolist() == [1, 0]
        assert test.identity != train.identity
        whole = source("csv", path, split_column="none").list()
        assert len(whole.images) == 3 and not any(note.startswith("split") for note in test.notes)
        assert "split     none is said by the source: all images are taken" in whole.notes
        by_patient = source("csv", path, split_column="patient_id", split="p1", group_column="none").list()
        assert by_patient.images.image_id.tolist() == ["a.jpg", "sub/c.jpg"]

    def test_an_unknown_split(self, source: Callable[..., Source], table: Callable[..., Path]) -> None:
        with pytest.raises(UserError, match="unknown split 'val': column 'split' of .* has 'test', 'train'; choose"):
            source("csv", table(self.TEXT), split="val").list()

    def test_a_split_of_a_table_without_splits_is_refused(
        self, source: Callable[..., Source], table: Callable[..., Path]
    ) -> None:
        """All rows were taken for the test split, and the report said so."""
        path = table("path,label\na.jpg,0\nb.png,1\n")
        listing = source("csv", path).list()
        assert len(listing.images) == 2 and listing.split is None
        assert "split     none is said by the source: all images are taken" in listing.notes
        for options in ({"split": "val"}, {"split": "test"}, {"split": "test", "split_column": "none"}):
            with pytest.raises(UserError, match="unknown split '.*': nothing in .* says a split; .* data.split_column"):
                source("csv", path, **options).list()

    def test_images_of_the_other_splits_need_not_be_there(
        self, source: Callable[..., Source], table: Callable[..., Path]
    ) -> None:
        path = table(self.TEXT + "elsewhere.jpg,,train,\n")
        assert len(source("csv", path, split="test").list().images) == 1
        with pytest.raises(UserError, match="1 of 3 images of .* have no label"):
            source("csv", path, split="train").list()

    def test_a_group_on_both_sides_of_a_split_is_refused(
        self, source: Callable[..., Source], table: Callable[..., Path]
    ) -> None:
        path = table(self.TEXT.replace("p2", "p1"))
        with pytest.raises(UserError, match="1 groups of column 'patient_id' .* the first 'p1' in 'test', 'train'"):
            source("csv", path).list()
        assert len(source("csv", path, group_column="none").list().images) == 1

    def test_one_image_in_both_splits_is_refused(
        self, source: Callable[..., Source], table: Callable[..., Path]
    ) -> None:
        with pytest.raises(UserError, match="name an image again, the first 'a.jpg' in lines 2 and 5"):
            source("csv", table(self.TEXT + "a.jpg,cat,test,p3\n")).list()

    def test_images_without_a_group_stand_alone_and_it_is_said(
        self, source: Callable[..., Source], table: Callable[..., Path]
    ) -> None:
        path = table("path,label,group\na.jpg,0,g\nb.png,1,\n")
        with pytest.warns(UserWarning, match="1 of 2 images of .* have no 'group': each is a group of its own"):
            listing = source("csv", path).list()
        assert listing.images.group.isna().tolist() == [False, True]


class TestOptions:
    @pytest.mark.parametrize(
        ("kind", "options", "message"),
        [
            ("csv", {"path": None}, "source csv needs a path: a CSV file with a column of images"),
            ("csv", {"image_roots": []}, "image_roots is an empty list"),
            ("csv", {"image_roots": ["/a", "/a/b"]}, "'/a' and '/a/b' within it"),
            ("csv", {"image_roots": ["http://x/y"]}, "'http://x/y' is neither a local path nor s3://"),
            ("csv", {"image_roots": ["s3://key:secret@bucket/x"]}, "carries credentials"),
            (
                "imagefolder",
                {"label_column": "dx"},
                "imagefolder has no label_column .got 'dx'.: only csv, parquet has",
            ),
            ("parquet", {"image_roots": ["x"]}, "source parquet has no image_roots"),
        ],
    )
    def test_mistakes(self, source: Callable[..., Source], kind: str, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            source(kind, **{"path": "/data/images.csv", **options})

    def test_roots_are_absolute_for_all_nodes(self, source: Callable[..., Source]) -> None:
        roots = ["part_1", "../part_2", "/a/", "s3://bucket/b/", "part_1"]
        opened = source("csv", "/data/x/images.csv", image_roots=roots)
        assert opened.options.image_roots == ["/data/x/part_1", "/data/part_2", "/a", "s3://bucket/b"]
        assert source("csv", "s3://b/x/i.csv", image_roots=["p"]).options.image_roots == ["s3://b/x/p"]

    def test_a_folder_is_no_table_and_a_table_is_no_root(
        self, source: Callable[..., Source], table: Callable[..., Path]
    ) -> None:
        path = table("path,label\na.jpg,0\n")
        with pytest.raises(UserError, match="is no file: path names the CSV"):
            source("csv", path.parent).list()
        with pytest.raises(UserError, match=r"there is no '.*/absent.csv'"):
            source("csv", path.parent / "absent.csv").list()
        with pytest.raises(UserError, match=r"image root '.*images.csv' is a file"):
            source("csv", path, image_roots=["images.csv"]).list()
        with pytest.raises(UserError, match="has a zero byte"):
            source("csv", path, image_roots=["\0"]).list()
        with pytest.raises(UserError, match=r"there is no '.*/absent'"):
            source("csv", path, image_roots=["absent"]).list()


class TestRead:
    def test_a_file_that_vanished_and_a_root_that_did(self, source: Callable[..., Source], ham: Path) -> None:
        opened = source("csv", ham / "HAM10000_metadata.csv", image_roots=PARTS)
        (ham / PARTS[0] / "ISIC_0027419.jpg").unlink()
        gone, there = opened.read(["ISIC_0027419.jpg", "ISIC_0025030.jpg"])
        assert isinstance(gone, FileNotFoundError) and isinstance(there, bytes)
        (ham / PARTS[0]).rename(ham / "away")
        with pytest.raises(UserError, match=r"there is no '.*part_1' on this node"):
            opened.read(["ISIC_0027419.jpg"])
