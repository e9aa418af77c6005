import pickle
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from raycsr import UserError
from raycsr.results import Store


def test_what_is_written_is_read(store):
    store.write("folder/file", b"one")
    store.write("folder/file", b"two")
    assert store.read("folder/file") == b"two"
    assert store.exists("folder/file") and not store.exists("folder") and not store.exists("other")
    assert store.names("folder") == ["file"] and store.names("") == ["folder"] and store.names("other") == []


def test_tables_survive_the_trip(store):
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    store.write_table("part.parquet", table)
    assert store.read_table("part.parquet").equals(table)
    assert store.read_table("part.parquet", ["b"]).column_names == ["b"]


def test_of_many_who_create_a_file_one_wins(store):
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda i: store.create("owner", str(i).encode()), range(16)))
    assert sum(won) == 1
    assert store.read("owner") == str(won.index(True)).encode()


def test_age_is_by_the_clock_of_the_store(store):
    store.write("file", b"")
    assert -2 <= store.age("file") < 30


def test_a_store_travels_as_its_location(store):
    store.write("file", b"here")
    assert pickle.loads(pickle.dumps(store)).read("file") == b"here"
    assert store.at("sub").location == f"{store.location}/sub"


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    store.write("file", b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(UserError, match="no space left on the device; free some"):
        store.write("file", b"new")
    assert store.read("file") == b"old" and store.names("") == ["file"]


def test_a_missing_file_is_one_line(store):
    with pytest.raises(UserError, match="cannot use .*/absent: there is no such file"):
        store.read("absent")


def test_a_missing_bucket_is_one_line(s3):
    with pytest.raises(UserError, match="there is no such bucket; create it first"):
        Store("s3://no-such-bucket-here/prefix").write("file", b"")


def test_an_endpoint_that_is_away_is_one_line(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL"):
        Store("s3://bucket/prefix").create("file", b"")


def test_wrong_keys_are_one_line_and_not_repeated(s3, monkeypatch, request):
    bucket = s3.new_bucket()
    request.getfixturevalue("enforced_keys")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKWRONG")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    for use in (Store.names, Store.exists, Store.read, Store.age):
        with pytest.raises(UserError, match="access denied|access key is unknown") as caught:
            use(Store(f"s3://{bucket}/prefix"), "file")
        assert "AKWRONG" not in str(caught.value) and "wrong-secret" not in str(caught.value)


def test_other_schemes_are_refused():
    with pytest.raises(UserError, match="gs://bucket.*neither a local path nor s3://"):
        Store("gs://bucket/prefix")
