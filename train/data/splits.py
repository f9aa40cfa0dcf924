"""Validation splits that select the same examples as Keras."""

import numpy as np
from numpy.typing import NDArray

SUBSETS = ("training", "validation")


def split_indices(count: int, validation_split: float | None, subset: str | None, seed: int) -> NDArray[np.int64]:
    """Returns the indices of one subset, in ascending order.

    The same seed selects the same examples as Keras's `image_dataset_from_directory(..., shuffle=True)`, which holds
    out the last `int(validation_split * count)` of a shuffle. Training and validation never overlap.

    >>> split_indices(10, 0.2, "validation", seed=0)
    array([0, 5])

    Args:
        count: Number of examples, in Keras's order.
        validation_split: Fraction for validation, between 0 and 1; None for no split.
        subset: "training" or "validation"; None for no split.
        seed: From 0 to 2**32 - 1, the same for both subsets.

    Source: keras/src/utils/dataset_utils.py, `index_directory` and `get_training_or_validation_split` (Keras 3.15.1).

    Raises:
        ValueError: Only one of `validation_split` and `subset` is given, one is out of range, or a subset is empty.
    """
    if validation_split is None and subset is None:
        return np.arange(count)
    if validation_split is None or subset not in SUBSETS or not 0 < validation_split < 1:
        raise ValueError(
            'A split needs validation_split between 0 and 1 and subset="training" or "validation"; '
            f"got validation_split={validation_split}, subset={subset!r}"
        )
    held_out = int(validation_split * count)
    if held_out == 0:
        raise ValueError(f"validation_split={validation_split} of {count} images holds out none: give a larger one")
    order = np.arange(count)
    # Keras's generator: np.random.default_rng would select other examples.
    np.random.RandomState(seed).shuffle(order)
    return np.sort(order[-held_out:] if subset == "validation" else order[:-held_out])
