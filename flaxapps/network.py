"""From the arguments every network takes to a model and its variables."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

import weight_port
from flaxapps import layers
from flaxapps.arguments import (
    check_data_format,
    check_dtype,
    check_head,
    check_input_shape,
    check_input_tensor,
    check_weights,
)
from flaxapps.graph import source_inputs
from flaxapps.model import Model
from flaxapps.paths import local_file
from flaxapps.recording import Node
from flaxapps.registry import ModelInfo

Activation = str | Callable[[jax.Array], jax.Array] | None
ImageShape = Sequence[int | None]


class Network(NamedTuple):
    """A model and the arrays it runs on.

    Attributes:
        model: The static description.
        variables: `{"params": ..., "batch_stats": ...}`, float32, keyed by layer name.
    """

    model: Model
    variables: Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """How one network is laid out.

    Attributes:
        features: From an image node to the last feature map.
        classifier: From the feature map, a number of classes and an activation to the predictions.
        pooling_names: Names of the layers that pooling="avg" and pooling="max" add; None for automatic names.
        variant: Which of the published weight files belong to it; "" for those Keras 3 loads.
    """

    features: Callable[[Node], Node]
    classifier: Callable[[Node, int, Activation], Node]
    pooling_names: tuple[str | None, str | None] = (None, None)
    variant: str = ""


def build_model(
    info: ModelInfo,
    architecture: Architecture,
    *,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    input_tensor: Node | None = None,
    input_shape: ImageShape | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    data_format: str | None = None,
    dtype: str | None = None,
    min_size: int | None = None,
) -> Model:
    """Builds the model of a network with the arguments of Keras Applications; no array is made.

    Args:
        info: The network's facts.
        architecture: The network's layout.
        include_top: Whether to put the classifier on the features.
        weights: What the model is for: None, "imagenet", or the path of a file; some rules depend on it.
        input_tensor: A Node to use as the image, in place of a new Input.
        input_shape: Shape of one image, for example (200, 200, 3). With the classifier None is the default size;
            without it None leaves the size free, as do None dimensions.
        pooling: Without the classifier: None for the feature map (4D), "avg" or "max" for its global mean or maximum.
        classes: Number of classes of the classifier; 1000 for "imagenet".
        classifier_activation: Activation of the classifier; None returns logits.
        data_format: Layout of images: "channels_last", "channels_first", or None for keras.json's.
        dtype: Compute dtype such as "bfloat16"; parameters and statistics stay float32. None is keras.json's floatx.
        min_size: Lowers the smallest image size that is accepted, in pixels.

    Raises:
        ValueError: The arguments break a rule; the message says which and what would be right.
    """
    check_weights(weights, include_top, classes)
    check_head(pooling, classifier_activation, weights, include_top)
    check_dtype(dtype)
    data_format = check_data_format(info, data_format)
    shape = check_input_shape(
        info, input_shape, data_format=data_format, include_top=include_top, weights=weights, min_size=min_size
    )
    if input_tensor is None:
        image = layers.Input(shape, dtype=dtype, data_format=data_format)
    else:
        image = check_input_tensor(input_tensor, dtype)
    output = architecture.features(image)
    if include_top:
        output = architecture.classifier(output, classes, classifier_activation)
    elif pooling == "avg":
        output = layers.GlobalAveragePooling2D(name=architecture.pooling_names[0])(output)
    elif pooling == "max":
        output = layers.GlobalMaxPooling2D(name=architecture.pooling_names[1])(output)
    sources = source_inputs(image)
    return Model(sources[0] if len(sources) == 1 else sources, output, name=info.name)


def build_network(
    info: ModelInfo,
    architecture: Architecture,
    *,
    include_top: bool,
    weights: str | os.PathLike[str] | None,
    seed: int,
    **arguments: Any,
) -> Network:
    """Builds the model of a network and gets its variables: fresh, from a file, or downloaded.

    Args:
        info: The network's facts.
        architecture: The network's layout.
        include_top: Whether to put the classifier on the features.
        weights: None (Keras's initializers), "imagenet" (downloaded once, verified, cached), or the path of a file.
        seed: Seed of the initializers where weights is None.
        **arguments: The other arguments of `build_model`.

    Raises:
        ValueError: The arguments break a rule.
        WeightError: The weights cannot be had, or do not fit.
    """
    model = build_model(info, architecture, include_top=include_top, weights=weights, **arguments)
    if weights is None:
        return Network(model, model.init_variables(seed))
    if weights == "imagenet":
        weights = weight_port.fetch(info.name, include_top=include_top, variant=architecture.variant)
    return Network(model, load_variables(weights, model))


def load_variables(path: str | os.PathLike[str], model: Model) -> dict[str, Any]:
    """Reads a file of weights, which may be in a bucket, onto the default device; see `weight_port.load_weights`."""
    return on_device(weight_port.load_weights(local_file(path), model))


def on_device(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Puts a tree of NumPy arrays on the default device, without a second copy where the device is the host."""
    return dict(jax.device_put(variables))
