"""Table of the variables of Keras layer classes and their leaves in a Flax tree."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from weight_port.errors import WeightError

# Keras's variable names in file order, and the leaf of each. Arrays keep their layout.
LAYOUT: Mapping[str, Mapping[str, str]] = {
    "AdditiveAttention": {"scale": "scale"},
    "Attention": {"scale": "scale", "concat_score_weight": "concat_score_weight"},
    "BatchNormalization": {
        **{"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"},
        **{"moving_stddev": "moving_stddev", "renorm_mean": "renorm_mean", "renorm_stddev": "renorm_stddev"},
    },
    "Conv1D": {"kernel": "kernel", "bias": "bias"},
    "Conv1DTranspose": {"kernel": "kernel", "bias": "bias"},
    "Conv2D": {"kernel": "kernel", "bias": "bias"},
    "Conv2DTranspose": {"kernel": "kernel", "bias": "bias"},
    "Conv3D": {"kernel": "kernel", "bias": "bias"},
    "Conv3DTranspose": {"kernel": "kernel", "bias": "bias"},
    "Dense": {"kernel": "kernel", "bias": "bias"},
    "DepthwiseConv1D": {"kernel": "kernel", "bias": "bias"},
    "DepthwiseConv2D": {"kernel": "kernel", "bias": "bias"},
    "EinsumDense": {"kernel": "kernel", "bias": "bias"},
    "Embedding": {"embeddings": "embeddings"},
    "GroupedQueryAttention": {
        f"_{part}_dense/{variable}": f"{part}_{variable}"
        for part in ("query", "key", "gate", "value", "output")
        for variable in ("kernel", "bias")
    },
    "GroupNormalization": {"gamma": "scale", "beta": "bias"},
    "LayerNormalization": {"gamma": "scale", "beta": "bias"},
    "LayerScale": {"gamma": "scale"},
    "MultiHeadAttention": {
        f"{'_gate' if part == 'gate' else part}_dense/{variable}": f"{part}_{variable}"
        for part in ("query", "key", "gate", "value", "output")
        for variable in ("kernel", "bias")
    },
    "Normalization": {"mean": "mean", "variance": "variance", "count": "count"},
    "PReLU": {"alpha": "alpha"},
    "RMSNormalization": {"scale": "scale"},
    "SeparableConv1D": {
        "depthwise_kernel": "depthwise_kernel",
        "pointwise_kernel": "pointwise_kernel",
        "bias": "bias",
    },
    "SeparableConv2D": {
        "depthwise_kernel": "depthwise_kernel",
        "pointwise_kernel": "pointwise_kernel",
        "bias": "bias",
    },
}
# Wrappers, whose variables are those of the wrapped layer, and their own variables.
WRAPPERS: Mapping[str, Mapping[str, str]] = {"SpectralNormalization": {"vector_u": "vector_u"}, "TimeDistributed": {}}
# Variables of the wrapped layer that Keras 3 stores a second time, before the wrapper's own.
STORED_AGAIN: Mapping[str, tuple[str, ...]] = {"SpectralNormalization": ("kernel", "embeddings")}
# Kernel axes of Keras 1 for "th" (channels first) and "tf", as arguments of `np.transpose`.
KERAS1_KERNELS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "th": {
        "Conv1D": (2, 1, 0), "Conv2D": (2, 3, 1, 0), "Conv3D": (2, 3, 4, 1, 0), "Conv2DTranspose": (2, 3, 0, 1),
        "DepthwiseConv2D": (2, 3, 1, 0), "SeparableConv2D": (2, 3, 1, 0),
    },
    "tf": {"Conv2DTranspose": (0, 1, 3, 2)},
}  # fmt: skip # kept on few lines on purpose
# Theano convolves, other backends correlate: kernels of these classes written with Theano are rotated by 180 degrees.
ROTATED_IN_THEANO = ("Conv1D", "Conv2D", "Conv2DTranspose", "Conv3D")


class WeightLike(Protocol):
    """Description of an array of a model."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the tree and in Keras."""

    @property
    def collection(self) -> str:
        """Collection in the tree: "params", or "batch_stats" for Keras's non-trainable weights."""


