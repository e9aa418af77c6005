"""Runs on the move: deleting one, and copying one to another place, byte by byte."""

import contextlib
import errno
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from raycsr.errors import UserError
from raycsr.progress import Progress
from raycsr.results.owners import DEAD_AFTER_SECONDS, Ownership
from raycsr.results.runs import Run
from raycsr.store import FileMissing, Store

MANIFEST = "manifest.json"  # the first file that a deletion takes and the last that a copy writes: without it, no run
_FILES = (MANIFEST, "images.parquet", "finished.json", "budget.json")
_FOLDERS = ("owners", "rules", "votes", "certificates", "attacks", "known_sets")
_OWNERS, _OF_OWNER = "owners/", {"released", "host", "boot", "pid", "started"}
_THREADS = 16  # files at once; it waits for the network


@dataclass(frozen=True)
class RunFiles:
    """What lies in a run's folder.

    Attributes:
        sizes: Name of each file of the run -> its size in bytes; among them hidden files that a killed writer left.
        foreign: Names of files that are not the run's.
    """

    sizes: dict[str, int]
    foreign: list[str]

    @classmethod
    def of(cls, store: Store) -> "RunFiles":
        """Lists the files; none where there is no such folder."""
        found: dict[str, int] = {}
        with contextlib.suppress(FileMissing):
            found = {file.path: file.size for file in store.walk() if not file.path.endswith("/")}
        ours = {name: size for name, size in sorted(found.items()) if _is_of_run(name)}
        return cls(ours, sorted(found.keys() - ours.keys()))

    @property
    def stored(self) -> dict[str, int]:
        """Those that make the run: without who held it here, and what was left half-written."""
        return {
            name: size
            for name, size in self.sizes.items()
            if not name.startswith(_OWNERS) and not os.path.basename(name).startswith(".")
        }


def _is_of_run(name: str) -> bool:
    if {"", ".", ".."} & set(name.split("/")):  # a key on S3 may be so, and would be a file elsewhere in a local copy
        return False
    top, slash, _ = name.partition("/")
    return top in _FOLDERS if slash else any(top == one or top.startswith(f".{one}.") for one in _FILES)


def find_run_to_delete(location: str) -> Store | None:
    """The folder of a run that has no manifest, because a deletion or a copy of it was interrupted; None for others."""
    store = Store(location)
    names = set(store.names(""))
    return store if names and names <= {*_FILES, *_FOLDERS} - {MANIFEST} else None


def delete_run(store: Store) -> None:
    """Deletes a run's files, and its folder where nothing else is in it; one that stops midway goes on when repeated.

    Raises:
        UserError: where a living driver owns the run, or it cannot be deleted.
    """
    _refuse_links(store)
    _drop_damaged_owners(store)
    with _claim(store) as owner:
        store.remove(MANIFEST)
        _each(store.remove, [name for name in RunFiles.of(store).sizes if not name.startswith(_OWNERS)], "delete")
        if owner is not None:
            owner.check()
    owners = [name for name in RunFiles.of(store).sizes if name.startswith(_OWNERS)]
    if owner is not None and max(map(_number, owners), default=0) > owner.number:
        return  # a driver came in between, and begins the run anew
    _each(store.remove, owners, "delete")
    if not store.remote:
        for folder, _, _ in os.walk(store.location, topdown=False):
            with contextlib.suppress(OSError):  # something else is in it
                os.rmdir(folder)


def _refuse_links(store: Store) -> None:
    """Refuses to delete through a link to a folder: what is there may be anybody's."""
    for folder, folders, _ in [] if store.remote else os.walk(store.location):
        for path in (os.path.join(folder, name) for name in folders):
            if os.path.islink(path):
                raise UserError(f"{path} is a link to another folder, and nothing there is deleted; unlink it first")


