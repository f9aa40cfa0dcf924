"""Whole models that Keras 3.15 writes, imported: the same outputs and modes, or a refusal that says everything."""

import json
import zipfile

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxapps
from flaxapps.saving.load import examine, load_architecture
from tests.imported import check_import, keras_outputs, random_inputs
from tests.networks import fresh_keras
from tests.recipe import relative_difference
from weight_port import WeightError


def base(keras, name="base"):
    x = keras.Input((9, 8, 3))
    y = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, name="conv")(x))
    return keras.Model(x, keras.layers.Dropout(0.5, name="drop")(y), name=name)


def head(keras, x):
    return keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling2D()(x))


def frozen_base(keras):
    x = keras.Input((9, 8, 3))
    return keras.Model(x, head(keras, base(keras)(x, training=False)))


def fixed_dropout(keras):
    x = keras.Input((9, 8, 3))
    y = keras.layers.Dropout(0.9, name="off")(keras.layers.Conv2D(3, 3)(x), training=False)
    return keras.Model(x, head(keras, y))


def layer_called_twice(keras):
    a, b = keras.Input((5,), name="first"), keras.Input((5,), name="second")
    dense = keras.layers.Dense(5, activation="tanh", name="shared")
    return keras.Model([a, b], keras.layers.Concatenate()([dense(dense(a)), dense(b), a]))


def model_called_twice(keras):
    a, b = keras.Input((9, 8, 3)), keras.Input((9, 8, 3))
    inner = base(keras)
    return keras.Model([a, b], head(keras, keras.layers.Concatenate()([inner(b), inner(a)])))


def later_call_only(keras):
    """Of two calls of a nested model the outer model keeps the second."""
    x = keras.Input((9, 8, 3))
    inner = base(keras)
    inner(keras.Input((9, 8, 3)))
    return keras.Model(x, head(keras, inner(x)))


def several_inputs_and_outputs(keras):
    a, b, c = (keras.Input((6,), name=name) for name in "abc")
    add = keras.layers.Add()([b, a])
    return keras.Model([c, a, b], [keras.layers.Dense(3)(c), add, keras.layers.Dense(4)(add), b])


def nested_with_several_ends(keras):
    a, b = keras.Input((6,)), keras.Input((6,))
    inner = keras.Model([b, a], [keras.layers.Dense(3)(a), keras.layers.Dense(4)(b)], name="inner")
    x, y = keras.Input((6,)), keras.Input((6,))
    one, two = inner([x, y])
    return keras.Model([y, x], [keras.layers.Dense(2)(two), one])


def nested_three_deep(keras):
    model = base(keras, "deepest")
    for name in ("deep", "shallow"):
        x = keras.Input((9, 8, 3))
        y = keras.layers.Conv2D(3, 1, name=f"{name}_conv")(model(x))
        model = keras.Model(x, keras.layers.ZeroPadding2D(1)(y), name=name)
    return model


def output_of_a_nested_model(keras):
    x = keras.Input((9, 8, 3))
    return keras.Model(x, base(keras)(x))


def two_of_equal_names(keras):
    """As in an ensemble of VGG16 and VGG19: the layers inside are called the same."""
    x = keras.Input((9, 8, 3))
    return keras.Model(x, head(keras, keras.layers.Add()([base(keras, "left")(x), base(keras, "right")(x)])))


def names_in_a_dictionary(keras):
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    return keras.Model({"b": b, "a": a}, {"sum": keras.layers.Add()([a, b]), "head": keras.layers.Dense(2)(a)})


def mixed_flags(keras):
    """Trainable and frozen layers mixed: legacy files order a nested model's arrays by it."""
    x, y = keras.Input((9, 8, 3)), keras.Input((9, 8, 3))
    z = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(3, 3, name="one", trainable=False)(x))
    inner = keras.Model(x, keras.layers.Conv2D(3, 3, name="two")(z), name="inner")
    inner.get_layer("norm").trainable = False
    return keras.Model(y, head(keras, inner(y)))