class LayerLike(Protocol):
    """Description of a layer of a model. A nested model also has `layers`."""

    @property
    def name(self) -> str:
        """Name of the layer."""

    @property
    def class_name(self) -> str:
        """Keras class of the layer."""

    @property
    def weights(self) -> Mapping[str, WeightLike]:
        """Arrays by leaf name."""


class ModelLike(Protocol):
    """The interface of models for loading: layers in Keras's order, and initial values of arrays a file lacks."""

    @property
    def layers(self) -> Sequence[Any]:
        """The layers, each a LayerLike."""

    def init_variables(self, seed: int = 0, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A tree with the arrays of `base`; the rest is initialized."""


@dataclass(frozen=True)
class Target:
    """One array that a model needs.

    Attributes:
        layers: Names of the layer and of the models around it, outermost first.
        class_name: Keras class of the layer.
        variable: Keras's name of the variable, such as "gamma".
        collection: Collection of the tree.
        leaf: Name in the tree, such as "scale".
        shape: Shape in the tree and in the file.
    """

    layers: tuple[str, ...]
    class_name: str
    variable: str
    collection: str
    leaf: str
    shape: tuple[int, ...]

    @property
    def path(self) -> tuple[str, ...]:
        """Keys in the tree."""
        return (self.collection, *self.layers, self.leaf)

    def __str__(self) -> str:
        return f"{'/'.join(self.layers)}/{self.variable} {self.shape}"


def is_nested(layer: Any) -> bool:
    """Whether a layer is itself a model."""
    return getattr(layer, "layers", None) is not None


def stored_class(layer: Any) -> str:
    """The class of a layer in the version of its file, such as SyncBatchNormalization; files name groups after it."""
    written: str = getattr(layer, "stored_class", None) or layer.class_name
    return written.rpartition(">")[2]


def layer_targets(layer: Any, above: tuple[str, ...] = ()) -> list[Target]:
    """The arrays of one layer, and of the layers inside it, in Keras's order.

    Custom layers, which are not in the table, list their arrays in Keras's order and with its names.

    Raises:
        WeightError: The layer has arrays of another dtype than float32.
    """
    path = (*above, layer.name)
    if is_nested(layer):
        return all_targets(layer.layers, path)
    weights = dict(layer.weights)
    # Descriptions of models that are not ours need not have a dtype.
    whole = [leaf for leaf, weight in weights.items() if getattr(weight, "dtype", "float32") != "float32"]
    if whole:
        raise WeightError(
            f"Layer {'/'.join(path)!r} of kind {layer.class_name} has arrays of {weights[whole[0]].dtype}, "
            "which files of Keras do not hold: flaxapps.save_model(model, variables, 'name.npz') saves the whole model"
        )
    return [
        Target(path, layer.class_name, variable, weights[leaf].collection, leaf, tuple(weights[leaf].shape))
        for variable, leaf in variables_of(layer, weights).items()
        if leaf in weights
    ]


def variables_of(layer: Any, weights: Mapping[str, WeightLike]) -> Mapping[str, str]:
    """Keras's variables of a layer in file order, and their leaves.

    Variables of an inner layer are prefixed by its attribute: "query_dense/kernel".
    """
    if layer.class_name in WRAPPERS:
        inside = variables_of(layer.layer.layer if hasattr(layer.layer, "layer") else layer.layer, weights)
        return {**{f"layer/{variable}": leaf for variable, leaf in inside.items()}, **WRAPPERS[layer.class_name]}
    table = LAYOUT.get(layer.class_name)
    return {leaf: leaf for leaf in weights if leaf != "vector_u"} if table is None else table


def all_targets(layers: Iterable[Any], above: tuple[str, ...] = ()) -> list[Target]:
    """The arrays of all layers, in Keras's order."""
    return [target for layer in layers for target in layer_targets(layer, above)]
