"""Import and export of masks and other call options."""

import json

import numpy as np
import pytest

import flaxapps
from tests.imported import randomise
from weight_port import WeightError

STEPS, OTHERS = (5, 4), (6, 4)
MASK, OF_OTHERS, PAIRS = ("mask", 5), ("mask", 6), ("mask", 5, 6)


def masked_mean(keras, x):
    return keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(3)(keras.layers.Masking(0.5)(x)))


CASES = {
    "causal": (lambda k, x: k.layers.MultiHeadAttention(3, 2)(x, x, use_causal_mask=True), [STEPS]),
    "shares": (lambda k, x, y: k.layers.MultiHeadAttention(3, 2)(x, y, return_attention_scores=True), [STEPS, OTHERS]),
    "pairs": (
        lambda k, x, y, m: k.layers.MultiHeadAttention(3, 2)(x, y, attention_mask=m), [STEPS, OTHERS, PAIRS],
    ),
    "pairs, by the other way": (
        lambda k, x, y, m: k.layers.MultiHeadAttention(3, 2, dropout=0.1)(x, y, attention_mask=m),
        [STEPS, OTHERS, PAIRS],
    ),
    "pairs, of a key": (
        lambda k, x, y, z, m: k.layers.MultiHeadAttention(3, 2)(x, y, z, attention_mask=m),
        [STEPS, OTHERS, OTHERS, PAIRS],
    ),
    "pairs of pixels": (
        lambda k, x: k.layers.MultiHeadAttention(2, 2, attention_axes=(1, 2))(x, x, return_attention_scores=True),
        [(2, 3, 4)],
    ),
    "values": (
        lambda k, x, y, m: k.layers.MultiHeadAttention(3, 2)(x, y, value_mask=m, key_mask=m),
        [STEPS, OTHERS, OF_OTHERS],
    ),
    "a window": (lambda k, x: k.layers.MultiHeadAttention(3, 2, sliding_window=2)(x, x), [STEPS]),
    "a window behind": (
        lambda k, x: k.layers.GroupQueryAttention(2, 4, 2, sliding_window=3)(x, x, use_causal_mask=True), [STEPS],
    ),
    "groups": (
        lambda k, x, y, q, v: k.layers.GroupQueryAttention(2, 4, 2)(
            x, y, query_mask=q, value_mask=v, return_attention_scores=True
        ),
        [STEPS, OTHERS, MASK, OF_OTHERS],
    ),
    "plain attention": (
        lambda k, x, y, q, v: k.layers.Attention(use_scale=True)([x, y], mask=[q, v], return_attention_scores=True),
        [STEPS, OTHERS, MASK, OF_OTHERS],
    ),
    "plain, of values": (lambda k, x, y, v: k.layers.Attention()([x, y], mask=[None, v]), [STEPS, OTHERS, OF_OTHERS]),
    "additive attention": (lambda k, x: k.layers.AdditiveAttention()([x, x], use_causal_mask=True), [STEPS]),
    "softmax": (lambda k, x, m: k.layers.Softmax()(x, mask=m), [(5, 6), PAIRS]),
    "softmax over two": (lambda k, x, m: k.layers.Softmax(axis=(1, 2))(x, m), [(5, 6), PAIRS]),
    "mean": (lambda k, x, m: k.layers.GlobalAveragePooling1D(keepdims=True)(x, mask=m), [STEPS, MASK]),
    "mean, channels first": (
        lambda k, x, m: k.layers.GlobalAveragePooling1D(data_format="channels_first")(x, mask=m), [(4, 5), MASK],
    ),
    "mean behind Masking": (masked_mean, [STEPS]),
    "steps behind Masking": (lambda k, x: k.layers.TimeDistributed(k.layers.Dense(3))(k.layers.Masking()(x)), [STEPS]),
    "by name": (lambda k, x: k.layers.Dense(3)(inputs=x), [STEPS]),
}  # fmt: skip # kept on few lines on purpose


