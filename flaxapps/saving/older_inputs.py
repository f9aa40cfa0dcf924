"""Adapt the inputs of layers of older versions, so that results are the same: integer images."""

import warnings
from collections.abc import Sequence

import jax.numpy as jnp

from flaxapps import layers
from flaxapps.graph.symbolic import Layer, Node
from flaxapps.saving.dialects.version import Version, warn_if_unknown

# Classes that return integers for integer inputs.
KEEP_INTEGERS = (
    "Add", "Concatenate", "Cropping1D", "Cropping2D", "Cropping3D", "Dropout", "Flatten", "GlobalMaxPooling1D",
    "GlobalMaxPooling2D", "GlobalMaxPooling3D", "Identity", "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "Maximum",
    "Minimum", "Multiply", "Permute", "RepeatVector", "Reshape", "SpatialDropout2D", "Subtract", "UpSampling1D",
    "UpSampling2D", "UpSampling3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
)  # fmt: skip # kept on few lines on purpose
MEANS = ("Average", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D")


def as_in_version(layer: Layer, nodes: Sequence[Node], version: Version) -> Sequence[Node]:
    """Adapt the inputs of a layer so that it computes what it did in its version.

    Before Keras 3.6 resizing integer images gave floats; since then the result is rounded to integers.

    Raises:
        ValueError: No later version computes the same, such as integer means of integers and some dot products.
    """
    if isinstance(layer, layers.Dot) and version.numbers < (2, 3, 0):
        _check_products(layer, nodes, version)
    _check_encoding(layer, nodes, version)
    if version.numbers >= (3, 6, 0) or not any(map(is_integer, nodes)):
        return nodes
    kind = layer.function if isinstance(layer, layers.Operation) else layer.class_name
    interpolates = getattr(layer, "interpolation", "nearest") != "nearest"
    if not version.known:
        if interpolates or (version.major < 3 and (kind in MEANS or kind == "Mean")):
            warn_if_unknown(version, layer.name, kind, "in Keras 3.6 and later")
        return nodes
    if version.major < 3 and (kind in MEANS or kind == "Mean"):
        raise ValueError(
            f"Layer {layer.name!r} of kind {kind} takes means of integers, which were integers before Keras 3; put a "
            "layer that casts to floats before it, such as Rescaling(1.0)"
        )
    return list(map(_floats, nodes)) if interpolates else nodes


def _floats(node: Node) -> Node:
    return layers.Rescaling(1.0, dtype="float32")(node) if is_integer(node) else node


def _check_encoding(layer: Layer, nodes: Sequence[Node], version: Version) -> None:
    """Refuse one-hot encoding of inputs with a last dimension of 1, which Keras 3.0 to 3.3 kept."""
    single = isinstance(layer, layers.CategoryEncoding) and layer.output_mode == "one_hot"
    if not (single and (3, 0, 0) <= version.numbers < (3, 4, 0) and nodes[0].shape[-1] == 1):
        return
    if version.known:
        raise ValueError(
            f"Layer {layer.name!r} of kind CategoryEncoding has a dimension of 1, which {version} kept and later "
            "versions drop; it is not imported"
        )
    warn_if_unknown(version, layer.name, "CategoryEncoding", "in Keras 3.4 and later, without its last dimension of 1")


def _check_products(layer: layers.Dot, nodes: Sequence[Node], version: Version) -> None:
    """Refuse dot products of images: Keras before 2.3 computed them for each row separately.

    Warns:
        UserWarning: The version is tf.keras 2.2.4, which did so in TensorFlow 1.13 but not in 2.1.
    """
    if all(len(node.shape) <= 3 for node in nodes):
        return
    if not version.known:
        warn_if_unknown(version, layer.name, "Dot", "in Keras 2.3 and later, summing over all rows")
        return
    if version.tensorflow:
        warnings.warn(
            f"Layer {layer.name!r} of kind Dot is assumed to sum over all rows; {version} of TensorFlow 1.13, which "
            "may have written the file, computed the products of each row separately",
            stacklevel=2,
        )
        return
    raise ValueError(
        f"Layer {layer.name!r} of kind Dot has inputs of shapes {[node.shape for node in nodes]}. With more than "
        "two dimensions beside the batch, Keras before 2.3 computed other products, which are not imported"
    )


def is_integer(node: Node) -> bool:
    """Whether the values of a node are certainly integers."""
    layer = node.call.raw_layer
    if isinstance(layer, layers.InputLayer):
        return jnp.issubdtype(jnp.dtype(layer.dtype or "float32"), jnp.integer)
    if isinstance(layer, layers.Operation):
        options = dict(layer.options)
        return layer.function == "Cast" and jnp.issubdtype(jnp.dtype(options["dtype"]), jnp.integer)
    enlarged = getattr(layer, "interpolation", "nearest") != "nearest"
    return layer.class_name in KEEP_INTEGERS and not enlarged and all(map(is_integer, node.call.inputs))
