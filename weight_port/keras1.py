"""Convert kernels of Keras 1, which have other axes for some layers and for channels_first ("th") models.

Source: `preprocess_weights_for_loading` in keras/engine/topology.py (Keras 2.0).
"""

import dataclasses
import json
import warnings
from collections.abc import Sequence
from typing import Any

from weight_port.errors import WeightError
from weight_port.hdf5.arrays import StoredArray
from weight_port.layout import KERAS1_KERNELS, Target
from weight_port.stored import LegacyFile

Match = tuple[Target, StoredArray]


def is_keras1(file: Any) -> bool:
    """Whether Keras 1 wrote an open file. It did not store its version in files with weights only."""
    return isinstance(file, LegacyFile) and file.keras_version.startswith("1")


def converted(file: LegacyFile, matches: Sequence[Match], channels_first: bool) -> list[Match]:
    """Transpose the kernels of Keras 1 to the axes of later versions.

    Args:
        file: The open file.
        matches: Targets and their arrays.
        channels_first: Whether the model takes channels_first images; used if the file has no configuration.

    Raises:
        WeightError: Neither the file nor the shapes determine the order of the axes.

    Warns:
        UserWarning: The kernels have "th" order and the backend is unknown. Theano rotates kernels, TensorFlow does
            not.
    """
    order = _dim_ordering(file, matches, channels_first)
    axes = KERAS1_KERNELS[order]
    found = [(target, _turned(target, stored, axes.get(target.class_name))) for target, stored in matches]
    windows = [target for target, _ in matches if "kernel" in target.variable and max(target.shape[:-2], default=1) > 1]
    if order == "th" and windows and not file.backend:
        warnings.warn(
            "The file is of Keras 1 and channels_first, and does not store its backend: Theano rotates kernels by 180 "
            "degrees, TensorFlow does not. TensorFlow is assumed",
            stacklevel=4,
        )
    return found


def _dim_ordering(file: LegacyFile, matches: Sequence[Match], channels_first: bool) -> str:
    """The order of axes, "th" or "tf": from the configuration, else the one that fits the shapes."""
    if file.config is not None:
        return "th" if '"dim_ordering": "th"' in json.dumps(file.config) else "tf"
    fitting = {"th": True, "tf": True}
    for target, stored in matches:
        for order, axes in KERAS1_KERNELS.items():
            if _turned(target, stored, axes.get(target.class_name)).shape != target.shape:
                fitting[order] = False
    if fitting["th"] and fitting["tf"] and any(_is_turned(target) for target, _ in matches):
        if channels_first:
            return "th"
        raise WeightError("The shapes of the kernels fit both orders of axes of Keras 1 (th and tf)")
    return "th" if fitting["th"] and not fitting["tf"] else "tf"


def _is_turned(target: Target) -> bool:
    return "kernel" in target.variable and target.class_name in KERAS1_KERNELS["th"]


def _turned(target: Target, stored: StoredArray, axes: tuple[int, ...] | None) -> StoredArray:
    if axes is None or "kernel" not in target.variable or len(stored.shape) != len(axes):
        return stored
    return dataclasses.replace(stored, shape=tuple(stored.shape[axis] for axis in axes), axes=axes)
