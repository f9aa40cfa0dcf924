"""Batch inference: one compiled function, fed batches of one shape on all local devices."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from flaxapps.graph import Graph
from flaxapps.layers import Functional
from flaxapps.model import Model
from flaxapps.ops import at_least_float32
from flaxapps.optimizing import Mode
from flaxapps.optimizing import optimize as optimize_model
from flaxapps.preprocessing import MODES, preprocess_input
from flaxapps.recording import Node
from flaxapps.registry import list_models, model_info

Rows = list[NDArray[Any]]
Function = Callable[[jax.Array], jax.Array]
PROGRAMS_KEPT = 32  # of a model and a shape of batch; each takes 2 to 50 MB that the process would never free
FEW_IMAGES = 16  # folding ResNet50 takes as long as one or two images, and saves a tenth of each at best


def predict(
    model: Model,
    variables: Mapping[str, Any],
    x: Any,
    *,
    batch_size: int = 32,
    verbose: bool = False,
    preprocess: bool | str | Function = False,
    optimize: Mode | None = "exact",
) -> Any:
    """Runs a model over many images.

    The model is compiled once for a batch shape, and the last batch is padded to it. Batches are split over all local
    devices; the next one is sent while the last one computes. What was compiled is kept for the last 32 models and
    shapes, so that a process of many does not grow.

    Args:
        model: The network.
        variables: Its arrays.
        x: Images (count, height, width, channels), or an iterable of such arrays, which need not fit in memory
            together; for a model of several inputs a list of arrays, or an iterable of such lists. Any numeric dtype;
            uint8 images are sent to the device as they are.
        batch_size: Images in a batch, over all devices together.
        verbose: Whether to show a progress bar.
        preprocess: What is done to the images inside the compiled function: nothing; True for what the network, or
            the one nested in it, was trained with; "caffe", "tf" or "torch"; or a function of a batch.
        optimize: What `flaxapps.optimize` does to the model first: its mode "exact", left out where the images are so
            few that it would take longer than it saves, or "fast"; None for nothing. Every call does it anew: for many
            calls optimize once, and give None.

    Returns:
        The predictions as float32, one row per image; a list of arrays where the model has several outputs.

    Raises:
        ValueError: The images do not fit the model, or hold NaN or infinity (the first one is named); the batch size
            is not positive; preprocess=True and the preprocessing is not known; there is no such mode.
    """
    if optimize and not (optimize == "exact" and _are_few(model, x)):
        model, variables = optimize_model(model, variables, optimize)
    results = list(predict_batches(model, variables, x, batch_size=batch_size, verbose=verbose, preprocess=preprocess))
    shapes = model.output_shape if isinstance(model.output_shape, list) else [model.output_shape]
    empty = [np.zeros((0, *(size or 0 for size in shape[1:])), np.float32) for shape in shapes]
    outputs = [np.concatenate(parts) for parts in zip(*results, strict=True)] if results else empty
    return outputs[0] if isinstance(model.output, Node) else outputs


def predict_batches(
    model: Model,
    variables: Mapping[str, Any],
    x: Any,
    *,
    batch_size: int = 32,
    verbose: bool = False,
    preprocess: bool | str | Function = False,
) -> Iterator[Rows]:
    """What `predict` does, a batch at a time: predictions for data of any size need not be in memory together.

    Args:
        model: As for `predict`, like all the others.
        variables: Its arrays.
        x: Images, or an iterable of arrays.
        batch_size: Images in a batch, over all devices together.
        verbose: Whether to show a progress bar.
        preprocess: What is done to the images.

    Yields:
        For each batch a list with the array of every output.

    Raises:
        ValueError: As `predict`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size should be at least 1, got {batch_size}")
    function = preprocessing_function(model, preprocess)
    batches, total = _batches(model, x, batch_size)
    size, done = 0, 0
    pending: tuple[list[jax.Array], int] | None = None
    for rows in _progress(batches, total, verbose):
        _check_finite(rows, done)
        if not size:
            devices = jax.local_devices()[: len(rows[0])]
            size = -(-len(rows[0]) // len(devices)) * len(devices)
            mesh = Mesh(np.array(devices), ("batch",))
            variables = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
        arrays = jax.device_put([_pad(array, size) for array in rows], NamedSharding(mesh, PartitionSpec("batch")))
        program = _program(model, function, mesh, tuple((array.shape, array.dtype) for array in arrays))
        started = program(variables, arrays), len(rows[0])
        if pending:
            yield _fetch(*pending)
        pending = started
        done += len(rows[0])
    if pending:
        yield _fetch(*pending)


def usual_batch_size() -> int:
    """Images in a batch where the command line is not told: on a CPU few, so that its caches hold what they become."""
    return min(32, 4 * (os.cpu_count() or 8)) if jax.default_backend() == "cpu" else 32


def preprocessing_function(model: Model, preprocess: bool | str | Function) -> Function | None:
    """What `preprocess` of `predict` stands for.

    Raises:
        ValueError: It is neither, or it is True and the networks in the model do not tell which.
    """
    if preprocess is False or callable(preprocess):
        return preprocess or None
    modes = {preprocess} if isinstance(preprocess, str) else known_preprocessing(model)
    if len(modes) != 1 or not modes <= set(MODES):
        asked = f"preprocess={preprocess!r}" + ("" if isinstance(preprocess, str) else f" found {sorted(modes)}")
        raise ValueError(f"{asked} for {model.name!r}: give one of {', '.join(MODES)}, or a function of a batch")
    # A partial is hashable by identity only; jit wants equal functions to be equal.
    return _PREPROCESSING[model.data_format, modes.pop()]


_PREPROCESSING = {
    (data_format, mode): partial(preprocess_input, data_format=data_format, mode=mode)
    for data_format in ("channels_first", "channels_last")
    for mode in MODES
}


def known_preprocessing(model: Model) -> set[str]:
    """The preprocessing modes of the published networks that a model is, or holds as nested models."""

    def names(graph: Graph) -> Iterator[str]:
        for layer in graph.layers:
            if isinstance(layer.layer, Functional):
                yield layer.name
                yield from names(layer.layer.graph)

    found = {model.name, *names(model.graph)} & set(list_models())
    return {model_info(str(name)).preprocessing for name in found}


def forward(
    model: Model, function: Function | None, variables: Mapping[str, Any], arrays: list[jax.Array]
) -> list[jax.Array]:
    """The outputs of a model for one batch, at least float32: what is compiled.

    Args:
        model: The network.
        function: The preprocessing of each input, as `preprocessing_function` gives it.
        variables: The arrays of the network.
        arrays: A batch for every input.
    """
    inputs = [function(array) for array in arrays] if function else arrays
    outputs: Any = model.apply(variables, inputs[0] if isinstance(model.input, Node) else inputs)
    return [at_least_float32(output) for output in ([outputs] if isinstance(model.output, Node) else outputs)]


@lru_cache(maxsize=PROGRAMS_KEPT)
def _program(
    model: Model, function: Function | None, mesh: Mesh, shapes: tuple[Any, ...]
) -> Callable[[Mapping[str, Any], list[jax.Array]], list[jax.Array]]:
    """`forward`, compiled for one shape of batch; a function of its own, so that all JAX keeps of it goes with it."""

    def forward_part(variables: Mapping[str, Any], arrays: list[jax.Array]) -> list[jax.Array]:
        return forward(model, function, variables, arrays)

    # Every device runs the program of its own part: lowerings that depend on the batch see the part, not the whole.
    split = PartitionSpec("batch")
    program: Any = jax.jit(jax.shard_map(forward_part, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split))
    return program  # type: ignore[no-any-return]  # jit's result is called, not typed


def _fetch(outputs: list[jax.Array], used: int) -> Rows:
    return [np.asarray(output)[:used] for output in outputs]


def _batches(model: Model, x: Any, batch_size: int) -> tuple[Iterator[Rows], int | None]:
    """Cuts the images into batches; the number of batches where it is known."""
    if hasattr(x, "shape") or (isinstance(x, list | tuple) and not isinstance(model.input, Node)):
        rows = _rows(model, x)
        return _rebatch([rows], batch_size), -(-len(rows[0]) // batch_size)
    return _rebatch((_rows(model, chunk) for chunk in x), batch_size), None


def _are_few(model: Model, x: Any) -> bool:
    """Whether there are few images; of an iterable nobody knows."""
    if not isinstance(model.input, Node) and isinstance(x, list | tuple):
        x = x[0] if x else x
    return hasattr(x, "shape") and len(x.shape) > 0 and x.shape[0] <= FEW_IMAGES


def _rows(model: Model, chunk: Any) -> Rows:
    """One array for each input, checked."""
    arrays = [np.asarray(array) for array in ([chunk] if isinstance(model.input, Node) else chunk)]
    model.check_arrays(arrays)
    if len({len(array) for array in arrays}) != 1:
        raise ValueError(f"The inputs differ in their number of images: {[len(array) for array in arrays]}")
    return arrays


def _rebatch(chunks: Iterable[Rows], batch_size: int) -> Iterator[Rows]:
    """Regroups chunks of any sizes into batches of one size; the last one may be smaller."""
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
    """Repeats the last image until there are `size`."""
    return array if len(array) == size else np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _check_finite(rows: Rows, offset: int) -> None:
    for array in rows:
        if not np.issubdtype(array.dtype, np.integer) and not np.isfinite(array).all():
            broken = [index for index, image in enumerate(array) if not np.isfinite(image).all()]
            raise ValueError(f"Image {offset + broken[0]} holds NaN or infinity ({len(broken)} in this batch)")


def _progress(batches: Iterator[Rows], total: int | None, verbose: bool) -> Iterable[Rows]:
    if not verbose:
        return batches
    from rich.console import Console
    from rich.progress import track

    return track(batches, "Predicting", total=total, console=Console(stderr=True))
