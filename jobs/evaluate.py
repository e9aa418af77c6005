"""Entry point of `ray job submit`: `python -m jobs.evaluate` is `raycsr evaluate` on the running cluster."""

import sys

from raycsr.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
