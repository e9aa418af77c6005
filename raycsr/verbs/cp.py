"""Copying runs to another results folder; starts no Ray."""

from raycsr.errors import UserError, first_of
from raycsr.results import resolve_run, runs_at
from raycsr.results.transfer import RunFiles, copy_run
from raycsr.store import Store


def cp(*, run: list[str], results: str) -> list[str]:
    """Copies runs into another results folder, from and to a local folder or S3, and checks each copy byte by byte.

    The same command continues a copy that was interrupted; until all of it is there, it does not count as a run. A copy
    can be sampled further, and `raycsr merge` adds what it gained to the original.

    Args:
        run: Runs to use: their folders, s3://bucket/prefix, or unique prefixes of them; a folder of runs stands for all
            in it.
        results: Folder of results into which to copy, local or s3://bucket/prefix. A run keeps its experiment and its
            id.

    Returns:
        The locations of the copies.

    Raises:
        UserError: where a run or the folder cannot be used; or another run, or a copy that was sampled on, is there.
    """
    copies = []
    for found in [resolve_run(location) for location in runs_at(run)]:
        experiment = found.manifest().get("experiment")
        if not isinstance(experiment, str):
            raise UserError(f"{found.location}/manifest.json is damaged: it names no experiment")
        to = Store(results).at(f"{experiment}/runs/{found.run_id}")
        written = copy_run(found, to)
        if foreign := RunFiles.of(found.store).foreign:
            print(f"left out of {found.location}: {first_of(foreign, 3)}, which raycsr did not write")
        print(f"copied {found.location}: {written:,} files" if written else f"{found.location} was copied before")
        copies.append(to.location)
    for location in copies:
        print(location)
    return copies
