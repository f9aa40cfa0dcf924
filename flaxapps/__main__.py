"""`python -m flaxapps` is the command `flaxapps`."""

import sys

from flaxapps.cli import main

if __name__ == "__main__":
    sys.exit(main())
