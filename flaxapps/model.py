"""Model: a recorded graph as a Flax module, the only linen module users meet."""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flaxapps.batch import Batch
from flaxapps.graph import Graph, LayerInGraph
from flaxapps.interpreter import check_frozen, run
from flaxapps.layers import Functional, InputLayer
from flaxapps.recording import Node, Shape, as_nodes
from flaxapps.summary import print_summary
from flaxapps.variables import Variables, fresh_variables, weight_paths


class Model(nn.Module):
    """The network between `inputs` and `outputs`: a static description that hashes; its arrays live outside.

    Being a linen module it has `init`, `apply` and `tabulate`, nests in other modules, and is a valid static argument
    of `jax.jit`; two models built the same way are equal, so they share compilations. Called on a Node instead of an
    array it becomes one layer of a larger graph.

    Attributes:
        inputs: A Node, or a list of Nodes. Nodes other than Inputs cut the graph there.
        outputs: A Node, or a list of Nodes; with a list the model returns a list.
        name: Title of the model, and key of its variables where it is nested.

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
        # Flax clones modules through the constructor: the graph is recorded once and handed on.
        if self.recorded is None:
            ends = [as_nodes(value, "Model") for value in (self.inputs, self.outputs)]
            object.__setattr__(self, "recorded", Graph(*ends))
        # One layer however often the model is called on Nodes: its weights are shared.
        object.__setattr__(self, "_layer", Functional(self.graph, name=self.name))
        super().__post_init__()

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
        train: bool = False,
        frozen: frozenset[str] = frozenset(),
        *,
        training: bool | None = None,
        mask: jax.Array | None = None,
        axis_name: str | None = None,
    ) -> Any:
        """Computes the outputs; or, on a Node, records the whole model as one layer.

        Args:
            x: Images (batch, height, width, channels), or (batch, channels, height, width) for a channels_first
                model, of any numeric dtype; a list of arrays for several inputs.
            train: Whether layers are in training mode: BatchNormalization uses the statistics of the batch (apply with
                `mutable=["batch_stats"]`), Dropout drops (apply with `rngs={"dropout": key}`).
            frozen: Names of layers that do not train: no gradient reaches their parameters, and BatchNormalization
                among them stays in inference mode. "outer/inner" names a layer inside a nested model, "outer" all.
            training: For Nodes: fixes the mode of this call as `model(x, training=False)` does in Keras.
            mask: (batch,), bool; False where an example only fills the batch and has no part in its statistics.
            axis_name: The mapped axis (of `jax.pmap`, say) whose devices hold the other parts of the batch: its
                statistics are then those of all parts.

        Returns:
            The output array, or a list where `outputs` is one.

        Raises:
            ValueError: The arrays do not fit the inputs, or `frozen` names a layer that is not there.
        """
        given = [x] if isinstance(self.inputs, Node) else list(x)
        if any(isinstance(value, Node) for value in given):
            return self._layer(given, training=training)
        check_frozen(self.graph, frozen)
        given = [value if isinstance(value, jax.Array) else np.asarray(value) for value in given]
        self.check_arrays(given)
        if self.scope is None:
            raise ValueError("A model holds no arrays: call model.apply(variables, x) or flaxapps.predict")
        results = run(self.graph, self.scope, _enter(self.graph, given), train, frozen, Batch(mask, axis_name))
        if self.data_format == "channels_first":
            results = [jnp.moveaxis(value, -1, 1) if value.ndim == 4 else value for value in results]
        return results[0] if isinstance(self.outputs, Node) else results

    @property
    def graph(self) -> Graph:
        """The network as plain data: hashable, equal where two models compute the same."""
        assert self.recorded is not None
        return self.recorded

    @property
    def layers(self) -> tuple[LayerInGraph, ...]:
        """The layers in Keras's order (by depth from the output); indices into it mean what they mean in Keras."""
        return self.graph.layers

    @property
    def input(self) -> Any:
        """The input node, or the list of them."""
        return self.inputs if isinstance(self.inputs, Node) else list(self.inputs)

    @property
    def output(self) -> Any:
        """The output node, or the list of them."""
        return self.outputs if isinstance(self.outputs, Node) else list(self.outputs)

    @property
    def input_shape(self) -> Any:
        """Shape arrays must have, batch dimension (None) first; a list where `input` is one."""
        shapes = [_outside(node.shape, _is_channels_first(node)) for node in self.graph.inputs]
        return shapes[0] if isinstance(self.inputs, Node) else shapes

    @property
    def output_shape(self) -> Any:
        """Shape of the result, batch dimension (None) first; a list where `output` is one."""
        shapes = [_outside(node.shape, self.data_format == "channels_first") for node in self.graph.outputs]
        return shapes[0] if isinstance(self.outputs, Node) else shapes

    @property
    def data_format(self) -> str:
        """Layout of images that come out: "channels_first" where some input is, else "channels_last"."""
        return "channels_first" if any(map(_is_channels_first, self.graph.inputs)) else "channels_last"

    @nn.nowrap
    def check_arrays(self, arrays: Sequence[Any]) -> None:
        """Checks that there is an array for every input, of numbers and of the right shape.

        Args:
            arrays: What would be given to `apply`, as a list.

        Raises:
            ValueError: It is not so; says what was given and what is wanted.
        """
        title = self.name or "The model"
        shapes = [_outside(node.shape, _is_channels_first(node)) for node in self.graph.inputs]
        if len(arrays) != len(shapes):
            raise ValueError(f"{title} takes {len(shapes)} inputs, got {len(arrays)}")
        for shape, array in zip(shapes, arrays, strict=True):
            if not jnp.issubdtype(array.dtype, jnp.number) and array.dtype != jnp.bool_:
                raise ValueError(f"{title} takes arrays of numbers, got dtype {array.dtype}")
            sizes = zip(shape[1:], array.shape[1:], strict=False)
            if array.ndim != len(shape) or any(want not in (None, got) for want, got in sizes):
                wanted = ", ".join("any" if size is None else str(size) for size in shape[1:])
                missing = ": put one image into a batch with x[None]" if array.ndim == len(shape) - 1 else ""
                raise ValueError(f"{title} takes arrays of shape (batch, {wanted}), got {array.shape}{missing}")

    @nn.nowrap
    def get_layer(self, name: str | None = None, index: int | None = None) -> LayerInGraph:
        """The layer of this name, or at this index of `layers`.

        Args:
            name: Name of the layer.
            index: Index in Keras's order; negative ones count from the end.

        Returns:
            The layer, with its config as attributes; its `output` is a Node.

        Raises:
            ValueError: Both or none are given, or there is no such layer.
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
        """Draws the network as an SVG file, with what is known about every box in its title.

        Args:
            path: The file, which is written as a whole or not at all.
            full: A box for every layer, those inside nested models too, in place of one for every block.

        Raises:
            OSError: The file cannot be written.
        """
        from flaxapps.plotting import draw  # not needed to compute
        from flaxapps.reports import replacing

        with replacing(path) as file:
            file.write(draw(self.graph, self.name or "functional", full=full))

    @nn.nowrap
    def init_variables(self, seed: int = 0, base: Variables | None = None) -> dict[str, Any]:
        """A fresh tree of variables, with every layer that `base` has taken from `base`.

        Args:
            seed: Seed of Keras's initializers (glorot_uniform kernels, zero biases); each array is drawn from the seed
                and its own path, so a layer starts the same in any network.
            base: Variables of another model, such as the one this model extends; layers it has and this model has not
                are left out.

        Returns:
            `{"params": ..., "batch_stats": ...}`, keyed by layer name; float32.

        Raises:
            ValueError: Arrays in `base` have other shapes than this model needs; all are listed.
        """
        return fresh_variables(self.graph, seed, base or {})

    @nn.nowrap
    def count_params(self) -> int:
        """Number of values in all variables, moving statistics included, as Keras counts."""
        return sum(math.prod(weight.shape) for _, weight in weight_paths(self.graph))


def _enter(graph: Graph, arrays: Sequence[Any]) -> list[jax.Array]:
    """Brings arrays to channels last and to the dtype of the network."""
    values = []
    for node, array in zip(graph.inputs, arrays, strict=True):
        value = jnp.asarray(array)
        value = jnp.moveaxis(value, 1, -1) if _is_channels_first(node) and value.ndim == 4 else value
        values.append(node.layer.call({}, value) if isinstance(node.layer, InputLayer) else value)
    return values


def _outside(shape: Shape, channels_first: bool) -> Shape:
    """The shape as callers of the model see it."""
    return (shape[0], shape[-1], *shape[1:-1]) if channels_first and len(shape) == 4 else shape


def _is_channels_first(node: Node) -> bool:
    return isinstance(node.layer, InputLayer) and node.layer.data_format == "channels_first"
