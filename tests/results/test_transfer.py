"""Runs that are deleted, and copied to another place, on either kind of store."""

import errno
import json
import os

import pytest
from handmade import write_run

from raycsr import UserError, list_runs
from raycsr.results import Ownership, Run
from raycsr.results.transfer import RunFiles, copy_run, delete_run, find_run_to_delete
from raycsr.store import File, Store


@pytest.fixture
def run(store):
    return write_run(store.location, "m", {"argmax": [0, 1, 1, 1, 2, 2], "offset:1*pair:a/b": [0, 0, 1, 0, 2, 2]})


def contents(store):
    """Name -> bytes of all files of a run that make it."""
    return {name: store.read(name) for name in RunFiles.of(store).stored}


def test_a_run_is_deleted_with_all_that_lies_in_its_folder(run, store):
    other = write_run(store.location, "other", {"argmax": [0] * 6})
    run.store.write("votes/.0001-a.parquet.1f3a", b"of a writer that was killed")
    delete_run(run.store)
    assert not RunFiles.of(run.store).sizes
    assert store.remote or not os.path.exists(run.location)
    assert list_runs(store.location)["run_id"].tolist() == [other.run_id]


def test_what_raycsr_did_not_write_stays(run):
    run.store.write("notes.txt", b"mine")
    assert RunFiles.of(run.store).foreign == ["notes.txt"]
    delete_run(run.store)
    assert [file.path for file in run.store.walk() if not file.path.endswith("/")] == ["notes.txt"]


def test_a_run_that_is_being_sampled_is_not_deleted(run):
    before = contents(run.store)
    with Ownership(run.store), pytest.raises(UserError, match=r"process \d+ on"):
        delete_run(run.store)
    assert contents(run.store) == before


def test_a_damaged_run_is_deleted(run):
    run.store.write("manifest.json", b"{")
    run.store.write("images.parquet", b"PAR1")
    run.store.write("votes/argmax.parquet", b"")
    delete_run(run.store)
    assert not RunFiles.of(run.store).sizes


def test_a_damaged_owner_may_live_until_it_is_silent_for_a_minute(run, monkeypatch):
    for name in ("owners/0001.json", "owners/0002.json", "owners/notes.txt"):
        run.store.write(name, b"{")
    run.store.write("owners/0003.json", b'{"released": true}')
    with pytest.raises(UserError, match=r"owners/0001.json is damaged, and was written . s ago .* try again in"):
        delete_run(run.store)
    monkeypatch.setattr("raycsr.results.transfer.DEAD_AFTER_SECONDS", 0)
    delete_run(run.store)
    assert not RunFiles.of(run.store).sizes


def test_a_run_is_deleted_where_the_disk_is_full(run, monkeypatch):
    def full(self, name, data):
        raise UserError("no space left on the device") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Store, "create", full)
    with pytest.raises(UserError, match="no space left"):
        Ownership(run.store)
    delete_run(run.store)
    assert not RunFiles.of(run.store).sizes


def test_a_deletion_that_was_interrupted_leaves_no_run_and_goes_on(run, store, monkeypatch):
    remove, removed = Store.remove, []

    def remove_three(self, name):
        if len(removed) == 3:
            raise UserError("the network is away")
        removed.append(name)
        remove(self, name)

    with monkeypatch.context() as patched, pytest.raises(UserError, match="away"):
        patched.setattr(Store, "remove", remove_three)
        delete_run(run.store)
    assert removed[0] == "manifest.json" and len(list_runs(store.location)) == 0
    assert find_run_to_delete(run.location).location == run.location
    delete_run(run.store)
    assert not RunFiles.of(run.store).sizes and find_run_to_delete(run.location) is None


def test_folders_of_others_are_not_taken_for_what_is_left_of_a_run(store):
    store.write("votes/of-the-people.csv", b"")
    store.write("results.csv", b"")
    assert find_run_to_delete(store.location) is None


