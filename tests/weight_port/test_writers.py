"""Weight files written here: opened by real Keras, read back to the bit, never half written."""

import os
import stat
from collections import namedtuple
from types import SimpleNamespace

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weight_port
from flaxapps import Input, Model, layers
from flaxapps.registry import build_model
from tests.imported import keras_outputs, randomise
from tests.networks import VARIANTS, fresh_keras
from tests.recipe import recipe_variables, relative_difference
from weight_port import WeightError
from weight_port.layout import all_targets
from weight_port.writers import ATTRIBUTE_LIMIT, leaves

FORMS = ["weights.h5", "h5"]
Weight = namedtuple("Weight", "shape collection", defaults=["params"])


def fake_layer(name, class_name="Dense", weights=None, **more):
    return SimpleNamespace(name=name, class_name=class_name, weights=weights or {}, **more)


def small_model():
    """Two dense layers of one class and a normalization, without Keras or JAX."""
    kernel, bias = Weight((3, 2)), Weight((2,))
    statistics = {"scale": bias, "bias": bias, "mean": Weight((2,), "batch_stats"), "var": Weight((2,), "batch_stats")}
    return SimpleNamespace(
        layers=[
            fake_layer("image", "InputLayer"),
            fake_layer("first", weights={"kernel": kernel, "bias": bias}),
            fake_layer("bn", "BatchNormalization", statistics),
            fake_layer("second", weights={"kernel": Weight((2, 2))}),
        ]
    )


def small_variables(seed=0):
    random = np.random.default_rng(seed)

    def draw(*shape):
        return random.normal(size=shape).astype("float32")

    return {
        "params": {
            "first": {"kernel": draw(3, 2), "bias": draw(2)},
            "bn": {"scale": draw(2), "bias": draw(2)},
            "second": {"kernel": draw(2, 2)},
        },
        "batch_stats": {"bn": {"mean": draw(2), "var": draw(2)}},
    }


def structure():
    """A Keras model with two classes of nested models, a shared layer, and layers without weights."""
    keras = fresh_keras()
    x = keras.Input((8, 8, 3))
    y = keras.layers.SeparableConv2D(3, 3, padding="same")(keras.layers.Dropout(0.5)(x))
    inner = keras.Model(x, keras.layers.BatchNormalization(scale=False)(y), name="inner")
    block = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1), keras.layers.BatchNormalization()], name="block"
    )
    image = keras.Input((8, 8, 3))
    outer = keras.Model(image, keras.layers.Add()([inner(block(image)), image]), name="outer")
    z = keras.Input((8, 8, 3))
    pooled = [keras.layers.GlobalAveragePooling2D()(each) for each in (outer(z), keras.layers.PReLU()(z))]
    dense = keras.layers.Dense(4, activation="softmax")
    return keras.Model(z, [dense(each) for each in pooled])


def imported(keras_model, folder):
    import flaxapps

    keras_model.save(folder / "model.keras")
    return flaxapps.load_model(folder / "model.keras")


