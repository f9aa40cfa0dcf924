"""What the import batteries share: a Keras model saved, imported, and both computed on the same arrays."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest

import flaxapps
from tests.networks import compiled
from tests.recipe import relative_difference


def randomise(keras_model: Any, seed: int = 0) -> None:
    """Gives every weight a value away from its initial one; variances stay positive."""
    random = np.random.default_rng(seed)
    for variable in keras_model.weights:
        name = variable.path.rsplit("/", 1)[-1]
        if "seed" in name or not np.issubdtype(np.asarray(variable).dtype, np.floating):
            continue
        scale = 1 / np.sqrt(max(1, np.prod(variable.shape[:-1]))) if "kernel" in name else 0.3
        value = random.normal(0, scale, variable.shape)
        positive = any(word in name for word in ("var", "gamma", "scale"))
        variable.assign((np.abs(value) + 0.5 if positive else value).astype("float32"))


def quick(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Rows that begin with a kind of layer: the first of a kind runs by default, the others with the slow ones."""
    kinds = [row[0] for row in rows]
    return [
        row if kinds.index(row[0]) == number else pytest.param(*row, marks=pytest.mark.slow)
        for number, row in enumerate(rows)
    ]


def random_inputs(keras_model: Any, batch: int = 2, seed: int = 1) -> list[np.ndarray]:
    """An array for every input, of integers from 0 to 8 where it takes integers; free dimensions are 9."""
    random = np.random.default_rng(seed)
    arrays = []
    for each in keras_model.inputs:
        shape = (batch, *(size or 9 for size in each.shape[1:]))
        integers = str(each.dtype).startswith(("int", "uint"))
        arrays.append(
            random.integers(0, 9, shape).astype(each.dtype)
            if integers
            else random.normal(0, 1, shape).astype("float32")
        )
    return arrays


def keras_outputs(keras_model: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Keras's outputs in inference mode, of a program that is compiled quickly: it is not what is tested."""
    values = [
        [each.value for each in kind] for kind in (keras_model.trainable_variables, keras_model.non_trainable_variables)
    ]
    given = inputs if len(inputs) > 1 else inputs[0]
    # XLA's optimizations can round halves to the other integer, so Keras is compiled with the same ones as our side.
    floating = all(np.issubdtype(each.dtype, np.floating) for each in inputs)
    compute = compiled if floating else lambda function, *arguments: jax.jit(function)(*arguments)
    with jax.numpy_dtype_promotion("standard"):
        outputs = compute(lambda *values: keras_model.stateless_call(*values, training=False)[0], *values, given)
    outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    return [np.asarray(output, dtype=np.float32) for output in outputs]


def check_import(keras_model: Any, path: Any, tolerance: float = 1e-5, inputs: list[np.ndarray] | None = None) -> Any:
    """Saves a Keras model with random weights, imports it, and compares every output; returns the import.

    Args:
        keras_model: The model; its weights are overwritten.
        path: Where to save it; the suffix says the format.
        tolerance: max |difference| / max |Keras's|.
        inputs: Arrays to compute on; None draws them.
    """
    import keras

    randomise(keras_model)
    keras.saving.save_model(keras_model, path)
    inputs = inputs if inputs is not None else random_inputs(keras_model)
    network = flaxapps.load_model(path)
    ours = jax.jit(network.model.apply)(network.variables, inputs if len(inputs) > 1 else inputs[0])
    ours = ours if isinstance(ours, list) else [ours]
    theirs = keras_outputs(keras_model, inputs)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert relative_difference(np.asarray(mine, dtype=np.float32), other) <= tolerance
    return network