def _claim(store: Store) -> contextlib.AbstractContextManager[Ownership | None]:
    """Owns a run that is to go; without a word of it on a disk that is full, which no driver can sample on either."""
    try:
        return Ownership(store)
    except UserError as error:  # of the claim itself, which comes after all others were found gone
        if getattr(error.__cause__, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return contextlib.nullcontext()


def _drop_damaged_owners(store: Store) -> None:
    """Deletes what is no owner's file: its owner, where it lives, writes it again within seconds."""
    for name in [name for name in RunFiles.of(store).sizes if name.startswith(_OWNERS)]:
        if re.fullmatch(r"owners/[0-9]+\.stop", name):
            continue  # what an owner was asked, in words
        try:
            whole = _number(name) > 0 and json.loads(store.read(name)).keys() >= _OF_OWNER
        except (ValueError, AttributeError):
            whole = False
        if not whole and (age := store.age(name)) < DEAD_AFTER_SECONDS:
            raise UserError(
                f"{store.location}/{name} is damaged, and was written {age:.0f} s ago by an owner that may live; try "
                f"again in {DEAD_AFTER_SECONDS - age:.0f} s"
            )
        if not whole:
            store.remove(name)


def _number(name: str) -> int:
    """Of an owner's file; 0 of another."""
    match = re.fullmatch(r"owners/([0-9]+)\.json", name)
    return int(match[1]) if match else 0


def copy_run(run: Run, to: Store) -> int:
    """Copies a run to another place; one that stops midway goes on when repeated, and is no run until all is there.

    Of a run that is being sampled, what is committed by now is copied.

    Args:
        run: Run to copy.
        to: Folder of the copy.

    Returns:
        How many files were written; 0 where the copy was there.

    Raises:
        UserError: where another run is at that place, a living driver owns it, or what was written is not what comes
            back.
    """
    if to.location == run.location:
        raise UserError(f"{run.location} is the run itself; give another place")
    run.manifest()
    wanted, there = RunFiles.of(run.store).stored, RunFiles.of(to).stored
    beyond = sorted(there.keys() - wanted.keys())
    if beyond and MANIFEST not in there:
        raise UserError(
            f"{to.location} is what is left of another run, or of a copy of before: it holds {beyond[0]}, which run "
            f"{run.run_id} has not; delete it by `raycsr rm --run {shlex.quote(to.location)}`"
        )
    if beyond:
        raise UserError(_other_run(run, to, f"it holds {beyond[0]}, which the run has not"))
    if MANIFEST in there:  # a whole run
        for name, size in wanted.items():
            if there.get(name) != size or to.read(name) != run.store.read(name):
                raise UserError(_other_run(run, to, f"{name} differs"))
        return 0
    with Ownership(to) as owner:
        written = copy_each(run.store, to, {name: name for name in wanted if name != MANIFEST}, there)
        owner.check()
        return written + copy_each(run.store, to, {MANIFEST: MANIFEST})


def _other_run(run: Run, to: Store, why: str) -> str:
    return (
        f"{to.location} is no copy of run {run.run_id} as it is now ({why}); join the two by `raycsr merge --run "
        f"{shlex.quote(run.location)} --into {shlex.quote(to.location)}`, or delete that one"
    )


def copy_each(source: Store, to: Store, names: Mapping[str, str], there: Mapping[str, int] | None = None) -> int:
    """Copies files and reads each back.

    Args:
        source: Store to copy from.
        to: Store to copy to.
        names: Names of the files -> names of their copies.
        there: Names of the copies that may be there already -> their sizes in bytes.

    Returns:
        How many were written; not those of which the same bytes were there.

    Raises:
        UserError: where other bytes come back than were written.
    """
    sizes = there or {}

    def copy(name: str) -> bool:
        data, target = source.read(name), names[name]
        if sizes.get(target) == len(data) and to.read(target) == data:
            return False
        to.write(target, data)
        if to.read(target) != data:
            raise UserError(f"{to.location}/{target} does not hold what was written to it; check the disk, and repeat")
        return True

    return _each(copy, names, "copy")


def _each(work: Callable[[str], bool | None], names: Iterable[str], what: str) -> int:
    """Does something with many files, several at once; returns of how many it was true."""
    todo, done = list(names), 0
    with ThreadPoolExecutor(_THREADS) as pool, Progress(len(todo), what, "files") as progress:
        for result in pool.map(work, todo):
            done += bool(result)
            progress.update()
    return done
