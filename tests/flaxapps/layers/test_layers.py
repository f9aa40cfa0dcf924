"""Every layer kind against Keras 3.15's of the same configuration, and the errors of layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxapps import Input, Model, layers
from flaxapps.layers.activations import ACTIVATIONS
from flaxapps.ops import primitives as ops
from tests.recipe import relative_difference
from weight_port.layout import LAYOUT

EVEN, ODD, VECTOR = (6, 8, 4), (7, 5, 4), (12,)
CONVOLUTIONS = [
    ({}, EVEN),
    ({"strides": 2}, ODD),
    ({"strides": 2, "padding": "same"}, EVEN),
    ({"strides": 2, "padding": "same"}, ODD),
    ({"padding": "same", "dilation_rate": 2}, ODD),
    ({"dilation_rate": (2, 1), "use_bias": False}, EVEN),
    ({"kernel_size": (1, 2), "padding": "SAME", "activation": "relu"}, ODD),
]
POOLINGS = [
    ({"pool_size": 2}, ODD),
    ({"pool_size": 2, "padding": "same"}, ODD),
    ({"pool_size": 3, "strides": 2, "padding": "same"}, EVEN),
    ({"pool_size": (2, 3), "strides": (1, 2)}, EVEN),
    ({"pool_size": 3, "strides": 1, "padding": "same"}, ODD),
]
NORMALIZATIONS = [{}, {"epsilon": 0.5}, {"center": False}, {"scale": False}, {"axis": 3}]
PADDINGS = [{}, {"padding": 2}, {"padding": (1, 2)}, {"padding": ((1, 2), (3, 0))}]
CASES = [
    *[("Conv2D", {"filters": 6, "kernel_size": 3} | case, shape) for case, shape in CONVOLUTIONS],
    ("Conv2D", {"filters": 6, "kernel_size": 3, "strides": (2, 3), "padding": "same"}, EVEN),
    ("Conv2D", {"filters": 6, "kernel_size": 1, "strides": 2, "padding": "same", "activation": "tanh"}, EVEN),
    ("Conv2D", {"filters": 6, "kernel_size": 3, "groups": 2}, EVEN),
    ("Conv2D", {"filters": 8, "kernel_size": 3, "groups": 4, "padding": "same", "strides": 2}, ODD),
    *[("SeparableConv2D", {"filters": 6, "kernel_size": 3} | case, shape) for case, shape in CONVOLUTIONS],
    ("SeparableConv2D", {"filters": 6, "kernel_size": (3, 2), "depth_multiplier": 3}, EVEN),
    ("Dense", {"units": 5}, VECTOR),
    ("Dense", {"units": 5, "use_bias": False, "activation": "sigmoid"}, ODD),
    ("Dense", {"units": 5, "activation": "softmax"}, VECTOR),
    *[("BatchNormalization", case, EVEN) for case in NORMALIZATIONS],
    ("BatchNormalization", {"center": False, "scale": False, "epsilon": 1.001e-5}, VECTOR),
    *[("Activation", {"activation": name}, ODD) for name in ACTIVATIONS if name != "glu"],  # Keras misstates its shape
    *[(kind, *case) for kind in ("MaxPooling2D", "AveragePooling2D") for case in POOLINGS],
    *[(f"Global{kind}Pooling2D", {"keepdims": keep}, ODD) for kind in ("Average", "Max") for keep in (False, True)],
    *[("ZeroPadding2D", case, ODD) for case in PADDINGS],
    ("Flatten", {}, ODD),
    ("Flatten", {}, VECTOR),
    ("Dropout", {"rate": 0.5}, ODD),
    ("Add", {}, [ODD, ODD]),
    ("Add", {}, [VECTOR, VECTOR, VECTOR]),
    ("Concatenate", {}, [(4, 5, 2), (4, 5, 1), (4, 5, 3)]),
    ("Concatenate", {"axis": 1}, [(4, 5, 2), (1, 5, 2)]),
    ("Concatenate", {"axis": -2}, [(4, 5, 2), (4, 3, 2)]),
]
IDS = [f"{number}-{kind}" for number, (kind, _, _) in enumerate(CASES)]


def random_weights(shapes, seed=0):
    generator = np.random.default_rng(seed)
    return {
        leaf: (generator.uniform(0.5, 2, shape) if leaf == "var" else generator.normal(size=shape)).astype(np.float32)
        for leaf, shape in shapes.items()
    }


def random_inputs(shapes, batch=3, seed=1):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(batch, *shape)).astype(np.float32) for shape in shapes]


def both(kind, config, shapes):
    """Our model of one layer and its variables, and the Keras layer with the same weights."""
    import keras

    with jax.numpy_dtype_promotion("standard"):
        theirs = getattr(keras.layers, kind)(**config)
        theirs.build([(None, *shape) for shape in shapes] if len(shapes) > 1 else (None, *shapes[0]))
    nodes = [Input(shape) for shape in shapes]
    output = getattr(layers, kind)(**config, name="layer")(nodes if len(nodes) > 1 else nodes[0])
    model = Model(nodes if len(nodes) > 1 else nodes[0], output)
    leaves = {LAYOUT[kind][variable.name]: variable for variable in theirs.weights}
    arrays = random_weights({leaf: tuple(variable.shape) for leaf, variable in leaves.items()})
    owned = model.get_layer("layer").weights
    assert {leaf: weight.shape for leaf, weight in owned.items()} == {leaf: a.shape for leaf, a in arrays.items()}
    tree = {}
    for leaf, weight in owned.items():
        leaves[leaf].assign(arrays[leaf])
        tree.setdefault(weight.collection, {}).setdefault("layer", {})[leaf] = arrays[leaf]
    return model, tree, theirs


def call_keras(layer, inputs, **options):
    with jax.numpy_dtype_promotion("standard"):
        return np.asarray(layer(inputs if len(inputs) > 1 else inputs[0], **options))


@pytest.mark.parametrize(("kind", "config", "shape"), CASES, ids=IDS)
def test_numbers_are_those_of_keras(kind, config, shape):
    shapes = shape if isinstance(shape, list) else [shape]
    model, variables, theirs = both(kind, config, shapes)
    inputs = random_inputs(shapes)
    ours = model.apply(variables, inputs if len(inputs) > 1 else inputs[0])
    assert relative_difference(ours, call_keras(theirs, inputs)) <= 1e-5
    assert ours.dtype == np.float32
    assert model.output_shape == (None, *ours.shape[1:])


@pytest.mark.parametrize(("kind", "config", "shape"), CASES, ids=IDS)
def test_free_sizes_are_inferred_as_in_keras(kind, config, shape):
    import keras

    shapes = shape if isinstance(shape, list) else [shape]
    if len(shapes[0]) == 3:  # height and width are free
        shapes = [(None, None, channels) for *_, channels in shapes]
    whole = [(None, *each) for each in shapes]
    with jax.numpy_dtype_promotion("standard"):
        expected = getattr(keras.layers, kind)(**config).compute_output_shape(whole if len(whole) > 1 else whole[0])
    nodes = [Input(each) for each in shapes]
    assert getattr(layers, kind)(**config)(nodes if len(nodes) > 1 else nodes[0]).shape == expected


@pytest.mark.parametrize("shape", [(2, 3, 4), (5,)], ids=str)
@pytest.mark.parametrize(
    "config", [{}, {"momentum": 0.9, "epsilon": 0.1}, {"scale": False}, {"center": False}], ids=str
)
def test_batch_normalization_in_training(config, shape):
    model, variables, theirs = both("BatchNormalization", config, [shape])
    for seed in range(2):  # the second batch starts from what the first one left
        inputs = random_inputs([shape], seed=seed)
        ours, updates = model.apply(variables, inputs[0], train=True, mutable=["batch_stats"])
        assert relative_difference(ours, call_keras(theirs, inputs, training=True)) <= 1e-5
        variables = variables | updates
        moved = updates["batch_stats"]["layer"]
        assert relative_difference(moved["mean"], np.asarray(theirs.moving_mean)) <= 1e-6
        assert relative_difference(moved["var"], np.asarray(theirs.moving_variance)) <= 1e-6


def test_batch_normalization_moves_by_the_biased_variance_of_the_batch():
    model, variables, _ = both("BatchNormalization", {}, [(1,)])
    x = np.array([[0.0], [2.0]], np.float32)  # variance 1, or 2 with n - 1
    _, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
    before, after = variables["batch_stats"]["layer"], updates["batch_stats"]["layer"]
    np.testing.assert_allclose(after["mean"], 0.99 * before["mean"] + 0.01 * 1, rtol=1e-6)
    np.testing.assert_allclose(after["var"], 0.99 * before["var"] + 0.01 * 1, rtol=1e-6)


def test_batch_normalization_of_bfloat16_keeps_statistics_in_float32():
    node = Input((5,), dtype="bfloat16")
    model = Model(node, layers.BatchNormalization(name="layer")(node))
    x = 100 + np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    output, updates = model.apply(model.init_variables(), x, train=True, mutable=["batch_stats"])
    moved = updates["batch_stats"]["layer"]
    assert output.dtype == jnp.bfloat16
    assert {leaf: array.dtype for leaf, array in moved.items()} == {"mean": np.float32, "var": np.float32}
    rounded = np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
    np.testing.assert_allclose(moved["mean"], 0.01 * rounded.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moved["var"], 0.99 + 0.01 * rounded.var(0), rtol=1e-5)


def dropout(rate=0.25, shape=(50, 40, 30), **config):
    node = Input(shape)
    return Model(node, layers.Dropout(rate, **config)(node)), np.full((2, *shape), 3, np.float32)


def drop(model, x, seed=0):
    return np.asarray(model.apply({}, x, train=True, rngs={"dropout": jax.random.key(seed)}))


def test_dropout_zeroes_a_fraction_and_scales_the_rest():
    model, x = dropout()
    output = drop(model, x)
    assert set(np.unique(output)) == {0, 4}
    assert np.mean(output == 0) == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / x.size))
    assert np.mean(output) == pytest.approx(3, rel=0.01)


def test_dropout_follows_its_key_and_its_layer():
    model, x = dropout()
    np.testing.assert_array_equal(drop(model, x), drop(model, x))
    assert np.mean(drop(model, x) != drop(model, x, seed=1)) > 0.3
    node = Input((50,))
    first = layers.Dropout(0.5)(node)
    two = Model(node, [first, layers.Dropout(0.5)(node)])
    one, other = two.apply({}, np.ones((4, 50), np.float32), train=True, rngs={"dropout": jax.random.key(0)})
    assert np.mean(one != other) > 0.3


def test_dropout_does_nothing_in_inference_or_at_rate_0():
    model, x = dropout()
    np.testing.assert_array_equal(model.apply({}, x), x)
    without = dropout(rate=0)[0]
    np.testing.assert_array_equal(without.apply({}, x, train=True), x)


def test_dropout_of_whole_channels():
    model, x = dropout(rate=0.5, noise_shape=(None, 1, 1, None))
    output = drop(model, x)
    assert set(np.unique(output)) == {0, 6}
    assert np.all(output == output[:, :1, :1])


def test_dropout_without_a_key_says_so():
    model, x = dropout()
    with pytest.raises(Exception, match="dropout") as caught:
        model.apply({}, x, train=True)
    assert any("In layer 'dropout' of kind Dropout" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("kind", ["Activation", "Dense"])
def test_softmax_of_bfloat16_is_float32(kind):
    node = Input((100,), dtype="bfloat16")
    layer = layers.Activation("softmax") if kind == "Activation" else layers.Dense(100, activation="softmax")
    model = Model(node, layer(node))
    output = model.apply(model.init_variables(), *random_inputs([(100,)]))
    assert output.dtype == np.float32
    np.testing.assert_allclose(output.sum(-1), 1, rtol=1e-5)


def test_a_layer_computes_in_its_own_dtype():
    node = Input((8,))
    half = layers.Dense(4, dtype="bfloat16")(node)
    model = Model(node, [half, layers.Dense(4, dtype="float32")(half)])
    assert [output.dtype for output in model.apply(model.init_variables(), *random_inputs([(8,)]))] == [
        "bfloat16",
        "float32",
    ]


def test_activation_by_function():
    node = Input((8,))
    model = Model(node, [layers.Activation(jnp.sin)(node), layers.Dense(3, activation=jnp.sin)(node)])
    (x,) = random_inputs([(8,)])
    np.testing.assert_allclose(model.apply(model.init_variables(), x)[0], np.sin(x), rtol=1e-6)


def test_shorthands_are_one_configuration():
    assert layers.Conv2D(4, 3, strides=2) == layers.Conv2D(4, [3, 3], strides=(2, 2), padding="VALID")
    assert layers.MaxPooling2D(3) == layers.MaxPooling2D((3, 3), strides=3)
    assert layers.ZeroPadding2D(1) == layers.ZeroPadding2D(((1, 1), (1, 1))) == layers.ZeroPadding2D([1, [1, 1]])
    assert layers.Conv2D(4, 3).kernel_size == (3, 3)


IMAGE, VALUES = Input((8, 8, 3)), Input((8,))
WRONG = [  # layer, what it is called on, what the message says
    (lambda: layers.Conv2D(4, 3, name="layer"), VALUES, r"Expected images .*\(None, 8\)"),
    (lambda: layers.SeparableConv2D(4, 3, name="layer"), VALUES, "Expected images"),
    (lambda: layers.MaxPooling2D(name="layer"), VALUES, "Expected images"),
    (lambda: layers.GlobalAveragePooling2D(name="layer"), VALUES, "Expected images"),
    (lambda: layers.ZeroPadding2D(name="layer"), VALUES, "Expected images"),
    (lambda: layers.Conv2D(4, 9, name="layer"), IMAGE, "too small here: 8 pixels under a window of 9"),
    (lambda: layers.Conv2D(4, 3, dilation_rate=4, name="layer"), IMAGE, "8 pixels under a window of 9"),
    (lambda: layers.AveragePooling2D((2, 10), name="layer"), IMAGE, "8 pixels under a window of 10"),
    (lambda: layers.BatchNormalization(axis=0, name="layer"), IMAGE, "axis other than the batch, got 0"),
    (lambda: layers.Add(name="layer"), [IMAGE, VALUES], "inputs of one shape"),
    (lambda: layers.Concatenate(name="layer"), [IMAGE, VALUES], "differ only along axis -1"),
]


@pytest.mark.parametrize(("make", "inputs", "message"), WRONG, ids=range(len(WRONG)))
def test_errors_while_recording_name_layer_and_kind(make, inputs, message):
    layer = make()
    with pytest.raises(ValueError, match=message) as caught:
        layer(inputs)
    assert any(f"'layer' of kind {layer.class_name}, on [(None, 8" in note for note in caught.value.__notes__)


def test_errors_while_computing_name_layer_kind_and_shapes():
    node = Input((None, None, 3))
    model = Model(node, layers.Conv2D(4, 3, activation=lambda x: x @ x, name="layer")(node))
    with pytest.raises(TypeError) as caught:
        model.apply(model.init_variables(), np.ones((2, 8, 9, 3), np.float32))
    notes = caught.value.__notes__
    assert any("In layer 'layer' of kind Conv2D, on inputs of shape [(2, 8, 9, 3)]" in note for note in notes)


def test_too_small_an_image_at_run_time_names_the_layer():
    node = Input((None, None, 3))
    model = Model(node, layers.MaxPooling2D(3, name="pool")(layers.MaxPooling2D(3)(node)))
    with pytest.raises(ValueError, match="too small here: 2 pixels under a window of 3") as caught:
        model.apply({}, np.ones((1, 8, 9, 3), np.float32))
    assert any("In layer 'pool' of kind MaxPooling2D" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("kind", ["Conv2D", "SeparableConv2D", "Dense", "Activation"])
def test_unknown_activation(kind):
    config = {"Conv2D": (4, 3), "SeparableConv2D": (4, 3), "Dense": (4,), "Activation": ()}[kind]
    with pytest.raises(ValueError, match=r"Unknown activation 'swoosh'\. .*register_activation\('swoosh'\)"):
        getattr(layers, kind)(*config, activation="swoosh")(IMAGE)


@pytest.mark.parametrize(
    "make",
    [lambda **options: layers.Conv2D(4, 3, **options), lambda **options: layers.AveragePooling2D(2, **options)],
    ids=["Conv2D", "AveragePooling2D"],
)
def test_unknown_padding(make):
    with pytest.raises(ValueError, match='"valid" or "same", got \'causal\''):
        make(padding="causal")


@pytest.mark.parametrize(
    ("config", "channels"),
    [({"filters": 4, "groups": 2}, 3), ({"filters": 4, "groups": 3}, 3)],
    ids=["inputs", "filters"],
)
def test_groups_that_do_not_divide_the_channels(config, channels):
    with pytest.raises(ValueError, match="group"):
        layers.Conv2D(kernel_size=3, **config)(Input((8, 8, channels)))


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_dropout_rates_are_fractions(rate):
    with pytest.raises(ValueError, match="rate"):
        layers.Dropout(rate)


def test_an_unknown_number_of_channels_has_no_weights():
    node = Input((None, None, None))
    with pytest.raises(ValueError, match="last dimension must be known"):
        Model(node, layers.Conv2D(4, 3)(node)).init_variables()


def test_an_empty_batch_passes_every_layer():
    node = Input((8, 8, 3))
    x = layers.MaxPooling2D()(layers.BatchNormalization()(layers.Conv2D(4, 3)(node)))
    model = Model(node, layers.Dense(2)(layers.Flatten()(x)))
    assert model.apply(model.init_variables(), np.ones((0, 8, 8, 3), np.float32)).shape == (0, 2)


@pytest.mark.parametrize("inputs", [25088, 2048, 25087, 7])
def test_dense_of_a_single_row_is_exact(inputs):
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 1, (1, inputs)).astype(np.float32)
    kernel = generator.uniform(0, 1, (inputs, 16)).astype(np.float32)
    exact = x.astype(np.float64) @ kernel.astype(np.float64)
    assert relative_difference(jax.jit(ops.dense)(x, kernel), exact) < 1e-6
    weights = generator.uniform(0, 1, 16).astype(np.float32)
    to_x, to_kernel = jax.jit(jax.grad(lambda x, kernel: (ops.dense(x, kernel) * weights).sum(), (0, 1)))(x, kernel)
    assert relative_difference(to_x, weights.astype(np.float64)[None] @ kernel.T.astype(np.float64)) < 1e-6
    assert relative_difference(to_kernel, x.T.astype(np.float64) * weights.astype(np.float64)) < 1e-6


@pytest.mark.parametrize("shape", [(1, 6), (3, 6), (1, 1, 6), (2, 3, 6), (6,), (0, 6)], ids=str)
def test_dense_keeps_the_leading_dimensions(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    np.testing.assert_allclose(ops.dense(jnp.asarray(x), jnp.asarray(kernel)), x @ kernel, rtol=1e-5, atol=1e-6)
