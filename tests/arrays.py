"""Read the arrays of `.npz` files and close them.

An open file raises a ResourceWarning when it is garbage-collected, which may be during another test.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np


def read_npz(file: Path | IO[bytes]) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        return dict(arrays)