def test_a_copy_to_s3_and_back_is_equal_byte_by_byte(s3, tmp_path):
    run = write_run(str(tmp_path / "here"), "m", {"argmax": [0, 1, 1, 1, 2, 2]})
    with Ownership(run.store):
        pass
    there = Store(f"s3://{s3.new_bucket()}/results").at(f"hand/runs/{run.run_id}")
    back = Store(str(tmp_path / "back"))
    assert copy_run(run, there) == len(contents(run.store)) == 5
    copy_run(Run(there), back)
    assert contents(back) == contents(there) == contents(run.store)
    assert len(run.store.names("owners")) == 1  # who held it there is nobody here
    assert copy_run(run, there) == 0  # it is there already


def test_an_unfinished_copy_is_no_run_and_the_same_command_goes_on(run, store, monkeypatch):
    to, write, written = store.at("copies/hand/runs/1f3a"), Store.write, []

    def write_three(self, name, data):
        if self.location == to.location and not name.startswith("owners/"):
            if len(written) == 3:
                raise UserError("the network is away")
            written.append(name)
        write(self, name, data)

    with monkeypatch.context() as patched, pytest.raises(UserError, match="away"):
        patched.setattr(Store, "write", write_three)
        copy_run(run, to)
    assert len(written) == 3 and len(list_runs(store.at("copies").location)) == 0
    assert copy_run(run, to) == len(contents(run.store)) - 3
    assert contents(to) == contents(run.store)
    assert list_runs(store.at("copies").location)["location"].tolist() == [to.location]


def test_what_does_not_come_back_as_it_was_written_is_refused(run, store, monkeypatch):
    to, read = store.at("copy"), Store.read

    def read_otherwise(self, name, *more):
        data = read(self, name, *more)
        return data[:-1] + b"?" if self.location == to.location and name.startswith("votes/") else data

    monkeypatch.setattr(Store, "read", read_otherwise)
    with pytest.raises(UserError, match=r"copy/votes/\S+ does not hold what was written to it; check the disk"):
        copy_run(run, to)
    assert not to.exists("manifest.json")


def test_a_copy_never_writes_over_another_run(run, store):
    to = store.at("copy")
    copy_run(run, to)
    to.write("votes/more.parquet", b"sampled there")
    with pytest.raises(UserError, match=r"holds votes/more.parquet, .* merge --run .* --into .*copy'?`"):
        copy_run(run, to)
    to.remove("votes/more.parquet")
    run.finish(num_images=6)
    with pytest.raises(UserError, match=r"finished.json differs"):
        copy_run(run, to)
    to.remove("manifest.json")
    to.write("votes/more.parquet", b"of before")
    with pytest.raises(UserError, match=r"holds votes/more.parquet, .* delete it by `raycsr rm --run .*copy'?`"):
        copy_run(run, to)
    with pytest.raises(UserError, match="is the run itself"):
        copy_run(run, run.store)
    with Ownership(store.at("held")), pytest.raises(UserError, match=r"process \d+ on"):
        copy_run(run, store.at("held"))


def test_a_key_that_points_out_of_the_run_is_not_copied(run, tmp_path, monkeypatch):
    walk, names = Store.walk, ["votes/../../../escaped.parquet", "rules//a.json", "votes/./a.parquet"]
    bad = [File(name, 3, "v") for name in names]
    monkeypatch.setattr(Store, "walk", lambda self: [*walk(self), *(bad if self.location == run.location else [])])
    assert RunFiles.of(run.store).foreign == sorted(names)
    to = Store(str(tmp_path / "here" / "is" / "the" / "copy"))
    copy_run(run, to)
    assert contents(to) == contents(run.store) and not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize("link", ["votes/more", "owners"])
def test_nothing_is_deleted_through_a_link(tmp_path, link):
    run = write_run(str(tmp_path / "results"), "m", {"argmax": [0] * 6})
    mine = tmp_path / "mine" / "thesis.tex"
    mine.parent.mkdir()
    mine.write_text("mine")
    os.utime(mine, (0, 0))
    os.symlink(mine.parent, os.path.join(run.location, link))
    with pytest.raises(UserError, match=f"{link} is a link to another folder, and nothing there is deleted"):
        delete_run(run.store)
    assert mine.exists() and run.store.exists("manifest.json")


def test_a_run_of_the_future_is_not_copied(run, store):
    facts = json.loads(run.store.read("manifest.json"))
    run.store.write("manifest.json", json.dumps(facts | {"schema_version": 4}).encode())
    with pytest.raises(UserError, match="schema_version"):
        copy_run(run, store.at("copy"))