@pytest.mark.parametrize("case", CASES)
def test_options_of_calls(case, tmp_path):
    import keras

    build, shapes = CASES[case]
    random = np.random.default_rng(0)
    inputs, arrays = [], []
    for shape in shapes:
        masks = shape[0] == "mask"
        shape = shape[1:] if masks else shape
        inputs.append(keras.Input(shape, dtype="bool" if masks else "float32"))
        values = random.uniform(size=(3, *shape)) < 0.6 if masks else random.normal(size=(3, *shape)).astype("float32")
        if masks:
            values[-1, -1] = False  # of pairs, a step that attends to nothing
            values[..., 0] |= not shape[1:]  # but no sequence without a step
        arrays.append(values)
    arrays[0][0, 1] = 0.5 if case == "mean behind Masking" else 0.0
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], build(keras, *inputs))
    randomise(model)
    arrays = arrays if len(arrays) > 1 else arrays[0]
    expected = model.predict(arrays, verbose=0)
    expected = list(expected) if isinstance(expected, list | tuple) else [expected]
    model.save(tmp_path / "model.keras")
    network = flaxapps.load_model(tmp_path / "model.keras")
    shapes_said = [node.shape[1:] for node in network.model.graph.outputs]
    assert shapes_said == [value.shape[1:] for value in expected]
    found = network.model.apply(network.variables, arrays)
    for ours, theirs in zip(found if len(expected) > 1 else [found], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-5)
    flaxapps.save_model(*network, tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras").predict(arrays, verbose=0)
    for ours, theirs in zip(again if len(expected) > 1 else [again], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda k, x, m: k.layers.MultiHeadAttention(3, 2, name="heads")(x, x, query_mask=m),
            "'heads'.*called with query_mask",
        ),
        (
            lambda k, x, m: k.layers.TimeDistributed(k.layers.Softmax(), name="steps")(x, mask=m),
            r"'steps' of kind TimeDistributed is called with \['mask'\]",
        ),
    ],
)
def test_masks_that_are_refused(build, message, tmp_path):
    import keras

    x, mask = keras.Input((5, 4)), keras.Input((5,), dtype="bool")
    keras.Model([x, mask], build(keras, x, mask)).save(tmp_path / "model.keras")
    with pytest.raises(WeightError, match=message):
        flaxapps.load_model(tmp_path / "model.keras")


def test_a_mask_of_statistics_warns(tmp_path):
    import keras

    x = keras.Input((5, 4))
    y = keras.layers.BatchNormalization(name="norm")(keras.layers.Masking()(x))
    model = keras.Model(x, y)
    randomise(model)
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="'norm' of kind BatchNormalization is called with a mask"):
        network = flaxapps.load_model(tmp_path / "model.keras")
    arrays = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    arrays[:, 3] = 0
    found = network.model.apply(network.variables, arrays)
    np.testing.assert_allclose(found, model.predict(arrays, verbose=0), rtol=1e-5, atol=1e-6)


def test_a_layer_that_is_called_in_different_ways_is_refused(tmp_path):
    import keras

    x = keras.Input((5, 4))
    layer = keras.layers.MultiHeadAttention(3, 2, name="heads")
    keras.Model(x, [layer(x, x), layer(x, x, use_causal_mask=True)]).save(tmp_path / "model.keras")
    with pytest.raises(WeightError, match="'heads' of kind MultiHeadAttention is called in different ways"):
        flaxapps.load_model(tmp_path / "model.keras")


def test_a_vector_as_kernel(tmp_path):
    import keras

    x = keras.Input((5,))
    model = keras.Model(x, keras.layers.EinsumDense("ab,b->a", (), name="einsum_dense")(x))
    randomise(model)
    model.save(tmp_path / "model.keras")
    network = flaxapps.load_model(tmp_path / "model.keras")
    assert json.dumps(network.model.output_shape) == "[null]"
    arrays = np.random.default_rng(0).normal(size=(2, 5)).astype("float32")
    found = network.model.apply(network.variables, arrays)
    np.testing.assert_allclose(found, model(arrays), rtol=1e-5)
    assert len(network.model.init_variables(0)["params"]["einsum_dense"]["kernel"]) == 5
