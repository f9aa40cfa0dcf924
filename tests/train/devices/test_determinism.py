"""The same seed on the same number of devices: the same bits."""

import jax
import optax
import pytest

from flaxapps.train.step.augmentation import Augmentation
from tests.train.small import assert_same, fit, small_data, small_model

AUGMENTATION = Augmentation(flip=True, brightness=0.1, value_range=(0, 255))


@pytest.mark.slow
@pytest.mark.parametrize(("count", "parallel"), [(1, "jit"), (8, "jit"), (8, "pmap")])
def test_the_same_seed_gives_the_same_bits(count, parallel):
    def run(seed):
        jax.clear_caches()  # compiled anew, as in another process
        options = {"seed": seed, "parallel": parallel, "devices": jax.devices()[:count], "epochs": 2}
        model = small_model(dropout=0.5)
        return fit(small_data(40), model, optimizer=optax.adam(0.01), augmentation=AUGMENTATION, **options)

    (one, losses), (again, same_losses) = run(3), run(3)
    assert losses == same_losses
    assert_same(one.variables, again.variables)
    assert one.history == again.history
    assert run(4)[1] != losses
