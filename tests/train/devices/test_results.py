"""Results are where the given variables were, whatever devices trained."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from flaxapps import train
from tests.train.small import assert_same, fit, small_data, small_model

DATA = small_data(36)
MODEL = small_model()
DEVICES = jax.devices()
REPLICATED = NamedSharding(Mesh(np.array(DEVICES[:4]), ("data",)), PartitionSpec())


def places(result):
    return {leaf.sharding for leaf in jax.tree.leaves((result.variables, result.state))}


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
@pytest.mark.parametrize("place", [DEVICES[0], DEVICES[3], REPLICATED, None], ids=["first", "fourth", "four", "host"])
def test_a_result_is_where_the_variables_were(place, parallel):
    variables = jax.device_get(MODEL.init_variables())
    variables = variables if place is None else jax.device_put(variables, place)
    options = {"parallel": parallel, "frozen": {"conv1"}, "optimizer": optax.adam(0.01)}
    result, _ = fit(DATA, MODEL, variables=variables, **options)
    wanted = place if place is REPLICATED else SingleDeviceSharding(place or DEVICES[0])
    assert places(result) == {wanted}
    images = jax.device_put(DATA[0][:2], wanted)
    jax.jit(MODEL.apply)(result.variables, images)
    again, _ = fit(DATA, MODEL, variables=result.state, initial_epoch=1, epochs=2, **options)
    assert places(again) == {wanted}


def test_a_result_goes_where_the_caller_asks():
    usual, _ = fit(DATA, MODEL)
    result, _ = fit(DATA, MODEL, devices=train.Devices(results=DEVICES[5]))
    assert places(result) == {SingleDeviceSharding(DEVICES[5])}
    assert_same(jax.device_get(result.variables), jax.device_get(usual.variables))
    result, _ = fit(DATA, MODEL, devices=train.Devices(shard_optimizer=True))
    assert result.variables["params"]["head"]["kernel"].sharding.device_set == set(DEVICES)
    with pytest.raises(TypeError, match="results should be a device or a sharding"):
        train.Devices(results=0)


def test_variables_in_several_places_go_back_to_each():
    variables = jax.device_put(MODEL.init_variables(), DEVICES[0])
    variables["params"]["head"] = jax.device_put(variables["params"]["head"], DEVICES[1])
    result, _ = fit(DATA, MODEL, variables=variables)
    jax.tree.map(lambda one, other: np.testing.assert_equal(one.sharding, other.sharding), result.variables, variables)
