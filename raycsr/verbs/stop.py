"""Stopping a run from another shell: what is begun of it is finished; starts no Ray."""

from raycsr.errors import UserError
from raycsr.options import listed
from raycsr.results import resolve_run
from raycsr.results.owners import ask_to_stop, last_owner
from raycsr.results.state import run_state


def stop(*, run: list[str]) -> list[str]:
    """Asks the command that samples a run to end: blocks of images that are begun are finished and count.

    The command then ends in order, with status 0; typed again, it goes on. Other runs of the same command are sampled
    to their end.

    Args:
        run: Runs to stop: their folders, s3://bucket/prefix, or unique prefixes of them; each names one run.

    Returns:
        The locations of the runs.

    Raises:
        UserError: where there is no such run, nobody works on it, or who does heeds no stop: such as `raycsr attack`.
    """
    runs = [resolve_run(location) for location in listed(run)]
    for one in runs:
        state, last = run_state(one, one.finished()), last_owner(one.store)
        if state.word != "running" or last is None:
            raise UserError(f"nobody works on run {one.location}: it is {state}; there is nothing to stop")
        if not last[1].get("heeds_stop"):
            raise UserError(
                f"run {one.location} is not sampled now: {state.owner} attacks it, joins another to it or deletes it; "
                "stop that by Ctrl-C"
            )
        ask_to_stop(one.store, int(last[0].rpartition("/")[2].removesuffix(".json")), "`raycsr stop`")
        print(f"asked {state.owner} to stop {one.location} when the blocks that are begun are done")
    return [one.location for one in runs]
