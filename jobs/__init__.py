"""Entry points and configurations for jobs on a cluster, and the benchmark."""

import sys
from typing import NoReturn

from raycsr.cli import main


def run_verb(verb: str) -> NoReturn:
    """Runs `raycsr VERB` with the options of this process, which ends with its status."""
    sys.exit(main([verb, *sys.argv[1:]]))
