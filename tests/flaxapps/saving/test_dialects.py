"""Random networks in the configurations of all versions of Keras give the same graph."""

import itertools
import json
import tempfile
import warnings
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import flaxapps
from flaxapps.saving.load import model_from_config
from tests.flaxapps.saving.dialect_writers import (
    DIALECTS,
    LayerOf,
    Network,
    built,
    can_write,
    written,
)
from weight_port.layout import layer_targets

COMMON = settings(deadline=None, derandomize=True, database=None, phases=[Phase.generate])
SHAPE = (8, 6, 3)
ACTIVATIONS = ("linear", "relu", "tanh", "elu", "hard_sigmoid", "softmax")
IN_KERAS_1 = (
    "conv", "separable", "transposed", "norm", "activation", "leaky", "dropout", "max_pool", "average_pool", "pad",
    "enlarge", "merge", "concatenate", "nested", "nested_sequential", "shared",
)  # fmt: skip # kept on few lines on purpose
SINCE_2 = (*IN_KERAS_1, "depthwise", "relu", "norm_parts")
SINCE_FUNCTIONS = (*SINCE_2, "times")
NUMBERS = st.integers(0, 99)


def steps(kinds, longest):
    return st.lists(st.tuples(st.sampled_from(kinds), NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=longest)


def recipes(longest):
    """Steps of networks that all versions can write, or those since Keras 2, or since functions became layers."""
    return st.one_of(*(steps(kinds, longest) for kinds in (IN_KERAS_1, SINCE_2, SINCE_FUNCTIONS)))


def convolution(filters, size, first, second):
    return {
        "filters": filters,
        "kernel_size": [size, size],
        "strides": [1, 1],
        "padding": "same",
        "activation": ACTIVATIONS[first % len(ACTIVATIONS)],
        "use_bias": bool(second % 2),
    }


def normalization(number, parts):
    return {
        "axis": -1,
        "momentum": 0.9,
        "epsilon": (1e-3, 1e-5)[number % 2],
        "center": not parts or number % 3 != 0,
        "scale": not parts or number % 3 != 1,
    }


def block(name, channels, shape, number):
    """A small model to be nested."""
    inner = Network(name, (*shape[:2], channels), source=f"{name}_conv_input", output=(f"{name}_norm", 0))
    inner.layers[f"{name}_conv"] = LayerOf("Conv2D", convolution(channels, 1, number, number))
    inner.layers[f"{name}_norm"] = LayerOf("BatchNormalization", normalization(number, parts=False))
    inner.calls.extend([(f"{name}_conv", ((inner.source, 0),)), (f"{name}_norm", ((f"{name}_conv", 0),))])
    return inner


def network_of(steps, head):
    """A network of images: a step after another, each on any values before."""
    numbers = itertools.count()
    found = Network("network", SHAPE, source="source")
    values = {("source", 0): SHAPE}  # shapes without the batch

    def add(kind, inputs, shape, options=None, inside=None, name=None):
        name = name or f"layer_{next(numbers)}"
        found.layers.setdefault(name, LayerOf(kind, options or {}, inside))
        place = (name, sum(called == name for called, _ in found.calls))
        found.calls.append((name, tuple(inputs)))
        values[place] = shape
        return place

    shared = {}
    for kind, first, second, third in steps:
        places = list(values)
        one = places[-1 - first % min(3, len(places))]
        height, width, channels = values[one]
        alike = [place for place in places if values[place] == values[one]]
        beside = [place for place in places if values[place][:2] == values[one][:2]]
        if kind == "conv":
            options = convolution(2 + second % 3, 3, first, third)
            stride = 1 + third % 2
            options |= {"strides": [stride, stride], "dilation_rate": [1, 1] if stride > 1 else [1 + second % 2] * 2}
            add("Conv2D", [one], (-(-height // stride), -(-width // stride), 2 + second % 3), options)
        elif kind == "separable":
            options = convolution(2 + second % 3, 3, first, third) | {"depth_multiplier": 1 + third % 2}
            add("SeparableConv2D", [one], (height, width, 2 + second % 3), options)
        elif kind == "transposed":
            options = convolution(2 + second % 3, 2, first, third) | {"strides": [1 + third % 2, 1]}
            add("Conv2DTranspose", [one], (height * (1 + third % 2), width, 2 + second % 3), options)
        elif kind == "depthwise":
            options = convolution(0, 3, first, third) | {"depth_multiplier": 1 + second % 2}
            del options["filters"]
            add("DepthwiseConv2D", [one], (height, width, channels * (1 + second % 2)), options)
        elif kind in ("norm", "norm_parts"):
            add("BatchNormalization", [one], values[one], normalization(second, kind == "norm_parts"))
        elif kind == "activation":
            add("Activation", [one], values[one], {"activation": ACTIVATIONS[second % len(ACTIVATIONS)]})
        elif kind == "leaky":
            add("LeakyReLU", [one], values[one], {"negative_slope": (0.1, 0.3)[second % 2]})
        elif kind == "relu":
            options = {"max_value": (None, 6.0)[second % 2], "negative_slope": (0.0, 0.2)[third % 2], "threshold": 0.0}
            add("ReLU", [one], values[one], options)
        elif kind == "dropout":
            add("Dropout", [one], values[one], {"rate": 0.3})
        elif kind in ("max_pool", "average_pool"):
            stride = 1 + third % 2
            options = {"pool_size": [2, 2], "strides": [stride, stride], "padding": "same"}
            name = {"max_pool": "MaxPooling2D", "average_pool": "AveragePooling2D"}[kind]
            add(name, [one], (-(-height // stride), -(-width // stride), channels), options)
        elif kind == "pad":
            options = {"padding": [[1, second % 2], [0, 1]]}
            add("ZeroPadding2D", [one], (height + 1 + second % 2, width + 1, channels), options)
        elif kind == "enlarge":
            options = {"size": [1 + second % 2, 2], "interpolation": "nearest"}
            add("UpSampling2D", [one], (height * (1 + second % 2), width * 2, channels), options)
        elif kind == "merge":
            name = ("Add", "Multiply", "Average", "Maximum")[third % 4]
            add(name, [one, alike[second % len(alike)]], values[one])
        elif kind == "concatenate":
            two = beside[second % len(beside)]
            add("Concatenate", [one, two], (height, width, channels + values[two][2]), {"axis": (-1, 3)[third % 2]})
        elif kind == "times":
            add("times", [one], values[one], {"factor": (2.0, 0.5)[second % 2]})
        elif kind == "shared":
            name = shared.setdefault((kind, channels), f"layer_{next(numbers)}")
            options = convolution(channels, 3, second, third)
            add("Conv2D", [one], values[one], options, name=name)
        else:
            key = (kind, values[one])
            name = shared.setdefault(key, f"block_{next(numbers)}")
            inside = block(name, channels, values[one], second)
            add("Sequential" if kind == "nested_sequential" else "Functional", [one], values[one], None, inside, name)
    last = list(values)[-1]
    if head % 3:
        pooled = add("GlobalAveragePooling2D", [last], ()) if head % 3 == 1 else add("Flatten", [last], ())
        last = add("Dense", [pooled], (), {"units": 3, "activation": "softmax", "use_bias": bool(head % 2)})
    return Network(found.name, SHAPE, found.layers, found.calls, last, "source")


def check(network):
    """Every version's configuration becomes the graph that was built by hand; the versions that can write it."""
    found = []
    for name, dialect in DIALECTS.items():
        if not can_write(dialect, network):
            continue
        wanted = built(network, dialect)
        config = written(network, dialect)
        unchanged = json.dumps(config)
        model = model_from_config(config)
        assert json.dumps(config) == unchanged, name
        assert model == wanted, name
        assert [layer.name for layer in model.layers] == [layer.name for layer in wanted.layers], name
        found.append(name)
    return found


@pytest.mark.filterwarnings("ignore:.* does not store output_padding")  # Keras 3.0 to 3.14
@settings(COMMON, max_examples=60)
@given(recipes(6), NUMBERS)
def test_every_version_writes_the_same_graph(steps, head):
    assert len(check(network_of(steps, head))) >= 6


@pytest.mark.filterwarnings("ignore:.* does not store output_padding")  # Keras 3.0 to 3.14
@pytest.mark.slow
@settings(COMMON, max_examples=1500)
@given(recipes(14), NUMBERS)
def test_every_version_writes_the_same_graph_of_large_networks(steps, head):
    assert len(check(network_of(steps, head))) >= 6


def chain_of(steps, head):
    """The steps one after another, as far as a Sequential model has such layers; no merging, nothing shared."""
    found = network_of([(kind, 0, second, third) for kind, _, second, third in steps], head)
    if not found.is_chain:
        return None
    # Where the configuration of a Sequential model is a list it has no name, and gets this one.
    nested = [name for name, layer in found.layers.items() if layer.kind == "Sequential"]
    names = {name: f"sequential_{number}" if number else "sequential" for number, name in enumerate(nested)}
    source = f"{names.get(found.calls[0][0], found.calls[0][0])}_input"
    names["source"] = source

    def named(place):
        return names.get(place[0], place[0]), place[1]

    return Network(
        "network",
        SHAPE,
        {names.get(name, name): layer for name, layer in found.layers.items()},
        [(names.get(name, name), tuple(map(named, inputs))) for name, inputs in found.calls],
        named(found.output),
        source,
    )


def check_chain(network):
    """A Sequential model of every version is the graph that the Functional model of it is."""
    found = []
    for name, dialect in DIALECTS.items():
        if can_write(dialect, network):
            model = model_from_config(written(network, dialect, sequential=True))
            assert model.graph == built(network, dialect).graph, name
            found.append(name)
    return found


@pytest.mark.filterwarnings("ignore:.* does not store output_padding")  # Keras 3.0 to 3.14
@settings(COMMON, max_examples=60)
@given(recipes(5), NUMBERS)
def test_sequential_models_of_every_version(steps, head):
    network = chain_of(steps, head)
    assert network is None or len(check_chain(network)) >= 6


@pytest.mark.filterwarnings("ignore:.* does not store output_padding")  # Keras 3.0 to 3.14
@pytest.mark.slow
@settings(COMMON, max_examples=800)
@given(recipes(10), NUMBERS)
def test_long_sequential_models_of_every_version(steps, head):
    network = chain_of(steps, head)
    assert network is None or len(check_chain(network)) >= 6


def in_keras(network):
    """The network as Keras itself makes it."""
    import keras

    made, values = {}, {(network.source, 0): keras.Input(network.shape, name=network.source)}
    for name, layer in network.layers.items():
        if layer.inside is None:
            made[name] = getattr(keras.layers, layer.kind)(**layer.options, name=name)
            continue
        inner = in_keras(layer.inside)
        made[name] = inner
        if layer.kind == "Sequential":
            made[name] = keras.Sequential([keras.Input(layer.inside.shape, name=layer.inside.source)], name=name)
            for each in inner.layers[1:]:
                made[name].add(each)
    for name, inputs in network.calls:
        number = sum(called == name for called, _ in values)
        nodes = [values[place] for place in inputs]
        values[name, number] = made[name](nodes if len(nodes) > 1 else nodes[0])
    return keras.Model(values[network.source, 0], values[network.output], name=network.name)


@pytest.mark.slow
@settings(COMMON, max_examples=100)
@given(steps(SINCE_2, 8), NUMBERS)
def test_keras_itself_writes_the_same_graph(steps, head):
    network = network_of(steps, head)
    config = json.loads(in_keras(network).to_json())
    assert model_from_config(config) == built(network, DIALECTS["Keras 3.15"])


KERAS1_NAMES = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}


def write_weights(path, model, variables, config, dialect):
    """A whole-model file of HDF5 as versions before 3 write it."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({key: config[key] for key in ("class_name", "config")}).encode()
        weights = file.create_group("model_weights")
        for place in (file, weights) if dialect.era > 1 else (file,):
            place.attrs["keras_version"] = dialect.version.encode()
            if dialect.era > 1:
                place.attrs["backend"] = dialect.backend.encode()
        weights.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group, names = weights.create_group(layer.name), []
            for target in sorted(layer_targets(layer), key=lambda target: target.collection != "params"):
                array = variables
                for key in target.path:
                    array = array[key]
                array = np.asarray(array)
                if dialect.era == 1 and target.class_name == "Conv2DTranspose" and target.variable == "kernel":
                    array = array.transpose(0, 1, 3, 2)
                variable = KERAS1_NAMES.get(target.variable, target.variable) if dialect.era == 1 else target.variable
                names.append(f"{target.layers[-1]}{'_' if dialect.era == 1 else '/'}{variable}:0")
                group[names[-1]] = array
            group.attrs["weight_names"] = np.array(names, "S")


@settings(COMMON, max_examples=8)
@given(steps(IN_KERAS_1, 5), NUMBERS)
def test_weights_of_every_version_before_3(steps, head):
    """The same arrays from the file of each version, and so the same outputs: the graphs are equal."""
    network = network_of(steps, head)
    wanted = built(network, DIALECTS["Keras 2.3"])
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda array: random.uniform(0.5, 1.0, np.shape(array)).astype("float32"), wanted.init_variables()
    )
    for name, dialect in DIALECTS.items():
        if dialect.era < 3 and not dialect.archive:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
                warnings.simplefilter("error")
                path = Path(folder) / "model.h5"
                write_weights(path, wanted, variables, written(network, dialect), dialect)
                found = flaxapps.load_model(path)
            assert found.model == built(network, dialect), name
            assert jax.tree.structure(dict(found.variables)) == jax.tree.structure(variables), name
            assert jax.tree.all(jax.tree.map(np.array_equal, dict(found.variables), variables)), name


def shared_out_of_order():
    """A layer whose first call needs more than its second, and stands before what it needs."""
    network = Network("network", (4, 4, 3), output=("difference", 0))
    for name in ("shared", "long", "longer"):
        network.layers[name] = LayerOf("Conv2D", convolution(3, 3, 0, 1))
    network.layers["difference"] = LayerOf("Concatenate", {"axis": -1})
    network.calls.extend([("long", (("source", 0),)), ("longer", (("long", 0),)), ("shared", (("longer", 0),))])
    network.calls.extend([("shared", (("source", 0),)), ("difference", (("shared", 0), ("shared", 1)))])
    return network


@pytest.mark.parametrize("name", DIALECTS)
def test_calls_of_a_shared_layer_keep_their_numbers(name):
    network = shared_out_of_order()
    model = model_from_config(written(network, DIALECTS[name]))
    assert model == built(network, DIALECTS[name])
    assert model.graph.steps[-1].inputs == (3, 4)


def deconvolution(output_shape):
    network = Network("network", (4, 4, 3), output=("up", 0))
    network.layers["up"] = LayerOf("Conv2DTranspose", convolution(2, 3, 0, 1) | {"strides": [2, 2]})
    network.calls.append(("up", (("source", 0),)))
    config = written(network, DIALECTS["Keras 1.2"])
    config["config"]["layers"][1]["config"]["output_shape"] = output_shape
    return config


@pytest.mark.parametrize("output_shape", [None, [None, 8, 8, 2], [5, 8, 8, 2], [None, None, None, 2]])
def test_output_shape_of_keras_1_that_is_the_usual_one(output_shape):
    assert model_from_config(deconvolution(output_shape)).output_shape == (None, 8, 8, 2)


@pytest.mark.parametrize("output_shape", [[None, 7, 8, 2], [None, 8, 7, 2], [None, 8, 8], "8", [None, 8, 8, -2]])
def test_output_shape_of_keras_1_that_later_versions_do_not_give(output_shape):
    with pytest.raises(ValueError, match=r"'up' of kind Conv2DTranspose.*output_shape is"):
        model_from_config(deconvolution(output_shape))
