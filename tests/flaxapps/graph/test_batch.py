"""Statistics of a batch in parts, and of one with examples that only fill it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxapps.graph.batch import Batch

X = jnp.asarray(np.random.default_rng(0).normal(1, 2, (16, 3, 2)).astype("float32"))


@pytest.mark.parametrize("counted", [16, 9, 1, 0])
def test_means_are_of_the_examples_that_count(counted):
    mask = jnp.arange(16) < counted
    wanted = np.mean(X[:counted], (0, 1)) if counted else np.zeros(2)
    np.testing.assert_allclose(Batch(mask).mean(X), wanted, rtol=1e-5, atol=1e-7)
    parts = X.reshape(8, 2, 3, 2), mask.reshape(8, 2)
    means = jax.pmap(lambda x, mask: Batch(mask, "batch").mean(x), axis_name="batch")(*parts)
    np.testing.assert_allclose(means, np.broadcast_to(wanted, (8, 2)), rtol=1e-5, atol=1e-7)


def test_a_mean_over_devices_without_a_mask():
    means = jax.pmap(lambda x: Batch(axis_name="batch").mean(x), axis_name="batch")(X.reshape(8, 2, 3, 2))
    np.testing.assert_allclose(means, np.broadcast_to(np.mean(X, (0, 1)), (8, 2)), rtol=1e-5)
