"""`python -m bema` is `bema`."""

import sys

from bema.cli import main

if __name__ == "__main__":
    sys.exit(main())
