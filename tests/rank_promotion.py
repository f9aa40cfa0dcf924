"""jax_numpy_rank_promotion="raise" for our packages: Keras and Optax promote ranks themselves, and so may tests."""

import sys
from pathlib import Path

import jax
from jax._src.numpy import util

from tests.places import ROOT

JAX = str(Path(jax.__file__).parent)
OURS = tuple(f"{ROOT / name}/" for name in ("flaxapps", "train", "weight_port"))


def calling_file() -> str:
    """Returns the file of the innermost caller outside of JAX and this file."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((JAX, __file__)):
        frame = frame.f_back
    return frame.f_code.co_filename


def raise_for_ours_alone() -> None:
    """Lets other packages promote ranks under jax_numpy_rank_promotion="raise"."""
    raise_error = util._rank_promotion_warning_or_error

    def raise_for_ours(fun_name: str, shapes: list[tuple[int, ...]]) -> None:
        if calling_file().startswith(OURS):
            raise_error(fun_name, shapes)

    util._rank_promotion_warning_or_error = raise_for_ours
