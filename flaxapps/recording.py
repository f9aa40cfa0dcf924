"""Recording layer calls on nodes: nothing is computed here.

A layer is a frozen dataclass whose fields are its Keras config. Calling one on a `Node` records a `Call` and infers the
output shape. `flaxapps.graph.Graph` closes a recording between inputs and outputs.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax

from flaxapps.batch import Batch
from weight_port.naming import snake_case

Shape = tuple[int | None, ...]
Weights = Mapping[str, jax.Array]


class Weight(NamedTuple):
    """One array a layer owns: its shape, how Keras initializes it, and the variable collection it lives in."""

    shape: tuple[int, ...]
    initializer: str = "glorot_uniform"
    collection: str = "params"


@dataclass(frozen=True)
class Layer:
    """One layer kind with its configuration; subclasses add Keras's config keys as fields.

    Attributes:
        name: Key of the layer in the variable trees; None takes the name of a fresh Keras session (`conv2d_1`).
        dtype: Compute dtype; None computes in the dtype of the input.
    """

    name: str | None = field(default=None, kw_only=True)
    dtype: str | None = field(default=None, kw_only=True)
    # Keras names layers in the order in which they are made, not called: Dense(2)(Dense(3)(x)) makes the outer first.
    made: int = field(default_factory=itertools.count().__next__, init=False, repr=False, compare=False)
    keras_module: ClassVar[str] = "keras.layers"  # where Keras has the class
    listed: ClassVar[bool] = True  # Keras records `x + y` as a call too, but not as one of `model.layers`

    @property
    def class_name(self) -> str:
        """The Keras class, such as `"Conv2D"`."""
        return type(self).__name__

    def __call__(self, inputs: "Node | Sequence[Node]", *, training: bool | None = None) -> "Node":
        """Records a call of this layer.

        Args:
            inputs: A node, or a list of nodes for a merging layer.
            training: Fixes the mode of this call, as `layer(x, training=False)` does in Keras; None follows the model.

        Returns:
            The output node.

        Raises:
            ValueError: The layer does not fit inputs of these shapes.
        """
        return self.record(inputs, training).outputs[0]

    def record(self, inputs: "Node | Sequence[Node]", training: bool | None) -> "Call":
        """Records a call; `__call__` returns its output."""
        return Call(self, as_nodes(inputs, self.class_name), training)

    def output_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Shapes of all outputs for inputs of `shapes`; layers with one output define `output_shape`."""
        return (self.output_shape(*shapes),)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of the output, batch dimension first, None where a dimension is free."""
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The arrays the layer owns for inputs of `shapes`, keyed by leaf name, in Keras's order."""
        return {}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Computes the output in inference mode."""
        raise NotImplementedError(f"{self.class_name} does not compute anything")

    def call_training(
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Computes the output in training mode, and the new values of the `batch_stats` that change.

        Args:
            weights: The layer's arrays by leaf name.
            *inputs: The input arrays.
            make_key: Gives a new random key at each call (the `dropout` stream of the model).
            batch: What the examples are a part of, for statistics over all of it.
        """
        return self.call(weights, *inputs), {}


class Call:
    """One application of a layer to nodes. Calls have identity: equal layers on equal nodes are two calls."""

    def __init__(self, layer: Layer, inputs: "tuple[Node, ...]", training: bool | None = None):
        self.raw_layer = layer
        self.inputs = inputs
        self.training = training
        try:
            self.output_shapes = layer.output_shapes(*(node.shape for node in inputs))
        except Exception as error:
            name = repr(layer.name) if layer.name else "(not named yet)"
            error.add_note(f"In layer {name} of kind {layer.class_name}, on {[node.shape for node in inputs]}.")
            raise
        self.outputs = tuple(Node(self, index) for index in range(len(self.output_shapes)))
        self._recording = join_recordings(inputs)
        self._recording.calls.append(self)

    @property
    def recording(self) -> "Recording":
        """The recording this call belongs to now: recordings join where their nodes meet."""
        self._recording = self._recording.joined()
        return self._recording

    @property
    def layer(self) -> Layer:
        """The layer, with its name."""
        return self.recording.named(self.raw_layer)


class Node:
    """One output of a recorded call: a tensor that does not exist yet."""

    def __init__(self, call: Call, index: int):
        self.call = call
        self.index = index

    @property
    def shape(self) -> Shape:
        """Shape with the batch dimension first (None), channels last; None where a dimension is free."""
        return self.call.output_shapes[self.index]

    @property
    def layer(self) -> Layer:
        """The layer whose output this is."""
        return self.call.layer

    def __repr__(self) -> str:
        return f"<Node {self.layer.name}:{self.index} shape={self.shape}>"


class Recording:
    """All calls on nodes that grew from the same inputs: what automatic names are counted over.

    Keras counts over the session, which is global state. Counted over the connected calls, in the order their layers
    were made, the names of a network are the same whenever and wherever it is built. Names are given when first asked
    for and stay.

    Attributes:
        calls: The calls, in the order in which they were recorded.
        reserved: Names that no layer gets automatically.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.reserved: set[str] = set()
        self._named: dict[int, Layer] = {}
        self._joined: Recording | None = None

    def joined(self) -> "Recording":
        """The recording that this one has become part of."""
        return self if self._joined is None else self._joined.joined()

    def join(self, other: "Recording") -> "Recording":
        """Appends the calls of `other`, which is a part of this recording from now on."""
        if other is self:
            return self
        if not self.calls:
            return other
        self.calls += other.calls
        self.reserved |= other.reserved
        self._named = other._named | self._named
        other._joined = self
        return self

    def named(self, raw: Layer) -> Layer:
        """The layer with its name; all calls recorded so far get theirs now, in order."""
        if id(raw) not in self._named:
            layers = [call.raw_layer for call in self.calls]
            taken = self.reserved | {layer.name for layer in [*layers, *self._named.values()] if layer.name}
            for layer in sorted(layers, key=lambda layer: layer.made):
                if id(layer) not in self._named:
                    name = layer.name or next(name for name in _candidates(layer.class_name) if name not in taken)
                    taken.add(name)
                    self._named[id(layer)] = layer if layer.name else dataclasses.replace(layer, name=name)
        return self._named[id(raw)]

    def __getstate__(self) -> dict[str, Any]:
        raw = {id(call.raw_layer): call.raw_layer for call in self.calls}
        return {
            "calls": self.calls,
            "reserved": self.reserved,
            "joined": self._joined,
            "named": [(raw[key], self._named[key]) for key in self._named],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.calls, self.reserved, self._joined = state["calls"], state["reserved"], state["joined"]
        self._named = {id(raw): named for raw, named in state["named"]}  # in a copy, layers have other identities


def join_recordings(nodes: Iterable["Node"]) -> Recording:
    """The one recording of all nodes from now on."""
    return functools.reduce(Recording.join, (node.call.recording for node in nodes), Recording())


def as_nodes(value: Any, caller: str) -> tuple["Node", ...]:
    """A Node or a list of Nodes as a tuple.

    Raises:
        ValueError: It is neither.
    """
    nodes = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not nodes or not all(isinstance(node, Node) for node in nodes):
        raise ValueError(f"{caller} takes Nodes, which Input(...) and layers return, or a list of them; got {value!r}")
    return nodes


def _candidates(class_name: str) -> Iterator[str]:
    """Keras's automatic names for a class: `conv2d`, `conv2d_1`, ..."""
    base = snake_case(class_name)
    yield base
    number = 0
    while True:
        number += 1
        yield f"{base}_{number}"
