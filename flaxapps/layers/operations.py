"""Operations: functions such as `x + y`, `x * 2` and `keras.ops` in the graph, with constants among the arguments."""

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flaxapps.graph.symbolic import Layer, Node, Shape, Weights
from flaxapps.layers import activations
from flaxapps.layers import operation_functions as functions
from flaxapps.layers.activations import get_activation
from weight_port.naming import snake_case


class OperationKind(NamedTuple):
    """A Keras operation class.

    Attributes:
        function: Implementation with Keras's argument names.
        module: Module of the class, below keras.src.
        along_axes: Whether the result depends on the order of axes; the others are elementwise.
    """

    function: Callable[..., Any]
    module: str = "ops.numpy"
    along_axes: bool = False


def _reduction(function: Callable[..., Any]) -> OperationKind:
    return OperationKind(function, along_axes=True)


_along = functools.partial(OperationKind, along_axes=True)
_nn = functools.partial(OperationKind, module="ops.nn")
# Activations without options in keras.ops.nn (Mish is in keras.activations).
_NAMED_ACTIVATIONS = (
    "HardSigmoid", "HardSilu", "HardTanh", "LogSigmoid", "Relu", "Relu6", "Selu", "Sigmoid", "Silu", "SoftShrink",
    "Softplus", "Softsign", "SparsePlus", "Squareplus", "TanhShrink",
)  # fmt: skip # kept on few lines on purpose
# Keras's operation classes (keras/src/ops/{numpy,nn,math,core,image}.py) and their implementations.
OPERATIONS: Mapping[str, OperationKind] = MappingProxyType(
    {
        "Absolute": OperationKind(jnp.abs),
        "Add": OperationKind(jnp.add),
        "All": _reduction(jnp.all),
        "Any": _reduction(jnp.any),
        "Arccos": OperationKind(jnp.arccos),
        "Arcsin": OperationKind(jnp.arcsin),
        "Arctan": OperationKind(jnp.arctan),
        "Arctan2": OperationKind(jnp.arctan2),
        "Argmax": _along(lambda x, axis=None, keepdims=False: jnp.argmax(x, axis, keepdims=keepdims)),
        "Argmin": _along(lambda x, axis=None, keepdims=False: jnp.argmin(x, axis, keepdims=keepdims)),
        "BroadcastTo": _along(lambda x, shape: jnp.broadcast_to(x, shape)),
        "Cast": OperationKind(lambda x, dtype: x.astype(dtype), "ops.core"),
        "Ceil": OperationKind(jnp.ceil),
        "Clip": OperationKind(lambda x, x_min, x_max: jnp.clip(x, x_min, x_max)),
        "Concatenate": _along(lambda xs, axis=0: jnp.concatenate(xs, axis)),
        "Copy": OperationKind(jnp.copy),
        "Cos": OperationKind(jnp.cos),
        "Cosh": OperationKind(jnp.cosh),
        "Cumprod": _along(lambda x, axis=None, dtype=None: jnp.cumprod(x, axis, dtype)),
        "Cumsum": _along(lambda x, axis=None, dtype=None: jnp.cumsum(x, axis, dtype)),
        "Divide": OperationKind(jnp.divide),
        "DivideNoNan": OperationKind(functions.divide_no_nan),
        "Einsum": _along(lambda *operands, subscripts: jnp.einsum(subscripts, *operands, precision="highest")),
        "Equal": OperationKind(jnp.equal),
        "Exp": OperationKind(jnp.exp),
        "ExpandDims": _along(lambda x, axis: jnp.expand_dims(x, axis)),
        "Expm1": OperationKind(jnp.expm1),
        "Flip": _along(lambda x, axis=None: jnp.flip(x, axis)),
        "Floor": OperationKind(jnp.floor),
        "FloorDivide": OperationKind(jnp.floor_divide),
        "GetItem": _along(functions.get_item),
        "Greater": OperationKind(jnp.greater),
        "GreaterEqual": OperationKind(jnp.greater_equal),
        "Isfinite": OperationKind(jnp.isfinite),
        "Isnan": OperationKind(jnp.isnan),
        "Less": OperationKind(jnp.less),
        "LessEqual": OperationKind(jnp.less_equal),
        "Log": OperationKind(jnp.log),
        "Log1p": OperationKind(jnp.log1p),
        "LogicalAnd": OperationKind(jnp.logical_and),
        "LogicalNot": OperationKind(jnp.logical_not),
        "LogicalOr": OperationKind(jnp.logical_or),
        "LogicalXor": OperationKind(jnp.logical_xor),
        "Matmul": _along(jnp.matmul),
        "Max": _reduction(jnp.max),
        "Maximum": OperationKind(jnp.maximum),
        "Mean": _reduction(jnp.mean),
        "Min": _reduction(jnp.min),
        "Minimum": OperationKind(jnp.minimum),
        "Mod": OperationKind(jnp.mod),
        "Moveaxis": _along(lambda x, source, destination: jnp.moveaxis(x, source, destination)),
        "Multiply": OperationKind(jnp.multiply),
        "Negative": OperationKind(jnp.negative),
        "NotEqual": OperationKind(jnp.not_equal),
        "OnesLike": OperationKind(lambda x, dtype=None: jnp.ones_like(x, dtype)),
        "Pad": _along(functions.pad),
        "Power": OperationKind(jnp.power),
        "Prod": _reduction(jnp.prod),
        "Ravel": _along(jnp.ravel),
        "Reciprocal": OperationKind(jnp.reciprocal),
        "Repeat": _along(lambda x, repeats, axis=None: jnp.repeat(x, repeats, axis)),
        "Reshape": _along(lambda x, newshape: jnp.reshape(x, newshape)),
        "Roll": _along(lambda x, shift, axis=None: jnp.roll(x, shift, axis)),
        "Round": OperationKind(lambda x, decimals=0: jnp.round(x, decimals)),
        "Rsqrt": OperationKind(jax.lax.rsqrt, "ops.math"),
        "Sign": OperationKind(jnp.sign),
        "Sin": OperationKind(jnp.sin),
        "Sinh": OperationKind(jnp.sinh),
        "Sqrt": OperationKind(jnp.sqrt),
        "Square": OperationKind(jnp.square),
        "Squeeze": _along(lambda x, axis=None: jnp.squeeze(x, axis)),
        "Stack": _along(lambda xs, axis=0: jnp.stack(xs, axis)),
        "Std": _reduction(jnp.std),
        "Subtract": OperationKind(jnp.subtract),
        "Sum": _reduction(jnp.sum),
        "Swapaxes": _along(lambda x, axis1, axis2: jnp.swapaxes(x, axis1, axis2)),
        "Take": _along(functions.take),
        "Tan": OperationKind(jnp.tan),
        "Tanh": OperationKind(jnp.tanh),
        "Tensordot": _along(lambda x1, x2, axes=2: jnp.tensordot(x1, x2, axes, precision="highest")),
        "Tile": _along(lambda x, repeats: jnp.tile(x, repeats)),
        "Transpose": _along(lambda x, axes=None: jnp.transpose(x, axes)),
        "TrueDivide": OperationKind(jnp.divide),
        "Var": _reduction(jnp.var),
        "Where": OperationKind(jnp.where),
        "ZerosLike": OperationKind(lambda x, dtype=None: jnp.zeros_like(x, dtype)),
        "Resize": OperationKind(functions.resized, "ops.image", along_axes=True),
        "RGBToGrayscale": OperationKind(functions.gray, "ops.image", along_axes=True),
        "Erf": OperationKind(jax.lax.erf, "ops.math"),
        "Logsumexp": OperationKind(
            lambda x, axis=None, keepdims=False: jax.scipy.special.logsumexp(x, axis, keepdims=keepdims),
            "ops.math",
            True,
        ),
        "Norm": OperationKind(functions.norm, "ops.linalg", along_axes=True),
        "SaturateCast": OperationKind(functions.saturated, "ops.core"),
        "StopGradient": OperationKind(jax.lax.stop_gradient, "ops.core"),
        "AveragePool": _nn(functions.pool(functools.partial(nn.avg_pool, count_include_pad=False)), along_axes=True),
        "Celu": _nn(lambda x, alpha=1.0: jax.nn.celu(x, alpha)),
        "DepthToSpace": _nn(functions.depth_to_space, along_axes=True),
        "Elu": _nn(lambda x, alpha=1.0: jax.nn.elu(x, alpha)),
        "Gelu": _nn(lambda x, approximate=True: jax.nn.gelu(x, approximate=approximate)),
        "LeakyRelu": _nn(lambda x, negative_slope=0.2: jax.nn.leaky_relu(x, negative_slope)),
        "LogSoftmax": _nn(lambda x, axis=-1: jax.nn.log_softmax(x, axis), along_axes=True),
        "MaxPool": _nn(functions.pool(nn.max_pool), along_axes=True),
        "OneHot": _nn(functions.one_hot, along_axes=True),
        "Normalize": _nn(functions.normalize, along_axes=True),
        "Softmax": _nn(activations.softmax, along_axes=True),
        "SpaceToDepth": _nn(functions.space_to_depth, along_axes=True),
        "Mish": OperationKind(get_activation("mish"), "activations.activations"),
        "ReLU": OperationKind(activations.relu, "activations.activations"),
        **{kind: _nn(get_activation(snake_case(kind))) for kind in _NAMED_ACTIVATIONS},
    }
)


