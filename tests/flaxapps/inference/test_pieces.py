"""Batches computed in pieces, beside the same batches in one call."""

import jax
import numpy as np
import pytest

import flaxapps
from flaxapps import Input, Model, layers
from flaxapps.inference import pieces
from flaxapps.inference.predict import predict_batches
from tests.recipe import relative_difference

CPU = [jax.devices()[0]]


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def two_outputs() -> Model:
    """A network with two inputs and two outputs."""
    first, second = Input((8, 6, 3)), Input((8, 6, 3))
    x = layers.Conv2D(4, 3, name="conv")(layers.Add()([first, second]))
    return Model([first, second], [layers.GlobalAveragePooling2D()(x), layers.Flatten()(x)])


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 8])
def test_compile(batch_size):
    model = two_outputs()
    variables = model.init_variables()
    x = [images(batch_size, 8, 6, 3), images(batch_size, 8, 6, 3)[::-1].copy()]
    compiled = flaxapps.compile(model, variables, batch_size)
    assert compiled.pieces == {4: 2, 8: 4}.get(batch_size, 1)
    for mine, other in zip(compiled(x), model.apply(variables, x), strict=True):
        assert relative_difference(mine, other) <= 1e-6
        assert mine.devices() == {jax.devices()[0]}


@pytest.mark.parametrize("count", [4, 5, 11])
def test_predict(count, monkeypatch):
    """The last batch, and a single one smaller than `batch_size`, may be odd."""
    monkeypatch.setattr(jax, "local_devices", lambda: CPU)
    model = two_outputs()
    variables = model.init_variables()
    x = [images(count, 8, 6, 3), images(count, 8, 6, 3)[::-1].copy()]
    started = []
    monkeypatch.setattr(
        "flaxapps.inference.predict.start_pieces",
        lambda *arguments: started.append(len(arguments[2][0])) or pieces.start_pieces(*arguments),
    )
    rows = list(predict_batches(model, variables, x, batch_size=8))
    assert started == {4: [4], 5: [6], 11: [8, 4]}[count]
    for index, other in enumerate(model.apply(variables, x)):
        joined = np.concatenate([batch[index] for batch in rows])
        assert relative_difference(joined, other) <= 1e-6


def test_what_is_computed_whole():
    weights = {"kernel": jax.ShapeDtypeStruct((pieces.LARGEST_WEIGHTS // 4,), "float32")}
    heavier = {"kernel": jax.ShapeDtypeStruct((pieces.LARGEST_WEIGHTS // 4 + 1,), "float32")}
    assert pieces.piece_size(weights, 8, CPU) == 2
    assert pieces.piece_size(heavier, 8, CPU) == 8
    assert pieces.piece_size(weights, 3, CPU) == 3
    assert pieces.piece_size(weights, 8, jax.devices()) == 8


def test_an_error_in_a_piece_reaches_the_caller():
    def program(variables, arrays):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        pieces.finish_pieces(pieces.start_pieces(program, {}, [images(4, 2, 2, 3)], 2))


def test_layers_run_image_by_image_in_whole_batches_only():
    x = Input((200, 200, 3))
    model = Model(x, layers.Conv2D(32, 3)(layers.Conv2D(32, 3)(x)))
    variables = model.init_variables()
    kinds = {
        size: {
            layer.class_name
            for layer in pieces.optimize_for_batches(model, variables, "default", size, CPU).model.layers
        }
        for size in (3, 8)
    }
    assert "ImageByImage" in kinds[3]
    assert "ImageByImage" not in kinds[8]
