"""Entry point of `ray job submit`: `python -m jobs.sample` is `raycsr sample` on the running cluster."""

import sys

from raycsr.cli import main

if __name__ == "__main__":
    sys.exit(main(["sample", *sys.argv[1:]]))
