import errno
import json
import os
import pickle
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import boto3
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from raycsr import UserError
from raycsr.errors import DamagedFile
from raycsr.store import FileMissing, FileTooLarge, Store
from raycsr.store.files import LocalFiles
from raycsr.store.s3 import client


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
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="no space left on the device; free some"):
        store.write("file", b"new")
    assert store.read("file") == b"old" and store.names("") == ["file"]


def test_a_missing_file_is_one_line(store):
    with pytest.raises(UserError, match="cannot use .*/absent: there is no such file"):
        store.read("absent")


def test_a_missing_bucket_is_one_line(s3):
    with pytest.raises(UserError, match="there is no such bucket; create it first"):
        Store("s3://no-such-bucket-here/prefix").write("file", b"")


@pytest.mark.filterwarnings("ignore:.*trying again")
def test_an_endpoint_that_is_away_is_one_line(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
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
    monkeypatch.setattr("raycsr.store.store._DELAYS", (0.0,))
    away = Away(REFUSED, BUSY, REFUSED)
    monkeypatch.setattr("raycsr.store.s3.client", lambda anonymous: away)
    store = Store("s3://bucket/prefix", patience=60)
    with pytest.warns(UserWarning, match="prefix/file: .*; trying again for 60 s") as warned:
        store.write("file", b"")
    assert store.retries == 3 and len(warned) == 1
    assert pickle.loads(pickle.dumps(store)).patience == 60 and store.at("sub").patience == 60


@pytest.mark.parametrize(("patience", "error"), [(0.0, REFUSED), (60.0, DENIED)])
def test_what_waiting_does_not_mend_is_said_at_once(s3, patience, error, monkeypatch):
    away = Away(error, error)
    monkeypatch.setattr("raycsr.store.s3.client", lambda anonymous: away)
    store = Store("s3://bucket/prefix", patience)
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


# Locations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x#y", "a b", "50%", "%41", "größe/日本", "a?b", "a&b=c+d", "it's", "[x]*"])
def test_a_location_is_taken_as_it_stands(tmp_path, s3, name):
    for root in (str(tmp_path), f"s3://{s3.new_bucket()}"):
        store = Store(f"{root}/{name}")
        store.write("file", b"here")
        assert store.create("other", b"") and store.names("") == ["file", "other"]
        assert store.read("file") == Store(f"{store.location}/file").read() == b"here"
        assert sorted(file.path for file in store.walk()) == ["file", "other"]
        assert not Store(f"{root}/{name[:-1]}").names("") and Store(root).names("") == [name.split("/")[0]]


@pytest.mark.parametrize(
    "location",
    [
        *("s3://bucket//x", "s3://bucket/x//y", "s3://bucket/x//", "s3://bucket/./x", "s3://bucket/x/.."),
        *("s3://", "s3:///x", "s3:/bucket/x", "file:///x", "s3://buck et/x"),
        *("a\0b", "s3://bucket/\0", "not\udce9utf8", "s3://bucket/\udce9"),
        *("s3://bucket/x?region=eu-west-1", "s3://bucket/x?endpoint_override=localhost:9000&scheme=http"),
    ],
)
def test_a_location_that_others_would_read_otherwise_is_refused_in_a_line(location):
    with pytest.raises(UserError, match="location .* (write|use|rename|drop)|; (write|use|rename|drop)") as caught:
        Store(location)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["x" * 2000, "a/" + "x" * 300])
def test_a_name_that_is_too_long_is_one_line(tmp_path, name):
    with pytest.raises(UserError, match="name is too long"):
        Store(str(tmp_path)).write(name, b"")


# Parts of files -------------------------------------------------------------------------------------------


def test_a_file_is_read_in_parts(store):
    store.write("file", bytes(range(100)))
    with store.open("file") as file:
        file.seek(-10, 2)
        assert file.read(4) == bytes(range(90, 94)) and file.read() == bytes(range(94, 100)) and file.read(1) == b""
        file.seek(3)
        assert file.read(2) == b"\3\4" and file.tell() == 5
    found = store.find("file")
    assert store.read_range(found, 98, 10) == b"bc" and store.read_range(found, 100, 1) == b""
    assert store.find("absent") is None and store.find() is None
    with pytest.raises(FileMissing, match="absent: there is no such file"):
        store.open("absent")


