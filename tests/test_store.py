import pickle
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from raycsr import UserError
from raycsr.errors import DamagedFile
from raycsr.store import Store


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
    assert store.num_rows("part.parquet") == 2


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


@pytest.mark.parametrize("location", ["s3://key:hush@bucket/prefix", "s3://bucket/p?access_key=a&secret_key=hush"])
def test_credentials_in_a_location_are_refused_and_not_repeated(location):
    with pytest.raises(UserError, match="carries credentials; write s3://bucket/prefix") as caught:
        Store(location)
    assert "hush" not in str(caught.value)


class Away:
    """A client whose server does not answer the first requests."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def put_object(self, **_):
        if self.errors:
            raise self.errors.pop(0)


REFUSED = EndpointConnectionError(endpoint_url="http://nowhere")
BUSY = ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject")
DENIED = ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "PutObject")


def test_a_patient_store_tries_again_while_s3_does_not_answer(s3, monkeypatch):
    monkeypatch.setattr("raycsr.store._DELAYS", (0.0,))
    store = Store("s3://bucket/prefix", patience=60)
    store._client = Away(REFUSED, BUSY, REFUSED)
    with pytest.warns(UserWarning, match="prefix/file: .*; trying again for 60 s") as warned:
        store.write("file", b"")
    assert store.retries == 3 and len(warned) == 1
    assert pickle.loads(pickle.dumps(store)).patience == 60 and store.at("sub").patience == 60


@pytest.mark.parametrize(("patience", "error"), [(0.0, REFUSED), (60.0, DENIED)])
def test_what_waiting_does_not_mend_is_said_at_once(s3, patience, error):
    store = Store("s3://bucket/prefix", patience)
    store._client = Away(error)
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL|access denied"):
        store.write("file", b"")
    assert store.retries == 0


def test_a_write_whose_answer_was_lost_counts_as_done(store):
    assert store.create("owner", b"me") and store.create("owner", b"me")
    assert not store.create("owner", b"another")


def test_a_table_that_could_run_code_when_read_is_not_read(tmp_path):
    class Pickled(pa.ExtensionType):
        def __init__(self):
            super().__init__(pa.binary(), "tests.pickled")

        def __arrow_ext_serialize__(self):
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage, serialized):
            return cls()

    pa.register_extension_type(Pickled())
    try:
        column = pa.ExtensionArray.from_storage(Pickled(), pa.array([b"code"]))
        within = pa.StructArray.from_arrays([column], ["deep"])
        store = Store(str(tmp_path))
        for name, array in (("flat", column), ("nested", within)):
            store.write_table(name, pa.table({"image_id": array}))
            with pytest.raises(DamagedFile, match=f"{name}.* is damaged .*could run code"):
                store.read_table(name)
    finally:
        pa.unregister_extension_type("tests.pickled")
