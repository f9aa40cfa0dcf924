"""Calibration: the ranges of the tensors of a network on the user's images."""

import functools
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from flaxapps.graph.graph import Graph
from flaxapps.graph.symbolic import Node
from flaxapps.inference.preprocessing import Function, known_preprocessing
from flaxapps.layers import Functional
from flaxapps.model import Model
from flaxapps.ops.int8 import HIGHEST, LOWEST
from flaxapps.quantization.storage import Key, int8_tensors
from flaxapps.registry import find_info

Calibration = Literal["minmax", "mse"]
Path = tuple[str, ...]
Range = tuple[float, float]
FEW_IMAGES = 8  # below, ranges depend on the choice of images; see the guide
FRACTIONS = tuple(1 - step / 16 for step in range(12))  # of the full range, tried by "mse"
# Ranges of correctly preprocessed images, with a margin, by preprocessing mode.
PREPROCESSED: Mapping[str, Range] = {"caffe": (-125, 153), "tf": (-1.01, 1.01), "torch": (-2.2, 2.7)}


def as_batches(model: Model, images: Any, argument: str = "images") -> list[NDArray[Any]]:
    """Checks images and returns them as a list of batches.

    Args:
        model: The network.
        images: An array (count, ...), or an iterable of such arrays.
        argument: Name of the caller's argument, for messages.

    Raises:
        ValueError: There are no images, they do not fit the model, or they contain NaN or infinity.
    """
    if not isinstance(model.inputs, Node):
        raise ValueError(f"{model.name or 'The model'} has several inputs; quantize takes models with one")
    batches = [np.asarray(batch) for batch in ([images] if hasattr(images, "shape") else images)]
    done = 0
    for batch in batches:
        model.check_arrays([batch])
        finite = np.isfinite(batch).all(axis=tuple(range(1, batch.ndim)))
        if not finite.all():
            first = done + int(np.argmin(finite))
            raise ValueError(f"{argument}: image {first} contains NaN or infinity")
        done += len(batch)
    if not done:
        raise ValueError(f"{argument}: there are none")
    return [batch for batch in batches if len(batch)]


def check_images(model: Model, batches: Sequence[NDArray[Any]], preprocess: bool | str | Function) -> None:
    """Checks that images are suited for calibration.

    Args:
        model: The network.
        batches: Its images, before preprocessing.
        preprocess: As for `predict`.

    Raises:
        ValueError: Every image has one colour only, or all images are equal.

    Warns:
        UserWarning: There are few images, or their range is not that of images with the preprocessing of the network.
    """
    images = [image for batch in batches for image in batch]
    if all(image.min() == image.max() for image in images):
        raise ValueError(
            "images: all of them are constant, so the ranges of the network on real images cannot be measured. "
            "Give photos like those you will predict"
        )
    if len(images) > 1 and all(np.array_equal(image, images[0]) for image in images[1:]):
        raise ValueError(f"images: all {len(images)} are equal. Give different ones, like those you will predict")
    if len(images) < FEW_IMAGES:
        warnings.warn(
            f"Calibrated on {len(images)} image{'s'[: len(images) > 1]} only: activations of other images may be "
            f"outside the ranges found. Give {FEW_IMAGES} or more, like those you will predict",
            stacklevel=3,
        )
    _check_range(model, images, preprocess)


def _check_range(model: Model, images: Sequence[NDArray[Any]], preprocess: bool | str | Function) -> None:
    low, high = float(min(image.min() for image in images)), float(max(image.max() for image in images))
    found = f"the images are from {low:.4g} to {high:.4g}"
    if callable(preprocess):
        return
    if preprocess:
        if low < 0 or high <= 1 or high > 255:
            warnings.warn(
                f"{found}, but the preprocessing takes pixels from 0 to 255. Were they preprocessed already? "
                "Then give preprocess=False",
                stacklevel=4,
            )
        return
    mode = _expected_preprocessing(model)
    if mode not in PREPROCESSED:
        return
    least, most = PREPROCESSED[mode]
    # "caffe" and "torch" subtract a mean and "tf" makes -1 of black, so photos have negative numbers.
    if low < least or high > most or low >= 0 or high - low < (most - least) / 20:
        warnings.warn(
            f'{found}, but {model.name} takes images of preprocessing "{mode}", from {least} to {most}. Give pixels '
            "from 0 to 255 with preprocess=True, or preprocess them as for training",
            stacklevel=4,
        )


def _expected_preprocessing(model: Model) -> str:
    """Returns the mode of the published network that the model is, or that reads its input; "" if there is none."""
    first = [step.layer for step in model.graph.steps if 0 in step.inputs]
    # Other layers before a network may be its preprocessing.
    if find_info(model.name) or all(isinstance(layer, Functional) for layer in first):
        modes = known_preprocessing(model)
        return modes.pop() if len(modes) == 1 else ""
    return ""


