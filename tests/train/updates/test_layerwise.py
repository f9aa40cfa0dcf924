"""Layer-wise rates are BEiT's and timm's; weight decay leaves normalizations and biases alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxapps import Input, Model, layers, train
from flaxapps.registry import build_model
from flaxapps.train.updates.layerwise import layer_scales
from tests.train.small import fit, small_data, small_model


def timm_scales(names, decay, groups):
    """`param_groups_layer_decay` of timm with `auto_group_layers(num_groups=groups)`, of names with the head last."""
    *trunk, head = names
    size = -(len(trunk) // -groups)
    grouped = [trunk[start : start + size] for start in range(0, len(trunk), size)]
    layer_map = {name: number for number, group in enumerate(grouped) for name in group} | {head: len(grouped)}
    layer_max = max(layer_map.values())
    return {name: decay ** (layer_max - number) for name, number in layer_map.items()}


@pytest.mark.parametrize("network", ["vgg16", "mobilenet_v2", "convnext_tiny"])
def test_scales_are_those_of_timm(network):
    model = build_model(network)
    found = layer_scales(model, 0.75)
    assert found == pytest.approx(timm_scales(list(found), 0.75, 12))
    assert list(found.values()) == sorted(found.values())
    assert list(found.values())[-1] == 1
    assert found[next(iter(found))] >= 0.75**12
    assert layer_scales(model, 0.75, groups=3)[next(iter(found))] == pytest.approx(0.75**3)


def test_a_step_is_scaled_by_the_layer():
    model, data = small_model(), small_data(16)
    plain, _ = fit(data, model, optimizer=optax.sgd(0.1))
    scaled, _ = fit(data, model, optimizer=optax.chain(optax.sgd(0.1), train.layerwise_decay(model, 0.5)))
    start = model.init_variables()["params"]
    for depth, name in enumerate(("head", "norm2", "conv2", "norm1", "conv1")):
        change = np.abs(plain.variables["params"][name]["bias"] - start[name]["bias"]).max()
        assert change > 0
        np.testing.assert_allclose(
            scaled.variables["params"][name]["bias"] - start[name]["bias"],
            0.5**depth * (plain.variables["params"][name]["bias"] - start[name]["bias"]),
            atol=1e-6,
        )


def test_nested_and_frozen_layers_have_their_place():
    inside, image = Input((8, 8, 3)), Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="b")(layers.Conv2D(4, 3, name="a")(inside))
    model = Model(image, layers.Dense(2, name="head")(Model(inside, x, name="trunk")(image)))
    optimizer = train.layerwise_decay(model, 0.5)
    assert layer_scales(model, 0.5) == {"trunk/a": 0.25, "trunk/b": 0.5, "head": 1.0}
    params = model.init_variables()["params"]
    trainable, _ = train.split_params(params, ["trunk/a"])
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, trainable), optimizer.init(trainable))
    assert float(updates["trunk"]["b"]["bias"][0]) == 0.5
    for decay, groups in ((0, 12), (1.1, 12), (0.5, 0)):
        with pytest.raises(ValueError, match="decay should be above 0 and up to 1"):
            train.layerwise_decay(model, decay, groups=groups)


def test_weight_decay_is_for_kernels_alone():
    model = small_model()
    params = model.init_variables()["params"]
    mask = train.weight_decay_mask(params)
    decayed = {name for name, leaves in mask.items() for leaf, on in leaves.items() if on}
    assert decayed == {"conv1", "conv2", "head"}
    assert {leaf for leaves in mask.values() for leaf, on in leaves.items() if on} == {"kernel"}
    assert not train.weight_decay_mask(
        {"query": {"query_bias": jnp.ones((2, 4))}, "norm": {"scale": jnp.ones((2, 2))}}
    )["query"]["query_bias"]
    optimizer = optax.adamw(0.1, weight_decay=0.5, mask=train.weight_decay_mask)
    zeros = jax.tree.map(jnp.zeros_like, params)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["conv1"]["kernel"], -0.05 * params["conv1"]["kernel"], rtol=1e-5)
    for name in ("norm1", "norm2"):
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(updates[name]))
