import json

import pandas as pd
import pyarrow as pa
import pytest

from raycsr.results.predictions import PREDICTIONS, PredictionSet, write_table
from raycsr.store import Store


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("csv", "a,3,cat,"),
        ("csv", "b,,,"),
        ("jsonl", '{"image_id":"a","answer":3,"name":"cat"'),
        ("jsonl", '"answer":null'),
    ],
)
def test_a_class_is_a_whole_number_where_others_abstain(tmp_path, kind, written):
    rows = [{"image_id": "a", "answer": 3, "name": "cat"}, {"image_id": "b"}]
    made = PredictionSet(Store(tmp_path))
    made.write("0.parquet", pa.Table.from_pylist(rows, schema=PREDICTIONS))
    write_table(made.all(), str(tmp_path / f"answers.{kind}"))
    assert written in (tmp_path / f"answers.{kind}").read_text()
    write_table(made.all(), str(tmp_path / "answers.parquet"))
    assert pd.read_parquet(tmp_path / "answers.parquet")["answer"].astype("Int32").tolist() == [3, pd.NA]


@pytest.mark.parametrize(
    ("names", "shares", "radii"),
    [
        (("no damage", "dent", "hail"), {"dent": 1}, {"no damage": 0.0, "dent": 0.2957794728}),
        ((), {"1": 1}, {"0": 0.0, "1": 0.2957794728}),
    ],
)
def test_a_spreadsheet_shows_shares_and_radii_by_the_names_of_their_classes(tmp_path, names, shares, radii):
    """Of 1:1 it made a time of day. No mistake on hail is costly, so that it has no radius; none is rounded up."""
    rows = [
        {"image_id": "a", "answer": 1, "shares": [{"class": 1, "share": 1.0}], "radius_if": [0.0, 0.2957794728, None]},
        {"image_id": "b", "error": "torn"},
    ]
    made = PredictionSet(Store(tmp_path))
    made.write("0.parquet", pa.Table.from_pylist(rows, schema=PREDICTIONS))
    write_table(made.all(), str(tmp_path / "answers.csv"), names)
    read = pd.read_csv(tmp_path / "answers.csv")
    assert (json.loads(read["shares"][0]), json.loads(read["radius_if"][0])) == (shares, radii)
    assert read["shares"].isna()[1] and read["radius_if"].isna()[1]