def measure_ranges(
    model: Model,
    variables: Mapping[str, Any],
    batches: Iterable[NDArray[Any]],
    function: Function | None,
    calibration: Calibration = "mse",
) -> dict[Key, Range]:
    """Measures the range of every tensor that can become int8.

    Args:
        model: The network, without ImageByImage.
        variables: Its arrays.
        batches: Images, before preprocessing; iterated twice for "mse".
        function: The preprocessing, or None.
        calibration: "minmax" takes the smallest and largest value. "mse" takes that part of the range whose rounding to
            int8, with what is outside cut off, has the least mean square error.

    Raises:
        ValueError: The calibration is unknown.
    """
    if calibration not in get_args(Calibration):
        known = " or ".join(map(repr, get_args(Calibration)))
        raise ValueError(f"calibration should be {known}, got {calibration!r}")

    wanted = int8_tensors(model.graph)
    found: dict[Key, Range] = {}
    for batch in batches:
        values = tensor_values(model, function, variables, batch)
        for key in wanted & values.keys():
            low, high = map(float, _ends(values[key]))
            before = found.get(key, (low, high))
            found[key] = min(before[0], low), max(before[1], high)
    if calibration == "minmax":
        return found
    total: dict[Key, NDArray[Any]] = {}
    for batch in batches:
        values = tensor_values(model, function, variables, batch)
        for key, (low, high) in found.items():
            formats = [scale_and_zero_point(low * part, high * part) for part in FRACTIONS]
            scales, zero_points = (np.array(each, np.float32) for each in zip(*formats, strict=True))
            total[key] = total.get(key, 0) + np.asarray(_rounding_errors(values[key], scales, zero_points))
    best = {key: FRACTIONS[int(np.argmin(sums))] for key, sums in total.items()}
    return {key: (low * best[key], high * best[key]) for key, (low, high) in found.items()}


@jax.jit
def _ends(value: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.min(value), jnp.max(value)


@jax.jit
def _rounding_errors(value: jax.Array, scales: Any, zero_points: Any) -> jax.Array:
    """Returns the sums of squared rounding errors of a tensor in several int8 formats."""

    def error(form: tuple[jax.Array, jax.Array]) -> jax.Array:
        scale, zero_point = form
        steps = jnp.clip(jnp.round(value / scale) + zero_point, LOWEST, HIGHEST)
        return jnp.sum(((steps - zero_point) * scale - value) ** 2)

    errors: jax.Array = jax.lax.map(error, (scales, zero_points))
    return errors


def scale_and_zero_point(low: float, high: float) -> tuple[float, int]:
    """Returns the int8 format of a range, which is extended to contain 0. An empty range gets scale 1.

    >>> scale_and_zero_point(0, 510)
    (2.0, -128)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (HIGHEST - LOWEST) or 1.0
    return scale, LOWEST + round(-low / scale)


@functools.partial(jax.jit, static_argnums=(0, 1))
def tensor_values(
    model: Model, function: Function | None, variables: Mapping[str, Any], batch: Any
) -> dict[Key, jax.Array]:
    """Computes all tensors of a network, also those inside nested models that are called once."""
    found: dict[Key, jax.Array] = {}

    def note(above: Path, number: int, value: jax.Array) -> None:
        found[above, number] = value

    x = jnp.asarray(batch)
    x = function(x) if function else x
    captured = _capture(model, variables, x)
    x = jnp.moveaxis(x, 1, -1) if model.data_format == "channels_first" and x.ndim == 4 else x
    source: Any = model.graph.inputs[0].layer
    _visit(model.graph, captured, [source.call({}, x)], (), note)
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def layer_outputs(
    model: Model, function: Function | None, variables: Mapping[str, Any], batch: Any
) -> Mapping[str, Any]:
    """Computes a network and returns the outputs of every layer, by name: {layer: {"__call__": (first call, ...)}}."""
    return _capture(model, variables, function(jnp.asarray(batch)) if function else batch)


def _capture(model: Model, variables: Mapping[str, Any], x: Any) -> Mapping[str, Any]:
    _, state = model.apply(variables, x, capture_intermediates=True, mutable=["intermediates"])
    captured: Mapping[str, Any] = state["intermediates"]
    return captured


def _visit(
    graph: Graph,
    captured: Mapping[str, Any],
    inputs: Sequence[jax.Array],
    above: Path,
    visit: Callable[[Path, int, jax.Array], None],
    call: int = 0,
) -> list[jax.Array]:
    """Calls `visit` with every tensor of a graph: the models around it, its number and its value.

    Tensors inside nested models that are called several times are left out, as their ranges would be of one call only.

    Args:
        graph: The graph.
        captured: From `_capture`, of this graph.
        inputs: Its inputs.
        above: The models around it.
        visit: The function.
        call: Number of the call of these models.
    """
    values = list(inputs)
    calls = Counter(step.layer.name or "" for step in graph.steps)
    done: Counter[str] = Counter()
    for step in graph.steps:
        name = step.layer.name or ""
        number = call * calls[name] + done[name]
        done[name] += 1
        if isinstance(step.layer, Functional):
            given = [values[index] for index in step.inputs]
            inside = visit if calls[name] == 1 else _ignore
            values += _visit(step.layer.graph, captured[name], given, (*above, name), inside, number)
            continue
        output = captured[name]["__call__"][number]
        values += output if isinstance(output, tuple) else (output,)
    for number, value in enumerate(values):
        visit(above, number, value)
    return [values[index] for index in graph.results]


def _ignore(above: Path, number: int, value: jax.Array) -> None:
    pass


def batches_of(batches: Iterable[NDArray[Any]], size: int) -> Iterator[NDArray[Any]]:
    """Splits batches into smaller ones of at most `size` images."""
    for batch in batches:
        for start in range(0, len(batch), size):
            yield batch[start : start + size]
