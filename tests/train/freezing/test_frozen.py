"""Sets of frozen layers and their masks."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxapps import Input, Model, layers, train
from flaxapps.registry import build_model
from tests.train.small import small_model


@pytest.fixture(scope="module")
def nested():
    x = Input((8, 8, 3))
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(x))
    inner = Model(x, y, name="inner")
    image = Input((8, 8, 3), name="image")
    return Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(inner(image))))


def test_by_index_as_in_keras():
    model = build_model("inception_v3", include_top=False)
    frozen = train.frozen_layers(model, until=172)
    assert frozen == {layer.name for layer in model.layers[:172]}
    assert train.frozen_layers(model, until="mixed8") == train.frozen_layers(model, until=249)


def test_by_name_pattern_and_nested(nested):
    assert train.frozen_layers(nested, names=["inner"]) == {"inner"}
    assert train.frozen_layers(nested, names=["inner/norm"]) == {"inner/norm"}
    assert train.frozen_layers(nested, pattern="conv|norm") == {"inner/conv", "inner/norm"}
    assert train.frozen_layers(nested, pattern="inner/norm") == {"inner/norm"}
    norms = train.frozen_layers(nested, predicate=lambda layer: layer.class_name == "BatchNormalization")
    assert norms == {"inner/norm"}
    mask = train.trainable_mask(nested.init_variables()["params"], {"inner/norm"})
    assert mask["inner"] == {"conv": {"kernel": True, "bias": True}, "norm": {"scale": False, "bias": False}}
    assert all(jax.tree.leaves(mask["head"]))
    assert not any(jax.tree.leaves(train.trainable_mask(nested.init_variables()["params"], {"inner"})["inner"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"until": "nowhere"}, "nowhere"),
        ({"until": 99}, "until=99"),
        ({"names": ["nowhere"]}, "nowhere"),
        ({"pattern": "zzz"}, "matches no layer"),
        ({"pattern": ".*"}, "nothing is left"),
        ({"pattern": "conv|norm|head"}, "nothing is left"),
        ({"predicate": lambda layer: False}, "predicate"),
        ({"predicate": lambda layer: True}, "nothing is left"),
    ],
)
def test_errors(nested, arguments, message):
    with pytest.raises(ValueError, match=message):
        train.frozen_layers(nested, **arguments)


def test_frozen_layers_have_no_gradient_no_state_and_still_statistics(nested):
    frozen = train.frozen_layers(nested, names=["inner"])
    variables = nested.init_variables()
    labels = jax.tree.map(lambda trains: "on" if trains else "off", train.trainable_mask(variables["params"], frozen))
    optimizer = optax.partition({"on": optax.adam(1e-2), "off": optax.set_to_zero()}, labels)
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))

    def loss(params):
        outputs, updated = nested.apply(
            {**variables, "params": params}, images, train=True, frozen=frozen, mutable=["batch_stats"]
        )
        return jnp.sum(outputs**2), updated["batch_stats"]

    gradients, statistics = jax.grad(loss, has_aux=True)(variables["params"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients["inner"]))
    assert np.any(gradients["head"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, statistics, variables["batch_stats"])
    state = optimizer.init(variables["params"])
    assert {leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim} == {(4, 2), (2,)}


def test_split_params_and_back(nested):
    params = nested.init_variables()["params"]
    trainable, still = train.split_params(params, {"inner/norm"})
    assert set(trainable) == {"inner", "head"}
    assert set(trainable["inner"]) == {"conv"}
    assert set(still["inner"]) == {"norm"}
    assert set(still) == {"inner"}
    jax.tree.map(np.testing.assert_array_equal, train.merge_params(trainable, still), params)


def test_labels_give_learning_rates(nested):
    params = nested.init_variables()["params"]
    labels = train.param_labels(params, {"slow": ["inner"], "mid": ["inner/norm"]}, default="fast")
    assert labels["inner"] == {"conv": {"kernel": "slow", "bias": "slow"}, "norm": {"scale": "mid", "bias": "mid"}}
    assert set(jax.tree.leaves(labels["head"])) == {"fast"}
    rates = {"slow": 0.0, "mid": 0.1, "fast": 1.0}
    label = functools.partial(train.param_labels, groups={"slow": ["inner"], "mid": ["inner/norm"]}, default="fast")
    optimizer = optax.partition({name: optax.sgd(rate) for name, rate in rates.items()}, label)
    ones = jax.tree.map(jnp.ones_like, params)
    changes, _ = optimizer.update(ones, optimizer.init(params), params)
    jax.tree.map(lambda change, label: np.testing.assert_allclose(change, -rates[label]), changes, labels)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ["nowhere"]}, "nowhere"),
        ({"a": ["head"], "b": ["head"]}, "two groups"),
        ({"a": ["head"]}, "inner/conv"),
    ],
)
def test_label_errors(nested, groups, message):
    with pytest.raises(ValueError, match=message):
        train.param_labels(nested.init_variables()["params"], groups)


def test_freezing_as_in_keras_says_what_to_write():
    """`layer.trainable = False` was accepted and did nothing."""
    model = small_model()
    with pytest.raises(AttributeError, match=r"frozen=train.frozen_layers\(model, names=\['conv1'\]\)"):
        model.get_layer("conv1").trainable = False
    with pytest.raises(AttributeError, match="has no strides to set"):
        model.layers[1].strides = 2
    with pytest.raises(AttributeError, match=r"names=\[layer.name for layer in base.layers\]"):
        model.trainable = False
    assert pickle.loads(pickle.dumps(model.layers[1])).name == "conv1"
