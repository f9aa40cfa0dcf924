"""Reads the attributes of an HDF5 file that hold text: others are refused before libhdf5 converts them.

A damaged type of variable length brings libhdf5 2.0 down, and the interpreter with it.
"""

from collections.abc import Callable

import numpy as np
from h5py import h5a, h5d, h5g, h5t

from weight_port.errors import WeightError


def read_text(item: h5g.GroupID | h5d.DatasetID, name: bytes, check: Callable[[], None] = lambda: None) -> str | None:
    """An attribute that is one text, or None where there is none of that name.

    Args:
        item: What has the attribute.
        name: Of the attribute.
        check: Called before a heap is used, where strings of variable length are.

    Raises:
        WeightError: It is something else.
    """
    found = read_texts(item, name, check)
    if found is not None and len(found) != 1:
        raise WeightError(f"The attribute {name.decode()} should be one text, and is {len(found)}")
    return found[0] if found else None


def read_texts(
    item: h5g.GroupID | h5d.DatasetID, name: bytes, check: Callable[[], None] = lambda: None
) -> list[str] | None:
    """An attribute that is a list of texts, or one text, or None where there is none of that name.

    Args:
        item: What has the attribute.
        name: Of the attribute.
        check: Called before a heap is used, where strings of variable length are.

    Raises:
        WeightError: It is something else.
    """
    if not h5a.exists(item, name):
        return None
    attribute = h5a.open(item, name)
    if attribute.shape is None or 0 in attribute.shape:  # Keras stores a list of nothing as floats
        return []
    kind = attribute.get_type()
    if not isinstance(kind, h5t.TypeStringID):
        raise WeightError(f"The attribute {name.decode()} is not text, but of {type(kind).__name__}")
    if kind.is_variable_str():
        check()
    values = np.zeros(attribute.shape, attribute.dtype)
    attribute.read(values)
    return [bytes(value).decode() for value in values.ravel()]