def options(keras):
    layers, x = keras.layers, keras.Input((11, 10, 4))
    y = layers.Conv2D(6, (3, 2), strides=2, padding="same", groups=2, activation="relu6")(x)
    y = layers.BatchNormalization(epsilon=0.3, center=False)(y)
    y = layers.SeparableConv2D(5, 3, dilation_rate=2, depth_multiplier=2, use_bias=False, padding="same")(y)
    y = layers.BatchNormalization(scale=False, momentum=0.5)(y)
    y = layers.AveragePooling2D((3, 2), strides=(2, 1), padding="same")(layers.ZeroPadding2D(((1, 0), (0, 2)))(y))
    return keras.Model(x, [layers.GlobalMaxPooling2D(keepdims=True)(y), layers.Concatenate(axis=1)([y, y])])


STRUCTURES = [
    frozen_base, fixed_dropout, layer_called_twice, model_called_twice, later_call_only, several_inputs_and_outputs,
    nested_with_several_ends, nested_three_deep, output_of_a_nested_model, two_of_equal_names, mixed_flags, options,
]  # fmt: skip # kept on few lines on purpose


@pytest.fixture
def keras():
    return fresh_keras()


# Two formats record the calls of nested models alike, but not their arrays.
CASES = [(build, "keras") for build in STRUCTURES] + [
    (build, "h5") for build in (model_called_twice, later_call_only, nested_with_several_ends, mixed_flags)
]


