"""Read text attributes of HDF5 files. Other types are refused before libhdf5 converts them.

A damaged variable-length type crashes libhdf5 2.0, and the interpreter with it.
"""

from collections.abc import Callable

import numpy as np
from h5py import h5a, h5d, h5g, h5t

from weight_port.errors import WeightError


def read_text(item: h5g.GroupID | h5d.DatasetID, name: bytes, check: Callable[[], None] = lambda: None) -> str | None:
    """Read an attribute that is one string; None if there is no such attribute.

    Args:
        item: The group or dataset with the attribute.
        name: Name of the attribute.
        check: Called before a heap is used, which holds variable-length strings.

    Raises:
        WeightError: The attribute is not one string.
    """
    found = read_texts(item, name, check)
    if found is not None and len(found) != 1:
        raise WeightError(f"The attribute {name.decode()} should be one string, got {len(found)}")
    return found[0] if found else None


def read_texts(
    item: h5g.GroupID | h5d.DatasetID, name: bytes, check: Callable[[], None] = lambda: None
) -> list[str] | None:
    """Read an attribute that is a list of strings or one string; None if there is no such attribute.

    Args:
        item: The group or dataset with the attribute.
        name: Name of the attribute.
        check: Called before a heap is used, which holds variable-length strings.

    Raises:
        WeightError: The attribute is not text.
    """
    if not h5a.exists(item, name):
        return None
    attribute = h5a.open(item, name)
    if attribute.shape is None or 0 in attribute.shape:  # Keras stores an empty list as floats
        return []
    kind = attribute.get_type()
    if not isinstance(kind, h5t.TypeStringID):
        raise WeightError(f"The attribute {name.decode()} is not text, but of {type(kind).__name__}")
    if kind.is_variable_str():
        check()
    values = np.zeros(attribute.shape, attribute.dtype)
    attribute.read(values)
    return [bytes(value).decode() for value in values.ravel()]
