"""Models written here, opened by real Keras: same configuration, same weights to the bit, same outputs."""

import dataclasses
import importlib
import inspect
import json
import zipfile

import h5py
import jax
import numpy as np
import pytest

import flaxapps
import weight_port
from flaxapps import Input, Model, layers
from flaxapps.graph.graph import Graph
from flaxapps.graph.symbolic import Layer
from flaxapps.layers import merging
from flaxapps.registry import build_model
from flaxapps.saving.from_config import KINDS
from flaxapps.saving.to_config import layer_entry, operation_entry
from flaxapps.saving.to_model_config import model_config
from tests.imported import keras_outputs, random_inputs, randomise
from tests.networks import VARIANTS, fresh_keras
from tests.recipe import recipe_variables, relative_difference
from weight_port import WeightError
from weight_port.layout import all_targets


@pytest.fixture(autouse=True)
def fresh_keras_session():
    fresh_keras()


def keras_loads(path):
    """The model as Keras opens it, on a machine whose keras.json says channels_first: files do not rely on it."""
    import keras

    keras.config.set_image_data_format("channels_first")
    try:
        return keras.models.load_model(path)
    finally:
        keras.config.set_image_data_format("channels_last")


def random_variables(model, seed=0):
    """Variables away from their initial values; the variances positive."""
    random = np.random.default_rng(seed)

    def draw(path, array):
        leaf = path[-1].key
        if leaf == "count":
            return np.zeros(array.shape, np.float32)
        scale = 1 / np.sqrt(max(1, np.prod(array.shape[:-1]))) if "kernel" in leaf else 0.3
        value = random.normal(0, scale, array.shape).astype("float32")
        return np.abs(value) + np.float32(0.5) if "var" in leaf or leaf == "scale" else value

    return jax.tree_util.tree_map_with_path(draw, model.init_variables())


