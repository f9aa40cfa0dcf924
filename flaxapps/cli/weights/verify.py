"""`flaxapps verify`: compare the output of every layer of a model with real Keras.

Keras is imported only when the command runs.
"""

import importlib
import importlib.util
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from flaxapps.model import Model
from flaxapps.saving.load import load_model
from weight_port.errors import WeightError

FREE_SIZE = 128  # pixels, for models that take any size; large enough for every published network


class LayerDifference(NamedTuple):
    """Relative difference between one layer call and Keras's.

    Attributes:
        layer: Name of the layer; "outer/inner" inside a nested model.
        kind: Its Keras class.
        relative: max |difference| / max |Keras's|; NaN or infinite if the two cannot be compared.
    """

    layer: str
    kind: str
    relative: float


def verify_file(path: str) -> list[LayerDifference]:
    """Compares every layer on one random image.

    Args:
        path: A `.keras` archive or a whole-model `.h5`.

    Returns:
        The layer calls in order of computation.

    Raises:
        WeightError: Keras is not installed or does not run on JAX, or one of the two cannot load the file.
        FileNotFoundError: The file does not exist.
    """
    keras = _keras()
    # This comes first because it rejects damaged files, and layers that run code from the file, before Keras loads it.
    network = load_model(path)
    try:
        reference = keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras documents no exception types for this
        raise WeightError(f"{path}: Keras cannot load it: {error}") from error
    random = np.random.default_rng(0)
    shapes = [tuple(size or FREE_SIZE for size in tensor.shape[1:]) for tensor in reference.inputs]
    images = [random.normal(size=(1, *shape)).astype(np.float32) for shape in shapes]
    return _compare(keras, network.model, network.variables, reference, images)


def _compare(
    keras: Any, model: Any, variables: Mapping[str, Any], reference: Any, images: list[Any], above: str = ""
) -> list[LayerDifference]:
    """Compares call by call. Layers of a nested model precede it, and are computed from Keras's inputs to it."""
    pairs = _pair(model.graph, reference)
    ours = iter(_compute_here(model, variables, [node for call, _ in pairs for node in call.outputs], images))
    tensors = [tensor for _, node in pairs for tensor in node.outputs]
    theirs = dict(zip(map(id, tensors), _compute_in_keras(keras, reference, tensors, images), strict=True))
    differences = []
    for call, node in pairs:
        name, inner = call.layer.name, getattr(call.layer, "graph", None)
        if inner is not None:
            nested = Model(list(inner.inputs), list(inner.outputs), name=name)
            subtrees = {collection: tree[name] for collection, tree in variables.items() if name in tree}
            given = [theirs[id(tensor)] for tensor in node.input_tensors]
            differences += _compare(keras, nested, subtrees, node.operation, given, f"{above}{name}/")
        relatives = [_relative(next(ours), theirs[id(tensor)]) for tensor in node.outputs]
        worst = max(relatives, key=lambda each: math.inf if each != each else each)  # NaN is the worst
        differences.append(LayerDifference(above + name, call.layer.class_name, worst))
    return differences


def first_beyond(differences: Sequence[LayerDifference], tolerance: float) -> LayerDifference | None:
    """Returns the first layer whose difference exceeds the tolerance, or None; NaN exceeds any."""
    return next((each for each in differences if not each.relative <= tolerance), None)


def _keras() -> Any:
    if importlib.util.find_spec("keras") is None:
        raise WeightError("verify compares with Keras, which is not installed: pip install 'keras>=3.15'")
    os.environ["KERAS_BACKEND"] = "jax"  # read once, when Keras is imported; the default is TensorFlow
    try:
        keras = importlib.import_module("keras")
        backend = keras.backend.backend()
    except Exception as error:  # a broken installation: Keras 2, or a backend that does not load
        raise WeightError(f"Keras cannot be imported: {error}") from error
    if backend != "jax":
        raise WeightError(f"Keras runs on {backend}, but verify needs JAX: set KERAS_BACKEND=jax")
    return keras


def _pair(graph: Any, reference: Any) -> list[tuple[Any, Any]]:
    """Walks both graphs from their outputs and pairs the calls, inputs first.

    Only the edges identify the calls of a shared layer: Keras's node indices and tensor names do not.
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
                raise WeightError(f"The graphs differ: {name!r} here is {other!r} in Keras")
            _zip(name, call.outputs, node.outputs)
            waiting.append((call, node, True))
            edges = _zip(name, call.inputs, node.input_tensors)
            waiting += [(inner.call, _keras_node(tensor), False) for inner, tensor in reversed(edges)]
    return list(pairs.values())


def _zip(name: str, ours: Sequence[Any], theirs: Sequence[Any]) -> list[tuple[Any, Any]]:
    if len(ours) != len(theirs):
        raise WeightError(f"The graphs differ: {name!r} has {len(ours)} inputs or outputs, but {len(theirs)} in Keras")
    return list(zip(ours, theirs, strict=True))


def _keras_node(tensor: Any) -> Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def _compute_here(model: Any, variables: Mapping[str, Any], nodes: list[Any], images: list[Any]) -> list[Any]:
    features = Model(list(model.graph.inputs), nodes, name=model.name)
    return list(jax.device_get(jax.jit(features.apply)(variables, images)))


def _compute_in_keras(keras: Any, reference: Any, tensors: list[Any], images: list[Any]) -> list[Any]:
    model = keras.Model(reference.inputs, tensors)
    trained = [variable.value for variable in model.trainable_variables]
    others = [variable.value for variable in model.non_trainable_variables]
    with jax.numpy_dtype_promotion("standard"):  # Keras relies on it; the user may have set "strict"
        compute = jax.jit(lambda *values: model.stateless_call(*values, training=False)[0])
        return list(jax.device_get(compute(trained, others, images)))


def _relative(ours: Any, theirs: Any) -> float:
    if ours.shape != theirs.shape:
        return math.inf
    if not ours.size:
        return 0.0
    mine, other = ours.astype(np.float64), theirs.astype(np.float64)
    return float(np.max(np.abs(mine - other)) / (np.max(np.abs(other)) or 1.0))  # absolute if Keras's are all 0
