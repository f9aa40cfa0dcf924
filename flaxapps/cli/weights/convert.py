"""`flaxapps convert`: read and write weights in any format."""

import os
from collections.abc import Mapping
from typing import Any

from flaxapps.model import Model
from flaxapps.registry import build_model, list_models, suggestion
from flaxapps.saving.load import load_architecture
from flaxapps.saving.save import save_model
from weight_port.errors import WeightError
from weight_port.formats import Form, form_of, form_to_write, is_whole_model, read_variables
from weight_port.trees import save_npz, save_orbax
from weight_port.writers import save_weights


def find_model(name: str | None, *files: str, top: bool = True) -> Model | None:
    """Finds the network that weights belong to.

    Args:
        name: A network of `flaxapps list` or a whole model; None takes the first whole model among `files`.
        *files: The weights.
        top: Whether a network by name has its classifier.

    Returns:
        The model; None if `name` is None and no file is a whole model.

    Raises:
        WeightError: There is no such network or file, or the file cannot be loaded.
    """
    if name is None:
        name = next((file for file in files if is_whole_model(file)), None)
        return load_architecture(name) if name else None
    if name in list_models():
        # Weight files do not depend on the data format, so keras.json must not either.
        return build_model(name, include_top=top, data_format="channels_last")
    if not os.path.exists(name):
        raise WeightError(f"{name!r} is neither a network of `flaxapps list` nor a file.{suggestion(name)}")
    return load_architecture(name)


def write_variables(path: str, tree: Mapping[str, Any], model: Any = None) -> None:
    """Writes variables atomically, in the format given by the file name.

    Raises:
        WeightError: The format needs a model and `model` is None, or it cannot hold these variables.
        FileNotFoundError: The folder does not exist.
    """
    form = form_to_write(path)
    if form is Form.NPZ:
        save_npz(path, tree)
    elif form is Form.ORBAX:
        save_orbax(path, tree)
    elif model is None:
        raise WeightError(f"{path} cannot be written without the network: give --model NAME or FILE.keras")
    elif form is Form.ARCHIVE:
        save_model(model, tree, path)
    else:
        save_weights(path, model, tree)


def convert(source: str, target: str, name: str | None = None, top: bool = True) -> None:
    """Converts weights to another format. Values are copied bit for bit.

    Args:
        source: A file or an Orbax folder.
        target: The file or folder to write; its name decides the format.
        name: The network if `source` is not a whole model: one of `flaxapps list`, or a whole model.
        top: Whether a network by name has its classifier.

    Raises:
        WeightError: `source` cannot be read, does not fit the model, or cannot be written in the format of `target`;
            nothing is written.
        FileNotFoundError: `source`, or the folder of `target`, does not exist.
    """
    form_to_write(target)
    if not os.path.exists(source):
        form_of(source)  # raises FileNotFoundError
    if os.path.exists(target) and os.path.samefile(source, target):
        raise WeightError(f"{target} is also the file to read: give another name")
    model = find_model(name, source, top=top)
    write_variables(target, read_variables(source, model), model)
