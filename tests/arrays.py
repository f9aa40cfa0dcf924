"""Arrays of a file, which is closed: one left open is warned of whenever it is collected, in any test."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np


def read_npz(file: Path | IO[bytes]) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        return dict(arrays)
