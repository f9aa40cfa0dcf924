"""Symbolic layer calls. Nothing is computed here.

A layer is a frozen dataclass whose fields are its Keras config. Calling one on a `Node` records a `Call` and infers the
output shape. `flaxapps.graph.graph.Graph` holds the calls between given inputs and outputs.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from flaxapps.graph.batch import Batch
from flaxapps.graph.initializers import Initializer
from weight_port.naming import automatic_names

Shape = tuple[int | None, ...]
Weights = Mapping[str, jax.Array]


class Weight(NamedTuple):
    """One array of a layer: its shape, Keras initializer, variable collection and dtype."""

    shape: tuple[int, ...]
    initializer: Initializer = "glorot_uniform"
    collection: str = "params"
    dtype: str = "float32"


@dataclass(frozen=True)
class Layer:
    """Base class of layers. Subclasses add Keras's config keys as fields.

    Attributes:
        name: Key of the layer in the variable trees; None takes the name of a fresh Keras session (`conv2d_1`).
        dtype: Compute dtype; None computes in the dtype of the input.
        trainable: Keras's flag: False for a layer that was frozen when the file was written. It has no effect by
            itself; `train.frozen_layers(model, as_saved=True)` converts it to a set of frozen layers.
        stored_class: Class name in the Keras that wrote the file, if weights are stored under another class.
        as_floats: Whether integers become floats first, though Keras 3 leaves them: tf.keras computes images in floats.
        training_options: Keras's regularizers and constraints, as JSON: (("kernel_regularizer", '{"class_name": "L2",
            "config": {"l2": 0.01}}'),).
    """

    name: str | None = field(default=None, kw_only=True)
    dtype: str | None = field(default=None, kw_only=True)
    as_floats: bool = field(default=False, kw_only=True, repr=False)
    # Not compared, so that models of equal computations are equal and share compilations.
    trainable: bool = field(default=True, kw_only=True, compare=False, repr=False)
    stored_class: str | None = field(default=None, kw_only=True, compare=False, repr=False)
    training_options: tuple[tuple[str, str], ...] = field(default=(), kw_only=True, compare=False, repr=False)
    # Keras names layers in order of creation, not of calls: Dense(2)(Dense(3)(x)) creates the outer one first.
    made: int = field(default_factory=itertools.count().__next__, init=False, repr=False, compare=False)
    keras_module: ClassVar[str] = "keras.layers"  # module of the Keras class
    takes_integers: ClassVar[bool] = False  # whether a layer with weights takes integer inputs, such as indices
    makes_floats: ClassVar[bool] = False  # whether integers become floats first; see `as_floats`
    # Whether inputs become `dtype`. Otherwise only the result does: half precision cannot hold large inputs of a norm.
    autocast: ClassVar[bool] = True
    several_inputs: ClassVar[bool] = False  # whether a call takes more than one input
    call_fields: ClassVar[tuple[str, ...]] = ()  # fields that Keras stores in the call of a layer, not in its config
    identity_in_inference: ClassVar[bool] = False  # whether the layer has an effect in training only, such as Dropout
    random_in_training: ClassVar[bool] = False  # whether the layer draws keys in training, and has an effect only there
    listed: ClassVar[bool] = True  # False for operations such as `x + y`, which Keras does not put in `model.layers`

    @property
    def class_name(self) -> str:
        """The Keras class, such as `"Conv2D"`."""
        return type(self).__name__

    def __call__(self, inputs: "Node | Sequence[Node]", *, training: bool | None = None) -> "Node":
        """Calls the layer symbolically.

        Args:
            inputs: A node, or a list of nodes for a merging layer.
            training: Fixes the mode of this call, as `layer(x, training=False)` does in Keras; None follows the model.

        Returns:
            The output node.

        Raises:
            ValueError: The shapes of the inputs do not fit the layer, or `inputs` are not nodes.
        """
        return self.record(inputs, training).outputs[0]

    def record(self, inputs: "Node | Sequence[Node]", training: bool | None) -> "Call":
        """Records a symbolic call; `__call__` returns its output."""
        return Call(self, as_nodes(inputs, self.class_name), training)

    def output_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Infers the shapes of all outputs for inputs of `shapes`; layers with one output define `output_shape`."""
        return (self.output_shape(*shapes),)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Infers the shape of the output, batch dimension first, None for free dimensions."""
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """Returns the arrays the layer owns for inputs of `shapes`, by leaf name, in Keras's order."""
        return {}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Computes the output in inference mode."""
        raise NotImplementedError(f"{self.class_name} does not compute anything")

    def call_training(
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Computes the output in training mode, and the new values of updated `batch_stats`.

        Args:
            weights: The layer's arrays by leaf name.
            *inputs: The input arrays.
            make_key: Returns a new random key at each call, from the `dropout` stream of the model.
            batch: The global batch, for statistics across devices.
        """
        return self.call(weights, *inputs), {}


