"""`python -m weight_port`: inspect, convert, compare and verify weight files."""

import sys

from weight_port.cli import main

if __name__ == "__main__":
    sys.exit(main())
