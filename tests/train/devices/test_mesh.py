"""Meshes with a "model" axis, and a sharded optimizer: what lies where, and that it changes no number."""

import jax
import numpy as np
import optax
import pytest

from flaxapps import Input, Model, layers, train
from flaxapps.registry import build_model
from flaxapps.train.devices.costs import estimate_step
from flaxapps.train.devices.layout import LARGE, Layout
from flaxapps.train.devices.placement import place_on_devices
from tests.train.small import SGD, assert_close, fit, small_data

MESH = {"data": 4, "model": 2}


def large_model():
    """A dense layer of just so many numbers that it is cut, between two that are not."""
    x = y = Input((8, 8, 3))
    y = layers.Conv2D(16, 3, padding="same", activation="relu", name="conv")(y)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.Dense(LARGE // 1024, activation="relu", name="large")(layers.Flatten()(y))
    return Model(x, layers.Dense(4, activation="softmax", name="head")(y))


def axes(array):
    """How each axis is cut; JAX leaves out those at the end that are not."""
    spec = array.sharding.spec
    return *spec, *[None] * (array.ndim - len(spec))


@pytest.fixture(scope="module")
def model():
    return large_model()


@pytest.fixture(scope="module")
def alone(model):
    return fit(small_data(20), model, devices=jax.devices()[:1])


@pytest.mark.parametrize(
    "shard_optimizer", [pytest.param(False, marks=[pytest.mark.slow, pytest.mark.every_jax]), True]
)
def test_a_mesh_of_two_axes_computes_what_one_device_does(model, alone, shard_optimizer, tmp_path):
    """Two steps, the second with fewer examples than fill the devices; then a checkpoint of it on one device."""
    options = {"checkpoint_dir": tmp_path, "validation_data": small_data(9, seed=1)}
    result, losses = fit(small_data(20), model, devices=train.Devices(None, MESH, shard_optimizer), **options)
    np.testing.assert_allclose(losses, alone[1], rtol=1e-5)
    assert_close(result.variables, alone[0].variables)
    kernels = {name: arrays["kernel"] for name, arrays in result.variables["params"].items() if "kernel" in arrays}
    assert axes(kernels["large"]) == (None, "model")
    assert kernels["large"].addressable_shards[0].data.size == LARGE // 2
    assert kernels["conv"].sharding.is_fully_replicated
    assert kernels["head"].sharding.is_fully_replicated
    folder = train.CheckpointFolder(tmp_path, resume=True)
    again, more = fit(small_data(20), model, devices=jax.devices()[:1], **options | {"checkpoint_dir": folder})
    assert more == []
    assert_close(again.variables, result.variables, 0)


def test_the_best_epoch_comes_back_in_its_layout(model):
    stopping = train.EarlyStopping("loss", patience=1)
    uphill = optax.sgd(optax.join_schedules([lambda _: 0.02, lambda _: -0.02], [2]))
    options = {"epochs": 5, "optimizer": uphill, "early_stopping": stopping, "devices": train.Devices(mesh=MESH)}
    result, _ = fit(small_data(20), model, **options)
    assert result.stopped == "early stopping"
    assert axes(result.variables["params"]["large"]["kernel"]) == (None, "model")


def test_what_the_optimizer_keeps_is_cut_along_data(model):
    """Each array along its largest axis that divides and is not cut yet; a bias of 3 stays whole."""
    for shard_optimizer, large, head in (
        (False, (None, "model"), (None, None)),
        (True, ("data", "model"), ("data", None)),
    ):
        placement = place_on_devices("jit", 16, mesh=MESH, shard_optimizer=shard_optimizer)
        state = placement.replicate(train.create_state(model, model.init_variables(), optax.adam(1e-3)))
        objective = train.make_objective(model, "categorical_crossentropy")
        step = placement.step(objective=objective, optimizer=optax.adam(1e-3))
        state, _ = step(state, *placement.shard_batch(*small_data(16)))
        for kept in (state.optimizer_state[0].mu, state.optimizer_state[0].nu):
            assert axes(kept["large"]["kernel"]) == large
            assert axes(kept["head"]["kernel"]) == head
        assert axes(state.params["large"]["kernel"]) == (None, "model")
        assert state.params["head"]["kernel"].sharding.is_fully_replicated
        assert state.optimizer_state[0].count.sharding.is_fully_replicated


def test_vgg16_keeps_half_of_fc1_on_each_device():
    """By shapes alone: of the parameters only the large dense kernels are cut."""
    shapes = jax.eval_shape(build_model("vgg16").init_variables)
    layout = Layout(place_on_devices("jit", 8, mesh=MESH).mesh)
    shardings = jax.tree_util.tree_leaves_with_path(layout.shardings(shapes))
    cut = {path[1].key for path, sharding in shardings if not sharding.is_fully_replicated}
    assert cut == {"fc1", "fc2", "predictions"}
    fc1 = shapes["params"]["fc1"]["kernel"]
    part = layout.shardings(shapes)["params"]["fc1"]["kernel"].shard_shape(fc1.shape)
    assert part == (25088, 2048)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": train.Devices(mesh={"data": 3, "model": 2})}, "data=3,model=2 should multiply to .* 8"),
        ({"devices": train.Devices(mesh={"rows": 8})}, "along data and model, got rows=8"),
        ({"devices": train.Devices(mesh={"data": -4, "model": -2})}, "got data=-4"),
        ({"parallel": "pmap", "devices": train.Devices(mesh=MESH)}, 'use parallel="jit"'),
        ({"parallel": "pmap", "devices": train.Devices(shard_optimizer=True)}, 'use parallel="jit"'),
    ],
)
def test_meshes_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        fit(small_data(20), **options)


def test_a_step_is_described_from_shapes(model):
    """Bytes and operations of each device: batches are cut along data, the large layer's product along both."""
    options = {"objective": train.make_objective(model, "categorical_crossentropy"), "optimizer": SGD}
    batch = jax.ShapeDtypeStruct((16, 8, 8, 3), "float32"), jax.ShapeDtypeStruct((16,), "int32")
    one = estimate_step(model, place_on_devices("jit", 16, jax.devices()[:1]), *batch, **options)
    eight = estimate_step(model, place_on_devices("jit", 16, mesh=MESH, shard_optimizer=True), *batch, **options)
    sizes = {(array.group, array.name): array for array in eight.arrays}
    assert sizes["params", "large/kernel"].bytes == 4 * LARGE
    assert sizes["params", "large/kernel"].device_bytes == 4 * LARGE // 2
    momentum = [array for array in eight.arrays if array.group == "optimizer_state" and "large/kernel" in array.name]
    assert [array.device_bytes for array in momentum] == [4 * LARGE // 8]
    assert all(array.bytes == array.device_bytes for array in one.arrays)
    assert one.batch_bytes == 4 * eight.batch_bytes == 16 * (8 * 8 * 3 + 1) * 4
    assert one.flops > 3 * 2 * 16 * LARGE * 0.6  # forward, and backward to the weights and to what is before
    assert 1 / 8 < eight.flops / one.flops < 1 / 4
    assert eight.device_bytes < one.device_bytes
