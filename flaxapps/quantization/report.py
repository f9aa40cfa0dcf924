"""Report of a quantization: the noise of every int8 layer, and how far the outputs change."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from flaxapps import layers
from flaxapps.graph.graph import Graph
from flaxapps.graph.symbolic import Layer, Weights
from flaxapps.inference.predict import forward
from flaxapps.inference.preprocessing import Function
from flaxapps.layers.activations import get_activation
from flaxapps.model import Model, Network
from flaxapps.ops import int8
from flaxapps.quantization.calibrate import Path, batches_of, layer_outputs, tensor_values
from flaxapps.quantization.storage import Key, value_numbers
from flaxapps.transforms.logits import holds_probabilities, last_activation
from flaxapps.transforms.rewrite import model_arrays

KINDS = (layers.QuantizedConv2D, layers.QuantizedDense, layers.QuantizedDepthwiseConv2D)
AT_ONCE = 4  # images in a batch, all of whose activations are in memory
SHOWN = 10  # layers in the printed report


class LayerNoise(NamedTuple):
    """Signal-to-noise ratios of the output of one int8 layer, in decibels; 20 dB is an error of a tenth.

    Attributes:
        name: The layer, "outer/inner" inside a nested model.
        own: With exact inputs: the noise that int8 inputs and kernel of this layer add.
        accumulated: In the quantized network: the noise of all layers up to here.
    """

    name: str
    own: float
    accumulated: float


@dataclass(frozen=True)
class QuantizationReport:
    """Differences between a network and its quantized form on some images.

    Attributes:
        images: The number of images.
        layers: Every int8 layer, the one with the most noise of its own first.
        output: Signal-to-noise ratio of the outputs, in decibels; of the logits or probabilities, as the network has.
        agreement: Part of the images for which both have the same most probable class; None if the output is not
            (batch, classes).
        largest_change: Largest change of a probability (after a softmax, if the outputs are logits); None as above.
        weight_bytes: Memory of the arrays, before and after.
    """

    images: int
    layers: tuple[LayerNoise, ...]
    output: float
    agreement: float | None
    largest_change: float | None
    weight_bytes: tuple[int, int]

    def __str__(self) -> str:
        """The report as text: outputs, then the layers that lose most."""
        before, after = self.weight_bytes
        lines = [
            f"{self.images} images; arrays {before / 1e6:.1f} MB, quantized {after / 1e6:.1f} MB",
            f"output: signal-to-noise ratio {self.output:.1f} dB",
        ]
        if self.agreement is not None and self.largest_change is not None:
            same = round(self.agreement * self.images)
            lines.append(
                f"most probable class: the same for {same} of {self.images}; "
                f"largest change of a probability {self.largest_change:.4f}"
            )
        width = max((len(layer.name) for layer in self.layers[:SHOWN]), default=0)
        lines.append(f"{len(self.layers)} int8 layers; those that lose most (signal-to-noise ratio in dB):")
        lines += [
            f"  {layer.name:{width}}  own {layer.own:5.1f}  accumulated {layer.accumulated:5.1f}"
            for layer in self.layers[:SHOWN]
        ]
        return "\n".join(lines)


class OutputChange(NamedTuple):
    """`agreement`, `largest_change` and `output` of a report."""

    agreement: float | None
    largest_change: float | None
    output: float


def compare_outputs(model: Model, exact: NDArray[Any], approximate: NDArray[Any]) -> OutputChange:
    """Compares the outputs of a network and its quantized form.

    Args:
        model: The network, with one output.
        exact: Its outputs.
        approximate: Those of the quantized network.
    """
    output = decibels(float((exact**2).sum()), float(((exact - approximate) ** 2).sum()))
    if exact.ndim != 2:
        return OutputChange(None, None, output)
    if not holds_probabilities(last_activation(model)):
        exact, approximate = (_softmax(each) for each in (exact, approximate))
    first, second = ((each > 0.5)[:, 0] if each.shape[1] == 1 else each.argmax(1) for each in (exact, approximate))
    return OutputChange(float((first == second).mean()), float(abs(exact - approximate).max(initial=0)), output)


def compute_outputs(network: Network, batches: Iterable[NDArray[Any]], function: Function | None) -> NDArray[Any]:
    """Returns the outputs of a network with one output."""
    run = jax.jit(lambda variables, batch: forward(network.model, function, variables, [batch])[0])
    return np.concatenate([np.asarray(run(network.variables, batch)) for batch in batches_of(batches, AT_ONCE)])


def measure_noise(
    exact: Network, quantized: Network, batches: Iterable[NDArray[Any]], function: Function | None
) -> tuple[LayerNoise, ...]:
    """Measures the noise of every int8 layer.

    Args:
        exact: The network that was quantized, as `quantize_layers` took it.
        quantized: Its result.
        batches: Images, before preprocessing.
        function: The preprocessing, or None.
    """
    records = list(_records(exact.model.graph, quantized.model.graph, ()))
    arrays = model_arrays(*quantized)
    totals = np.zeros((len(records), 3))
    for batch in batches_of(batches, AT_ONCE):
        values = tensor_values(exact.model, function, exact.variables, batch)
        captured = layer_outputs(quantized.model, function, quantized.variables, batch)
        totals += np.array([_powers(record, values, captured, arrays) for record in records]).reshape(-1, 3)
    noises = [
        LayerNoise("/".join(record.path), decibels(signal, own), decibels(signal, accumulated))
        for record, (signal, own, accumulated) in zip(records, totals, strict=True)
    ]
    return tuple(sorted(noises, key=lambda noise: noise.own))


class _Record(NamedTuple):
    """One int8 layer: its path, the values it reads and computes in the exact graph, and what rounds its input."""

    path: Path
    source: int
    value: int
    layer: Any
    activation: Any
    rounding: layers.Quantize


def _records(exact: Graph, quantized: Graph, above: Path) -> Iterator[_Record]:
    steps = {step.layer.name: step for step in quantized.steps}
    makers = {
        value: step for step, values in zip(quantized.steps, value_numbers(quantized), strict=True) for value in values
    }
    for step, values in zip(exact.steps, value_numbers(exact), strict=True):
        found = steps.get(step.layer.name)
        if found is None:
            continue
        path = (*above, step.layer.name or "")
        if isinstance(found.layer, layers.Functional) and isinstance(step.layer, layers.Functional):
            if sum(each.layer is step.layer for each in exact.steps) == 1:
                yield from _records(step.layer.graph, found.layer.graph, path)
        elif isinstance(found.layer, KINDS):
            maker = makers[found.inputs[0]]
            while not isinstance(maker.layer, layers.Quantize):
                maker = makers[maker.inputs[0]]
            activation = getattr(step.layer, "activation", None)
            yield _Record(path, step.inputs[0], values[0], found.layer, activation, maker.layer)


def _powers(record: _Record, values: Mapping[Key, jax.Array], captured: Any, arrays: Mapping[Path, Any]) -> list[float]:
    """Returns the powers of the signal, of the noise of the layer itself, and of the accumulated noise."""
    above = record.path[:-1]
    weights = {path[-1]: array for path, array in arrays.items() if path[:-1] == record.path}
    scale = arrays[*above, record.rounding.name or "", "scale"]
    for name in record.path:
        captured = captured[name]
    signal, source = values[above, record.value], values[above, record.source]
    # The quantized layer may have left its relu to the rounding that follows.
    relu = record.activation if record.layer.activation is None else None
    alone = dataclasses.replace(record.layer, name=None)  # without the name, equal layers share a compilation
    powers = _compute_powers(
        alone, relu, record.rounding.zero_point, weights, scale, source, signal, captured["__call__"][0]
    )
    return [float(power) for power in powers]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _compute_powers(
    layer: Layer,
    relu: Any,
    zero_point: int,
    weights: Weights,
    scale: jax.Array,
    source: jax.Array,
    signal: jax.Array,
    accumulated: jax.Array,
) -> list[jax.Array]:
    activation = get_activation(relu or "linear")
    with jax.numpy_rank_promotion("allow"):  # as where the model runs its layers
        own = activation(layer.call(weights, int8.quantize(source, scale, zero_point)))
    signal = signal.astype(jnp.float32)
    return [jnp.sum(each**2) for each in (signal, signal - own, signal - activation(accumulated))]


def decibels(signal: float, noise: float) -> float:
    """Returns the signal-to-noise ratio of two powers in decibels; infinite without noise."""
    return math.inf if noise == 0 else -math.inf if signal == 0 else 10 * math.log10(signal / noise)


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    exponentials: NDArray[Any] = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[Any] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