@pytest.mark.parametrize(("build", "form"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_same_outputs(build, form, keras, tmp_path):
    model = build(keras)
    network = check_import(model, tmp_path / f"model.{form}")
    assert [layer.name for layer in network.model.layers] == [layer.name for layer in model.layers]
    assert network.model.count_params() == model.count_params()
    assert network.model.input_shape == model.input_shape
    assert network.model.output_shape == model.output_shape


def test_named_inputs_and_outputs(keras, tmp_path):
    """Keras takes and gives dictionaries: the file is imported, or refused for what it is."""
    names_in_a_dictionary(keras).save(tmp_path / "model.keras")
    try:
        model = load_architecture(tmp_path / "model.keras")
    except WeightError as error:
        message = str(error)
        assert "damaged" not in message
        return
    assert {layer.name for layer in model.layers} >= {"a", "b"}


def test_fixed_mode_holds_in_training(keras, tmp_path):
    """`training=False` at a call: neither dropout nor statistics of the batch, whatever the rest of the model does."""
    model = frozen_base(keras)
    network = check_import(model, tmp_path / "model.keras")
    (images,) = random_inputs(model)
    trained, updates = network.model.apply(network.variables, images, train=True, mutable=["batch_stats"])
    assert relative_difference(trained, network.model.apply(network.variables, images)) <= 1e-6
    jax.tree.map(
        np.testing.assert_array_equal, updates.get("batch_stats", {}), network.variables.get("batch_stats", {})
    )


def test_a_free_mode_follows_the_model(keras, tmp_path):
    """Keras 3 records `training=False`, the default of Dropout.call, where no mode was given."""
    model = output_of_a_nested_model(keras)
    network = check_import(model, tmp_path / "model.keras")
    (images,) = random_inputs(model)
    trained, updates = network.model.apply(
        network.variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
    )
    assert 0.3 < np.mean(np.asarray(trained) == 0) < 0.7
    assert np.any(
        updates["batch_stats"]["base"]["norm"]["mean"] != network.variables["batch_stats"]["base"]["norm"]["mean"]
    )


def test_mixed_bfloat16(keras, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = check_import(frozen_base(keras), tmp_path / "model.keras", tolerance=3e-2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(network.variables)} == {np.dtype("float32")}
    assert network.model.apply(network.variables, np.zeros((1, 9, 8, 3), "float32")).dtype == "bfloat16"


def test_the_loaded_model_is_a_model_like_others(keras, tmp_path):
    model = nested_three_deep(keras)
    network = check_import(model, tmp_path / "model.keras")
    deep = network.model.get_layer("deep")
    assert [layer.name for layer in deep.layers] == [layer.name for layer in model.get_layer("deep").layers]
    assert network.model.get_layer(index=1).name == "deep"
    (images,) = random_inputs(model)
    features = flaxapps.Model(network.model.input, deep.output)
    (expected,) = keras_outputs(model.get_layer("deep"), [images])
    assert relative_difference(features.apply(network.variables, images), expected) <= 1e-5
    fresh = network.model.init_variables(base=network.variables)
    jax.tree.map(np.testing.assert_array_equal, fresh, dict(network.variables))
    assert hash(network.model) == hash(load_architecture(tmp_path / "model.keras"))
    assert network.model == load_architecture(tmp_path / "model.keras")
    node = flaxapps.Input((9, 8, 3))
    extended = flaxapps.Model(node, flaxapps.layers.GlobalAveragePooling2D()(network.model(node)))
    variables = extended.init_variables(
        base={collection: {network.model.name: tree} for collection, tree in network.variables.items()}
    )
    means = network.model.apply(network.variables, images).mean((1, 2))
    assert relative_difference(extended.apply(variables, images), np.asarray(means)) <= 1e-6


def rewritten(path, change):
    """The archive with another configuration."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    members["config.json"] = json.dumps(change(config) or config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def saved(keras, tmp_path):
    frozen_base(keras).save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def check_refused(path, *says):
    with pytest.raises(WeightError) as caught:
        flaxapps.load_model(path)
    for part in (str(path), *says):
        assert part in str(caught.value)
    return str(caught.value)


def layer_of(config, name):
    return next(layer for layer in config["config"]["layers"] if layer["config"]["name"] == name)


def test_lambda_is_never_run(keras, tmp_path):
    x = keras.Input((3,))
    keras.Model(x, keras.layers.Lambda(lambda value: value * 2, name="double")(x)).save(tmp_path / "model.keras")
    check_refused(tmp_path / "model.keras", "double (Lambda", "never run")


def test_unknown_kinds_are_all_listed_at_any_depth(saved):
    def change(config):
        layer_of(config, "head")["class_name"] = "Mystery"
        layer_of(layer_of(config, "base"), "conv")["class_name"] = "Riddle"

    message = check_refused(rewritten(saved, change), "head (Mystery; ", "conv (Riddle; ", 'register("Riddle")')
    assert "BatchNormalization" not in message  # what is known would bury what is not
    assert "norm (" not in message


def test_a_subclass_of_model_whose_graph_is_in_the_file_is_functional(saved):
    model = load_architecture(saved)
    assert load_architecture(rewritten(saved, lambda config: config.update(class_name="MyModel"))) == model


def test_a_model_whose_layers_are_in_code_is_refused(saved):
    def change(config):
        config.update(class_name="MyModel", config={"name": "mine", "width": 3})

    check_refused(rewritten(saved, change), "MyModel", "code of that class")


@pytest.mark.parametrize(
    ("layer", "option", "value"),
    [("head", "twist", 3), ("head", "twist", True)],
)
def test_unknown_options_are_refused(layer, option, value, saved):
    def change(config):
        layer_of(config, layer)["config"][option] = value

    check_refused(rewritten(saved, change), repr(layer), repr(option))


def test_unknown_options_of_a_call_are_refused(saved):
    def change(config):
        layer_of(config, "head")["inbound_nodes"][0]["kwargs"]["mask"] = "something"

    check_refused(rewritten(saved, change), "'head'", "mask")


def drop(*keys):
    def change(config):
        for key in keys[:-1]:
            config = config[key]
        del config[keys[-1]]

    return change


def put(value, *keys):
    def change(config):
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = value

    return change


DAMAGE = {
    "no class": drop("class_name"),
    "no config": drop("config"),
    "config is text": put("text", "config"),
    "config is nothing": put(None, "config"),
    "no layers": drop("config", "layers"),
    "layers is a number": put(3, "config", "layers"),
    "layers is empty": put([], "config", "layers"),
    "a layer is text": put("text", "config", "layers", 1),
    "a layer without a class": drop("config", "layers", 3, "class_name"),
    "a layer without a config": drop("config", "layers", 3, "config"),
    "a layer without calls": drop("config", "layers", 3, "inbound_nodes"),
    "calls are text": put("text", "config", "layers", 3, "inbound_nodes"),
    "a call of a layer that is not there": put(
        ["gone", 0, 0], "config", "layers", 3, "inbound_nodes", 0, "args", 0, "config", "keras_history"
    ),
    "a call of a call that is not there": put(
        9, "config", "layers", 3, "inbound_nodes", 0, "args", 0, "config", "keras_history", 1
    ),
    "an output that is not there": put(
        9, "config", "layers", 3, "inbound_nodes", 0, "args", 0, "config", "keras_history", 2
    ),
    "a call of its own output": put(
        ["head", 0, 0], "config", "layers", 3, "inbound_nodes", 0, "args", 0, "config", "keras_history"
    ),
    "no outputs": put([], "config", "output_layers"),
    "outputs from nowhere": put(["gone", 0, 0], "config", "output_layers"),
    "inputs are a number": put(1, "config", "input_layers"),
    "a shape of text": put("text", "config", "layers", 0, "config", "batch_shape"),
    "a negative size": put([None, -9, 8, 3], "config", "layers", 0, "config", "batch_shape"),
    "a size of text": put([None, 9, 8, "3"], "config", "layers", 0, "config", "batch_shape"),
    "units of text": put("many", "config", "layers", 3, "config", "units"),
    "units less than one": put(-2, "config", "layers", 3, "config", "units"),
    "a fraction of a unit": put(2.5, "config", "layers", 3, "config", "units"),
    "an activation that is not known": put("magic", "config", "layers", 3, "config", "activation"),
    "a dtype that is not known": put("float7", "config", "layers", 3, "config", "dtype"),
    "a name that is a number": put(7, "config", "layers", 3, "config", "name"),
    "two layers of one name": put("base", "config", "layers", 3, "config", "name"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_configurations(damage, saved):
    check_refused(rewritten(saved, DAMAGE[damage]))


@pytest.mark.parametrize("suffix", ["weights.h5", "h5"])
def test_files_of_weights_alone(suffix, keras, tmp_path):
    path = tmp_path / f"model.{suffix}"
    frozen_base(keras).save_weights(tmp_path / "model.weights.h5")
    if suffix == "h5":
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"head"]
            file.create_group("head").attrs["weight_names"] = []
    check_refused(path, "no model configuration")


def test_weights_of_another_model_in_the_archive(saved, keras, tmp_path):
    """The configuration loads, the arrays do not fit: nothing is given."""

    def change(config):
        layer_of(config, "head")["config"]["units"] = 3

    check_refused(rewritten(saved, change), "head/kernel (4, 3): the file has dense/vars/0 (4, 2)", "misshapen (2)")


def test_quantized_models_are_refused_by_name(keras, tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="whole")])
    model.layers[0].quantize("int8")
    model.save(tmp_path / "model.keras")
    check_refused(tmp_path / "model.keras", "whole (Dense, which Keras has quantized")


def test_lora_is_merged_as_keras_merges_it_when_it_saves(keras, tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.layers[0].enable_lora(2)
    for weight in model.trainable_weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    model.save(tmp_path / "model.keras")
    network = flaxapps.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(1).normal(size=(2, 4)).astype("float32")
    np.testing.assert_allclose(
        network.model.apply(network.variables, x), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )


def test_lambda_can_be_registered(keras, tmp_path, nothing_registered):
    x = keras.Input((3,))
    keras.Model(x, keras.layers.Lambda(lambda value: value * 2, name="double")(x)).save(tmp_path / "model.keras")
    check_refused(tmp_path / "model.keras", 'register("Lambda")')

    @flaxapps.layers.register("Lambda")
    def double(config):
        assert config["name"] == "double"
        return flaxapps.layers.Rescaling(2.0)

    network = flaxapps.load_model(tmp_path / "model.keras")
    assert network.model.apply(network.variables, np.ones((1, 3), "float32")).tolist() == [[2, 2, 2]]


@pytest.mark.parametrize("own", ["sine", "relu"])
def test_activations_of_a_user_s_own(own, keras, tmp_path, nothing_registered):
    """Also where they have the name of one of Keras's."""

    def function(x):
        return keras.ops.sin(x)

    function.__name__ = own
    keras.saving.register_keras_serializable(package="Mine")(function)
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2, activation=function, name="head")(x))
    model.save(tmp_path / "model.keras")
    check_refused(tmp_path / "model.keras", "head", f"register_activation('{own}')")
    flaxapps.layers.register_activation(own)(jnp.sin)
    network = flaxapps.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    np.testing.assert_allclose(network.model.apply(network.variables, x), model.predict(x, verbose=0), rtol=1e-5)


def test_examination_names_everything_at_once(saved):
    def change(config):
        layer_of(config, "head")["class_name"] = "LSTM"
        layer_of(layer_of(config, "base"), "conv")["config"]["twist"] = 3

    assert examine(saved).refused == ()
    found = examine(rewritten(saved, change))
    assert found.version.startswith("Keras 3.")
    assert len(found.refused) == 2
    assert "head (LSTM, for sequences or text" in found.refused[1]
    assert "'conv' of kind Conv2D has options that are not known: {'twist': 3}" in found.refused[0]
