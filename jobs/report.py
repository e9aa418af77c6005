"""Entry point of `ray job submit`: `python -m jobs.report` is `raycsr report` on the running cluster."""

import sys

from raycsr.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
