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
