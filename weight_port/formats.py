"""Weight formats: detect them by content or name, and read them."""

import os
from enum import Enum
from typing import Any

from weight_port.errors import WeightError
from weight_port.hdf5.archives import ZIP_MAGIC
from weight_port.loading import load_weights
from weight_port.readers import folder_message, open_weights, read_config
from weight_port.stored import LegacyFile
from weight_port.trees import is_npz, is_orbax, load_npz, load_orbax
from weight_port.writers import check_variables


class Form(Enum):
    """Formats of weights."""

    LEGACY = "legacy HDF5 (.h5)"
    TREE = "HDF5 of Keras 3 (.weights.h5)"
    ARCHIVE = "whole model of Keras 3 (.keras)"
    NPZ = "NumPy arrays (.npz)"
    ORBAX = "Orbax folder"

    @property
    def names_itself(self) -> bool:
        """Whether the file stores the paths of the variables, so that no model is needed to read it."""
        return self in (Form.NPZ, Form.ORBAX)


def form_of(path: str) -> Form:
    """Detect the format of a file or folder by its content.

    Raises:
        WeightError: `path` has no known format, or is damaged.
        FileNotFoundError: `path` does not exist.
    """
    if os.path.isdir(path):
        if not is_orbax(path):
            raise WeightError(f"{folder_message(path)}, and no Orbax checkpoint")
        return Form.ORBAX
    if is_npz(path):
        return Form.NPZ
    with open_weights(path) as file:
        legacy = isinstance(file, LegacyFile)
    if legacy:
        return Form.LEGACY
    with open(path, "rb") as stream:
        return Form.ARCHIVE if stream.read(2) == ZIP_MAGIC else Form.TREE


def form_to_write(path: str) -> Form:
    """Choose the format to write by the file name.

    Raises:
        WeightError: The name has an unknown suffix.
    """
    endings = {".weights.h5": Form.TREE, ".h5": Form.LEGACY, ".keras": Form.ARCHIVE, ".npz": Form.NPZ}
    for ending, form in endings.items():
        if path.endswith(ending):
            return form
    if os.path.isdir(path) or path.endswith((os.sep, ".orbax")) or not os.path.splitext(path)[1]:
        return Form.ORBAX
    raise WeightError(f"{path} should end in {', '.join(endings)}, or for an Orbax folder in {os.sep} or no suffix")


def is_whole_model(path: str) -> bool:
    """Whether a file has the configuration of a network beside its weights."""
    if os.path.isdir(path):
        return False
    try:
        read_config(path)
    except WeightError:
        return False
    return True


def read_variables(path: str, model: Any = None) -> dict[str, Any]:
    """Read variables in any format.

    Args:
        path: A file or an Orbax folder.
        model: The model to check the variables against. Optional for `.npz` and Orbax.

    Raises:
        WeightError: The variables cannot be read, or do not fit the model.
        FileNotFoundError: `path` does not exist.
    """
    form = form_of(path)
    if not form.names_itself:
        if model is None:
            raise WeightError(f"{path} does not say which network it belongs to: give --model NAME or FILE.keras")
        return load_weights(path, model)
    tree = load_npz(path) if form is Form.NPZ else load_orbax(path)
    if model is not None:
        try:
            check_variables(model, tree)
        except WeightError as error:
            message = f"{path} does not fit: {error.message}"
            raise WeightError(message, error.missing, error.unexpected, error.misshapen) from error
    return tree
