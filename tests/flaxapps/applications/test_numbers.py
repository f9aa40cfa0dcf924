"""What each dtype keeps of float64's outputs: the tolerances of docs/guides/serving.md."""

import jax
import numpy as np
import pytest

from flaxapps.inference.preprocessing import preprocessing_function
from flaxapps.registry import build_model, model_info
from flaxapps.transforms.dtype import with_dtype
from tests.networks import NETWORKS, compiled
from tests.recipe import recipe_variables, relative_difference

TOLERANCES = {"float64": 1e-6, "float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("xception", 71), ("vgg16", 48)])
def test_outputs_are_those_of_float64_within_the_tolerance_of_the_dtype(name, size):
    model = build_model(name, weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3))
    variables = recipe_variables(model)
    x = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3))
    x *= 1 if name == "xception" else 128
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        truth = np.asarray(jax.jit(with_dtype(model, "float64").apply)(exact, x))
        assert truth.dtype == np.float64
        for dtype, tolerance in TOLERANCES.items():
            given = x if dtype == "float64" else x.astype(np.float32)
            output = jax.jit(with_dtype(model, dtype).apply)(variables, given)
            assert output.dtype == dtype
            assert relative_difference(np.asarray(output, np.float64), truth) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_extreme_images_give_finite_features(name, dtype):
    size = model_info(name).min_size
    model = with_dtype(
        build_model(name, weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)), dtype
    )
    variables = recipe_variables(model)
    images = np.stack([np.full((size, size, 3), value, np.float32) for value in (0, 255, 1e4)])
    preprocess = preprocessing_function(model, True)  # None where the network scales images itself
    given = images if preprocess is None else preprocess(images)
    features = compiled(model.apply, variables, given)
    assert features.dtype == dtype
    assert np.isfinite(features).all()
    assert not np.array_equal(features[0], features[1])