def datasets(path):
    """Every dataset of the weights in an archive, as bytes."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()].tobytes()

    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member, h5py.File(member) as file:
        file.visititems(visit)
    return found


def keras_weights(keras_model):
    """The weights layer by layer, of each those that train first, as legacy files have them."""
    for layer in keras_model.layers:
        if hasattr(layer, "layers"):
            yield from keras_weights(layer)
        else:
            yield from layer.trainable_weights + layer.non_trainable_weights


def check_export(model, variables, path, tolerance=1e-5):
    """Saves, and compares what Keras opens; then loads and saves once more, which changes nothing."""
    flaxapps.save_model(model, variables, path)
    keras_model = keras_loads(path)
    for weight, target in zip(keras_weights(keras_model), all_targets(model.layers), strict=True):
        expected = variables
        for key in target.path:
            expected = expected[key]
        np.testing.assert_array_equal(np.asarray(weight), expected)
    inputs = random_inputs(keras_model)
    ours = jax.jit(model.apply)(variables, inputs if isinstance(model.inputs, list) else inputs[0])
    for mine, other in zip(ours if isinstance(ours, list) else [ours], keras_outputs(keras_model, inputs), strict=True):
        assert relative_difference(np.asarray(mine, dtype=np.float32), other) <= tolerance
    again = path.with_name("again.keras")
    loaded = flaxapps.load_model(path)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)
    flaxapps.save_model(*loaded, again)
    assert datasets(again) == datasets(path)
    assert weight_port.read_config(again) == weight_port.read_config(path)
    assert flaxapps.load_model(again).model == loaded.model
    return keras_model


# --- models of Keras, through here and back ---------------------------------------------------------------------------


def shared_and_nested():
    import keras

    x = keras.Input((8, 8, 3))
    convolution = keras.layers.Conv2D(3, 3, padding="same", activation="relu")
    inner = keras.Model(x, keras.layers.BatchNormalization()(convolution(convolution(x))), name="inner")
    block = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.SeparableConv2D(3, 3, padding="same")], name="block")
    y = keras.Input((8, 8, 3))
    outer = keras.Model(y, [keras.layers.Add()([inner(inner(y)), y]), block(y)], name="outer")
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3), name="second")
    first, second = outer(keras.layers.Add()([a, b]))
    pooled = [keras.layers.GlobalAveragePooling2D()(each) for each in (first, second)]
    dense = keras.layers.Dense(5)
    return keras.Model([a, b], [keras.layers.Concatenate()([dense(each) for each in pooled]), dense(pooled[1]), first])


def operations():
    import keras
    from keras import ops

    x = keras.Input((8, 8, 3))
    y = keras.layers.Activation("relu")(keras.layers.Conv2D(3, 3, padding="same")(x) + 3.0) * (1 / 6)
    scale = ops.mean(keras.activations.relu(y, max_value=6), axis=(1, 2), keepdims=True)
    y = keras.layers.Conv2D(3, 1, activation=keras.layers.LeakyReLU(0.1))(y)
    return keras.Model(x, [2.0 - y * scale, 1 / (ops.exp(y) + 5), ops.concatenate([x - y, -y], axis=-1), ops.relu(x)])


def fixed_training_modes():
    import keras

    x = keras.Input((8, 8, 3))
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)])
    y = keras.layers.BatchNormalization()(x, training=False)
    return keras.Model(x, keras.layers.Dropout(0.5)(inner(keras.layers.ReLU()(y, training=False), training=False)))


def channels_first():
    import keras

    x = keras.Input((3, 9, 8))
    y = keras.layers.BatchNormalization(axis=1)(keras.layers.Conv2D(4, 3, strides=2, activation="relu")(x))
    y = keras.layers.Concatenate(axis=1)([y, keras.layers.AveragePooling2D(3, 1, padding="same")(y)])
    y = keras.layers.SeparableConv2D(5, 3, padding="same")(y * 2.0)
    return keras.Model(x, [y, keras.layers.Dense(3)(keras.layers.Flatten()(y)), keras.layers.GlobalMaxPooling2D()(y)])


def mixed_precision():
    import keras

    x = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(4, 3, dtype="mixed_bfloat16")(x)
    return keras.Model(
        x, keras.layers.Dense(3, dtype="float32")(keras.layers.Flatten(dtype="mixed_bfloat16")(features))
    )


def semantics(config):
    """A configuration without what concerns fresh weights and training, in one order."""
    if isinstance(config, dict):
        dropped = ("initializer", "regularizer", "constraint", "seed", "shared_object_id", "mask")
        return {key: semantics(value) for key, value in config.items() if not key.endswith(dropped)}
    if isinstance(config, list | tuple):
        parts = [semantics(part) for part in config]
        named = all(isinstance(part, dict) and "inbound_nodes" in part for part in parts)
        return sorted(parts, key=lambda part: part["name"]) if named else parts
    return config


STRUCTURES = [shared_and_nested, operations, fixed_training_modes, channels_first, mixed_precision]


@pytest.mark.parametrize("build", STRUCTURES, ids=lambda build: build.__name__)
def test_keras_models_come_back_as_they_were(build, tmp_path):
    import keras

    keras.config.set_image_data_format("channels_first" if build is channels_first else "channels_last")
    try:
        original = build()
    finally:
        keras.config.set_image_data_format("channels_last")
    randomise(original)
    original.save(tmp_path / "original.keras")
    network = flaxapps.load_model(tmp_path / "original.keras")
    returned = check_export(*network, tmp_path / "model.keras", 1e-2 if build is mixed_precision else 1e-5)
    assert semantics(returned.get_config()) == semantics(original.get_config())
    for mine, other in zip(returned.weights, original.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(other))
    assert [layer.name for layer in returned.layers] == [layer.name for layer in original.layers]
    inputs = random_inputs(original)
    for mine, other in zip(keras_outputs(returned, inputs), keras_outputs(original, inputs), strict=True):
        np.testing.assert_array_equal(mine, other)


# --- models built here ------------------------------------------------------------------------------------------------


def several_ends():
    a, b = Input((9, 9, 3)), Input((None, None, 3), name="second")
    convolution = layers.Conv2D(4, 3, activation=jax.nn.relu)
    pooled = [layers.GlobalAveragePooling2D()(convolution(each)) for each in (a, b)]
    return Model([a, b], [layers.Add()(pooled), layers.Dense(2, activation="softmax")(pooled[0])], name="two")


def model_in_model():
    x = Input((8, 8, 3))
    inner = Model(x, [layers.Conv2D(4, 3)(x), layers.BatchNormalization()(x)], name="inner")
    y = Input((8, 8, 3))
    first, second = inner(layers.ZeroPadding2D(0)(y), training=False)
    return Model(y, [layers.Flatten()(first), second])


def several_ends_inside():
    a, b = Input((8, 8, 3)), Input((8, 8, 3))
    inner = Model([a, b], [layers.Subtract()([b, a]), layers.Conv2D(2, 3)(a)], name="inner")
    x, y = Input((8, 8, 3)), Input((8, 8, 3))
    return Model([x, y], inner([layers.ReLU()(y), x]))


def cut_in_the_middle():
    x = Input((9, 9, 3))
    middle = layers.Conv2D(4, 3, name="first")(x)
    return Model(middle, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(middle)))


@pytest.mark.parametrize(
    "build", [several_ends, model_in_model, several_ends_inside, cut_in_the_middle], ids=lambda build: build.__name__
)
def test_own_models(build, tmp_path):
    model = build()
    keras_model = check_export(model, random_variables(model), tmp_path / "model.keras")
    if build is cut_in_the_middle:
        assert keras_model.layers[0].name == "first_input"


@pytest.mark.slow
def test_extended_network(tmp_path):
    base = build_model("vgg16", include_top=False, input_shape=(48, 48, 3))
    pooled = layers.GlobalAveragePooling2D()(base.output)
    model = Model(base.input, layers.Dense(5, activation="softmax")(layers.Dense(16, activation="relu")(pooled)))
    keras_model = check_export(model, recipe_variables(model), tmp_path / "model.keras")
    assert [layer.name for layer in keras_model.layers] == [layer.name for layer in model.layers]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_networks(name, variant, tmp_path):
    info = flaxapps.model_info(name)
    size = max(info.possible_size, 197 if variant else 0)
    model = build_model(
        name, variant=variant, include_top=False, input_shape=(size, size, 3), min_size=info.possible_size
    )
    keras_model = check_export(model, recipe_variables(model), tmp_path / "model.keras")
    assert [layer.name for layer in keras_model.layers] == [layer.name for layer in model.layers]


def test_half_precision_keeps_its_parameters_in_float32(tmp_path):
    x = Input((16, 16, 3), dtype="bfloat16")
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, activation="relu")(x))
    model = Model(x, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(y)))
    keras_model = check_export(model, random_variables(model), tmp_path / "model.keras", 2e-2)
    assert {layer.dtype_policy.name for layer in keras_model.layers[1:]} == {"mixed_bfloat16"}
    assert {weight.dtype for weight in keras_model.weights} == {"float32"}


@pytest.mark.slow
def test_channels_first_network(tmp_path):
    model = build_model(
        "resnet50", include_top=True, classes=7, input_shape=(3, 64, 64), min_size=32, data_format="channels_first"
    )
    keras_model = check_export(model, recipe_variables(model), tmp_path / "model.keras")
    assert keras_model.input_shape == (None, 3, 64, 64)


def test_nested_in_channels_first(tmp_path):
    a = Input((3, 8, 6), data_format="channels_first")
    b = Input((8, 6, 3))
    inner = Model(b, layers.BatchNormalization()(layers.Conv2D(4, 3)(b)), name="inner")
    model = Model(a, [inner(a), layers.Flatten()(layers.Concatenate()([a, a]))])
    variables = random_variables(model)
    flaxapps.save_model(model, variables, tmp_path / "model.keras")
    keras_model = keras_loads(tmp_path / "model.keras")
    inputs = random_inputs(keras_model)
    theirs = keras_outputs(keras_model, inputs)
    for mine, other in zip(model.apply(variables, inputs[0]), theirs, strict=True):
        assert relative_difference(mine, other) <= 1e-5


# --- every kind -------------------------------------------------------------------------------------------------------

NO_LAYERS = (
    "Layer", "Augmentation", "Noise", "InputLayer", "Functional", "Sequential", "Operation",
    "Equalization",  # refused: Keras cannot open it
)  # fmt: skip # on few lines on purpose
ARGUMENTS = {
    "activation": "tanh", "axes": 1, "bin_boundaries": (-0.5, 0.0, 0.7), "dims": (2, 1, 3), "drop_path_rate": 0.2,
    "equation": "abcd,de->abce", "filters": 4, "head_dim": 4, "height": 5, "init_values": 0.1, "input_dim": 9,
    "kernel_size": 3, "key_dim": 4, "layer": layers.Dense(3),
    "layers_in_order": (layers.Rescaling(0.5), layers.RandomFlip()), "n": 2, "num_heads": 2,
    "num_key_value_heads": 2, "num_query_heads": 4, "num_tokens": 9, "output_dim": 4, "output_size": 5,
    "projection_dim": 3, "rate": 0.3, "scale": 0.5, "stddev": 0.3, "target_shape": (16, 12), "units": 3, "width": 6,
}  # fmt: skip # on few lines on purpose
OPTIONS = {
    "EinsumDense": {"output_size": (None, None, 4)},
    "GroupNormalization": {"groups": 3},
    "RandomPosterization": {"factor": 4},
}
SHAPES = {
    "RepeatVector": (6,),
    "Dot": (6, 6),
    "Embedding": (6,),
    "CategoryEncoding": (6,),
    "SpectralNormalization": (6,),
}
SHAPE_BY_RANK = {"1D": (8, 3), "3D": (8, 7, 6, 3)}
INTEGERS = ("Embedding", "CategoryEncoding")
SEVERAL_INPUTS = (*vars(merging), "CustomScaleLayer")
ATTENTIONS = ("Attention", "AdditiveAttention", "MultiHeadAttention", "GroupedQueryAttention")


@pytest.mark.filterwarnings("ignore:[^E]*Explicitly requested dtype int64:UserWarning", "ignore:Exception encountered")
@pytest.mark.parametrize("kind", [kind for kind in sorted(KINDS) if kind not in NO_LAYERS])
def test_every_kind(kind, tmp_path):
    required = [
        field.name
        for field in dataclasses.fields(KINDS[kind])
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    arguments = {name: ARGUMENTS[name] for name in required} | OPTIONS.get(kind, {})
    shape = (
        (6, 4)
        if kind in ATTENTIONS
        else SHAPES.get(kind, next((each for rank, each in SHAPE_BY_RANK.items() if rank in kind), (8, 8, 3)))
    )
    dtype = "int32" if kind in INTEGERS else "float32"
    inputs = [Input(shape, dtype=dtype)]
    if kind in SEVERAL_INPUTS or kind in ATTENTIONS:
        inputs.append(Input(shape, dtype=dtype))
    called_with = inputs if len(inputs) > 1 else inputs[0]
    layer = KINDS[kind](**arguments)
    model = Model(called_with, layer(called_with))
    check_export(model, random_variables(model), tmp_path / "model.keras")


def test_operations_are_where_keras_has_them():
    for kind in layers.OPERATIONS:
        entry = operation_entry(layers.Operation(kind, (layers.Slot(0),)), [(None, 4)], False)
        assert inspect.isclass(getattr(importlib.import_module(entry["module"]), kind, None)), kind


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(model, tmp_path, match):
    with pytest.raises(WeightError, match=match):
        flaxapps.save_model(model, model.init_variables(), tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())


def test_functions_without_a_name_are_refused(tmp_path):
    x = Input((4,))
    refused(Model(x, layers.Dense(2, activation=jax.numpy.cos, name="odd")(x)), tmp_path, "'odd'.*activation=")


def test_what_keras_cannot_open_is_refused(tmp_path):
    x = Input((8, 8, 3))
    refused(Model(x, layers.Equalization(name="flat")(x)), tmp_path, "'flat'.*Equalization")


def test_kinds_of_users_are_refused_unless_registered(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Twice(Layer):
        factor: float = 2.0

        def call(self, weights, *inputs):
            return inputs[0] * self.factor

    x = Input((4,))
    model = Model(x, Twice(name="mine")(x))
    refused(model, tmp_path, "'mine' of kind Twice is not a layer of Keras")
    layers.register("Twice")(Twice)
    try:
        flaxapps.save_model(model, {}, tmp_path / "model.keras")
        assert flaxapps.load_model(tmp_path / "model.keras").model.layers[1].factor == 2.0
    finally:
        layers.custom._REGISTERED.clear()
    import keras

    class KerasTwice(keras.layers.Layer):
        def __init__(self, factor, **options):
            super().__init__(**options)
            self.factor = factor

        def call(self, x):
            return x * self.factor

    opened = keras.models.load_model(tmp_path / "model.keras", custom_objects={"Twice": KerasTwice})
    assert opened.get_layer("mine").factor == 2.0


@pytest.mark.parametrize(
    "layer",
    [
        layers.Activation("softmax", name="odd"),
        layers.Conv2D(2, 3, activation="softmax", name="odd"),
        layers.Dense(3, name="odd"),
        layers.Dropout(0.5, noise_shape=(None, 1, 1, None), name="odd"),
        layers.Operation("Mean", (layers.Slot(0),), (("axis", (1, 2)),), name="odd"),
    ],
    ids=lambda layer: layer.class_name,
)
def test_what_cannot_be_turned_to_channels_first_is_refused(layer, tmp_path):
    x = Input((3, 8, 8), data_format="channels_first")
    refused(Model(x, layer(x)), tmp_path, "'odd'.*cannot be turned to channels_first")


def test_sequential_models_are_chains(tmp_path):
    x = Input((4,))
    graph = Graph([x], [layers.Add()([x, layers.ReLU()(x)])])
    y = Input((4,))
    refused(Model(y, layers.Sequential(graph, name="inner")(y)), tmp_path, "'inner' is no chain of layers")


def test_names_keras_does_not_take_are_refused(tmp_path):
    x = Input((4,))
    y = layers.Operation("Exp", (layers.Slot(0),), name="same")(layers.Dense(2, name="same")(x))
    refused(Model(x, y), tmp_path, "Two layers are called 'same'")


def test_other_suffixes_and_variables_are_refused(tmp_path):
    x = Input((4,))
    model = Model(x, layers.Dense(2)(x))
    with pytest.raises(WeightError, match=r"has to end in \.keras"):
        flaxapps.save_model(model, model.init_variables(), tmp_path / "model.h5")
    with pytest.raises(WeightError) as caught:
        flaxapps.save_model(model, {"params": {"dense": {"kernel": np.zeros((5, 2), "float32")}}}, tmp_path / "m.keras")
    assert (caught.value.missing, len(caught.value.misshapen)) == (("dense/bias (2,)",), 1)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_save_leaves_the_old_file_whole(tmp_path, monkeypatch):
    x = Input((4,))
    model = Model(x, layers.Dense(2)(x))
    flaxapps.save_model(model, model.init_variables(), tmp_path / "model.keras")
    before = (tmp_path / "model.keras").read_bytes()

    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        flaxapps.save_model(model, model.init_variables(1), tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
    assert (tmp_path / "model.keras").read_bytes() == before


def test_the_archive_is_stored_and_says_its_version(tmp_path):
    x = Input((4,))
    model = Model(x, layers.Dense(2)(x))
    flaxapps.save_model(model, model.init_variables(), tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
        assert json.loads(archive.read("metadata.json"))["keras_version"].startswith("3.")
        assert json.loads(archive.read("config.json")) == json.loads(json.dumps(model_config(model)))


def test_layers_with_weights_say_how_they_are_built():
    entry = layer_entry(layers.Dense(2, name="d"), "float32", [(None, 4)], False)
    assert entry["build_config"] == {"input_shape": [None, 4]}
