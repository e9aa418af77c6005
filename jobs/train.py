"""Entry point of `ray job submit`: `python -m jobs.train` is `raycsr train` on the running cluster."""

import sys

from raycsr.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
