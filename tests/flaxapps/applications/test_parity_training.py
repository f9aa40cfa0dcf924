"""Training mode of one network per family against Keras 3.15 on JAX: outputs, statistics, and every gradient.

All in float64: gradients that are 0 in exact arithmetic are made of rounding in float32.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxapps
from flaxapps import train
from flaxapps.registry import build_model
from flaxapps.transforms.dtype import with_dtype
from tests.networks import compiled, keras_network, zero_initial_weights
from tests.recipe import FAMILIES, HEADS, images_for, recipe_variables, relative_difference
from weight_port.layout import layer_targets

TOLERANCE = 1e-9
RATES = ("rate", "drop_path_rate")
# NASNet's gradients take two minutes to compile, and large products in float64 are slow; up to here there is every kind
# of block.
LAST_LAYERS = {
    "nasnet_mobile": "normal_concat_0",
    "vgg16": "block3_pool",
    "convnext_tiny": "convnext_tiny_stage_1_block_1_identity",
}
FIRST = [names[0] for module, names in FAMILIES.items() if module != "flaxapps.vgg19"]  # that is VGG16's family


def without_noise(model, variables):
    """The model with rates of 0, which draw no random numbers."""

    def rule(layer, inputs, weights):
        found = [name for name in RATES if hasattr(layer, name)]
        return dataclasses.replace(layer, **dict.fromkeys(found, 0.0))(inputs[0]) if found else None

    return flaxapps.rewrite(model, variables, rule)


def by_target(model, network, values):
    """Keras's values of variables as a tree of ours."""
    order = {id(variable): value for variable, value in values}
    tree = {}
    for layer, theirs in zip(model.layers, network.layers, strict=True):
        for target, variable in zip(layer_targets(layer), theirs.weights, strict=True):
            if id(variable) in order:
                branch = tree
                for key in target.path[:-1]:
                    branch = branch.setdefault(key, {})
                branch[target.path[-1]] = order[id(variable)]
    return tree