def test_a_file_that_is_replaced_is_not_read_as_a_mixture(store):
    store.write("file", b"old bytes")
    with store.open("file") as file:
        assert file.read(3) == b"old"
        store.write("file", b"other bytes")
        with pytest.raises(UserError, match="changed while it was read"):
            file.read(3)


def test_a_file_larger_than_asked_for_is_not_read(store):
    store.write("file", b"12345")
    assert store.read("file", lambda size: size <= 5) == b"12345"
    with pytest.raises(FileTooLarge) as caught:
        store.read("file", lambda size: size <= 4)
    assert caught.value.size == 5


def test_a_walk_finds_all_files_page_by_page(store):
    for name in ("b", "a/c", "a/.hidden", "a/d/e"):
        store.write(name, b"x")
    assert {file.path for file in store.walk() if not file.path.endswith("/")} == {"b", "a/c", "a/.hidden", "a/d/e"}
    assert [file.path for file in Store(f"{store.location}/a/c").walk()] == ["c"]
    assert all(file.size == 1 and file.version for file in store.walk() if not file.path.endswith("/"))


def test_what_was_removed_is_gone(store):
    store.write("file", b"")
    store.remove("file")
    store.remove("file")
    assert not store.exists("file")


# Before anything is paid for ------------------------------------------------------------------------------


def test_a_place_that_can_be_written_to_is_left_as_it_was(store):
    store.check_writable()
    assert list(Store(store.location.rsplit("/", 1)[0]).walk()) == []


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path, s3):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a part of its path is a file"):
        Store(tmp_path / "file" / "folder").check_writable()
    with pytest.raises(UserError, match=r"cannot use /proc/"):
        Store("/proc/folder").check_writable()
    with pytest.raises(UserError, match="there is no such bucket; create it first"):
        Store("s3://no-such-bucket-here/prefix").check_writable()


