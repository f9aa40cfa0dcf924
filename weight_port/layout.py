"""Where the variables of each Keras layer kind go in a Flax tree: the one table of this package."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# Keras's variable names in the order of Keras's files, and the leaf each becomes. Arrays keep their layout.
LAYOUT: Mapping[str, Mapping[str, str]] = {
    "BatchNormalization": {"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"},
    "Conv2D": {"kernel": "kernel", "bias": "bias"},
    "Conv2DTranspose": {"kernel": "kernel", "bias": "bias"},
    "Dense": {"kernel": "kernel", "bias": "bias"},
    "DepthwiseConv2D": {"kernel": "kernel", "bias": "bias"},
    "GroupNormalization": {"gamma": "scale", "beta": "bias"},
    "LayerNormalization": {"gamma": "scale", "beta": "bias"},
    "LayerScale": {"gamma": "scale"},
    "Normalization": {"mean": "mean", "variance": "variance", "count": "count"},
    "PReLU": {"alpha": "alpha"},
    "RMSNormalization": {"scale": "scale"},
    "SeparableConv2D": {
        "depthwise_kernel": "depthwise_kernel",
        "pointwise_kernel": "pointwise_kernel",
        "bias": "bias",
    },
}
# Theano convolves, everybody else correlates: kernels of these kinds written under Theano are rotated by half a turn.
ROTATED_IN_THEANO = ("Conv2D", "Conv2DTranspose")


class WeightLike(Protocol):
    """What a model says about one array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the tree, which is Keras's."""

    @property
    def collection(self) -> str:
        """Where it lives: "params", or "batch_stats" for what Keras calls non-trainable."""


class LayerLike(Protocol):
    """What a model says about one layer; one that is a model has `layers` too."""

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
    """What loading needs of a model: its layers in Keras's order, and fresh values for what a file leaves out."""

    @property
    def layers(self) -> Sequence[Any]:
        """The layers, each a LayerLike."""

    def init_variables(self, seed: int = 0, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A tree with what `base` has taken from `base`, the rest fresh."""


@dataclass(frozen=True)
class Target:
    """One array a model wants.

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


def layer_targets(layer: Any, above: tuple[str, ...] = ()) -> list[Target]:
    """The arrays of one layer, and of the layers inside it, in Keras's order.

    Kinds that are not in the table, which users registered, name their arrays as Keras does and in its order.
    """
    path = (*above, layer.name)
    if is_nested(layer):
        return all_targets(layer.layers, path)
    weights = dict(layer.weights)
    return [
        Target(path, layer.class_name, variable, weights[leaf].collection, leaf, tuple(weights[leaf].shape))
        for variable, leaf in LAYOUT.get(layer.class_name, {leaf: leaf for leaf in weights}).items()
        if leaf in weights
    ]


def all_targets(layers: Iterable[Any], above: tuple[str, ...] = ()) -> list[Target]:
    """The arrays of all layers, in Keras's order."""
    return [target for layer in layers for target in layer_targets(layer, above)]
