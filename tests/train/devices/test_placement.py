"""One device, eight under jit and eight under pmap compute the same, ragged batches and statistics included."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxapps import train
from flaxapps.train.devices.placement import pad_batch, place_on_devices
from tests.train.small import assert_close, fit, small_data, small_model

ONE = jax.devices()[:1]


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_eight_devices_compute_what_one_does(parallel, accumulate):
    """Ten steps, of which two have 4 examples on 8 devices."""
    data = small_data(4 * 16 + 4)
    options = {"epochs": 2, "computation": train.Computation(accumulate), "validation_data": small_data(21, seed=1)}
    alone, losses = fit(data, devices=ONE, **options)
    result, same_losses = fit(data, parallel=parallel, **options)
    assert len(losses) == 10
    np.testing.assert_allclose(same_losses, losses, rtol=1e-5)
    assert_close(result.variables, alone.variables)
    assert_close(result.history, alone.history)


def test_frozen_layers_stand_still_on_eight_devices():
    model = small_model()
    variables = model.init_variables()
    frozen = train.frozen_layers(model, until="norm2")
    for parallel in ("jit", "pmap"):
        result, _ = fit(small_data(20), model, variables=variables, frozen=frozen, parallel=parallel)
        for name in ("conv1", "norm1", "conv2", "norm2"):
            assert_close(result.variables["params"][name], variables["params"][name], 0)
        assert_close(result.variables["batch_stats"], variables["batch_stats"], 0)
        assert result.variables["params"]["conv1"]["kernel"].sharding.is_fully_replicated
        assert not np.array_equal(result.variables["params"]["head"]["kernel"], variables["params"]["head"]["kernel"])


def test_auto_takes_as_many_devices_as_divide_the_batch():
    assert place_on_devices("auto", 32).mesh.size == 8
    assert place_on_devices("auto", 12).mesh.size == 6
    assert place_on_devices("auto", 7).mesh.size == 7
    assert place_on_devices("jit", 12).mesh.size == 8
    with pytest.raises(ValueError, match="auto, jit, pmap"):
        place_on_devices("both", 8)


def test_filling_up_repeats_examples_and_masks_them():
    images, labels, mask = pad_batch(np.arange(3.0)[:, None], np.arange(3), 8)
    assert images[:, 0].tolist() == labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert mask.tolist() == [True] * 3 + [False] * 5
    assert pad_batch(images, labels, 4)[2] is None


def test_devices_of_pmap_draw_different_dropout():
    """Every device has the same example: were the masks the same too, so would be the losses."""
    model = small_model(dropout=0.5)
    images = np.repeat(small_data(1)[0], 8, axis=0)
    placement = place_on_devices("pmap", 8)
    seen = []

    def keep(labels, outputs):
        jax.debug.callback(lambda values: seen.append(np.array(values)), outputs)
        return jnp.sum(outputs, axis=-1)

    objective = train.make_objective(model, keep)
    state = placement.replicate(train.create_state(model, model.init_variables(), optax.sgd(0.0)))
    step = placement.step(objective=objective, optimizer=optax.sgd(0.0))
    jax.block_until_ready(step(state, *placement.shard_batch(images, np.zeros(8, "int32"))))
    jax.effects_barrier()
    assert len({values.tobytes() for values in seen}) > 1
