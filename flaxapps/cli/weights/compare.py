"""`flaxapps diff`: compare the weights of two files."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flaxapps.cli.weights.convert import find_model
from weight_port.errors import WeightError
from weight_port.formats import Form, form_of, read_variables
from weight_port.hdf5.arrays import StoredArray
from weight_port.readers import damage_named, open_weights
from weight_port.trees import SEPARATOR
from weight_port.writers import leaves

DEFLATE_LIMIT = 1032  # upper bound of the compression ratio of zlib, which HDF5 uses


class Difference(NamedTuple):
    """Difference of one array between two files.

    Attributes:
        name: Name of the array in the files, or its path in the variables.
        state: "only in A", "only in B", "other shape" or "other values".
        detail: The shape or shapes, or the largest absolute difference.
    """

    name: str
    state: str
    detail: str


class Comparison(NamedTuple):
    """Result of comparing two files.

    Attributes:
        equal: Number of equal arrays.
        differences: The other arrays.
    """

    equal: int
    differences: list[Difference]


def compare_files(first: str, second: str, name: str | None = None, top: bool = True) -> Comparison:
    """Compares two files as they would be loaded, in float32.

    Args:
        first: A file or an Orbax folder.
        second: A file or an Orbax folder.
        name: The network of the weights. None compares files of the same format by the names stored in them; for
            different formats it is required, unless one of the files is a whole model.
        top: Whether a network by name has its classifier.

    Raises:
        WeightError: A file cannot be read, or does not fit the model.
        FileNotFoundError: A file does not exist.
    """
    forms = form_of(first), form_of(second)
    if name is None and _named_alike(*forms):
        with ExitStack() as stack:
            return _compare(*(stack.enter_context(_stored(*each)) for each in zip((first, second), forms, strict=True)))
    model = find_model(name, first, second, top=top)
    return _compare(
        *({SEPARATOR.join(p): leaf for p, leaf in leaves(read_variables(f, model))} for f in (first, second))
    )


def _named_alike(first: Form, second: Form) -> bool:
    alike = ({Form.LEGACY}, {Form.TREE, Form.ARCHIVE}, {Form.NPZ, Form.ORBAX})
    return any({first, second} <= forms for forms in alike)


@contextmanager
def _stored(path: str, form: Form) -> Iterator[Mapping[str, Any]]:
    """Opens the arrays of a file, by the names stored in it."""
    if form.names_itself:
        yield {SEPARATOR.join(keys): leaf for keys, leaf in leaves(read_variables(path))}
        return
    with open_weights(path) as file:
        yield {array.name: _Reader(array, path) for array in file.all_arrays}


class _Reader:
    """An array that is read only when compared, so that two arrays are in memory, not two files."""

    def __init__(self, array: StoredArray, path: str):
        self.shape = array.shape
        self._array, self._path = array, path

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        with damage_named(self._path):
            size = os.path.getsize(self._path)
            if int(np.prod(self.shape, dtype=object)) > DEFLATE_LIMIT * size:
                # A damaged or malicious header would make NumPy allocate the claimed size.
                raise WeightError(f"{self._array} is larger than a file of {size:,} bytes can hold")
            return self._array.read(integers=True)


def _compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    differences = []
    for name in dict.fromkeys([*first, *second]):
        if name not in second:
            differences.append(Difference(name, "only in A", str(first[name].shape)))
        elif name not in first:
            differences.append(Difference(name, "only in B", str(second[name].shape)))
        elif first[name].shape != second[name].shape:
            differences.append(Difference(name, "other shape", f"{first[name].shape}, {second[name].shape}"))
        else:
            largest = _largest_difference(np.asarray(first[name]), np.asarray(second[name]))
            if largest is not None:
                differences.append(Difference(name, "other values", f"{largest:.3g}"))
    return Comparison(len({*first, *second}) - len(differences), differences)


def _largest_difference(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    """Returns max |difference|, or None if all values are equal. NaN equals NaN; against a number it gives NaN."""
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    if same.all():
        return None
    gaps = np.abs(first[~same].astype(np.float64) - second[~same].astype(np.float64))
    return float(np.max(gaps))
