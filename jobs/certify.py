"""Entry point of `ray job submit`: `python -m jobs.certify` is `raycsr certify` on the running cluster."""

import sys

from raycsr.cli import main

if __name__ == "__main__":
    sys.exit(main(["certify", *sys.argv[1:]]))
