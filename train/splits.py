"""Setting examples aside for validation, as Keras does it."""

import numpy as np
from numpy.typing import NDArray

SUBSETS = ("training", "validation")


def split_indices(count: int, validation_split: float | None, subset: str | None, seed: int) -> NDArray[np.int64]:
    """The examples of one subset, in order.

    The same seed chooses the same examples as `image_dataset_from_directory(..., shuffle=True)` of Keras, which takes
    the last `int(validation_split * count)` of a shuffle; training and validation never share one.

    >>> split_indices(10, 0.2, "validation", seed=0)
    array([0, 5])

    Args:
        count: How many examples there are, in Keras's order.
        validation_split: The share for validation, between 0 and 1; None where there is no split.
        subset: "training" or "validation"; None where there is no split.
        seed: From 0 to 2**32 - 1, the same for both subsets.

    Source: keras/src/utils/dataset_utils.py, `index_directory` and `get_training_or_validation_split` (Keras 3.15.1).

    Raises:
        ValueError: Only one of `validation_split` and `subset` is given, one is out of range, or a subset is empty.
    """
    if validation_split is None and subset is None:
        return np.arange(count)
    if validation_split is None or subset not in SUBSETS or not 0 < validation_split < 1:
        raise ValueError(
            'A split takes validation_split between 0 and 1 and subset="training" or "validation"; '
            f"got validation_split={validation_split}, subset={subset!r}"
        )
    held_out = int(validation_split * count)
    if held_out == 0:
        raise ValueError(f"validation_split={validation_split} of {count} images is none: take a larger one")
    order = np.arange(count)
    np.random.RandomState(seed).shuffle(order)
    return np.sort(order[-held_out:] if subset == "validation" else order[:-held_out])
