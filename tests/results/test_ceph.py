"""The store on a durable S3 server: what an in-memory one does not refuse, and what survives its death."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from handmade import NO_B, PLAIN, write_run

from raycsr import UserError
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source
from raycsr.results import Ownership, Run
from raycsr.results.joining import join_runs
from raycsr.results.transfer import RunFiles, copy_run, delete_run
from raycsr.store import AccessDenied, FileMissing, Store


def test_what_was_acknowledged_survives_the_death_of_the_gateway(ceph, on_ceph):
    store = Store(f"{on_ceph}/prefix")
    store.write("file", b"kept")
    assert store.create("owner", b"first") and not store.create("owner", b"second")
    ceph.kill_gateway()
    ceph.start_gateway()
    assert store.read("file") == b"kept" and store.read("owner") == b"first"
    assert -2 <= store.age("file") < 60


def test_an_endpoint_that_comes_back_is_waited_for(ceph, on_ceph):
    store = Store(f"{on_ceph}/prefix", patience=60)
    store.write("before", b"")
    ceph.kill_gateway()
    with ThreadPoolExecutor(1) as pool, pytest.warns(UserWarning, match="does not answer.*trying again for 60 s"):
        written = pool.submit(store.write, "after", b"here")
        while not store.retries:
            assert not written.done()
        ceph.start_gateway()
        written.result(timeout=60)
    assert store.read("after") == b"here"


def test_wrong_keys_are_refused_and_not_repeated(ceph, on_ceph, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(UserError, match="AWS secret key is wrong|access denied") as caught:
        Store(f"{on_ceph}/prefix").create("file", b"")
    assert "not-the-secret" not in str(caught.value) and ceph.keys[0] not in str(caught.value)


def test_a_missing_bucket_is_named(on_ceph):
    with pytest.raises(UserError, match="s3://no-such-bucket/prefix/file: there is no such bucket"):
        Store("s3://no-such-bucket/prefix").write("file", b"")


def test_a_bucket_without_write_permission_is_named(ceph, on_ceph, monkeypatch):
    guest = ceph.add_user("guest")
    bucket = on_ceph.removeprefix("s3://")
    read = {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/guest"]}, "Action": ["s3:GetObject"]}
    policy = {"Version": "2012-10-17", "Statement": [{**read, "Resource": [f"arn:aws:s3:::{bucket}/*"]}]}
    ceph.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    Store(f"{on_ceph}/prefix").write("file", b"to read")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", guest[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", guest[1])
    store = Store(f"{on_ceph}/prefix")
    assert store.read("file") == b"to read"
    for write in (store.write, store.create):
        with pytest.raises(UserError, match="prefix/other: access denied; check the AWS keys and the bucket's policy"):
            write("other", b"")


def test_listings_go_beyond_a_page(on_ceph):
    store = Store(f"{on_ceph}/prefix")
    names = [f"{i:05d}.parquet" for i in range(1005)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: store.write(f"votes/{name}", b"part"), names))
    assert store.names("votes") == names and store.names("") == ["votes"]


def test_of_drivers_that_race_for_a_run_one_wins_and_is_named(on_ceph):
    def claim(_):
        try:
            return Ownership(Store(f"{on_ceph}/run"))
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(claim, range(8)))
    winners = [one for one in claims if isinstance(one, Ownership)]
    assert len(winners) == 1 and winners[0].number == 1
    assert all("taken by process" in one or "held by process" in one for one in claims if isinstance(one, str))


def test_a_run_goes_there_and_back_grows_there_and_is_deleted(on_ceph, tmp_path):
    home = write_run(str(tmp_path / "home"), "m", {"argmax": PLAIN})
    there, back = Store(f"{on_ceph}/results/a copy#1"), Store(str(tmp_path / "back"))
    copy_run(home, there)
    copy_run(Run(there), back)
    files = [{name: one.read(name) for name in RunFiles.of(one).stored} for one in (home.store, back)]
    assert files[0] == files[1]
    other = write_run(str(tmp_path / "other"), "m", {"argmax": PLAIN, "offset:1*pair:a/b": NO_B})
    assert join_runs(other, Run(there)).parts == 1
    assert len(Run(there).votes()) == 12
    delete_run(there)
    assert not list(there.walk())


@pytest.mark.parametrize("name", ["x#y", "a b", "50%", "%41", "größe/日本", "a?b", "a&b=c+d", "'[x]*"])
def test_a_location_is_taken_as_it_stands(on_ceph, name):
    store = Store(f"{on_ceph}/{name}")
    store.write("file", b"here")
    assert not store.create("file", b"other") and store.names("") == ["file"] and not Store(f"{on_ceph}/x").names("")
    assert store.read("file") == b"here" and [file.path for file in store.walk()] == ["file"]


def test_parts_of_a_file_are_of_one_version(on_ceph):
    store = Store(f"{on_ceph}/prefix")
    store.write("file", bytes(range(200)))
    with store.open("file") as file:
        file.seek(-5, 2)
        assert file.read() == bytes(range(195, 200)) and file.read(1) == b""
        store.write("file", bytes(200))
        file.seek(0)
        with pytest.raises(UserError, match="changed while it was read"):
            file.read(4)
    with pytest.raises(FileMissing, match="there is no such file"):
        store.open("absent")


def test_whether_a_bucket_can_be_written_is_found_out_and_nothing_is_left(ceph, on_ceph, monkeypatch):
    Store(f"{on_ceph}/prefix").check_writable()
    bucket = on_ceph.removeprefix("s3://")
    assert not list(Store(on_ceph).walk()) and "Uploads" not in ceph.client().list_multipart_uploads(Bucket=bucket)
    with pytest.raises(UserError, match="there is no such bucket; create it first"):
        Store("s3://no-such-bucket/prefix").check_writable()
    guest = ceph.add_user("reader")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", guest[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", guest[1])
    with pytest.raises(AccessDenied, match="access denied; check the AWS keys"):
        Store(f"{on_ceph}/prefix").check_writable()


def test_a_public_bucket_is_read_without_keys_and_not_written(ceph, on_ceph, monkeypatch):
    bucket = on_ceph.removeprefix("s3://")
    Store(f"{on_ceph}/open").write("file", b"for all")
    allowed = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket"]}
    policy = {**allowed, "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]}
    ceph.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [policy]}))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)
    store = Store(f"s3://anonymous@{bucket}/open")
    assert store.read("file") == b"for all" and store.names("") == ["file"]
    with pytest.raises(AccessDenied, match="access denied"):
        store.check_writable()


def test_images_wait_for_an_endpoint_that_comes_back(ceph, on_ceph):
    ids = [f"cat/{i}.png" for i in range(8)]
    for image_id in ids:
        Store(f"{on_ceph}/images").write(image_id, image_id.encode())
    source = open_source(DataOptions("imagefolder", path=f"{on_ceph}/images"))
    ceph.kill_gateway()
    with ThreadPoolExecutor(1) as pool, pytest.warns(UserWarning, match="does not answer.*trying again for 60 s"):
        read = pool.submit(source.read, ids)
        time.sleep(3)
        assert not read.done()
        ceph.start_gateway()
        assert read.result(timeout=60) == [image_id.encode() for image_id in ids]
