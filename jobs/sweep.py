"""Entry point of `ray job submit`: `python -m jobs.sweep` is `raycsr sweep` on the running cluster."""

import sys

from raycsr.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
