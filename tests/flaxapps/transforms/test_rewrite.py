"""Rules on models: what is kept, replaced, removed, shared, nested, and what is refused."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxapps import Input, Model, layers, rewrite
from tests.recipe import relative_difference

IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("f4")


def keep(layer, inputs, weights):
    return None


def small(name=None):
    x = Input((8, 8, 4))
    y = layers.Activation("relu", name="relu")(layers.Conv2D(4, 3, name="conv")(x))
    return Model(x, layers.BatchNormalization(name="norm")(y), name=name)


def test_keeping_everything_gives_an_equal_model_and_the_same_arrays():
    model = small("net")
    variables = model.init_variables()
    kept, arrays = rewrite(model, variables, keep)
    assert kept is not model
    assert kept == model
    assert jax.tree.structure(arrays) == jax.tree.structure(variables)
    assert all(mine is other for mine, other in zip(jax.tree.leaves(arrays), jax.tree.leaves(variables), strict=True))


def test_a_rule_sees_every_layer_once_in_order_with_inputs_and_arrays():
    x = Input((8, 8, 4))
    convolution = layers.Conv2D(4, 3, padding="same", name="conv")
    inner = small("inner")
    y = convolution(convolution(x))
    model = Model(x, layers.Add(name="add")([inner(y), inner(x)]))
    seen = []

    def note(layer, inputs, weights):
        seen.append((layer.name, [node.shape for node in inputs], sorted(weights)))

    assert rewrite(model, model.init_variables(), note).model == model
    image, small_image = (None, 8, 8, 4), (None, 6, 6, 4)
    assert seen == [
        ("conv", [image], ["bias", "kernel"]),
        ("conv", [image], ["bias", "kernel"]),
        ("relu", [small_image], []),
        ("norm", [small_image], ["bias", "mean", "scale", "var"]),
        ("add", [small_image, small_image], []),
    ]


def test_another_activation_in_a_nested_model():
    x = Input((8, 8, 4))
    model = Model(x, small("inner")(x))
    variables = model.init_variables()

    def smooth(layer, inputs, weights):
        return layers.Activation("gelu", name=layer.name)(inputs) if layer.name == "relu" else None

    smoothed, arrays = rewrite(model, variables, smooth)
    weights = variables["params"]["inner"]["conv"]
    with jax.numpy_rank_promotion("allow"):  # as for layers inside a model
        expected = jax.nn.gelu(layers.Conv2D(4, 3).call(weights, jnp.asarray(IMAGES)), approximate=False)
    assert relative_difference(smoothed.apply(arrays, IMAGES), expected / np.sqrt(1.001)) <= 1e-5
    assert model == Model(x, small("inner")(x))  # the given model is as it was


def test_another_normalization_has_the_arrays_of_the_old_that_fit_and_fresh_ones():
    model = small()
    variables = jax.tree.map(lambda array: array + 0.5, model.init_variables())

    def instance(layer, inputs, weights):
        if isinstance(layer, layers.BatchNormalization):
            return layers.PReLU(name="slope")(layers.GroupNormalization(groups=2, name=layer.name)(inputs))

    changed, arrays = rewrite(model, variables, instance)
    assert [layer.class_name for layer in changed.layers[-2:]] == ["GroupNormalization", "PReLU"]
    assert arrays["params"]["norm"]["scale"] is variables["params"]["norm"]["scale"]
    assert "batch_stats" not in arrays
    assert arrays["params"]["slope"]["alpha"].shape == (6, 6, 4)
    changed.apply(arrays, IMAGES)


def test_removing_layers_and_giving_arrays():
    model = small()
    variables = model.init_variables()

    def doubled(layer, inputs, weights):
        if layer.class_name == "BatchNormalization":
            return inputs[0]
        if layer.class_name == "Conv2D":
            return layer(inputs), {layer.name: {"kernel": weights["kernel"] * 2}}

    changed, arrays = rewrite(model, variables, doubled)
    base = Model(model.input, model.get_layer("relu").output)
    assert set(arrays) == {"params"}
    assert relative_difference(changed.apply(arrays, IMAGES), 2 * base.apply(variables, IMAGES)) <= 1e-6


def test_what_takes_the_place_of_a_shared_layer_is_shared_and_keeps_its_modes():
    x = Input((8, 8, 4))
    norm = layers.BatchNormalization(name="norm")
    model = Model(x, norm(norm(x), training=False))
    probe = layers.Activation("relu", name="probe")

    def insert(layer, inputs, weights):
        return probe(layer(inputs)) if layer.name == "norm" else None

    probed, arrays = rewrite(model, model.init_variables(), insert)
    assert [len(layer.calls) for layer in probed.layers] == [1, 2, 2]
    assert [step.training for step in probed.graph.steps] == [None, None, False, False]
    assert relative_difference(probed.apply(arrays, IMAGES), np.maximum(IMAGES, 0) / 1.001) <= 1e-4


def test_automatic_names_stay_clear_of_later_layers():
    x = Input((8, 8, 4))
    y = layers.Conv2D(4, 3, name="first")(x)
    model = Model(x, layers.Activation("relu", name="activation")(layers.Activation("tanh", name="activation_1")(y)))

    def insert(layer, inputs, weights):
        assert inputs[0].layer.name
        return layers.Activation("linear")(layer(inputs)) if layer.name == "first" else None

    changed = rewrite(model, model.init_variables(), insert).model
    assert [layer.name for layer in changed.layers[1:]] == ["first", "activation_2", "activation_1", "activation"]
    assert pickle.loads(pickle.dumps(changed)) == changed


def test_channels_first_several_ends_and_a_cut_graph():
    x = Input((4, 8, 8), data_format="channels_first")
    y = layers.Conv2D(4, 3, name="conv")(x)
    model = Model([x], [y, layers.ReLU(name="relu")(y)])
    variables = model.init_variables()
    same = rewrite(model, variables, lambda layer, inputs, weights: layer(inputs)).model
    assert same == model
    assert [value.shape for value in same.apply(variables, [np.moveaxis(IMAGES, -1, 1)])] == [(2, 4, 6, 6)] * 2
    head = Model(y, layers.Dense(2, name="head")(y))
    images = np.ones((2, 6, 6, 4), "f4")
    assert rewrite(head, head.init_variables(), keep).model.apply(head.init_variables(), images).shape == (2, 6, 6, 2)


def test_what_is_refused():
    model = small()
    variables = model.init_variables()
    with pytest.raises(ValueError, match=r"(?s)not those of the model.*conv/kernel: nothing.*norm/mean: nothing"):
        rewrite(model, {}, keep)

    def wider(layer, inputs, weights):
        return dataclasses.replace(layer, filters=5)(inputs) if layer.name == "conv" else None

    convolved = Model(model.input, model.get_layer("relu").output)
    with pytest.raises(ValueError, match=r"wrong shapes.*\n.*conv/kernel: \(3, 3, 4, 4\) instead of \(3, 3, 4, 5\)"):
        rewrite(convolved, variables, wider)
    with pytest.raises(ValueError, match="no layer of the new model has: conv/nucleus"):
        rewrite(model, variables, lambda layer, inputs, weights: (layer(inputs), {"conv": {"nucleus": IMAGES}}))
    with pytest.raises(KeyError, match="absent") as caught:
        rewrite(model, variables, lambda layer, inputs, weights: weights["absent"])
    assert "While rewriting layer 'conv' of kind Conv2D" in caught.value.__notes__[0]
