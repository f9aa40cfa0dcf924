"""Load the weights of a model: match arrays, check shapes, then read."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_port.errors import WeightError
from weight_port.hdf5.arrays import aligned
from weight_port.keras1 import converted, is_keras1
from weight_port.layout import ROTATED_IN_THEANO, ModelLike, Target, all_targets
from weight_port.matching import Match, match_by_name, match_by_order
from weight_port.readers import open_weights
from weight_port.stored import LegacyFile


def load_weights(
    path: str | os.PathLike[str], model: ModelLike, *, by_name: bool = False, skip_mismatch: bool = False
) -> dict[str, Any]:
    """Load the weights of a model from a file that Keras wrote.

    Layers are matched by their order in `model.layers`, as in Keras, because stored names depend on the session that
    saved them. All shapes are checked before the first array is read. Ambiguous files are refused.

    Args:
        path: A legacy `.h5` (Keras 1 to 3), `.weights.h5`, `.keras` or whole-model `.h5`, detected by content.
        model: The model to load the weights for.
        by_name: Match layers by name instead. Layers only in the file are ignored; those only in the model are
            initialized.
        skip_mismatch: Initialize layers whose shapes or number of arrays differ, with a warning, instead of failing.

    Returns:
        `{"params": ..., "batch_stats": ...}` of NumPy float32 arrays in Keras's layout, keyed by layer name.

    Raises:
        WeightError: The file is damaged or of an unknown format, or its weights do not fit the model; all missing,
            unexpected and misshapen arrays are listed.
        FileNotFoundError: `path` does not exist.
    """
    tree: dict[str, Any] = {}
    with open_weights(path) as file:
        try:
            of_other_number: list[str] = []
            skipping = of_other_number if skip_mismatch else None
            matches = (match_by_name if by_name else match_by_order)(file, model, skipping)
            if is_keras1(file) and isinstance(file, LegacyFile):
                matches = converted(file, matches, getattr(model, "data_format", "") == "channels_first")
            matches, skipped = _split_by_shape(matches, skip_mismatch)
            skipped += of_other_number
            theano = isinstance(file, LegacyFile) and file.backend == "theano"
            for (target, _), array in zip(matches, _read(matches), strict=True):
                branch = tree
                for key in target.path[:-1]:
                    branch = branch.setdefault(key, {})
                branch[target.path[-1]] = _convert(array, target, theano)
        except WeightError as error:
            message = f"{os.fspath(path)} does not fit: {error.message}"
            raise WeightError(message, error.missing, error.unexpected, error.misshapen) from error.__cause__
    if skipped:
        warnings.warn(f"{os.fspath(path)}: other shapes, left fresh: {', '.join(skipped)}", stacklevel=2)
    complete = len(matches) == len(all_targets(model.layers))
    return tree if complete else model.init_variables(base=tree)


def _read(matches: list[Match]) -> Iterator[NDArray[np.float32]]:
    """Read all arrays in order; large ones on two threads, because page faults of new memory take most of the time."""
    memory = {index: aligned(stored.shape) for index, (_, stored) in enumerate(matches) if stored.is_large}
    with ThreadPoolExecutor(2) as threads:
        large = {index: threads.submit(matches[index][1].read, out=each) for index, each in memory.items()}
        for index, (target, stored) in enumerate(matches):
            yield large.pop(index).result() if index in large else stored.read(integers=target.variable == "count")


def _split_by_shape(matches: list[Match], skip_mismatch: bool) -> tuple[list[Match], list[str]]:
    """The matches of equal shape, and the skipped arrays; a layer is skipped as a whole."""
    wrong = [(target, stored) for target, stored in matches if target.shape != stored.shape]
    if wrong and not skip_mismatch:
        raise WeightError(
            "The weights have other shapes than the model needs.",
            misshapen=[f"{target}: the file has {stored}" for target, stored in wrong],
        )
    layers = {target.layers for target, _ in wrong}
    kept = [match for match in matches if match[0].layers not in layers]
    return kept, [str(target) for target, _ in matches if target.layers in layers]


def _convert(array: NDArray[np.float32], target: Target, theano: bool) -> NDArray[np.float32]:
    if theano and target.class_name in ROTATED_IN_THEANO and target.variable == "kernel":
        return np.ascontiguousarray(np.flip(array, tuple(range(array.ndim - 2))))
    return array
