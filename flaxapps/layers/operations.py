"""What Keras 3 records for `x + y`, `x * 2` and `keras.ops` between Nodes: functions with constants, not layers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from flaxapps import activations
from flaxapps.activations import get_activation
from flaxapps.recording import Layer, Shape, Weights
from weight_port.naming import snake_case

# Operations that are activations without options.
NAMED_ACTIVATIONS = (
    "HardSigmoid", "HardSilu", "HardTanh", "LogSigmoid", "Relu", "Relu6", "Sigmoid", "Silu", "Softplus", "Softsign",
)  # fmt: skip # a list to read along, not down
# Operations that depend on where an axis is; the others go value by value.
ALONG_AXES = ("Concatenate", "Matmul", "Max", "Mean", "Min", "Softmax", "Sum")
# Keras's operation classes (keras/src/ops/numpy.py, nn.py) and the functions that compute them.
FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "Absolute": jnp.abs,
        "Add": jnp.add,
        "Clip": lambda x, x_min, x_max: jnp.clip(x, x_min, x_max),
        "Concatenate": lambda xs, axis=0: jnp.concatenate(xs, axis),
        "Divide": jnp.divide,
        "Exp": jnp.exp,
        "Log": jnp.log,
        "Matmul": jnp.matmul,
        "Max": jnp.max,
        "Maximum": jnp.maximum,
        "Mean": jnp.mean,
        "Min": jnp.min,
        "Minimum": jnp.minimum,
        "Multiply": jnp.multiply,
        "Negative": jnp.negative,
        "Power": jnp.power,
        "Reciprocal": jnp.reciprocal,
        "Sqrt": jnp.sqrt,
        "Square": jnp.square,
        "Subtract": jnp.subtract,
        "Sum": jnp.sum,
        "Tanh": jnp.tanh,
        "TrueDivide": jnp.divide,
        "ReLU": activations.relu,
        "Gelu": lambda x, approximate=True: jax.nn.gelu(x, approximate=approximate),
        "Softmax": activations.softmax,
        **{kind: get_activation(snake_case(kind)) for kind in NAMED_ACTIVATIONS},
    }
)


class Slot(int):
    """The place of a tensor among the arguments of an operation: the number of the input."""


@dataclass(frozen=True)
class Operation(Layer):
    """A function of nodes and constants.

    Attributes:
        function: Keras's class, a key of FUNCTIONS.
        arguments: Positional arguments; nodes are Slots, lists are tuples.
        options: Keyword arguments, sorted.
    """

    function: str
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...] = ()
    listed: ClassVar[bool] = False

    def output_shape(self, *shapes: Shape) -> Shape:
        """Found by tracing, twice: dimensions that follow a free one are free."""

        def trace(free: int) -> Shape:
            sized = [tuple(free if size is None else size for size in shape) for shape in shapes]
            inputs = [jax.ShapeDtypeStruct(shape, "float32") for shape in sized]
            shape: Shape = jax.eval_shape(lambda *values: self.call({}, *values), *inputs).shape
            return shape

        return tuple(size if size == other else None for size, other in zip(trace(2), trace(3), strict=True))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Calls the function with the inputs in their slots."""

        def fill(argument: Any) -> Any:
            if isinstance(argument, Slot):
                return inputs[argument]
            return [fill(part) for part in argument] if isinstance(argument, tuple) else argument

        options = {key: tuple(value) if isinstance(value, tuple) else value for key, value in self.options}
        result: jax.Array = FUNCTIONS[self.function](*map(fill, self.arguments), **options)
        return result