def test_a_write_that_fails_leaves_no_hidden_file(tmp_path, monkeypatch):
    store = Store(tmp_path)
    monkeypatch.setattr("os.fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for write in (store.write, store.create):
        with pytest.raises(UserError, match="no space left on the device; free some"):
            write("file", b"new")
    assert not list(tmp_path.iterdir())


def test_what_is_too_large_for_one_request_is_written_all_the_same(s3, monkeypatch):
    monkeypatch.setattr("raycsr.store.s3._MOST_AT_ONCE", 2**20)
    store, data = Store(f"s3://{s3.new_bucket()}/prefix"), bytes(9 * 2**20)
    store.write("large", data)
    assert store.read("large") == data


# Keys and endpoints ---------------------------------------------------------------------------------------


def profile(monkeypatch, folder, **settings):
    """An AWS configuration whose only profile says all there is to know."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    (folder / "config").write_text(f"[profile mine]\n{lines}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "none"))
    monkeypatch.setenv("AWS_PROFILE", "mine")


def test_a_profile_says_endpoint_and_keys(s3, tmp_path, monkeypatch):
    bucket = s3.new_bucket()
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing-secret"}
    profile(monkeypatch, tmp_path, endpoint_url=s3.endpoint, region="us-east-1", **keys)
    store = Store(f"s3://{bucket}/prefix")
    store.write_table("table", pa.table({"a": [1, 2]}))
    assert store.num_rows("table") == 2 and store.names("") == ["table"] and len(list(store.walk())) == 1
    with store.open("table") as file:
        assert file.read(4) == b"PAR1"


class Issuer:
    """Hands out keys that the server knows, by a process that a profile names; keys before are good no more."""

    def __init__(self, s3, folder, monkeypatch):
        self._iam = boto3.client("iam")
        self._user, self._folder, self._key = f"user-{uuid.uuid4().hex[:8]}", folder, None
        self._iam.create_user(UserName=self._user)
        everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        self._iam.put_user_policy(UserName=self._user, PolicyName="all", PolicyDocument=policy)
        script = folder / "issue.sh"
        script.write_text(f"echo asked >> {folder}/asked; cat {folder}/keys.json")
        profile(monkeypatch, folder, endpoint_url=s3.endpoint, credential_process=f"sh {script}")

    def issue(self, lifetime):
        keys = self._iam.create_access_key(UserName=self._user)["AccessKey"]
        if self._key:
            self._iam.delete_access_key(UserName=self._user, AccessKeyId=self._key)
        self._key = keys["AccessKeyId"]
        said = {
            "Version": 1,
            "AccessKeyId": self._key,
            "SecretAccessKey": keys["SecretAccessKey"],
            "Expiration": (datetime.now(UTC) + timedelta(seconds=lifetime)).isoformat(),
        }
        (self._folder / "keys.json").write_text(json.dumps(said))

    def asked(self):
        return len((self._folder / "asked").read_text().split())


@pytest.mark.parametrize("lifetime", [30, 10**6])  # of seconds, and of keys that are withdrawn before their time
def test_keys_that_end_in_a_long_run_are_asked_for_again(s3, tmp_path, monkeypatch, lifetime, enforcement):
    bucket = s3.new_bucket()
    issuer = Issuer(s3, tmp_path, monkeypatch)
    issuer.issue(lifetime)
    with enforcement:
        store = Store(f"s3://{bucket}/prefix")
        store.write("file", b"here")
        for _ in range(2):
            with enforcement.lifted():
                issuer.issue(lifetime)
            assert store.read("file") == b"here" and store.names("") == ["file"] and store.create("file", b"here")
        with store.open("file") as file:
            assert file.read() == b"here"
    if lifetime > 10**5:
        assert issuer.asked() == 3  # not for each request


def test_a_process_that_hands_out_no_keys_is_one_line_without_its_words(s3, tmp_path, monkeypatch):
    (tmp_path / "fail.sh").write_text("echo secret-words >&2; exit 1")
    profile(monkeypatch, tmp_path, endpoint_url=s3.endpoint, credential_process=f"sh {tmp_path}/fail.sh")
    with pytest.raises(UserError, match="what hands out the AWS credentials fails") as caught:
        Store("s3://bucket", 0).names("")
    assert "secret-words" not in str(caught.value)


def without_keys(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)


def test_a_public_bucket_is_read_without_keys(s3, monkeypatch):
    bucket = s3.new_bucket()
    s3.client.put_bucket_acl(Bucket=bucket, ACL="public-read")
    s3.client.put_object(Bucket=bucket, Key="prefix/file", Body=b"for all", ACL="public-read")
    without_keys(monkeypatch)
    store = Store(f"s3://anonymous@{bucket}/prefix")
    assert store.read("file") == b"for all" and store.names("") == ["file"]
    assert pickle.loads(pickle.dumps(store.at("sub"))).location == f"s3://anonymous@{bucket}/prefix/sub"
    with pytest.raises(UserError, match=r"no AWS credentials; set AWS_ACCESS_KEY_ID .* s3://anonymous@bucket"):
        Store(f"s3://{bucket}/prefix").read("file")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    assert Store(f"s3://{bucket}/prefix").read("file") == b"for all"  # keys that came later are taken up


@pytest.mark.parametrize("location", ["s3://anonymous@key:hush@bucket/x", "s3://anonymous:hush@bucket/x"])
def test_anonymous_is_no_way_around_what_is_said_of_credentials(location):
    with pytest.raises(UserError, match="carries credentials") as caught:
        Store(location)
    assert "hush" not in str(caught.value)


def test_clients_are_shared_until_settings_change(s3, monkeypatch):
    one = client()
    assert client() is one and client(anonymous=True) is not one
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    assert client() is not one


def test_patience_is_said_in_one_place(monkeypatch):
    monkeypatch.delenv("RAYCSR_PATIENCE")
    assert Store(".").patience == 300
    monkeypatch.setenv("RAYCSR_PATIENCE", "7.5")
    assert Store(".").patience == 7.5 and Store(".", 0).patience == 0
    monkeypatch.setenv("RAYCSR_PATIENCE", "long")
    with pytest.raises(UserError, match="RAYCSR_PATIENCE is 'long'; give seconds"):
        Store(".")


def test_a_shared_folder_that_is_away_is_waited_for(tmp_path, monkeypatch):
    store, errors = Store(tmp_path, patience=60), [OSError(errno.ESTALE, "Stale file handle")] * 2
    store.write("file", b"here")
    monkeypatch.setattr("raycsr.store.store._DELAYS", (0.0,))
    read = LocalFiles.read

    def away(files, name, fits):
        if errors:
            raise errors.pop()
        return read(files, name, fits)

    monkeypatch.setattr(LocalFiles, "read", away)
    with pytest.warns(UserWarning, match="Stale file handle; trying again for 60 s"):
        assert store.read("file") == b"here"
    assert store.retries == 2
