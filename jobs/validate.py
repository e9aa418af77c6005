"""Entry point of `ray job submit`: `python -m jobs.validate` is `raycsr validate` on a machine of the cluster."""

import sys

from raycsr.cli import main

if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]]))
