"""Images that were touched, copied, replaced or lost since they were sampled, in every kind of source."""

import io
import re
import tarfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import write_run
from PIL import Image

from raycsr.data.decode import Decode
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source
from raycsr.distributed.sampling.remaining import Remaining
from raycsr.distributed.sampling.rereading import replaced, with_sampled_pixels
from raycsr.models.spec import Preprocessing

PREPROCESSING = Preprocessing((8, 8), "bilinear", 1.0, "center")


def picture(grey):
    """A BMP, whose size does not depend on what it shows."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (grey,) * 3).save(buffer, "BMP")
    return buffer.getvalue()


def imagefolder(folder, pictures):
    for i, content in enumerate(pictures):
        path = folder / "photos" / "ab"[i % 2] / f"{i}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return DataOptions(source="imagefolder", path=str(folder / "photos"))


def csv(folder, pictures):
    imagefolder(folder, pictures)
    rows = [f"photos/{'ab'[i % 2]}/{i}.bmp,{'ab'[i % 2]}" for i in range(len(pictures))]
    (folder / "table.csv").write_text("\n".join(["path,label", *rows]))
    return DataOptions(source="csv", path=str(folder / "table.csv"))


def parquet(folder, pictures):
    labels = [i % 2 for i in range(len(pictures))]
    pq.write_table(pa.table({"image": pa.array(pictures, pa.binary()), "label": labels}), folder / "images.parquet")
    return DataOptions(source="parquet", path=str(folder / "images.parquet"))


def webdataset(folder, pictures):
    with tarfile.open(folder / "images.tar", "w") as tar:
        for i, content in enumerate(pictures):
            for name, data in ((f"{i}.bmp", content), (f"{i}.cls", str(i % 2).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return DataOptions(source="webdataset", path=str(folder / "images.tar"))


@pytest.mark.parametrize("write", [imagefolder, csv, parquet, webdataset])
def test_an_image_that_was_replaced_is_found_among_those_that_were_only_written_again(tmp_path, write):
    pictures = [picture(20 * i) for i in range(6)]
    source = open_source(write(tmp_path, pictures))
    before = source.list().images
    decoded = Decode(source, PREPROCESSING)({"image_id": before["image_id"].to_numpy()})
    sampled = before[["image_id"]].assign(image_sha=decoded["image_sha"])

    write(tmp_path, pictures)
    again = source.list().images
    assert (again["version"] != before["version"]).all() and (again["size"] == before["size"]).all()
    assert replaced(source, PREPROCESSING, sampled) == []

    write(tmp_path, [*pictures[:4], picture(255), pictures[5][:20]])
    found = replaced(source, PREPROCESSING, sampled)
    assert sorted(re.findall(r"[0-9]+", image_id)[-1] for image_id in found) == ["4", "5"]


def test_a_copy_on_s3_has_the_same_images(tmp_path, s3):
    source = open_source(imagefolder(tmp_path, [picture(20 * i) for i in range(3)]))
    before = source.list().images
    decoded = Decode(source, PREPROCESSING)({"image_id": before["image_id"].to_numpy()})
    bucket = s3.new_bucket()
    for name in before["image_id"]:
        s3.client.upload_file(str(tmp_path / "photos" / name), bucket, f"copy/{name}")
    copy = open_source(DataOptions(source="imagefolder", path=f"s3://{bucket}/copy"))
    now = copy.list().images
    assert (now["version"] != before["version"]).all() and now["image_id"].equals(before["image_id"])
    assert replaced(copy, PREPROCESSING, before[["image_id"]].assign(image_sha=decoded["image_sha"])) == []


def test_an_image_with_votes_of_several_pixels_is_none_of_them(tmp_path):
    source = open_source(imagefolder(tmp_path, [picture(20 * i) for i in range(2)]))
    ids = source.list().images["image_id"]
    decoded = Decode(source, PREPROCESSING)({"image_id": ids.to_numpy()})
    sampled = pd.DataFrame({"image_id": [*ids, ids[1]], "image_sha": [*decoded["image_sha"], "another"]})
    assert replaced(source, PREPROCESSING, sampled) == [ids[1]]


def test_an_image_gets_no_votes_from_other_pixels_than_those_it_has_votes_of(tmp_path):
    source = open_source(imagefolder(tmp_path, [picture(20 * i) for i in range(3)]))
    ids = source.list().images["image_id"].to_numpy(object)
    shas = Decode(source, PREPROCESSING)({"image_id": ids})["image_sha"]
    sampled = np.array([shas[0], "another", ""], object)
    assert Decode(source, PREPROCESSING)({"image_id": ids, "sampled": sampled})["error"].tolist() == [
        None,
        "the image's pixels changed since its votes were drawn",
        None,
    ]


def test_images_that_lack_a_rule_come_with_the_pixels_of_their_votes(tmp_path):
    run = write_run(str(tmp_path), "m", {"argmax": [0] * 6}, skip=[("argmax", "a/0.png")])
    rules = ["argmax", "offset-1"]
    lacking = pd.DataFrame({"image_id": ["a/0.png", "a/1.png", "c/1.png"], "rules": rules[1]})
    lacking.loc[0, "rules"] = "argmax offset-1"
    assert with_sampled_pixels(Remaining(run, None, 1000), lacking, rules)["sampled"].tolist() == ["", "0", "0"]
    assert with_sampled_pixels(Remaining(run, None, 1000), lacking[:1], rules)["sampled"].tolist() == [""]
    assert with_sampled_pixels(Remaining(run, None, 1000), lacking[:0], rules)["sampled"].tolist() == []
