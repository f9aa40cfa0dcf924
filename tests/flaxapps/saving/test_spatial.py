"""Import and export of 1D and 3D layers and adaptive pooling, over grids of options."""

import numpy as np
import pytest

import flaxapps
from tests.imported import quick

SEQUENCE, IMAGE, VOLUME = (11, 4), (9, 8, 4), (7, 6, 9, 4)
CONVOLUTIONS = [
    {"kernel_size": 3},
    {"kernel_size": 2, "strides": 2, "padding": "same", "activation": "relu"},
    {"kernel_size": 3, "dilation_rate": 2, "use_bias": False},
]
TRANSPOSED = [
    {"kernel_size": 3, "strides": 2, "padding": "same"},
    {"kernel_size": 2, "strides": 3},
    {"kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1},
]
POOLS = [{"pool_size": 2}, {"pool_size": 3, "strides": 2, "padding": "same"}, {"pool_size": 2, "strides": 1}]
CASES = [
    *(
        (f"Conv{rank}D", {"filters": 6, **options}, shape)
        for rank, shape in ((1, SEQUENCE), (3, VOLUME))
        for options in CONVOLUTIONS
    ),
    ("Conv1D", {"filters": 6, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}, SEQUENCE),
    ("Conv1D", {"filters": 6, "kernel_size": 3, "groups": 2}, SEQUENCE),
    ("Conv3D", {"filters": 6, "kernel_size": (1, 2, 3), "strides": (2, 1, 2), "groups": 2}, VOLUME),
    *(
        (f"Conv{rank}DTranspose", {"filters": 3, **options}, shape)
        for rank, shape in ((1, SEQUENCE), (3, VOLUME))
        for options in TRANSPOSED
    ),
    *(("DepthwiseConv1D", {"depth_multiplier": 2, **options}, SEQUENCE) for options in CONVOLUTIONS),
    *(("SeparableConv1D", {"filters": 5, "depth_multiplier": 2, **options}, SEQUENCE) for options in CONVOLUTIONS),
    *(
        (f"{kind}Pooling{rank}D", options, shape)
        for kind in ("Max", "Average")
        for rank, shape in ((1, SEQUENCE), (3, VOLUME))
        for options in POOLS
    ),
    *(
        (f"Global{kind}Pooling{rank}D", {"keepdims": keepdims}, shape)
        for kind in ("Max", "Average")
        for rank, shape in ((1, SEQUENCE), (3, VOLUME))
        for keepdims in (False, True)
    ),
    *(
        (f"Adaptive{kind}Pooling{rank}D", {"output_size": size}, shape)
        for kind in ("Max", "Average")
        for rank, shape in ((1, SEQUENCE), (2, IMAGE), (3, VOLUME))
        for size in (3, 4)
    ),
    ("AdaptiveAveragePooling2D", {"output_size": (4, 5)}, IMAGE),
    ("ZeroPadding1D", {"padding": 2}, SEQUENCE),
    ("ZeroPadding1D", {"padding": (1, 3)}, SEQUENCE),
    ("ZeroPadding3D", {"padding": 2}, VOLUME),
    ("ZeroPadding3D", {"padding": ((0, 1), (2, 0), (1, 1))}, VOLUME),
    ("Cropping1D", {"cropping": (1, 2)}, SEQUENCE),
    ("Cropping3D", {"cropping": ((1, 1), (0, 2), (1, 0))}, VOLUME),
    ("UpSampling1D", {"size": 3}, SEQUENCE),
    ("UpSampling3D", {"size": (2, 1, 3)}, VOLUME),
    ("SpatialDropout1D", {"rate": 0.3}, SEQUENCE),
    ("SpatialDropout3D", {"rate": 0.3}, VOLUME),
]
WITHOUT_FORMAT = ("Cropping1D", "UpSampling1D", "SpatialDropout1D")
WITH_FORMAT = [
    (kind, {**options, "data_format": "channels_first"}, (shape[-1], *shape[:-1]))
    for kind, options, shape in CASES
    if "2D" not in kind
    and kind not in ("Cropping1D", "UpSampling1D", "SpatialDropout1D")
    and options.get("padding") != "causal"
]


@pytest.mark.parametrize(("kind", "options", "shape"), [*CASES, *quick(WITH_FORMAT)])
def test_layers_of_any_rank(kind, options, shape, tmp_path):
    import keras

    random = np.random.default_rng(0)
    x = keras.Input(shape)
    model = keras.Model(x, getattr(keras.layers, kind)(**options)(x))
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))
    arrays = random.normal(size=(2, *shape)).astype("float32")
    expected = model.predict(arrays, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    network = flaxapps.load_model(tmp_path / "model.keras")
    assert network.model.output_shape[1:] == expected.shape[1:]
    np.testing.assert_allclose(network.model.apply(network.variables, arrays), expected, rtol=1e-4, atol=1e-5)
    flaxapps.save_model(*network, tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_allclose(again.predict(arrays, verbose=0), expected, rtol=1e-4, atol=1e-5)
