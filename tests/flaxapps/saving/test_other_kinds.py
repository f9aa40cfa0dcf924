"""Import and export of attention, EinsumDense, wrappers and encodings, in every file format."""

import numpy as np
import pytest

import flaxapps
import weight_port
from weight_port import WeightError


def steps(keras):
    x = keras.Input((5, 5, 4))
    y = keras.layers.BatchNormalization()(keras.layers.Conv2D(3, 2)(x))
    return keras.Model(x, keras.layers.Flatten()(y))


CASES = {
    "attention": (lambda k, x, y: k.layers.Attention()([x, y]), [(5, 4), (6, 4)]),
    "attention with three": (
        lambda k, x, y, z: k.layers.Attention(use_scale=True)([x, y, z]), [(5, 4), (6, 3), (6, 4)],
    ),
    "attention by sums": (
        lambda k, x, y: k.layers.Attention(use_scale=True, score_mode="concat")([x, y]), [(5, 4), (6, 4)],
    ),
    "additive attention": (lambda k, x, y: k.layers.AdditiveAttention()([x, y]), [(5, 4), (6, 4)]),
    "heads": (lambda k, x: k.layers.MultiHeadAttention(3, 2)(x, x), [(5, 4)]),
    "heads of others": (
        lambda k, x, y: k.layers.MultiHeadAttention(3, 2, output_shape=7, use_bias=False)(x, y),
        [(5, 4), (6, 3)],
    ),
    "heads by name": (
        lambda k, x, y, z: k.layers.MultiHeadAttention(2, 3, use_gate=True)(query=x, value=y, key=z),
        [(5, 4), (6, 3), (6, 2)],
    ),
    "heads over images": (lambda k, x: k.layers.MultiHeadAttention(2, 3, attention_axes=(1, 2))(x, x), [(3, 4, 5)]),
    "heads along rows": (lambda k, x: k.layers.MultiHeadAttention(2, 3, attention_axes=2)(x, x), [(3, 4, 5)]),
    "groups of heads": (lambda k, x, y: k.layers.GroupQueryAttention(3, 4, 2)(x, y), [(5, 4), (6, 4)]),
    "equation": (
        lambda k, x: k.layers.EinsumDense("abc,cde->abde", (None, 3, 2), bias_axes="de", activation="relu")(x),
        [(5, 4)],
    ),
    "equation with dots": (lambda k, x: k.layers.EinsumDense("...x,xy->...y", 6, bias_axes="y")(x), [(3, 5, 4)]),
    "embedding": (lambda k, x: k.layers.Embedding(10, 3)(x), [(5,)]),
    "spectral normalization": (lambda k, x: k.layers.SpectralNormalization(k.layers.Conv2D(3, 2))(x), [(5, 5, 4)]),
    "every step": (lambda k, x: k.layers.TimeDistributed(k.layers.Conv2D(3, 2, activation="relu"))(x), [(7, 5, 5, 4)]),
    "a norm at every step": (lambda k, x: k.layers.TimeDistributed(k.layers.BatchNormalization())(x), [(7, 5, 4)]),
    "a model at every step": (lambda k, x: k.layers.TimeDistributed(steps(k))(x), [(7, 5, 5, 4)]),
    "categories": (lambda k, x: k.layers.CategoryEncoding(num_tokens=5, output_mode="multi_hot")(x), [(3,)]),
    "counts": (lambda k, x: k.layers.CategoryEncoding(num_tokens=5, output_mode="count")(x), [(3,)]),
    "ranges": (lambda k, x: k.layers.Discretization([0.0, 1.0, 2.0], output_mode="one_hot")(x), [(1,)]),
    "numbers of ranges": (lambda k, x: k.layers.Discretization([0.0, 1.0, 2.0])(x), [(3,)]),
    "masking": (lambda k, x: k.layers.Dense(2)(k.layers.Masking(0.5)(x)), [(5, 3)]),
    "activity": (lambda k, x: k.layers.ActivityRegularization(l1=0.1)(x), [(5, 3)]),
    "contrast": (lambda k, x: k.layers.AutoContrast()(x), [(5, 6, 3)]),
    "pipeline": (lambda k, x: k.layers.Pipeline([k.layers.Rescaling(0.5), k.layers.RandomFlip()])(x), [(5, 5, 3)]),
    "identity": (lambda k, x: k.layers.Identity()(x), [(5, 3)]),
}  # fmt: skip # kept on few lines on purpose
INDICES = ("embedding", "categories", "counts")


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("case", CASES)
def test_other_kinds(case, tmp_path):
    import keras

    build, shapes = CASES[case]
    random = np.random.default_rng(0)
    inputs = [keras.Input(shape, dtype="int32" if case in INDICES else "float32") for shape in shapes]
    model = keras.Model(inputs[0] if len(inputs) == 1 else inputs, build(keras, *inputs))
    for weight in model.weights:
        values = random.uniform(0.3, 1.5, weight.shape)
        weight.assign(values if "variance" in weight.path else values * random.choice([-1, 1], weight.shape))
    arrays = [random.normal(size=(2, *shape)).astype("float32") for shape in shapes]
    if case in INDICES:
        arrays = [random.integers(0, 5, (2, *shape)).astype("int32") for shape in shapes]
    given = arrays if len(arrays) > 1 else arrays[0]
    expected = model.predict(given, verbose=0)
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"model.{suffix}")
        network = flaxapps.load_model(tmp_path / f"model.{suffix}")
        assert network.model.output_shape[1:] == expected.shape[1:]
        found = network.model.apply(network.variables, given)
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)
    weight_port.save_weights(tmp_path / "ours.weights.h5", *network)
    model.load_weights(tmp_path / "ours.weights.h5")
    np.testing.assert_allclose(model.predict(given, verbose=0), expected, rtol=1e-6)
    flaxapps.save_model(*network, tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_allclose(again.predict(given, verbose=0), expected, rtol=2e-4, atol=1e-5)


def test_masks_that_a_layer_would_heed_are_refused(tmp_path):
    import keras

    # In a Functional model Keras 3 writes masks into the calls; in a Sequential one they are not in the file.
    steps = [keras.layers.Masking(name="masked"), keras.layers.GlobalAveragePooling1D(name="mean")]
    keras.Sequential([keras.Input((5, 3)), *steps]).save(tmp_path / "model.keras")
    with pytest.raises(WeightError, match="masked masks steps, which mean would leave out"):
        flaxapps.load_model(tmp_path / "model.keras")
