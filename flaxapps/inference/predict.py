"""Batch inference: one compiled function for one batch shape, on all local devices."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from flaxapps.graph.symbolic import Node, as_given
from flaxapps.inference.pieces import finish_pieces, optimize_for_batches, piece_size, start_pieces
from flaxapps.inference.preprocessing import FromChannelsLast, Function, preprocessing_function
from flaxapps.model import Model
from flaxapps.ops.primitives import at_least_float32
from flaxapps.transforms.optimize import Mode, Precision, check_precision, checked_mode, is_quantized

Rows = list[NDArray[Any]]


PROGRAMS_KEPT = 32  # compiled programs, by model and batch shape; each takes 2 to 50 MB that would never be freed
FEW_IMAGES = 16  # folding ResNet50 takes as long as one or two images, and saves a tenth per image at best


def predict(
    model: Model,
    variables: Mapping[str, Any],
    x: Any,
    *,
    batch_size: int = 32,
    verbose: bool = False,
    preprocess: bool | str | Function = False,
    optimize: Mode | None = "default",
    precision: Precision = "float32",
) -> Any:
    """Runs a model over many images.

    The model is compiled once per batch shape, and the last batch is padded. Batches are sharded over all local
    devices; the next one is sent while the last one computes. On one CPU, batches of small networks are computed in
    pieces of two images, several at a time. Compiled programs are cached for the last 32 models and shapes, so that
    memory does not grow without bounds.

    Args:
        model: The network.
        variables: Its arrays.
        x: Images (count, height, width, channels), or an iterable of such arrays, which need not fit in memory
            together; for a model with several inputs a list of arrays, or an iterable of such lists. Any numeric dtype;
            uint8 images are sent to the device as they are.
        batch_size: Images in a batch, over all devices together.
        verbose: Whether to show a progress bar.
        preprocess: Preprocessing inside the compiled function: False for none; True for that of the network, or of the
            one nested in it; "caffe", "tf", "torch" or "rescale"; or a function of a batch.
        optimize: Mode of `flaxapps.optimize`, applied to the model first, or None. "default" is skipped for up to 16
            images, where it would take longer than it saves. Every call repeats it: for many calls optimize once, and
            give None.
        precision: "float32" or "bfloat16", as for `flaxapps.optimize`; the latter needs `optimize`.

    Returns:
        The predictions as float32, one row per image; a list of arrays if the model has several outputs.

    Raises:
        ValueError: The images do not fit the model, or contain NaN or infinity (the first one is named); the batch size
            is not positive; preprocess=True and the preprocessing is not known; or the mode or precision is unknown.
    """
    optimize = checked_mode(optimize, "optimize") if optimize else None
    check_precision(precision, optimize)
    # Optimizing a quantized model takes no time, as nothing is folded.
    asked = optimize == "fast" or precision != "float32"
    if optimize and (asked or is_quantized(model.graph) or not _are_few(model, x)):
        model, variables = optimize_for_batches(model, variables, optimize, batch_size, jax.local_devices(), precision)
    results = list(predict_batches(model, variables, x, batch_size=batch_size, verbose=verbose, preprocess=preprocess))
    shapes = model.output_shape if isinstance(model.output_shape, list) else [model.output_shape]
    empty = [np.zeros((0, *(size or 0 for size in shape[1:])), np.float32) for shape in shapes]
    outputs = [np.concatenate(parts) for parts in zip(*results, strict=True)] if results else empty
    return as_given(model.output, outputs)


def predict_batches(
    model: Model,
    variables: Mapping[str, Any],
    x: Any,
    *,
    batch_size: int = 32,
    verbose: bool = False,
    preprocess: bool | str | Function = False,
) -> Iterator[Rows]:
    """Runs a model batch by batch, without `optimize`, so that predictions need not fit in memory together.

    Args:
        model: As for `predict`, like all arguments below.
        variables: Its arrays.
        x: Images, or an iterable of arrays.
        batch_size: Images in a batch, over all devices together.
        verbose: Whether to show a progress bar.
        preprocess: Preprocessing inside the compiled function.

    Yields:
        For each batch, a list with the array of every output.

    Raises:
        ValueError: As `predict`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size should be at least 1, got {batch_size}")
    function = preprocessing_function(model, preprocess)
    batches, total = _batches(model, x, batch_size, function)
    size, done = 0, 0
    pending: tuple[Callable[[], Rows], int] | None = None
    for rows in show_progress(batches, "Predicting", total) if verbose else batches:
        _check_finite(rows, done)
        if not size:
            # The padded batch size is a multiple of the number of devices. The first batch is the largest.
            devices = jax.local_devices()[: len(rows[0])]
            size = -(-len(rows[0]) // len(devices)) * len(devices)
            mesh = Mesh(np.array(devices), ("batch",))
            variables = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
            piece = piece_size(variables, size, devices)
        # JAX dispatches asynchronously: fetch the previous batch only after the next one has started.
        if piece < size:
            arrays = [_pad(array, -(-len(array) // piece) * piece) for array in rows]
            program = _program(model, function, mesh, tuple(((piece, *each.shape[1:]), each.dtype) for each in arrays))
            started = partial(finish_pieces, start_pieces(program, variables, arrays, piece))
        else:
            put = jax.device_put([_pad(array, size) for array in rows], NamedSharding(mesh, PartitionSpec("batch")))
            program = _program(model, function, mesh, tuple((array.shape, array.dtype) for array in put))
            started = partial(_fetch, program(variables, put))
        if pending:
            yield _first(*pending)
        pending = started, len(rows[0])
        done += len(rows[0])
    if pending:
        yield _first(*pending)


def compiler_options(model: Model, device: jax.Device) -> dict[str, Any] | None:
    """Returns XLA options for a model on a device, or None.

    XLA uses vectors of 256 bits on CPUs by default. The conversions between int8 and float32 of quantized models are up
    to a third faster with 512; processors without such vectors ignore the option.
    """
    wide = device.platform == "cpu" and is_quantized(model.graph)
    return {"xla_cpu_prefer_vector_width": 512} if wide else None


def forward(
    model: Model, function: Function | None, variables: Mapping[str, Any], arrays: list[jax.Array]
) -> list[jax.Array]:
    """Computes the outputs of a model for one batch, at least float32.

    Args:
        model: The network.
        function: The preprocessing of each input, from `preprocessing_function`.
        variables: The arrays of the network.
        arrays: A batch for every input.
    """
    inputs = [function(array) for array in arrays] if function else arrays
    outputs: Any = model.apply(variables, as_given(model.input, inputs))
    return [at_least_float32(output) for output in ([outputs] if isinstance(model.output, Node) else outputs)]


@lru_cache(maxsize=PROGRAMS_KEPT)
def _program(
    model: Model, function: Function | None, mesh: Mesh, shapes: tuple[Any, ...]
) -> Callable[[Mapping[str, Any], list[jax.Array]], list[jax.Array]]:
    """Returns `forward` jitted for one batch shape.

    A new closure per entry, so that evicting it from this cache frees the compiled program.
    """

    def forward_part(variables: Mapping[str, Any], arrays: list[jax.Array]) -> list[jax.Array]:
        return forward(model, function, variables, arrays)

    # With shard_map, CPU forms that depend on the batch size (see `ops`) are chosen by the size of a shard.
    split = PartitionSpec("batch")
    part = jax.shard_map(forward_part, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split)
    program: Any = jax.jit(part, compiler_options=compiler_options(model, mesh.devices.flat[0]))
    return program  # type: ignore[no-any-return]  # JAX does not type the result of jit


def _fetch(outputs: list[jax.Array]) -> Rows:
    return [np.asarray(output) for output in outputs]


def _first(fetch: Callable[[], Rows], count: int) -> Rows:
    return [rows[:count] for rows in fetch()]


def _batches(model: Model, x: Any, batch_size: int, function: Function | None) -> tuple[Iterator[Rows], int | None]:
    """Splits images into batches. Returns them and their number, None if unknown."""
    if hasattr(x, "shape") or (isinstance(x, list | tuple) and not isinstance(model.input, Node)):
        rows = _rows(model, x, function)
        return _rebatch([rows], batch_size), -(-len(rows[0]) // batch_size)
    return _rebatch((_rows(model, chunk, function) for chunk in x), batch_size), None


def _are_few(model: Model, x: Any) -> bool:
    """Whether `x` holds at most FEW_IMAGES images; False for iterables, whose length is unknown."""
    if not isinstance(model.input, Node) and isinstance(x, list | tuple):
        x = x[0] if x else x
    return hasattr(x, "shape") and len(x.shape) > 0 and x.shape[0] <= FEW_IMAGES


def _rows(model: Model, chunk: Any, function: Function | None) -> Rows:
    """Returns one array for each input, checked."""
    arrays = [np.asarray(array) for array in ([chunk] if isinstance(model.input, Node) else chunk)]
    turned = isinstance(function, FromChannelsLast)
    model.check_arrays([np.moveaxis(array, -1, 1) for array in arrays] if turned else arrays)
    if len({len(array) for array in arrays}) != 1:
        raise ValueError(
            f"The inputs differ in their number of images: {[len(array) for array in arrays]}; give the same number"
        )
    return arrays


def _rebatch(chunks: Iterable[Rows], batch_size: int) -> Iterator[Rows]:
    """Regroups chunks of any size into batches of one size; the last one may be smaller."""
    waiting: Rows | None = None
    for chunk in chunks:
        if waiting is None or not len(waiting[0]):
            waiting = chunk
        else:
            waiting = [np.concatenate(pair) for pair in zip(waiting, chunk, strict=True)]
        while len(waiting[0]) >= batch_size:
            yield [array[:batch_size] for array in waiting]
            waiting = [array[batch_size:] for array in waiting]
    if waiting is not None and len(waiting[0]):
        yield waiting


def _pad(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Pads a batch to `size` by repeating the last image."""
    return array if len(array) == size else np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _check_finite(rows: Rows, offset: int) -> None:
    for array in rows:
        if not np.issubdtype(array.dtype, np.integer) and not np.isfinite(array).all():
            broken = [index for index, image in enumerate(array) if not np.isfinite(image).all()]
            raise ValueError(f"Image {offset + broken[0]} contains NaN or infinity ({len(broken)} in this batch)")


def show_progress(batches: Iterator[Rows], title: str, total: int | None) -> Iterable[Rows]:
    """Shows a progress bar on stderr while batches are consumed.

    Args:
        batches: The batches.
        title: What they are computed for.
        total: Their number, if it is known.
    """
    from rich.console import Console
    from rich.progress import track

    return track(batches, title, total=total, console=Console(stderr=True))
