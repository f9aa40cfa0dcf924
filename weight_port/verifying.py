"""Computes a whole model in real Keras and in flaxapps, and compares the output of every layer.

Keras, JAX and flaxapps are looked up by name when the command runs: nothing else in this package needs any of them.
"""

import importlib
import importlib.util
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from weight_port.errors import WeightError
from weight_port.forms import flaxapps

FREE_SIZE = 128  # pixels, where a model takes images of any size; every published network takes it


class Departure(NamedTuple):
    """How far one call of a layer is from Keras's.

    Attributes:
        layer: Name of the layer; "outer/inner" inside a nested model.
        kind: Its Keras class.
        relative: max |difference| / max |Keras's|; NaN or infinite where the two cannot be compared.
    """

    layer: str
    kind: str
    relative: float


def verify_file(path: str) -> list[Departure]:
    """Compares every layer on one random image.

    Args:
        path: A `.keras` archive or a whole-model `.h5`.

    Returns:
        The calls of layers in the order they are computed.

    Raises:
        WeightError: Keras is not installed or does not run on JAX, or one of the two cannot load the file.
        FileNotFoundError: There is no file.
    """
    keras = _keras()
    # This comes first: it refuses what is damaged, and layers that run code out of the file, before Keras sees them.
    network = flaxapps("importing").load_model(path)
    try:
        reference = keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever happens on the way
        raise WeightError(f"{path}: Keras cannot load it: {error}") from error
    random = np.random.default_rng(0)
    shapes = [tuple(size or FREE_SIZE for size in tensor.shape[1:]) for tensor in reference.inputs]
    images = [random.normal(size=(1, *shape)).astype(np.float32) for shape in shapes]
    return _compare(keras, network.model, network.variables, reference, images)


def _compare(
    keras: Any, model: Any, variables: dict[str, Any], reference: Any, images: list[Any], above: str = ""
) -> list[Departure]:
    """Compares call by call; the layers of a nested model come before it, computed from what Keras gives it."""
    pairs = _pair(model.graph, reference)
    ours = iter(_compute_here(model, variables, [node for call, _ in pairs for node in call.outputs], images))
    tensors = [tensor for _, node in pairs for tensor in node.outputs]
    theirs = dict(zip(map(id, tensors), _compute_in_keras(keras, reference, tensors, images), strict=True))
    departures = []
    for call, node in pairs:
        name, inner = call.layer.name, getattr(call.layer, "graph", None)
        if inner is not None:
            nested = flaxapps("model").Model(list(inner.inputs), list(inner.outputs), name=name)
            subtrees = {collection: tree[name] for collection, tree in variables.items() if name in tree}
            given = [theirs[id(tensor)] for tensor in node.input_tensors]
            departures += _compare(keras, nested, subtrees, node.operation, given, f"{above}{name}/")
        relatives = [_relative(next(ours), theirs[id(tensor)]) for tensor in node.outputs]
        worst = max(relatives, key=lambda each: math.inf if each != each else each)
        departures.append(Departure(above + name, call.layer.class_name, worst))
    return departures


def first_departure(departures: Sequence[Departure], tolerance: float) -> Departure | None:
    """The first layer beyond the tolerance, or None; NaN is beyond any."""
    return next((each for each in departures if not each.relative <= tolerance), None)


def _keras() -> Any:
    if importlib.util.find_spec("keras") is None:
        raise WeightError("verify compares with Keras, which is not installed: pip install 'keras>=3.15'")
    os.environ["KERAS_BACKEND"] = "jax"  # read once, when Keras is imported; TensorFlow need not be there
    try:
        keras = importlib.import_module("keras")
        backend = keras.backend.backend()
    except Exception as error:  # a broken installation: Keras 2, or a backend that does not load
        raise WeightError(f"Keras cannot be imported: {error}") from error
    if backend != "jax":
        raise WeightError(f"Keras runs on {backend} here, and verify needs JAX: KERAS_BACKEND=jax")
    return keras


def _pair(graph: Any, reference: Any) -> list[tuple[Any, Any]]:
    """Walks both graphs from their outputs and pairs the calls, inputs first.

    Going along the edges tells which call of a shared layer is which; numbers and names of tensors do not.
    """
    pairs: dict[int, tuple[Any, Any]] = {}
    entered: set[int] = set()
    ends = _zip("model", graph.outputs, reference.outputs)
    waiting = [(node.call, _keras_node(tensor), False) for node, tensor in ends]
    waiting.reverse()
    while waiting:
        call, node, finished = waiting.pop()
        if finished:
            pairs[id(call)] = (call, node)
        elif id(call) not in entered:
            entered.add(id(call))
            name, other = call.layer.name, node.operation.name
            if call.inputs and name != other and call.layer.listed:
                raise WeightError(f"The graphs differ: {name!r} is where Keras has {other!r}")
            _zip(name, call.outputs, node.outputs)
            waiting.append((call, node, True))
            edges = _zip(name, call.inputs, node.input_tensors)
            waiting += [(inner.call, _keras_node(tensor), False) for inner, tensor in reversed(edges)]
    return list(pairs.values())


def _zip(name: str, ours: Sequence[Any], theirs: Sequence[Any]) -> list[tuple[Any, Any]]:
    if len(ours) != len(theirs):
        raise WeightError(f"The graphs differ: {name!r} has {len(ours)} inputs or outputs, in Keras {len(theirs)}")
    return list(zip(ours, theirs, strict=True))


def _keras_node(tensor: Any) -> Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def _compute_here(model: Any, variables: dict[str, Any], nodes: list[Any], images: list[Any]) -> list[Any]:
    jax = importlib.import_module("jax")
    features = flaxapps("model").Model(list(model.graph.inputs), nodes, name=model.name)
    return list(jax.device_get(jax.jit(features.apply)(variables, images)))


def _compute_in_keras(keras: Any, reference: Any, tensors: list[Any], images: list[Any]) -> list[Any]:
    jax = importlib.import_module("jax")
    model = keras.Model(reference.inputs, tensors)
    trained = [variable.value for variable in model.trainable_variables]
    others = [variable.value for variable in model.non_trainable_variables]
    with jax.numpy_dtype_promotion("standard"):  # Keras counts on it, whatever the user has set
        compute = jax.jit(lambda *values: model.stateless_call(*values, training=False)[0])
        return list(jax.device_get(compute(trained, others, images)))


def _relative(ours: Any, theirs: Any) -> float:
    if ours.shape != theirs.shape:
        return math.inf
    if not ours.size:
        return 0.0
    mine, other = ours.astype(np.float64), theirs.astype(np.float64)
    return float(np.max(np.abs(mine - other)) / (np.max(np.abs(other)) or 1.0))
