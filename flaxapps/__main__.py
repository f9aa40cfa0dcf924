"""`python -m flaxapps`, which runs the command `flaxapps`."""

import sys

from flaxapps.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
