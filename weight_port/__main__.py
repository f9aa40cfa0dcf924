"""`python -m weight_port`: older name of `flaxapps inspect`, `convert`, `diff` and `verify`."""

import sys

from flaxapps.cli.commands import weights_main

if __name__ == "__main__":
    sys.exit(weights_main())
