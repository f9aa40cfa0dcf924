"""Plan of a quantization: which tensors of a graph are stored as int8, and which of them share a scale."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from flaxapps import layers
from flaxapps.graph.graph import Graph, Step
from flaxapps.graph.symbolic import Layer, Shape
from flaxapps.ops.int8 import MOST_TERMS

# With fewer input channels the float32 convolution is faster: up to seven times for the 3 of a first layer.
LEAST_CHANNELS = 16
Key = tuple[tuple[str, ...], int]  # a tensor: the names of the models around its graph, and its number there
# Layers that return some of their int8 inputs as they are, or means of them, so that both sides share a scale.
MOVING = (
    layers.AveragePooling2D,
    layers.Concatenate,
    layers.Cropping2D,
    layers.Flatten,
    layers.MaxPooling2D,
    layers.Permute,
    layers.Reshape,
    layers.UpSampling2D,
    layers.ZeroPadding2D,
)


@dataclass(frozen=True)
class Storage:
    """Storage of the tensors of one graph, numbered as in its steps.

    Attributes:
        groups: The number of the scale of every int8 tensor; tensors that are not keys stay in floating point.
        quantized: Numbers of the steps whose layer computes with int8 inputs.
        moved: Numbers of the steps that rearrange int8 tensors.
    """

    groups: dict[int, int]
    quantized: frozenset[int]
    moved: frozenset[int]


def value_numbers(graph: Graph) -> list[range]:
    """Returns the numbers of the values that every step computes."""
    numbers, start = [], len(graph.inputs)
    for step in graph.steps:
        count = len(step.layer.graph.results) if isinstance(step.layer, layers.Functional) else 1
        numbers.append(range(start, start + count))
        start += count
    return numbers


def plan_storage(graph: Graph, training: bool, kept: Callable[[str], bool]) -> Storage:
    """Chooses the tensors that become int8: those that a quantized layer reads, and those that they are made of.

    A residual sum is computed in float32 from int8 inputs, and stored as int8 if a quantized layer reads it. All
    tensors of a concatenation, a pooling or a padding share one scale.

    Args:
        graph: A graph without foldable BatchNormalization and SeparableConv2D.
        training: Whether a call of this graph, or of one around it, may fix training mode.
        kept: Whether the layer of a name stays in floating point.
    """
    numbers = value_numbers(graph)
    shapes = value_shapes(graph)
    calls = Counter(step.layer.name for step in graph.steps)

    def once(step: Step) -> bool:
        return calls[step.layer.name] == 1 and not (step.training or (training and step.training is None))

    quantized = frozenset(
        number
        for number, step in enumerate(graph.steps)
        if once(step) and not kept(step.layer.name or "") and suits_int8(step.layer, shapes[step.inputs[0]])
    )
    wanted: set[int] = set()
    moved: set[int] = set()
    for number, step in reversed(list(enumerate(graph.steps))):
        if number in quantized:
            wanted.update(step.inputs)
        elif numbers[number][0] in wanted and once(step) and _moves(step.layer):
            wanted.update(step.inputs)
            moved.add(number)
    groups = {value: value for value in wanted}
    for number in sorted(moved):
        joined = {groups[value] for value in (*graph.steps[number].inputs, numbers[number][0])}
        groups = {value: min(joined) if group in joined else group for value, group in groups.items()}
    return Storage(groups, quantized, frozenset(moved))


def int8_tensors(graph: Graph, above: tuple[str, ...] = (), training: bool = False) -> set[Key]:
    """Returns the tensors of a network that can become int8, also inside nested models that are called once.

    Args:
        graph: The graph of the network, or of a model nested in it.
        above: The models around it.
        training: As for `plan_storage`.
    """
    found = {(above, value) for value in plan_storage(graph, training, lambda name: False).groups}
    calls = Counter(id(step.layer) for step in graph.steps)
    for step in graph.steps:
        if isinstance(step.layer, layers.Functional) and calls[id(step.layer)] == 1:
            found |= int8_tensors(step.layer.graph, (*above, step.layer.name or ""), training or step.training is True)
    return found


def value_shapes(graph: Graph) -> list[Shape]:
    """Returns the shapes of all values of a graph."""
    shapes = [node.shape for node in graph.inputs]
    for step in graph.steps:
        shapes += step.layer.output_shapes(*(shapes[index] for index in step.inputs))
    return shapes


def suits_int8(layer: Layer, shape: Shape) -> bool:
    """Whether a layer is computed from int8 inputs of this shape. Classes are compared exactly.

    A product of one row, such as the Dense layers of a classifier for one photo, is bound by the memory of its kernel,
    and XLA's int8 code for it is up to ten times slower than float32.
    """
    if type(layer) is layers.DepthwiseConv2D:
        return True
    if type(layer) not in (layers.Conv2D, layers.Dense) or (type(layer) is layers.Dense and len(shape) < 3):
        return False
    kernel = layer.weights(shape)["kernel"].shape
    terms = 1
    for size in kernel[:-1]:
        terms *= size
    return min(kernel[-2:]) >= LEAST_CHANNELS and terms <= MOST_TERMS and getattr(layer, "groups", 1) == 1


def _moves(layer: Layer) -> bool:
    if isinstance(layer, layers.UpSampling2D) and layer.interpolation != "nearest":
        return False
    return type(layer) in MOVING or layer.identity_in_inference
