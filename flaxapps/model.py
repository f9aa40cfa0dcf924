"""Model: a graph as a Flax module."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import weight_port
from flaxapps.drawing.svg import draw
from flaxapps.graph.batch import Batch
from flaxapps.graph.graph import Graph, LayerInGraph
from flaxapps.graph.interpreter import check_frozen, run
from flaxapps.graph.shapes import advice_on_shape, in_layout
from flaxapps.graph.summary import print_summary
from flaxapps.graph.symbolic import Node, as_given, as_nodes
from flaxapps.graph.variables import Variables, fresh_variables, weight_paths
from flaxapps.layers import Functional, InputLayer
from flaxapps.runtime.files import local_file, replacing


class Model(nn.Module):
    """The network between `inputs` and `outputs`: a hashable static description, separate from its arrays.

    As a linen module it has `init`, `apply` and `tabulate`, nests in other modules, and is a valid static argument of
    `jax.jit`. Models built in the same way are equal and share compilations. Called on a Node instead of an array, the
    model becomes one layer of a larger graph.

    Attributes:
        inputs: A Node, or a list of Nodes. Nodes other than Inputs cut the graph there.
        outputs: A Node, or a list of Nodes; with a list the model returns a list.
        name: Title of the model, and key of its variables if it is nested.

    >>> from flaxapps import Input, layers
    >>> x = Input((8, 8, 3))
    >>> model = Model(x, layers.Conv2D(4, 3)(x))
    >>> model.apply(model.init_variables(), jnp.ones((2, 8, 8, 3))).shape
    (2, 6, 6, 4)
    """

    inputs: Any
    outputs: Any
    recorded: Graph | None = dataclasses.field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        # Flax clones modules through the constructor. Clones take the graph from the field `recorded`.
        if self.recorded is None:
            ends = [as_nodes(value, "Model") for value in (self.inputs, self.outputs)]
            object.__setattr__(self, "recorded", Graph(*ends))
        # One layer for all calls on Nodes, so that they share weights.
        object.__setattr__(self, "_layer", Functional(self.graph, name=self.name))
        super().__post_init__()

    @nn.nowrap
    def __setattr__(self, name: str, value: Any) -> None:
        if name == "trainable":  # Keras's way to freeze; set here, it would change nothing
            raise AttributeError(
                "Models cannot be changed, so trainable cannot be set: give fit(frozen=train.frozen_layers(model, "
                "names=[layer.name for layer in base.layers])), or the name of base itself where it is nested"
            )
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())

    @nn.nowrap
    def _value(self) -> tuple[Any, ...]:
        return self.name, self.graph, isinstance(self.inputs, Node), isinstance(self.outputs, Node)

    def __repr__(self) -> str:
        return f"Model(name={self.name!r}, inputs={self.inputs!r}, outputs={self.outputs!r})"

    def __call__(
        self,
        x: Any,
        train: bool | None = None,
        frozen: frozenset[str] = frozenset(),
        *,
        training: bool | None = None,
        mask: jax.Array | None = None,
        axis_name: str | None = None,
    ) -> Any:
        """Computes the outputs; on a Node, calls the whole model symbolically as one layer.

        Args:
            x: Images (batch, height, width, channels), or (batch, channels, height, width) for a channels_first
                model, of any numeric dtype; a list of arrays for several inputs.
            train: Whether layers are in training mode; None for inference, or on a Node for the mode of the larger
                model. In training mode BatchNormalization uses the statistics of the batch (apply with
                `mutable=["batch_stats"]`), and Dropout is active (apply with `rngs={"dropout": key}`).
            frozen: Names of frozen layers. Their parameters get no gradient, and BatchNormalization among them stays in
                inference mode. "outer/inner" names a layer inside a nested model, "outer" all of its layers.
            training: Keras's name of `train`: `model(x, training=False)`.
            mask: (batch,), bool; False for padding, which is excluded from the statistics of the batch.
            axis_name: The mapped axis (such as that of `jax.pmap`) over which the batch is sharded; statistics are
                then those of the global batch.

        Returns:
            The output array, or a list if `outputs` is one.

        Raises:
            ValueError: The arrays do not fit the inputs; `frozen` names a layer that does not exist; `train` and
                `training` differ; or a call on a Node has other options, which do not become part of the graph.
            TypeError: `frozen` is a string.
        """
        given = [x] if isinstance(self.inputs, Node) else list(x)
        if None not in (train, training) and train != training:
            raise ValueError(f"train={train} and training={training} are two names of one argument: give one of them")
        mode = train if training is None else training
        if any(isinstance(value, Node) for value in given):
            if frozen or mask is not None or axis_name:
                raise ValueError("A call on a Node takes no `frozen`, `mask` and `axis_name`: give them to `apply`")
            return self._layer(given, training=mode)
        check_frozen(self.graph, frozen)
        given = [value if isinstance(value, jax.Array) else np.asarray(value) for value in given]
        self.check_arrays(given)
        if self.scope is None:
            raise ValueError("A model holds no arrays: call model.apply(variables, x) or flaxapps.predict")
        results = run(self.graph, self.scope, _enter(self.graph, given), bool(mode), frozen, Batch(mask, axis_name))
        if self.data_format == "channels_first":
            results = [jnp.moveaxis(value, -1, 1) if value.ndim == 4 else value for value in results]
        return as_given(self.outputs, results)

    @property
    def graph(self) -> Graph:
        """The network as plain data; hashable, and equal for models of equal computations."""
        assert self.recorded is not None
        return self.recorded

    @property
    def layers(self) -> tuple[LayerInGraph, ...]:
        """The layers in Keras's order (by depth from the output), with the same indices as in Keras."""
        return self.graph.layers

    @property
    def input(self) -> Any:
        """The input node, or a list of input nodes."""
        return as_given(self.inputs, self.graph.inputs)

    @property
    def output(self) -> Any:
        """The output node, or a list of output nodes."""
        return as_given(self.outputs, self.graph.outputs)

    @property
    def input_shape(self) -> Any:
        """Shape of the input array, batch dimension (None) first; a list if `input` is one."""
        shapes = [in_layout(node.shape, _is_channels_first(node)) for node in self.graph.inputs]
        return as_given(self.inputs, shapes)

    @property
    def output_shape(self) -> Any:
        """Shape of the output array, batch dimension (None) first; a list if `output` is one."""
        shapes = [in_layout(node.shape, self.data_format == "channels_first") for node in self.graph.outputs]
        return as_given(self.outputs, shapes)

    @property
    def data_format(self) -> str:
        """Layout of output images: "channels_first" if an input has it, else "channels_last"."""
        return "channels_first" if any(map(_is_channels_first, self.graph.inputs)) else "channels_last"

    @nn.nowrap
    def check_arrays(self, arrays: Sequence[Any]) -> None:
        """Checks number, dtype and shape of input arrays.

        Args:
            arrays: The arrays for `apply`, as a list.

        Raises:
            ValueError: The number, dtype or shape of the arrays does not match the inputs.
        """
        title = self.name or "The model"
        shapes = [in_layout(node.shape, _is_channels_first(node)) for node in self.graph.inputs]
        if len(arrays) != len(shapes):
            raise ValueError(f"{title} takes {len(shapes)} inputs, got {len(arrays)} arrays")
        for shape, array in zip(shapes, arrays, strict=True):
            if not jnp.issubdtype(array.dtype, jnp.number) and array.dtype != jnp.bool_:
                raise ValueError(f"{title} takes arrays of numbers, got dtype {array.dtype}")
            sizes = zip(shape[1:], array.shape[1:], strict=False)
            if array.ndim != len(shape) or any(want not in (None, got) for want, got in sizes):
                wanted = ", ".join("any" if size is None else str(size) for size in shape[1:])
                advice = advice_on_shape(shape[1:], tuple(array.shape))
                raise ValueError(f"{title} takes arrays of shape (batch, {wanted}), got {array.shape}{advice}")

    @nn.nowrap
    def get_layer(self, name: str | None = None, index: int | None = None) -> LayerInGraph:
        """Returns the layer of this name, or at this index of `layers`.

        Args:
            name: Name of the layer.
            index: Index in Keras's order; negative ones count from the end.

        Returns:
            The layer, with its config as attributes; its `output` is a Node.

        Raises:
            ValueError: Both arguments or none are given, or there is no such layer.
        """
        if (name is None) == (index is None):
            raise ValueError("Give either the name or the index of a layer")
        if index is not None:
            if not -len(self.layers) <= index < len(self.layers):
                raise ValueError(f"There are {len(self.layers)} layers, got index={index}")
            return self.layers[index]
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ValueError(f"No layer is called {name!r}. There are: {', '.join(layer.name for layer in self.layers)}")

    @nn.nowrap
    def summary(self) -> None:
        """Prints a table: index, name, kind, output shape, parameters and inputs of every layer."""
        print_summary(self.graph, self.name or "functional")

    @nn.nowrap
    def plot(self, path: str | os.PathLike[str], *, full: bool = False) -> None:
        """Draws the network to an SVG file. Every box has its details in its title.

        Args:
            path: The file, written atomically.
            full: Whether to draw every layer, also inside nested models, or every block.

        Raises:
            OSError: The file cannot be written.
        """
        with replacing(path) as file:
            file.write(draw(self.graph, self.name or "functional", full=full))

    @nn.nowrap
    def init_variables(self, seed: int = 0, base: Variables | None = None) -> dict[str, Any]:
        """Initializes a tree of variables; arrays in `base` are used as they are.

        Args:
            seed: Seed of Keras's initializers (glorot_uniform kernels, zero biases). Each array depends on the seed and
                its own path only, so a layer has the same initial values in any network.
            base: Variables of another model, such as the one this model extends; layers that this model does not have
                are left out.

        Returns:
            `{"params": ..., "batch_stats": ...}`, keyed by layer name; float32.

        Raises:
            ValueError: Arrays in `base` do not have the shapes this model needs; all are listed.
        """
        return fresh_variables(self.graph, seed, base or {})

    @nn.nowrap
    def count_params(self) -> int:
        """Counts the values in all variables, including moving statistics, as Keras does."""
        return sum(math.prod(weight.shape) for _, weight in weight_paths(self.graph))


def _enter(graph: Graph, arrays: Sequence[Any]) -> list[jax.Array]:
    """Transposes arrays to channels last, and casts them to the dtype of the network."""
    values = []
    for node, array in zip(graph.inputs, arrays, strict=True):
        value = jnp.asarray(array)
        value = jnp.moveaxis(value, 1, -1) if _is_channels_first(node) and value.ndim == 4 else value
        values.append(node.layer.call({}, value) if isinstance(node.layer, InputLayer) else value)
    return values


def _is_channels_first(node: Node) -> bool:
    return isinstance(node.layer, InputLayer) and node.layer.data_format == "channels_first"


class Network(NamedTuple):
    """A model and the arrays it runs on.

    Attributes:
        model: The static description.
        variables: `{"params": ..., "batch_stats": ...}`, float32, keyed by layer name.
    """

    model: Model
    variables: Mapping[str, Any]


def load_variables(path: str | os.PathLike[str], model: Model) -> dict[str, Any]:
    """Loads a weight file, local or in a bucket, to the default device; see `weight_port.load_weights`."""
    return on_device(weight_port.load_weights(local_file(path), model))


def on_device(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Puts a tree of NumPy arrays on the default device, without a copy if that is the CPU."""
    return dict(jax.device_put(variables))
