"""Deleting runs, after asking; starts no Ray."""

import sys

from raycsr.errors import UserError
from raycsr.options import listed
from raycsr.results import Run, resolve_run
from raycsr.results.notes import model_of
from raycsr.results.transfer import RunFiles, delete_run, find_run_to_delete
from raycsr.store import Store


def rm(*, run: list[str], yes: bool = False) -> list[str]:
    """Deletes runs: their votes and certificates, and all else that raycsr wrote there. It asks first.

    Votes are the expensive part of a run, and there is no way back. A run that is being sampled is not deleted. The
    same command deletes what is left of a run whose deletion, or copy, was interrupted.

    Args:
        run: Runs to delete: their folders, s3://bucket/prefix, or unique prefixes of them; each names one run.
        yes: Whether to delete without asking, as scripts need.

    Returns:
        The locations of the runs that were deleted; none where the answer was no.

    Raises:
        UserError: where there is no such run, or a living driver holds it; or there is nobody to ask.
    """
    stores = {store.location: store for store in map(_find, listed(run))}
    for store in stores.values():
        print(_describe(store))
    if not yes and not _asked(len(stores)):
        print("nothing is deleted")
        return []
    for store in stores.values():
        delete_run(store)
        print(f"deleted {store.location}")
    return list(stores)


def _find(location: str) -> Store:
    """The one run that is named itself: not by the folder that it is in, nor by a variable that is empty."""
    left = find_run_to_delete(location) if location else None
    if left is not None:
        return left
    found, last = resolve_run(location) if location else None, location.rstrip("/").rsplit("/", 1)[-1]
    if found is None or not last or not found.run_id.startswith(last):
        raise UserError(f"{location!r} is no run; name the run itself" + (f": {found.location}" if found else ""))
    return found.store


def _asked(runs: int) -> bool:
    """Asks the person at the terminal.

    Raises:
        UserError: where there is none.
    """
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask at; give --yes true to delete without asking")
    try:
        return input(f"delete {'it' if runs == 1 else f'these {runs} runs'}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _describe(store: Store) -> str:
    """What there is to delete, in words; of a damaged run what can be read."""
    files, run = RunFiles.of(store), Run(store)
    try:
        manifest = run.manifest(any_schema=True)
        what = f"{model_of(manifest)} at sigma {manifest.get('sigma')}"
    except Exception:  # whatever it is that is damaged, it is to go
        what = "its manifest is missing or damaged"
    try:
        images = f"{run.num_images():,} listed"
    except Exception:
        images = "their listing is damaged"
    parts = [name for name in files.sizes if name.startswith("votes/")]
    sets = {name.split("/")[1] for name in files.sizes if name.startswith("certificates/")}
    votes = sum(files.sizes[name] for name in parts)
    foreign = files.foreign
    kept = f"; {len(foreign)} files that raycsr did not write stay, as {foreign[0]}" if foreign else ""
    return "\n".join(
        [
            f"run       {store.location}",
            f"model     {what}",
            f"images    {images}",
            f"votes     {len(parts):,} parts, {_megabytes(votes)}; {len(sets)} sets of certificates",
            f"files     {len(files.sizes):,}, {_megabytes(sum(files.sizes.values()))}{kept}",
        ]
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"
