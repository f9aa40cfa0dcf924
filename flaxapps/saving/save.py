"""Export whole Keras models: configuration and weights in a `.keras` archive.

Source: keras/src/saving/saving_lib.py.
"""

import datetime
import json
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flaxapps.graph.graph import Graph
from flaxapps.layers import Functional
from flaxapps.model import Model
from flaxapps.runtime import files
from flaxapps.runtime.files import in_bucket
from flaxapps.saving import graph_file
from flaxapps.saving.for_keras3 import for_keras3
from flaxapps.saving.to_config import keras_name
from flaxapps.saving.to_model_config import model_config
from weight_port import WeightError
from weight_port.atomic import replacing, scratch_file
from weight_port.hdf5.archives import CONFIG_MEMBER, WEIGHTS_MEMBER
from weight_port.writers import check_variables, write_file, write_tree

METADATA_MEMBER = "metadata.json"
KERAS_VERSION = "3.15.1"  # version of the format
SUFFIX = ".keras"


def save_model(model: Model, variables: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Save a model and its weights to a file that `keras.models.load_model(path)` opens, or to our own format.

    The write is atomic: an interrupted save leaves an existing file intact. If the model is part of a larger graph, the
    nodes where it was cut become InputLayers of the `.keras` file.

    Args:
        model: The network. Layers that compute in bfloat16 or float16 get Keras's mixed policies. A channels_first
            model stays channels_first.
        variables: `{"params": ..., "batch_stats": ...}`, keyed by layer name; NumPy or JAX arrays.
        path: Path ending in `.keras`; or in `.npz`, for our own format, which also holds models of `quantize` and
            `optimize`. `flaxapps.load_model` opens both.

    Raises:
        WeightError: The variables do not fit the model, or Keras cannot express it: it has a layer that only exists
            here, a function without a Keras name, or an axis without a channels_first equivalent. Nothing is written.
        FileNotFoundError: The folder does not exist.
        ImportError: `path` is in a bucket, and a package for this is not installed.
    """
    if os.fspath(path).endswith(graph_file.SUFFIX):
        graph_file.save_graph(model, variables, path)
        return
    if not os.fspath(path).endswith(SUFFIX):
        raise WeightError(
            f"{os.fspath(path)} has to end in {SUFFIX} or {graph_file.SUFFIX}. weight_port.save_weights writes weights "
            "alone."
        )
    check_variables(model, variables)
    model, variables = for_keras3(model, variables)
    _warn_of_slashes(model.graph)
    config = json.dumps(model_config(model))
    arrays = check_variables(model, variables)
    if in_bucket(path):
        with TemporaryDirectory() as folder, files.replacing(path, "wb") as stream:
            local = Path(folder, f"model{SUFFIX}")
            save_model(model, variables, local)
            stream.write(local.read_bytes())
        return
    date = datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
    with replacing(path) as part, scratch_file(path) as weights:
        write_file(weights, write_tree, model, arrays)
        with zipfile.ZipFile(part, "w") as archive:  # uncompressed, as Keras does, so that it can be read in place
            archive.writestr(METADATA_MEMBER, json.dumps({"keras_version": KERAS_VERSION, "date_saved": date}))
            archive.writestr(CONFIG_MEMBER, config)
            archive.write(weights, WEIGHTS_MEMBER)


def _warn_of_slashes(graph: Graph) -> None:
    renamed = [layer.name for layer in graph.layers if "/" in layer.name]
    if renamed:
        warnings.warn(
            f"Keras 3 does not allow '/' in layer names: {renamed[0]!r} becomes {keras_name(renamed[0])!r}, and "
            f"{len(renamed) - 1} more in the same way",
            stacklevel=3,
        )
    for layer in graph.layers:
        if isinstance(layer.layer, Functional):
            _warn_of_slashes(layer.layer.graph)