@pytest.mark.parametrize("form", FORMS)
def test_keras_loads_nested_and_shared(form, tmp_path):
    original = structure()
    randomise(original)
    model, variables = imported(original, tmp_path)
    weight_port.save_weights(tmp_path / f"ours.{form}", model, variables)
    fresh = structure()
    randomise(fresh, seed=9)
    fresh.load_weights(tmp_path / f"ours.{form}")
    for mine, other in zip(fresh.weights, original.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(other))
    loaded = weight_port.load_weights(tmp_path / f"ours.{form}", model)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def contents(path):
    """Everything in an HDF5 file: groups and datasets with their attributes."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update(
                {name: (dict(item.attrs), item[()].tobytes() if isinstance(item, h5py.Dataset) else None)}
            )
        )
    return found


def test_the_newer_layout_is_keras_own_to_the_last_group(tmp_path):
    original = structure()
    randomise(original)
    model, variables = imported(original, tmp_path)
    weight_port.save_weights(tmp_path / "ours.weights.h5", model, variables)
    original.save_weights(tmp_path / "theirs.weights.h5")
    theirs = contents(tmp_path / "theirs.weights.h5")
    assert contents(tmp_path / "ours.weights.h5") == theirs
    assert any("dropout/vars" in name for name in theirs)


@pytest.mark.parametrize("form", FORMS)
def test_own_model(form, tmp_path):
    import keras

    x = Input((8, 8, 3))
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, name="conv")(x))
    model = Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    variables = model.init_variables(3)
    weight_port.save_weights(tmp_path / f"ours.{form}", model, variables)
    image = keras.Input((8, 8, 3))
    z = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image))
    keras_model = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(z)))
    keras_model.load_weights(tmp_path / f"ours.{form}")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    (theirs,) = keras_outputs(keras_model, [images])
    assert relative_difference(model.apply(variables, images), theirs) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_networks(name, variant, tmp_path):
    import keras

    import flaxapps

    info = flaxapps.model_info(name)
    model = build_model(name, variant=variant, include_top=False, input_shape=(info.min_size, info.min_size, 3))
    variables = recipe_variables(model)
    for form in FORMS:
        path = tmp_path / f"ours.{form}"
        weight_port.save_weights(path, model, variables)
        jax.tree.map(np.testing.assert_array_equal, weight_port.load_weights(path, model), variables)
        if not variant:
            keras.backend.clear_session()
            network = getattr(keras.applications, info.function)(weights=None, include_top=False)
            network.load_weights(path)
            ours = dict(leaves(variables))
            for weight, target in zip(network.weights, all_targets(model.layers), strict=True):
                np.testing.assert_array_equal(np.asarray(weight), ours[target.path])
        path.unlink()


def test_legacy_layout(tmp_path):
    variables = small_variables()
    weight_port.save_weights(tmp_path / "x.h5", small_model(), variables)
    with h5py.File(tmp_path / "x.h5") as file:
        assert list(file.attrs["layer_names"]) == [b"image", b"first", b"bn", b"second"]
        assert (file.attrs["backend"], file.attrs["keras_version"][:2]) == (b"tensorflow", b"2.")
        assert list(file["first"].attrs["weight_names"]) == [b"first/kernel:0", b"first/bias:0"]
        names = [b"bn/gamma:0", b"bn/beta:0", b"bn/moving_mean:0", b"bn/moving_variance:0"]
        assert list(file["bn"].attrs["weight_names"]) == names
        assert list(file["image"].attrs["weight_names"]) == []
        assert list(file["top_level_model_weights"].attrs["weight_names"]) == []
        np.testing.assert_array_equal(file["first/first/kernel:0"], variables["params"]["first"]["kernel"])


def test_long_lists_of_names_are_split(tmp_path):
    model = SimpleNamespace(layers=[fake_layer(f"{'long' * 20}_{number:04}", "ReLU") for number in range(2000)])
    weight_port.save_weights(tmp_path / "x.h5", model, {})
    with h5py.File(tmp_path / "x.h5") as file:
        assert "layer_names" not in file.attrs
        parts = [file.attrs[f"layer_names{number}"] for number in range(3)]
        assert all(part.nbytes <= ATTRIBUTE_LIMIT for part in parts)
        assert [name.decode() for part in parts for name in part] == [layer.name for layer in model.layers]


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray, lambda x: np.asarray(x, ">f4")], ids=["np", "jax", "big"])
@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_all_origins_land_to_the_bit(form, convert, tmp_path):
    variables = small_variables()
    variables["params"]["first"]["kernel"][0] = np.float32([np.nan, -0.0])
    weight_port.save_weights(tmp_path / f"x.{form}", small_model(), jax.tree.map(convert, variables))
    loaded = weight_port.load_weights(tmp_path / f"x.{form}", small_model())
    jax.tree.map(lambda mine, other: (mine.tobytes() == other.tobytes()) or pytest.fail("bits"), loaded, variables)


def test_bfloat16_is_widened_and_float64_refused(tmp_path):
    variables = small_variables()
    half = jnp.asarray(variables["params"]["first"]["bias"], "bfloat16")
    variables["params"]["first"]["bias"] = half
    weight_port.save_weights(tmp_path / "x.h5", small_model(), variables)
    loaded = weight_port.load_weights(tmp_path / "x.h5", small_model())
    np.testing.assert_array_equal(loaded["params"]["first"]["bias"], np.asarray(half, "float32"))
    variables["params"]["first"]["bias"] = np.zeros(2, "float64")
    with pytest.raises(WeightError, match=r"first/bias.*float64 is not float32"):
        weight_port.save_weights(tmp_path / "y.h5", small_model(), variables)


@pytest.mark.parametrize("form", FORMS)
def test_variables_that_do_not_fit_are_all_listed(form, tmp_path):
    variables = small_variables()
    del variables["batch_stats"]["bn"]["mean"]
    variables["params"]["third"] = {"kernel": np.zeros((1, 1), "float32")}
    variables["params"]["second"]["kernel"] = np.zeros((2, 3), "float32")
    with pytest.raises(WeightError) as caught:
        weight_port.save_weights(tmp_path / f"x.{form}", small_model(), variables)
    assert caught.value.missing == ("bn/moving_mean (2,)",)
    assert caught.value.unexpected == ("params/third/kernel (1, 1)",)
    assert caught.value.misshapen == ("second/kernel (2, 2): the variables have (2, 3)",)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x.keras", "x", "weights.hdf5", "x.h5.npz"])
def test_other_suffixes_are_refused(name, tmp_path):
    with pytest.raises(WeightError, match=r"\.weights\.h5 .*\.h5"):
        weight_port.save_weights(tmp_path / name, small_model(), small_variables())
    assert not list(tmp_path.iterdir())


class Unreadable:
    """An array whose device is lost halfway through a save."""

    def __init__(self, array, error):
        self.shape, self.dtype, self.error = array.shape, array.dtype, error

    def __array__(self, dtype=None, copy=None):
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("device lost"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("form", FORMS)
def test_an_interrupted_save_leaves_the_old_file_whole(form, error, tmp_path):
    path = tmp_path / f"x.{form}"
    weight_port.save_weights(path, small_model(), small_variables())
    before = path.read_bytes()
    variables = small_variables(1)
    variables["params"]["second"]["kernel"] = Unreadable(variables["params"]["second"]["kernel"], error)
    with pytest.raises(type(error)):
        weight_port.save_weights(path, small_model(), variables)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    weight_port.save_weights(path, small_model(), small_variables(1))
    assert path.read_bytes() != before


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        weight_port.save_weights(tmp_path / "nowhere" / "x.h5", small_model(), small_variables())


def test_links_and_permissions_stay(tmp_path):
    target = tmp_path / "target.h5"
    weight_port.save_weights(target, small_model(), small_variables())
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    target.chmod(0o640)
    (tmp_path / "link.h5").symlink_to(target)
    weight_port.save_weights(tmp_path / "link.h5", small_model(), small_variables(1))
    assert os.path.islink(tmp_path / "link.h5")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    loaded = weight_port.load_weights(target, small_model())
    jax.tree.map(np.testing.assert_array_equal, loaded, small_variables(1))
