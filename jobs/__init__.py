"""Entry points and configurations for jobs on a cluster, and the benchmark."""

import sys
from typing import NoReturn


def run_verb(verb: str) -> NoReturn:
    """Runs `raycsr VERB` with the options of this process, which ends with its status."""
    from raycsr.cli import main  # the benchmark of a GPU has no need of it, nor of what it loads

    sys.exit(main([verb, *sys.argv[1:]]))