class Slot(int):
    """Placeholder of a tensor among the arguments of an operation: the index of the input."""


class Slice(NamedTuple):
    """A slice among the arguments of GetItem. Before Python 3.12 the builtin is not hashable."""

    start: int | None
    stop: int | None
    step: int | None


class Constant(NamedTuple):
    """An array among the arguments of an operation.

    Attributes:
        values: Nested tuples of numbers.
        dtype: Of the array.
    """

    values: Any
    dtype: str


@dataclass(frozen=True)
class Operation(Layer):
    """A function of nodes and constants.

    Attributes:
        function: Keras's class, a key of OPERATIONS.
        arguments: Positional arguments; nodes are Slots, lists are tuples.
        options: Keyword arguments, sorted.
        channels_first: Whether axes refer to channels_first images. If so, four-dimensional arrays are transposed
            before and after the function.
    """

    several_inputs = True

    function: str
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...] = ()
    channels_first: bool = False
    listed: ClassVar[bool] = False

    def output_shape(self, *shapes: Shape) -> Shape:
        """Trace with two sizes for the free dimensions; dimensions that differ between the two are free."""

        def trace(free: int) -> Shape:
            sized = [tuple(free if size is None else size for size in shape) for shape in shapes]
            inputs = [jax.ShapeDtypeStruct(shape, "float32") for shape in sized]
            with jax.numpy_rank_promotion("allow"):  # as where the layer computes
                shape: Shape = jax.eval_shape(lambda *values: self.call({}, *values), *inputs).shape
            return shape

        return tuple(size if size == other else None for size, other in zip(trace(2), trace(3), strict=True))

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """Call the function with the inputs in place of the slots."""
        if self.channels_first:
            inputs = tuple(jnp.moveaxis(x, -1, 1) if x.ndim == 4 else x for x in inputs)

        def fill(argument: Any) -> Any:
            if isinstance(argument, Slot):
                return inputs[argument]
            if isinstance(argument, Slice):
                return slice(*argument)
            if isinstance(argument, Constant):
                return np.asarray(argument.values, argument.dtype)
            return [fill(part) for part in argument] if isinstance(argument, tuple) else argument

        options = dict(self.options)
        result: jax.Array = OPERATIONS[self.function].function(*map(fill, self.arguments), **options)
        return jnp.moveaxis(result, 1, -1) if self.channels_first and result.ndim == 4 else result


def operate(function: str, *operands: Any, **options: Any) -> Node:
    """Record a function call in the graph.

    Args:
        function: Keras's class, a key of OPERATIONS.
        *operands: Nodes, numbers and other constants.
        **options: Keyword arguments.

    Returns:
        The output.
    """
    nodes = [each for each in operands if isinstance(each, Node)]
    slots = map(Slot, itertools.count())
    arguments = tuple(
        next(slots) if isinstance(each, Node) else each.item() if isinstance(each, np.number) else each
        for each in operands
    )
    return Operation(function, arguments, tuple(sorted(options.items())))(nodes if len(nodes) > 1 else nodes[0])


Node.operate = staticmethod(operate)