class Call:
    """One symbolic call of a layer on nodes. Calls compare by identity."""

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
        """The recording this call belongs to; recordings are joined when a call takes nodes of both."""
        self._recording = self._recording.joined()
        return self._recording

    @property
    def layer(self) -> Layer:
        """The layer, with its name."""
        return self.recording.named(self.raw_layer)


class Node:
    """One output of a symbolic call; Keras's KerasTensor.

    `x + y`, `x - y`, `x * y`, `x / y`, `x ** y` and `-x` record Keras's operations, also with numbers.
    """

    __array_ufunc__ = None  # makes NumPy numbers on the left call __radd__ and so on
    # Set by flaxapps.layers.operations: operations are layers, which this module cannot import.
    operate: ClassVar[Callable[..., Any]]

    def __init__(self, call: Call, index: int):
        self.call = call
        self.index = index

    @property
    def shape(self) -> Shape:
        """Shape with the batch dimension (None) first, channels last; None for free dimensions."""
        return self.call.output_shapes[self.index]

    @property
    def layer(self) -> Layer:
        """The layer that computes this output."""
        return self.call.layer

    def __repr__(self) -> str:
        return f"<Node {self.layer.name}:{self.index} shape={self.shape}>"

    def __add__(self, other: Any) -> "Node":
        return self._record("Add", self, other)

    def __radd__(self, other: Any) -> "Node":
        return self._record("Add", other, self)

    def __sub__(self, other: Any) -> "Node":
        return self._record("Subtract", self, other)

    def __rsub__(self, other: Any) -> "Node":
        return self._record("Subtract", other, self)

    def __mul__(self, other: Any) -> "Node":
        return self._record("Multiply", self, other)

    def __rmul__(self, other: Any) -> "Node":
        return self._record("Multiply", other, self)

    def __truediv__(self, other: Any) -> "Node":
        return self._record("TrueDivide", self, other)

    def __rtruediv__(self, other: Any) -> "Node":
        return self._record("TrueDivide", other, self)

    def __pow__(self, other: Any) -> "Node":
        return self._record("Power", self, other)

    def __neg__(self) -> "Node":
        return self._record("Negative", self)

    @staticmethod
    def _record(operation: str, *operands: Any) -> "Node":
        if not all(isinstance(each, Node | int | float | np.number) for each in operands):
            return NotImplemented  # type: ignore[no-any-return]  # Python's protocol for operators
        node: Node = Node.operate(operation, *operands)
        return node


class Recording:
    """All connected symbolic calls: the namespace of automatic layer names.

    Keras counts names over the session, which is global state. Here they are counted over the connected calls, in the
    order in which the layers were created, so that the names of a network do not depend on when it is built. Names are
    assigned on first access and do not change.

    Attributes:
        calls: The calls, in the order in which they were recorded.
        reserved: Names that are not assigned automatically.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.reserved: set[str] = set()
        self._named: dict[int, Layer] = {}
        self._joined: Recording | None = None

    def joined(self) -> "Recording":
        """Returns the recording that this one was joined to, or itself."""
        return self if self._joined is None else self._joined.joined()

    def join(self, other: "Recording") -> "Recording":
        """Joins `other` to this recording and returns the result."""
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
        """Returns the layer with its name; assigns names to the layers of all calls recorded so far."""
        if id(raw) not in self._named:
            layers = [call.raw_layer for call in self.calls]
            taken = self.reserved | {layer.name for layer in [*layers, *self._named.values()] if layer.name}
            for layer in sorted(layers, key=lambda layer: layer.made):
                if id(layer) not in self._named:
                    name = layer.name or next(name for name in automatic_names(layer.class_name) if name not in taken)
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
        self._named = {id(raw): named for raw, named in state["named"]}  # ids differ after unpickling


def join_recordings(nodes: Iterable["Node"]) -> Recording:
    """Joins the recordings of all nodes to one."""
    return functools.reduce(Recording.join, (node.call.recording for node in nodes), Recording())


def as_nodes(value: Any, caller: str) -> tuple["Node", ...]:
    """Converts a Node or a list of Nodes to a tuple.

    Raises:
        ValueError: `value` is neither a Node nor a list of Nodes.
    """
    nodes = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not nodes or not all(isinstance(node, Node) for node in nodes):
        raise ValueError(f"{caller} takes Nodes, which Input(...) and layers return, or a list of them; got {value!r}")
    return nodes


def as_given(given: Any, values: Sequence[Any]) -> Any:
    """Returns one value if `given` is a Node, and a list of them if it is a list of Nodes."""
    return values[0] if isinstance(given, Node) else list(values)
