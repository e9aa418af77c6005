"""`python -m raycsr` is the `raycsr` command."""

import sys

from raycsr.cli import main

if __name__ == "__main__":
    sys.exit(main())
