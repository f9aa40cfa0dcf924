"""Files written by real old versions of Keras give the outputs of those versions."""

import re
import warnings

import h5py
import jax
import numpy as np
import optax
import pytest
from PIL import Image

import flaxapps
import weight_port
from flaxapps import train
from flaxapps.cli import main
from flaxapps.saving.load import load_architecture
from tests.places import LEGACY
from weight_port import WeightError

# JAX says so itself where it computes a float64 model in float32.
pytestmark = pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")

FILES = sorted(file for file in LEGACY.glob("*/*") if file.suffix in (".h5", ".keras"))
WHOLE = [file for file in FILES if not file.name.endswith(".weights.h5")]
# What is refused, and by which words.
REFUSED = {
    "k30/L_CategoryEncoding_1.h5": "'category_encoding' .* dimension of 1",
    "k224/dot_4d.h5": "'dot_1' of kind Dot .* other products",
    "tk215/conv_layer_PReLU_0.keras": "'conv2d' of kind Conv2D: The activation is a layer of kind PReLU",
    "tk215/double_nested_partly_frozen.h5": "several arrays of one name.*c/bias:0, c/kernel:0",
    "tk215/input_int32_pool.keras": "'global_average_pooling2d' .* means of integers",
}
# Of folders: what is warned of in every file that has such a layer.
FOLDERS_WARNED = {"k122th": "does not store its backend"}
# What is imported with a warning, since Keras 3 has no such layer, or the file does not say enough.
WARNED = {
    "plain_seq_inputlayer": "its weights fit .* is taken",
    "normalization_deferred_first": "its weights fit .* is taken",
    "random_height": "imported as the identity",
    "upsampling": "does not say whether it interpolates",
    "slashes": "does not allow '/' in layer names",
}
# TensorFlow 1.13 interpolated there and did not write so; the warning says what is assumed.
NOT_SAID = ("tk113/upsampling.h5",)


def name_of(file):
    return f"{file.parent.name}/{file.name}"


def example(file):
    case = file.name.split(".")[0]
    with np.load(file.parent / f"{case}.npz") as stored:
        keys = sorted(stored.files, key=lambda key: int(key[1:]))
        return [[stored[key] for key in keys if key[0] == kind] for kind in "xy"]


def check_outputs(found, wanted, file):
    found = found if isinstance(found, list | tuple) else [found]
    assert len(found) == len(wanted)
    tolerance = 1e-2 if "float16" in file.name else 2e-5
    for output, expected in zip(found, wanted, strict=True):
        assert np.asarray(output).shape == expected.shape
        assert np.abs(np.asarray(output, np.float64) - expected).max() <= tolerance * np.abs(expected).max()


