"""Ahead-of-time compilation of a network for one batch shape, and its costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from flaxapps.graph.symbolic import Node, as_given
from flaxapps.graph.variables import bytes_of
from flaxapps.inference.pieces import calls_in_flight, finish_pieces, optimize_for_batches, piece_size, start_pieces
from flaxapps.inference.predict import compiler_options, forward
from flaxapps.inference.preprocessing import Function, preprocessing_function
from flaxapps.model import Model
from flaxapps.runtime.process import return_freed_memory
from flaxapps.transforms.optimize import Mode, Precision, check_precision, checked_mode

Shape = tuple[int, ...]


class Costs(NamedTuple):
    """Costs of one batch on a device, as estimated by XLA.

    Attributes:
        flops: Floating-point operations; 0 if the backend does not report them.
        weight_bytes: Memory of the variables.
        input_bytes: Memory of the images, in the dtype in which they are sent.
        output_bytes: Memory of the outputs.
        temporary_bytes: Peak memory of intermediate values, of all calls in flight.
        code_bytes: Memory of the program; 0 if the backend does not report it.
    """

    flops: float
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    temporary_bytes: int
    code_bytes: int

    @property
    def device_bytes(self) -> int:
        """Memory of everything."""
        return sum(self[1:])


@dataclass(frozen=True, eq=False)
class Compiled:
    """A compiled network with its weights on a device. `compiled(x)` computes without tracing or compiling.

    Attributes:
        model: The network.
        variables: Its arrays, on the device.
        inputs: Shape and dtype of the array for each input, with the batch dimension first.
        executable: The executable of JAX, for one piece of a batch.
        pieces: Number of calls for a batch. On CPU, batches of small networks are computed in pieces of two images,
            several at a time.
    """

    model: Model
    variables: Mapping[str, Any]
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    executable: jax.stages.Compiled
    pieces: int = 1

    def __call__(self, x: Any) -> Any:
        """Computes the outputs for one batch.

        Args:
            x: A full batch of images; a list of arrays for a model with several inputs.

        Returns:
            A JAX array, at least float32, or a list if the model has several outputs. As always in JAX, it may still
            be computing when it is returned, unless the batch is computed in pieces.

        Raises:
            ValueError: The arrays do not have the shape and dtype that the network was compiled for.
        """
        given = [x] if isinstance(self.model.input, Node) else list(x)
        arrays = [array if isinstance(array, jax.Array) else np.asarray(array) for array in given]
        found, wanted = ([f"{each.dtype}{each.shape}" for each in some] for some in (arrays, self.inputs))
        if found != wanted:
            raise ValueError(
                f"{self.model.name or 'The model'} was compiled for {', '.join(wanted)}, got {', '.join(found)}. "
                "flaxapps.predict pads and splits batches of any size; flaxapps.compile takes the shape and the dtype."
            )
        if self.pieces > 1:
            size = self.inputs[0].shape[0] // self.pieces
            started = start_pieces(self.executable, self.variables, list(map(np.asarray, arrays)), size)
            joined = jax.device_put(finish_pieces(started), self.inputs[0].sharding)
            return as_given(self.model.output, joined)
        arrays = [jax.device_put(array, put.sharding) for array, put in zip(arrays, self.inputs, strict=True)]
        outputs = self.executable(self.variables, arrays)
        return as_given(self.model.output, outputs)

    @property
    def costs(self) -> Costs:
        """Costs of one batch."""
        return _costs(self.executable, self.variables, self.inputs, self.pieces)


def compile(
    model: Model,
    variables: Mapping[str, Any],
    batch_size: int,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
    dtype: str = "float32",
    *,
    preprocess: bool | str | Function = False,
    optimize: Mode | None = None,
    precision: Precision = "float32",
    device: jax.Device | None = None,
) -> Compiled:
    """Compiles a network ahead of time, for batches of one shape on one device.

    >>> from flaxapps import Input, Model, layers
    >>> image = Input((None, None, 3))
    >>> model = Model(image, layers.GlobalAveragePooling2D()(image))
    >>> compiled = compile(model, {}, 2, (8, 8, 3), "uint8")
    >>> compiled(np.full((2, 8, 8, 3), 7, np.uint8)).tolist()
    [[7.0, 7.0, 7.0], [7.0, 7.0, 7.0]]

    Args:
        model: The network.
        variables: Its arrays.
        batch_size: Images in a batch.
        input_shape: Shape of one image in the model's layout, such as (224, 224, 3); a list of shapes for a model with
            several inputs. None takes the model's own.
        dtype: Dtype of the images: "float32", "uint8" (a quarter of the bytes to send) or any other numeric one.
        preprocess: Preprocessing to compile in before the network, as for `predict`.
        optimize: "default" or "fast" optimizes the network with `flaxapps.optimize` first; None compiles it as it
            is.
        precision: "float32" or "bfloat16", as for `flaxapps.optimize`; the latter needs `optimize`.
        device: The device to compute on; None takes JAX's first local device.

    Returns:
        A function of a batch that returns its outputs.

    Raises:
        ValueError: The batch size is not positive, the shape does not fit the model or leaves sizes free, the dtype
            is not numeric, or the preprocessing or the mode is not known.
    """
    function = preprocessing_function(model, preprocess)
    device = device or jax.local_devices()[0]
    check_precision(precision, optimize)
    if optimize is not None:
        mode = checked_mode(optimize, "optimize")
        model, variables = optimize_for_batches(model, variables, mode, batch_size, [device], precision)
    sharding = SingleDeviceSharding(device)
    inputs = batch_inputs(model, batch_size, input_shape, dtype, sharding)
    variables = jax.device_put(variables, sharding)
    executable, pieces = _compile(model, function, variables, inputs)
    return_freed_memory()  # compiling leaves 200 MB and more of freed memory with the process
    return Compiled(model, variables, inputs, executable, pieces)


def estimate_costs(
    model: Model,
    batch_size: int,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
    dtype: str = "float32",
    *,
    preprocess: bool | str | Function = False,
    variables: Mapping[str, Any] | None = None,
) -> Costs:
    """Estimates the costs of a network on the default device. The network is compiled, but not run.

    Args:
        model: The network.
        batch_size: As for `compile`.
        input_shape: As for `compile`.
        dtype: As for `compile`.
        preprocess: As for `compile`.
        variables: Arrays, or their shapes and dtypes; None takes those of fresh variables.

    Raises:
        ValueError: As `compile`.
    """
    function = preprocessing_function(model, preprocess)
    sharding = SingleDeviceSharding(jax.local_devices()[0])
    inputs = batch_inputs(model, batch_size, input_shape, dtype, sharding)
    shapes = jax.eval_shape(model.init_variables if variables is None else lambda: variables)
    executable, pieces = _compile(model, function, shapes, inputs)
    return _costs(executable, shapes, inputs, pieces)


def batch_inputs(
    model: Model,
    batch_size: Any,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None,
    dtype: str,
    sharding: SingleDeviceSharding | None = None,
) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Returns shape and dtype of a batch for every input.

    Args:
        model: The network.
        batch_size: Images in a batch: a number, or a symbolic dimension of `jax.export`.
        input_shape: As for `compile`.
        dtype: As for `compile`.
        sharding: Device of the arrays.

    Raises:
        ValueError: The arguments are not as for `compile`; all problems are listed.
    """
    one = isinstance(model.input, Node)
    own = [model.input_shape] if one else model.input_shape
    given: Any = [shape[1:] for shape in own] if input_shape is None else [input_shape] if one else input_shape
    shapes = [tuple(shape) for shape in given]
    problems = []
    if isinstance(batch_size, int) and batch_size < 1:
        problems.append(f"batch_size should be at least 1, got {batch_size}")
    fits = len(shapes) == len(own) and all(
        len(shape) + 1 == len(wanted) and all(size in (None, got) for size, got in zip(wanted[1:], shape, strict=True))
        for shape, wanted in zip(shapes, own, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(shape[1:]) for shape in own)
        problems.append(f"input_shape should fit {wanted}, got {', '.join(map(str, shapes))}")
    elif any(size is None for shape in shapes for size in shape):
        sizes = ", ".join(map(str, shapes))
        problems.append(f"the model takes images of any size, {sizes}: give input_shape, such as (224, 224, 3)")
    try:
        numbers = jnp.issubdtype(jnp.dtype(dtype), jnp.number)
    except TypeError:
        numbers = False
    if not numbers:
        problems.append(f"dtype should be numeric, such as 'float32' or 'uint8', got {dtype!r}")
    if problems:
        raise ValueError(f"{model.name or 'The model'} cannot be compiled: {'; '.join(problems)}")
    return tuple(jax.ShapeDtypeStruct((batch_size, *shape), jnp.dtype(dtype), sharding=sharding) for shape in shapes)


def _compile(
    model: Model, function: Function | None, variables: Any, inputs: tuple[jax.ShapeDtypeStruct, ...]
) -> tuple[jax.stages.Compiled, int]:
    """Compiles the calls for a batch. Returns one of them and their number."""
    (device,) = inputs[0].sharding.device_set
    batch_size = inputs[0].shape[0]
    size = piece_size(variables, batch_size, [device])
    size = batch_size if batch_size % size else size
    piece = [jax.ShapeDtypeStruct((size, *each.shape[1:]), each.dtype, sharding=each.sharding) for each in inputs]
    compute = jax.jit(forward, static_argnums=(0, 1), compiler_options=compiler_options(model, device))
    return compute.lower(model, function, variables, piece).compile(), batch_size // size


def _costs(
    executable: jax.stages.Compiled, variables: Any, inputs: tuple[jax.ShapeDtypeStruct, ...], pieces: int
) -> Costs:
    flops: Any = executable.cost_analysis() or {}
    memory: Any = executable.memory_analysis()
    return Costs(
        flops.get("flops", 0.0) * pieces,
        bytes_of(variables),
        bytes_of(list(inputs)),
        memory.output_size_in_bytes * pieces,
        memory.temp_size_in_bytes * calls_in_flight(pieces),
        memory.generated_code_size_in_bytes,
    )