def differences(ours, theirs, floor=0.0):
    """Of every array, the largest difference over the largest value, or over `floor` times that of all arrays."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    least = floor * max((np.abs(each).max() for each in jax.tree.leaves(theirs)), default=0)
    paired = jax.tree.map(lambda a, b: np.abs(a - b).max() / max(np.abs(b).max(), least), ours, theirs)
    found = {jax.tree_util.keystr(path): value for path, value in jax.tree_util.tree_leaves_with_path(paired)}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


@pytest.fixture
def float64(monkeypatch):
    """Keras and JAX in float64: in float32, rounding decides on gradients that are 0 or pass kinks of activations."""
    import keras

    promoted = keras.src.backend.result_type  # to float32 at most: normalizations and means would compute in it
    for module in (keras.src.backend, keras.src.backend.common.dtypes):
        monkeypatch.setattr(
            module, "result_type", lambda *given: "float64" if "float64" in map(str, given) else promoted(*given)
        )
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    with jax.enable_x64(True):
        yield np.float64
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST)
def test_statistics_and_gradients_of_a_training_step(name, float64):
    import keras

    size = max(64, flaxapps.model_info(name).possible_size)
    shape = (size, size, 3)
    network = keras_network(name, include_top=False, input_shape=shape, pooling="avg")
    for layer in network.layers:
        for rate in RATES:
            if hasattr(layer, rate):
                setattr(layer, rate, 0.0)
    model = build_model(name, include_top=False, input_shape=shape, pooling="avg", min_size=size)
    variables = jax.tree.map(float64, recipe_variables(model))
    if name in LAST_LAYERS:
        network = keras.Model(network.input, network.get_layer(LAST_LAYERS[name]).output)
        model = flaxapps.Model(model.input, model.get_layer(LAST_LAYERS[name]).output)
        names = {layer.name for layer in model.layers}
        variables = {kind: {key: tree[key] for key in tree if key in names} for kind, tree in variables.items()}
    images = images_for(name, 3, (4, *shape)).astype(float64)
    direction = np.random.default_rng(0).normal(size=model.output_shape[-1])

    def theirs(trained, others, x):
        outputs, others = network.stateless_call(trained, others, x, training=True)
        return (outputs * direction).sum(), (outputs, others)

    values = [[each.value for each in kind] for kind in (network.trainable_variables, network.non_trainable_variables)]
    with jax.numpy_dtype_promotion("standard"):
        (_, (expected, statistics)), slopes = compiled(jax.value_and_grad(theirs, has_aux=True), *values, images)

    def ours(params, statistics, x):
        given = {"params": params} | ({"batch_stats": statistics} if statistics else {})
        outputs, updates = quiet.apply(given, x, train=True, mutable=["batch_stats"])
        return (outputs * direction).sum(), (outputs, updates.get("batch_stats", {}))

    quiet, variables = without_noise(with_dtype(model, float64.__name__), variables)
    arrays = (variables["params"], variables.get("batch_stats", {}))
    (_, (outputs, updated)), gradients = compiled(jax.value_and_grad(ours, has_aux=True), *arrays, images)
    assert outputs.dtype == expected.dtype == float64
    assert relative_difference(outputs, expected) <= TOLERANCE
    stored = by_target(model, network, zip(network.non_trainable_variables, statistics, strict=True))
    assert max(differences(updated, stored.get("batch_stats", {})).values(), default=0) <= TOLERANCE
    found = by_target(model, network, zip(network.trainable_variables, slopes, strict=True))
    # Biases before another normalization have no gradient in training: there is nothing but rounding.
    worst = differences(gradients, found["params"], floor=1e-3)
    assert max(worst.values()) <= TOLERANCE, list(worst.items())[:5]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("efficientnetb0", {"drop_connect_rate": 0.8}), ("efficientnetv2-b0", {"drop_connect_rate": 0.8}),
     ("convnext_tiny", {"drop_path_rate": 0.8})],
)  # fmt: skip # kept on few lines on purpose
def test_stochastic_depth_drops_whole_images_of_the_last_block(name, arguments):
    """A branch is 0 or 1 / (1 - rate) times what it was, for each image of its own; the last rate is the given one."""
    model = build_model(name, weights=None, include_top=False, input_shape=(32, 32, 3), **arguments)
    drops = [layer for layer in model.layers if layer.class_name in ("Dropout", "StochasticDepth")]
    rates = [getattr(layer, "rate", None) or layer.drop_path_rate for layer in drops]
    assert rates == sorted(rates)
    assert 0.6 < rates[-1] <= 0.8
    last = drops[-1]
    part = flaxapps.Model(last.calls[0].inputs[0], last.output)
    ones = jnp.ones((4000, *last.output_shape[1:3], 2))
    dropped = last.layer.call_training({}, ones, make_key=lambda: jax.random.key(0), batch=None)[0]
    assert part.layers[-1].name == last.name
    kept = np.asarray(dropped[:, 0, 0, 0]) > 0
    np.testing.assert_allclose(dropped, np.where(kept, 1 / (1 - rates[-1]), 0)[:, None, None, None] * ones, rtol=1e-6)
    assert np.mean(kept) == pytest.approx(1 - rates[-1], abs=0.03)


def test_rates_are_those_of_keras():
    """Of builders that Keras does not export. The last rates of EfficientNetV2-B3 are above the given one."""
    import keras
    from keras.src.applications import convnext, efficientnet, efficientnet_v2

    options = {"weights": None, "include_top": False, "input_shape": (32, 32, 3)}
    connect, path = {"drop_connect_rate": 0.3}, {"drop_path_rate": 0.3, "layer_scale_init_value": None}
    rows = (
        ("efficientnetb1", connect, lambda **given: efficientnet.EfficientNet(1.0, 1.1, 240, **given)),
        ("efficientnetv2-b3", connect, lambda **given: efficientnet_v2.EfficientNetV2(1.2, 1.4, 300, **given)),
        ("convnext_tiny", path, lambda **given: convnext.ConvNeXt([3, 3, 9, 3], [96, 192, 384, 768], **given)),
    )
    for name, own, build in rows:
        keras.backend.clear_session()
        with zero_initial_weights():
            network = build(name=name, **own, **options)
        model = build_model(name, **own, **options)
        assert [layer.name for layer in model.layers] == [layer.name for layer in network.layers]
        for mine, other in zip(model.layers, network.layers, strict=True):
            for rate in RATES:
                assert getattr(mine, rate, None) == getattr(other, rate, None)


@pytest.mark.parametrize("name", HEADS)
def test_layers_are_frozen_by_index_and_by_name(name):
    model = build_model(name)
    half = len(model.layers) // 2
    frozen = train.frozen_layers(model, until=half + 1)
    assert frozen == train.frozen_layers(model, until=model.layers[half].name)
    assert {path for path in frozen if "/" not in path} == {layer.name for layer in model.layers[: half + 1]}