def load(file):
    """The network; warnings only where they are expected."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        network = flaxapps.load_model(file)
    expected = next((text for case, text in WARNED.items() if file.name.startswith(case)), None)
    expected = FOLDERS_WARNED.get(file.parent.name, expected)
    assert all(expected and re.search(expected, str(warning.message)) for warning in caught), [
        str(each) for each in caught
    ]
    return network


IMPORTED = [file for file in WHOLE if name_of(file) not in REFUSED and name_of(file) not in NOT_SAID]


@pytest.mark.parametrize("file", IMPORTED, ids=name_of)
def test_outputs_are_those_of_the_keras_that_wrote_the_file(file):
    inputs, outputs = example(file)
    model, variables = load(file)
    check_outputs(model.apply(variables, inputs if len(inputs) > 1 else inputs[0]), outputs, file)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_files_that_do_not_say_enough_are_refused_by_name(name):
    with pytest.raises(WeightError, match=REFUSED[name]):
        flaxapps.load_model(LEGACY / name)


@pytest.mark.parametrize("name", NOT_SAID)
def test_what_a_version_did_not_write_is_warned_of(name):
    with pytest.warns(UserWarning, match="does not say whether it interpolates"):
        load_architecture(LEGACY / name)


@pytest.mark.parametrize("file", [file for file in FILES if file not in WHOLE], ids=name_of)
def test_weights_files(file):
    inputs, outputs = example(file)
    model = load_architecture(file.with_name(file.name.replace(".weights.h5", ".keras")))
    check_outputs(model.apply(weight_port.load_weights(file, model), inputs[0]), outputs, file)


def without_configuration(file, tmp_path):
    """The weights of a model file, as a file of weights alone."""
    with h5py.File(file) as whole, h5py.File(tmp_path / "weights.h5", "w") as weights:
        for name in whole["model_weights"]:
            whole.copy(f"model_weights/{name}", weights)
        for name, value in whole["model_weights"].attrs.items():
            weights.attrs[name] = value
    return tmp_path / "weights.h5"


@pytest.mark.filterwarnings("ignore:The file is of Keras 1")
@pytest.mark.parametrize("file", [file for file in IMPORTED if file.parent.name.startswith("k122")], ids=name_of)
def test_weights_alone_of_keras_1(file, tmp_path):
    inputs, outputs = example(file)
    model = load_architecture(file)
    path = without_configuration(file, tmp_path)
    if file.stem == "square" and file.parent.name == "k122tf":
        with pytest.raises(WeightError, match="fit both orders of axes"):
            weight_port.load_weights(path, model)
    else:
        check_outputs(model.apply(weight_port.load_weights(path, model), inputs[0]), outputs, file)


@pytest.mark.slow
@pytest.mark.parametrize("file", IMPORTED, ids=name_of)
def test_back_to_keras(file, tmp_path):
    """Keras 3.15 opens what `save_model` writes and computes what the old Keras did."""
    import keras

    inputs, outputs = example(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # looked at above
        flaxapps.save_model(*load(file), tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    found = model.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)
    check_outputs(found, outputs, file)
    again = flaxapps.load_model(tmp_path / "model.keras")
    check_outputs(again.model.apply(again.variables, inputs if len(inputs) > 1 else inputs[0]), outputs, file)


def of_each_version(prefixes=("plain_seq", "book_vgg_first", "sep", "flatten_dense", "trained")):
    for tag in sorted({file.parent.name for file in IMPORTED}):
        found = [
            file for prefix in prefixes for file in IMPORTED if file.parent.name == tag and file.name.startswith(prefix)
        ]
        yield found[0]


@pytest.mark.parametrize("file", list(of_each_version()), ids=name_of)
def test_a_file_of_each_version_goes_through_everything(file, tmp_path):
    inputs, outputs = example(file)
    model, variables = load(file)
    (x,) = inputs
    check_outputs(flaxapps.predict(model, variables, x), outputs, file)
    flaxapps.export(model, variables, tmp_path / "model.stablehlo")
    check_outputs(flaxapps.load_exported(tmp_path / "model.stablehlo")(x), outputs, file)
    classes = outputs[0].shape[-1]
    labels = (
        np.eye(classes, dtype="float32")[np.arange(len(x)) % classes]
        if classes > 1
        else np.ones((len(x), 1), "float32")
    )
    frozen = train.frozen_layers(model, names=[next(iter(variables["params"]))])
    loss = "categorical_crossentropy" if classes > 1 else "binary_crossentropy"
    result = train.fit(
        model, variables, (x, labels), optimizer=optax.sgd(0.1), loss=loss, frozen=frozen, batch_size=2, verbose=False
    )
    for name, kept in variables["params"].items():
        leaves = zip(jax.tree.leaves(kept), jax.tree.leaves(result.variables["params"][name]), strict=True)
        same = [np.array_equal(before, after) for before, after in leaves]
        assert all(same) if name in frozen else not all(same)
    for mode in ("default", "fast"):
        faster = flaxapps.optimize(model, variables, mode=mode)
        found = faster.model.apply(faster.variables, x)
        for output, expected in zip(found if isinstance(found, list) else [found], outputs, strict=True):
            assert np.abs(np.asarray(output) - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The file is of Keras 1")
@pytest.mark.parametrize("file", list(of_each_version()), ids=name_of)
def test_a_file_of_each_version_is_fine_tuned(file, tmp_path):
    """`flaxapps finetune --freeze-until` puts a new head on it, and `predict` takes what that writes."""
    model, _ = load(file)
    _, height, width, channels = model.input_shape
    if model.data_format == "channels_first":
        _, channels, height, width = model.input_shape
    random = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 256, (height or 12, width or 12, channels), np.uint8)
            Image.fromarray(pixels.squeeze()).save(tmp_path / "photos" / label / f"{number}.png")
    command = ["finetune", tmp_path / "photos", "--model", file, "--output", tmp_path / "run", "--head", 0]
    command += ["--epochs", 1, 1, "--freeze-until", model.layers[1].name, "--batch-size", 2, "--preprocess", "rescale"]
    assert main([str(each) for each in command]) == 0
    predicted = tmp_path / "predicted.csv"
    command = ["predict", tmp_path / "photos", "--model", tmp_path / "run", "--format", "csv", "--output", predicted]
    assert main([str(each) for each in command]) == 0
    assert len(predicted.read_text().splitlines()) == 1 + 2 * 6
