"""Random Keras networks, saved and imported: Keras's order of layers, and Keras's numbers."""

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flaxapps.saving.load import load_architecture
from tests.imported import check_import
from tests.networks import fresh_keras, zero_initial_weights

KINDS = (
    "conv", "depthwise", "norm", "activation", "max_pool", "average_pool", "add", "multiply", "concatenate", "shared",
    "nested", "twice",
)  # fmt: skip # kept on few lines on purpose
ACTIVATIONS = ("tanh", "gelu", "elu", "softmax")
NUMBERS = st.integers(0, 99)
STEPS = st.tuples(st.sampled_from(KINDS), NUMBERS, NUMBERS, NUMBERS)


def recipes(longest):
    return {
        "steps": st.lists(STEPS, min_size=1, max_size=longest),
        "ends": st.lists(NUMBERS, min_size=1, max_size=3),
        "inputs": st.integers(1, 2),
        "named": st.booleans(),
    }


COMMON = settings(deadline=None, derandomize=True, database=None, phases=[Phase.generate])


def random_network(steps, ends, inputs, named):
    """A network of a step after another, each of them on any values before."""
    keras = fresh_keras()
    layers = keras.layers
    numbers, shared = itertools.count(), {}

    def name(kind):
        return f"{kind}_number_{99 - next(numbers)}" if named else None

    def block(shape, outputs):
        x = keras.Input(shape)
        y = layers.BatchNormalization()(layers.Conv2D(shape[-1], 1)(x))
        z = layers.Activation("tanh")(y)
        return keras.Model(x, [z, layers.Add()([y, x])] if outputs == 2 else z, name=name("inner"))

    def common(key, make):
        return shared.setdefault(key, None) or shared.update({key: make()}) or shared[key]

    values = sources = [keras.Input((6, 6, 3), name=name("input")) for _ in range(inputs)]
    for kind, first, second, third in steps:
        one = values[first % len(values)]
        alike = [value for value in values if value.shape == one.shape]
        beside = [value for value in values if value.shape[1:3] == one.shape[1:3]]
        two, shape = alike[second % len(alike)], one.shape[1:]
        if kind == "conv":
            new = layers.Conv2D(2 + second % 3, 3, 1 + third % 2, padding="same", name=name(kind))(one)
        elif kind == "depthwise":
            new = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=1 + second % 2, name=name(kind))(one)
        elif kind == "norm":
            new = layers.BatchNormalization(scale=bool(second % 2), name=name(kind))(one)
        elif kind == "activation":
            new = layers.Activation(ACTIVATIONS[second % len(ACTIVATIONS)], name=name(kind))(one)
        elif kind == "max_pool":
            new = layers.MaxPooling2D(2, 1 + second % 2, padding="same", name=name(kind))(one)
        elif kind == "average_pool":
            new = layers.AveragePooling2D(3, 1 + second % 2, padding="same", name=name(kind))(one)
        elif kind == "add":
            new = layers.Add(name=name(kind))([one, two])
        elif kind == "multiply":
            bounded = layers.Activation("tanh", name=name("tanh"))(two)
            new = layers.Multiply(name=name(kind))([one, bounded])
        elif kind == "concatenate":
            merged = layers.Concatenate(name=name(kind))(
                [one, *(beside[each % len(beside)] for each in (second, third))]
            )
            new = layers.Conv2D(3, 1, name=name("conv"))(merged)
        elif kind == "shared":
            make = [
                lambda shape=shape: layers.Conv2D(shape[-1], 3, padding="same", name=name("shared")),
                lambda: layers.BatchNormalization(name=name("shared")),
            ][second % 2]
            new = common((kind, second % 2, shape), make)(one)
        elif kind == "nested":
            new = common((kind, second % 2, shape), lambda shape=shape: block(shape, 1))(one)
        else:
            pair = common((kind, second % 2, shape), lambda shape=shape: block(shape, 2))(one)
            new = layers.Add(name=name("add"))(pair) if third % 2 else pair[third % 4 // 2]
        values = [*values, new]
    made = values[inputs:]
    outputs = list({id(value): value for value in (made[end % len(made)] for end in ends)}.values())
    return keras.Model(sources, outputs)


def order(model):
    return [(layer.name, order(layer) if hasattr(layer, "layers") else None) for layer in model.layers]


def order_here(model):
    return [(layer.name, order_here(layer) if getattr(layer, "layers", None) else None) for layer in model.layers]


@pytest.mark.slow
@settings(COMMON, max_examples=40)
@given(**recipes(12))
def test_order_and_names_of_random_networks(steps, ends, inputs, named):
    with tempfile.TemporaryDirectory() as folder, zero_initial_weights():
        model, path = random_network(steps, ends, inputs, named), Path(folder) / "model.keras"
        model.save(path)
        network = load_architecture(path)
    assert order_here(network) == order(model)
    assert network.count_params() == model.count_params()


@pytest.mark.slow
@settings(COMMON, max_examples=25)
@given(**recipes(7))
def test_outputs_of_random_networks(steps, ends, inputs, named):
    with tempfile.TemporaryDirectory() as folder, zero_initial_weights():
        model = random_network(steps, ends, inputs, named)
        network = check_import(model, Path(folder) / "model.keras").model
    assert order_here(network) == order(model)
