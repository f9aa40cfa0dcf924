"""Post-training quantization to int8, with ranges measured on the user's images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from flaxapps.graph.graph import Graph
from flaxapps.graph.symbolic import Node
from flaxapps.graph.variables import bytes_of
from flaxapps.inference.preprocessing import Function, preprocessing_function
from flaxapps.layers import Functional, ImageByImage
from flaxapps.model import Model, Network
from flaxapps.quantization.calibrate import Calibration, as_batches, batches_of, check_images, measure_ranges
from flaxapps.quantization.rebuild import quantize_layers
from flaxapps.quantization.report import (
    AT_ONCE,
    QuantizationReport,
    compare_outputs,
    compute_outputs,
    measure_noise,
)
from flaxapps.transforms.fold import fold_batch_norm
from flaxapps.transforms.optimize import is_quantized, split_separable
from flaxapps.transforms.rewrite import rewrite


class Bounds(NamedTuple):
    """What a quantized network may change at most on held-out images; None for any change.

    Attributes:
        largest_change: Upper bound of the change of a probability.
        agreement: Lower bound of the part of images with the same most probable class.
    """

    largest_change: float | None = None
    agreement: float | None = None


def quantize(
    model: Model,
    variables: Mapping[str, Any],
    images: Any,
    *,
    preprocess: bool | str | Function = False,
    calibration: Calibration = "mse",
    keep_float: Sequence[str] = (),
    held_out: Any = None,
    largest_change: float | None = None,
    agreement: float | None = None,
) -> Network:
    """Quantizes a network to int8 for faster inference on CPUs. The given model and variables are not modified.

    Kernels are rounded to int8 with one scale per output channel, activations with one scale per tensor, whose range is
    measured on `images`. Convolutions, and Dense layers on sequences or images, multiply int8 and add in int32;
    depthwise convolutions read int8. First layers (fewer than 16 channels), Dense layers of a classifier and layers of
    other kinds stay in float32. Tensors between int8 layers are int8, also through pooling, padding and concatenation;
    residual sums are computed in float32. Outputs change: see `quantization_report`.

    Args:
        model: A network with one input.
        variables: Its arrays.
        images: Images like those that will be predicted, a few dozen at least: an array (count, ...) or an iterable of
            such arrays.
        preprocess: Preprocessing of the images, as for `predict`; the quantized network takes it as well.
        calibration: "mse" clips the range of every tensor to where the mean squared rounding error is smallest;
            "minmax" takes the full range, which is faster to find.
        keep_float: Names of layers to keep in float32; "outer/inner" inside nested models.
        held_out: Other images, on which the two bounds below are checked. If a bound is exceeded, the noisiest
            layers are kept in float32; a bisection finds how many are needed.
        largest_change: Upper bound of the change of a probability, such as 0.05.
        agreement: Lower bound of the share of images whose most probable class stays the same, such as 0.99.

    Returns:
        The quantized model and its variables, for inference only. `save_model` writes them to a `.npz` file, not to
        Keras files. `predict` and `compile` run them as they are.

    Raises:
        ValueError: The images do not fit the model, contain NaN or infinity, or are constant or all equal; no layer
            suits int8; a layer in `keep_float` does not exist; a bound is given without `held_out` or out of range; or
            the model is quantized or optimized already.

    Warns:
        UserWarning: There are few images, or they do not look preprocessed as the network needs them.

    >>> import numpy as np
    >>> from flaxapps import Input, layers
    >>> x = Input((16, 16, 3))
    >>> y = layers.Conv2D(32, 3, activation="relu", name="first")(x)
    >>> model = Model(x, layers.Conv2D(32, 3, name="second")(y))
    >>> images = np.random.default_rng(0).random((8, 16, 16, 3), np.float32)
    >>> smaller, its_variables = quantize(model, model.init_variables(), images)
    >>> [layer.class_name for layer in smaller.layers]
    ['InputLayer', 'Conv2D', 'Quantize', 'QuantizedConv2D']
    >>> its_variables["params"]["second"]["kernel"].dtype
    dtype('int8')
    """
    bounds = Bounds(largest_change, agreement)
    function = preprocessing_function(model, preprocess)
    batches = as_batches(model, images)
    _check(model, bounds, held_out)
    check_images(model, batches, preprocess)
    exact = _prepare(model, variables)
    kept = _check_names(keep_float, model, exact.model)
    ranges = measure_ranges(*exact, list(batches_of(batches, AT_ONCE)), function, calibration)

    def attempt(worst: Sequence[str]) -> Network:
        return quantize_layers(*exact, ranges, {*kept, *worst})

    network = attempt(())
    if not is_quantized(network.model.graph):
        raise ValueError(
            f"{model.name or 'The model'} has no layer to quantize: convolutions, or Dense layers on sequences or "
            "images, with at least 16 input and output channels, called once and not in keep_float"
        )
    if bounds == Bounds():
        return network
    return _search(exact, network, attempt, as_batches(model, held_out, "held_out"), function, bounds)


def quantization_report(
    model: Model,
    variables: Mapping[str, Any],
    quantized: Network,
    images: Any,
    *,
    preprocess: bool | str | Function = False,
) -> QuantizationReport:
    """Compares a network with its quantized form, on images that were not used to quantize it.

    Args:
        model: The network that was quantized.
        variables: Its arrays.
        quantized: The result of `quantize`.
        images: As for `quantize`.
        preprocess: As for `quantize`.

    Returns:
        The report; `print` shows the layers that lose most.

    Raises:
        ValueError: The images do not fit the model or contain NaN or infinity, or it has several outputs.
    """
    if not isinstance(model.output, Node):
        raise ValueError(f"{model.name or 'The model'} has several outputs; reports are on models with one")
    function = preprocessing_function(model, preprocess)
    batches = as_batches(model, images)
    exact = _prepare(model, variables)
    outputs = [compute_outputs(network, batches, function) for network in (exact, quantized)]
    change = compare_outputs(model, *outputs)
    return QuantizationReport(
        images=len(outputs[0]),
        layers=measure_noise(exact, quantized, batches, function),
        output=change.output,
        agreement=change.agreement,
        largest_change=change.largest_change,
        weight_bytes=(bytes_of(variables), bytes_of(quantized.variables)),
    )


def _prepare(model: Model, variables: Mapping[str, Any]) -> Network:
    return rewrite(*fold_batch_norm(model, variables), split_separable)


def _check(model: Model, bounds: Bounds, held_out: Any) -> None:
    if is_quantized(model.graph) or any(isinstance(layer.layer, ImageByImage) for layer in model.layers):
        raise ValueError("The model is quantized or optimized already: give the original one")
    if bounds == Bounds():
        return
    for name, bound in bounds._asdict().items():
        if bound is not None and not 0 <= bound <= 1:
            raise ValueError(f"{name} should be from 0 to 1, got {bound}")
    if held_out is None:
        raise ValueError("A bound is checked on images that were not used to quantize: give them as held_out")
    if not isinstance(model.output, Node) or len(model.output_shape) != 2:
        raise ValueError(f"Bounds need one output of shape (batch, classes), got {model.output_shape}")


def _layer_names(graph: Graph, above: str) -> Iterator[str]:
    for layer in graph.layers:
        yield above + layer.name
        if isinstance(layer.layer, Functional):
            yield from _layer_names(layer.layer.graph, f"{above}{layer.name}/")


def _check_names(names: Sequence[str], model: Model, exact: Model) -> set[str]:
    """Checks `keep_float`, and adds the depthwise part of separable convolutions and all layers of nested models."""
    if isinstance(names, str):
        raise ValueError(f"keep_float should be a list of layer names, got the string {names!r}")
    known = {*_layer_names(model.graph, ""), *_layer_names(exact.graph, "")}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ValueError(f"keep_float: there are no layers {', '.join(map(repr, unknown))}")
    inside = {inner for inner in known for name in names if inner.startswith(f"{name}/")}
    return {*names, *inside, *(f"{name}_depthwise" for name in {*names, *inside})}


def _search(
    exact: Network,
    network: Network,
    attempt: Callable[[Sequence[str]], Network],
    held_out: Sequence[NDArray[Any]],
    function: Function | None,
    bounds: Bounds,
) -> Network:
    """Keeps the layers with the most noise in float32, as few as needed: doubles their number, then bisects it."""
    outputs = compute_outputs(exact, held_out, function)

    def meets(candidate: Network) -> bool:
        change = compare_outputs(exact.model, outputs, compute_outputs(candidate, held_out, function))
        # Not None, because `_check` has seen that the output is (batch, classes).
        agrees = bounds.agreement is None or (change.agreement or 0) >= bounds.agreement
        return agrees and (bounds.largest_change is None or (change.largest_change or 0) <= bounds.largest_change)

    if meets(network):
        return network
    worst = [layer.name for layer in measure_noise(exact, network, held_out, function)]
    failing, count = 0, 1
    while count < len(worst) and not meets(network := attempt(worst[:count])):
        failing, count = count, 2 * count
    count = min(count, len(worst))
    if count == len(worst):
        network = attempt(worst)
    while count - failing > 1:
        middle = (failing + count) // 2
        candidate = attempt(worst[:middle])
        if meets(candidate):
            network, count = candidate, middle
        else:
            failing = middle
    return network
