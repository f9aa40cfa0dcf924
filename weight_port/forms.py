"""The forms weights are kept in, and variables read from and written to any of them.

What only `flaxapps` knows, how a whole model is rebuilt and written, is looked up by name when a command needs it: this
package can be taken without the other, and does not depend on it.
"""

import importlib
import os
from collections.abc import Mapping
from enum import Enum
from typing import Any

from weight_port.archives import ZIP_MAGIC
from weight_port.checkpoints import is_npz, is_orbax, load_npz, load_orbax, save_npz, save_orbax
from weight_port.errors import WeightError
from weight_port.loading import load_weights
from weight_port.readers import LegacyFile, open_weights, read_config
from weight_port.writers import check_variables, save_weights


class Form(Enum):
    """How weights are kept."""

    LEGACY = "legacy HDF5 (.h5)"
    TREE = "HDF5 of Keras 3 (.weights.h5)"
    ARCHIVE = "whole model of Keras 3 (.keras)"
    NPZ = "NumPy arrays (.npz)"
    ORBAX = "Orbax folder"

    @property
    def names_itself(self) -> bool:
        """Whether the paths of the variables are in the file, so that no model is needed to read it."""
        return self in (Form.NPZ, Form.ORBAX)


def form_of(path: str) -> Form:
    """The form of a file or folder, told by its content.

    Raises:
        WeightError: It has none of them, or is damaged.
        FileNotFoundError: There is nothing.
    """
    if os.path.isdir(path):
        if not is_orbax(path):
            raise WeightError(f"{path} is a folder, and no Orbax checkpoint")
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
    """The form that the name of a file to be asks for.

    Raises:
        WeightError: The name asks for none.
    """
    endings = {".weights.h5": Form.TREE, ".h5": Form.LEGACY, ".keras": Form.ARCHIVE, ".npz": Form.NPZ}
    for ending, form in endings.items():
        if path.endswith(ending):
            return form
    if os.path.isdir(path) or path.endswith((os.sep, ".orbax")) or not os.path.splitext(path)[1]:
        return Form.ORBAX
    raise WeightError(f"{path} should end in {', '.join(endings)}, or for an Orbax folder in {os.sep} or nothing")


def is_whole_model(path: str) -> bool:
    """Whether a file holds the configuration of a network beside its weights."""
    if os.path.isdir(path):
        return False
    try:
        read_config(path)
    except WeightError:
        return False
    return True


def find_model(name: str | None, *files: str, top: bool = True) -> Any:
    """The network that weights are of.

    Args:
        name: A network of `flaxapps list` or a whole model; None for what the first whole model among `files` holds.
        *files: The weights.
        top: Whether a network by name has its classifier.

    Returns:
        A `flaxapps.Model`, or None where nothing says.

    Raises:
        WeightError: There is no such network, or it cannot be had.
    """
    if name is None:
        name = next((file for file in files if is_whole_model(file)), None)
        return name and flaxapps("importing").load_architecture(name)
    if name in flaxapps("registry").list_models():
        # Keras's files are the same for either layout of images; keras.json should not make a difference.
        return flaxapps("registry").build_model(name, include_top=top, data_format="channels_last")
    if not os.path.exists(name):
        names = ", ".join(flaxapps("registry").list_models())
        raise WeightError(f"{name!r} is neither a network ({names}) nor a file")
    return flaxapps("importing").load_architecture(name)


def read_variables(path: str, model: Any = None) -> dict[str, Any]:
    """Reads variables from any form.

    Args:
        path: A file or an Orbax folder.
        model: What they are of; with it they are checked. `.npz` and Orbax do without.

    Raises:
        WeightError: They cannot be read, or are not the model's.
        FileNotFoundError: There is nothing.
    """
    form = form_of(path)
    if not form.names_itself:
        if model is None:
            raise WeightError(f"{path} does not say what network it is of: give --model NAME or FILE.keras")
        return load_weights(path, model)
    tree = load_npz(path) if form is Form.NPZ else load_orbax(path)
    if model is not None:
        try:
            check_variables(model, tree)
        except WeightError as error:
            message = f"{path} does not fit: {error.message}"
            raise WeightError(message, error.missing, error.unexpected, error.misshapen) from error
    return tree


def write_variables(path: str, tree: Mapping[str, Any], model: Any = None) -> None:
    """Writes variables in the form that the name asks for, beside the target, which is then replaced.

    Raises:
        WeightError: The form needs a model and there is none, or it has no place for what there is.
        FileNotFoundError: There is no such folder.
    """
    form = form_to_write(path)
    if form is Form.NPZ:
        save_npz(path, tree)
    elif form is Form.ORBAX:
        save_orbax(path, tree)
    elif model is None:
        raise WeightError(f"{path} needs to know the network: give --model NAME or FILE.keras")
    elif form is Form.ARCHIVE:
        flaxapps("exporting").save_model(model, tree, path)
    else:
        save_weights(path, model, tree)


def convert(source: str, target: str, name: str | None = None, top: bool = True) -> None:
    """Reads weights in one form and writes them in another; the values stay what they are, to the bit.

    Args:
        source: A file or an Orbax folder.
        target: What to write; its name says the form.
        name: The network where `source` is not a whole model: one of `flaxapps list`, or a whole model.
        top: Whether a network by name has its classifier.

    Raises:
        WeightError: It cannot be done; nothing is written.
        FileNotFoundError: There is no `source`, or no folder for `target`.
    """
    form_to_write(target)
    if not os.path.exists(source):
        form_of(source)  # says so
    if os.path.exists(target) and os.path.samefile(source, target):
        raise WeightError(f"{target} is the file to be read as well: a copy under another name keeps what it holds")
    model = find_model(name, source, top=top)
    write_variables(target, read_variables(source, model), model)


def flaxapps(module: str) -> Any:
    """A module of `flaxapps`, which does not have to be there.

    It depends on this package; an import statement would make the two depend on each other.

    Raises:
        WeightError: It is not installed.
    """
    try:
        return importlib.import_module(f"flaxapps.{module}")
    except ImportError as error:
        raise WeightError(f"Rebuilding a network needs flaxapps: {error}") from error
