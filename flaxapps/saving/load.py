"""Import Keras models: build the graph from the configuration and load the weights."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import weight_port
from flaxapps.graph.symbolic import Shape
from flaxapps.model import Model, Network, load_variables
from flaxapps.runtime.files import local_file
from flaxapps.saving.conventions import UnknownInputShape
from flaxapps.saving.dialects import MODELS, REFUSED, Version, check_structure, normalized, read_version
from flaxapps.saving.entries import check_masks, takes_whole_numbers
from flaxapps.saving.from_config import handlers, refusal, wrong_options
from flaxapps.saving.from_model_config import GraphBuilder
from flaxapps.saving.graph_file import is_graph_file, load_graph
from flaxapps.saving.input_shape import infer_model
from weight_port import WeightError
from weight_port.readers import is_json

Entry = Mapping[str, Any]


def load_model(
    path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    input_shape: Sequence[int | None] | None = None,
) -> Network:
    """Load a whole model: architecture and weights.

    Args:
        path: A `.keras` archive of Keras 2.12 to 3, a whole-model `.h5` of Keras 1 to 3, the output of
            `model.to_json()`, or a `.npz` file of `save_model`. Functional and Sequential models of the layers in
            `flaxapps.layers`, nested to any depth.
        weights: The file with the weights if they are not in `path`, for example beside a `model.json`.
        input_shape: Input shape without the batch, for a Sequential model whose file does not store it. By default it
            is inferred from the shapes of the weights, with a warning.

    Returns:
        Network(model, variables). No code stored in the file is executed.

    Raises:
        WeightError: The file is damaged, has no model or no weights, or has layers that cannot be imported; all are
            listed.
        FileNotFoundError: `path` does not exist.
        ImportError: `path` is in a bucket, and a package for this is not installed.
    """
    path = local_file(path)
    if is_graph_file(path):
        if weights is not None or input_shape is not None:
            raise WeightError(f"{os.fspath(path)} holds its weights and input shape: leave out weights and input_shape")
        return load_graph(path).network
    model = load_architecture(path, input_shape=input_shape, weights=weights)
    if weights is None and is_json(path):
        raise WeightError(f"{os.fspath(path)} holds a model without weights: give weights=, the file beside it")
    return Network(model, load_variables(path if weights is None else weights, model))


def load_architecture(
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int | None] | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> Model:
    """Build the network of a Keras model file without reading its weights; see `load_model`."""
    config = weight_port.read_config(path)

    def build(shape: Shape | None) -> Model:
        return model_from_config(config, shape)

    try:
        if input_shape is not None:
            return build((None, *input_shape))
        try:
            return build(None)
        except UnknownInputShape:
            if weights is None and is_json(path):
                raise
            return infer_model(build, local_file(path if weights is None else weights))
    except WeightError:
        raise
    except (KeyError, TypeError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        raise WeightError(f"{os.fspath(path)}: the model configuration is damaged: {error!r}") from error
    except ValueError as error:
        raise WeightError(f"{os.fspath(path)}: {_with_notes(error)}") from error


def model_from_config(config: Entry, input_shape: Shape | None = None) -> Model:
    """Build the network of a configuration.

    Args:
        config: What `weight_port.read_config` returns.
        input_shape: Batch dimension first, for a Sequential model that does not store it; in the layout of the model.

    Raises:
        UnknownInputShape: A Sequential model does not store its input shape, and `input_shape` is None.
        ValueError: Layers cannot be imported, or do not fit together.
    """
    check_structure(config)
    version = read_version(config)
    entry = normalized(config, version)
    check_masks(entry, version.major < 3)
    refused = list(_refusals(entry))
    if refused:
        raise ValueError(_refusal_message(refused, version))
    channels_first = _is_channels_first(entry)
    if input_shape is not None and channels_first and len(input_shape) == 4:
        batch, channels, *sizes = input_shape
        input_shape = (batch, *sizes, channels)
    shapes = None if input_shape is None else [input_shape]
    inputs, outputs = GraphBuilder(channels_first, version, takes_whole_numbers(entry)).ends(entry, shapes)
    name = entry["config"].get("name")
    return Model(inputs[0] if len(inputs) == 1 else inputs, outputs[0] if len(outputs) == 1 else outputs, name=name)


class Examination(NamedTuple):
    """Result of checking whether a model file can be imported.

    Attributes:
        version: The Keras that wrote the file.
        refused: One line per layer (or for the model) that cannot be imported, with the reason.
        warned: The warnings of an import.
    """

    version: str
    refused: tuple[str, ...]
    warned: tuple[str, ...]


def examine(path: str | os.PathLike[str]) -> Examination:
    """Check whether a model file can be imported, without reading its weights.

    Raises:
        WeightError: The file is damaged or has no model.
        FileNotFoundError: `path` does not exist.
    """
    config = weight_port.read_config(local_file(path))
    version = read_version(config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_structure(config)
            refused = list(_refusals(normalized(config, version)))
            if not refused:
                model_from_config(config)
        except UnknownInputShape as error:
            caught.append(warnings.WarningMessage(UserWarning(str(error)), UserWarning, "", 0))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
            refused = [
                _with_notes(error) if isinstance(error, ValueError) else f"the configuration is damaged: {error!r}"
            ]
    warned = dict.fromkeys(str(warning.message) for warning in caught)
    return Examination(str(version), tuple(refused), tuple(warned))


def _with_notes(error: ValueError) -> str:
    """The message followed by the notes of the exception, which name the layer."""
    return " ".join([str(error), *getattr(error, "__notes__", ())])


def _refusal_message(refused: Sequence[str], version: Version) -> str:
    count = "One layer" if len(refused) == 1 else f"{len(refused)} layers"
    return "\n  ".join([f"{count} of this file of {version} cannot be imported:", *refused])


def _refusals(entry: Entry) -> Iterator[str]:
    """Yield every reason why a model cannot be imported."""
    if entry["class_name"] not in MODELS:
        kind = entry["class_name"]
        yield (
            f"the model itself ({kind}: its layers are in the code of that class, which is not in the file; build the "
            "network here and use weight_port.load_weights)"
        )
        return
    known = handlers()
    for layer in entry["config"]["layers"]:
        if layer["class_name"] in MODELS:
            yield from _refusals(layer)
        elif reason := layer.get(REFUSED) or refusal(layer, known) or wrong_options(layer, known):
            yield reason


def _is_channels_first(entry: Entry) -> bool:
    """Whether the model takes channels_first images, that is, any layer does."""
    return "channels_first" in _data_formats(entry)


def _data_formats(entry: Entry) -> Iterator[str | None]:
    for layer in entry["config"]["layers"]:
        if layer["class_name"] in MODELS:
            yield from _data_formats(layer)
        elif layer["class_name"] != "Flatten":  # alone, its data_format does not make the model channels_first
            yield layer["config"].get("data_format")
