"""Our own files: networks that Keras does not know, with their arrays, and what is refused."""

import json
from dataclasses import dataclass

import jax
import numpy as np
import pytest

import flaxapps
from flaxapps import Input, Model, layers, load_model, save_model
from flaxapps.graph.symbolic import Layer
from flaxapps.registry import build_model, list_models
from flaxapps.saving.graph_file import _graph, _graph_entry, load_graph, save_graph
from tests.flaxapps.quantization.networks import every_kind, images, variables_of
from weight_port import WeightError, save_weights
from weight_port.trees import DESCRIPTION, load_npz

MODEL = every_kind()
VARIABLES = variables_of(MODEL)


def network(kind):
    if kind == "quantized":
        return flaxapps.quantize(MODEL, VARIABLES, images())
    if kind == "bfloat16":
        return flaxapps.optimize(MODEL, VARIABLES, precision="bfloat16")
    return flaxapps.optimize(MODEL, VARIABLES, "fast") if kind == "optimized" else (MODEL, VARIABLES)


@pytest.mark.parametrize("kind", ["plain", "optimized", "bfloat16", "quantized"])
def test_round_trip(kind, tmp_path):
    model, variables = network(kind)
    save_model(model, variables, tmp_path / "model.npz")
    back = load_model(tmp_path / "model.npz")
    assert back.model == model
    assert hash(back.model) == hash(model)
    jax.tree.map(np.testing.assert_array_equal, back.variables, dict(variables))
    assert jax.tree.map(lambda a: str(a.dtype), back.variables) == jax.tree.map(lambda a: str(a.dtype), dict(variables))


@pytest.mark.parametrize("name", list_models())
def test_every_network_can_be_described(name):
    graph = build_model(name).graph
    assert _graph(json.loads(json.dumps(_graph_entry(graph)))) == graph


def test_options_of_every_kind():
    x = Input((8, 8, 16), name="image", data_format="channels_first", dtype="float32")
    y = layers.Conv2D(8, (3, 1), activation=jax.nn.softmax, trainable=False)(x)
    y = layers.ReLU(max_value=6.0)(y) / 6
    y = layers.Conv2D(8, 1, activation=layers.LeakyReLU(0.1))(y)
    model = Model([x], [y, x], name=None)
    graph = _graph(json.loads(json.dumps(_graph_entry(model.graph))))
    kinds = [layer.class_name for layer in graph.layers]
    assert kinds == [layer.class_name for layer in model.layers]
    assert [layer.layer for layer in graph.layers][1].activation == "softmax"
    assert not [layer.layer for layer in graph.layers][1].trainable
    assert graph.inputs[0].layer == model.graph.inputs[0].layer
    (operation,) = (step.layer for step in graph.steps if isinstance(step.layer, layers.Operation))
    assert [type(argument) for argument in operation.arguments] == [layers.Slot, int]
    activation = [layer.layer for layer in graph.layers][-1].activation
    assert activation == layers.LeakyReLU(0.1)


def test_settings_are_kept(tmp_path):
    save_graph(MODEL, VARIABLES, tmp_path / "model.npz", {"class_names": ["ä", "b"], "size": 3})
    assert load_graph(tmp_path / "model.npz").settings == {"class_names": ["ä", "b"], "size": 3}


def test_keras_files_do_not_hold_int8(tmp_path):
    model, variables = network("quantized")
    with pytest.raises(WeightError, match=r"not a layer of Keras|do not hold"):
        save_model(model, variables, tmp_path / "model.keras")
    for name in ("model.weights.h5", "model.h5"):
        with pytest.raises(WeightError, match="has arrays of int8, which files of Keras do not hold"):
            save_weights(tmp_path / name, model, variables)
    assert not list(tmp_path.iterdir())
    save_model(model, variables, tmp_path / "model.npz")
    assert load_npz(tmp_path / "model.npz").keys() == variables.keys()


@dataclass(frozen=True)
class Mine(Layer):
    """A layer of the user's, which no file can name."""


def test_what_cannot_be_written(tmp_path):
    x = Input((4,))
    for node, problem in (
        (Mine(name="own")(x), "'own' is of class Mine, which is not in flaxapps.layers"),
        (layers.Activation(lambda x: x, name="odd")(x), "'odd' of kind Activation: activation=.* cannot be written"),
    ):
        with pytest.raises(WeightError, match=problem):
            save_model(Model(x, node), {}, tmp_path / "model.npz")
    y = layers.ReLU()(x)
    with pytest.raises(WeightError, match="starts in the middle of a graph"):
        save_model(Model(y, layers.ReLU()(y)), {}, tmp_path / "model.npz")
    with pytest.raises(WeightError, match="do not fit"):
        save_model(MODEL, {"params": VARIABLES["params"]}, tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())


def change(path, description=None, arrays=None):
    with np.load(path) as file:
        found = {key: file[key] for key in file.files}
    entries = json.loads(found[DESCRIPTION].tobytes())
    if description:
        description(entries)
    found[DESCRIPTION] = np.frombuffer(json.dumps(entries).encode(), np.uint8)
    if arrays:
        arrays(found)
    np.savez(path, **found)


@pytest.mark.parametrize(
    ("description", "arrays", "problem"),
    [
        (lambda d: d.update(version=2), None, "has version 2"),
        (lambda d: d["graph"]["layers"][0].update({"class": "Lambda"}), None, "class 'Lambda', which is not known"),
        (lambda d: d["graph"]["layers"][0]["options"].update(odd=1), None, "is damaged: TypeError"),
        (lambda d: d["graph"].update(results=[99]), None, "is damaged: IndexError"),
        (lambda d: d["graph"].update(results=[-1]), None, "is damaged: ValueError"),
        (lambda d: d.pop("graph"), None, "is damaged: KeyError"),
        (lambda d: d.update(bfloat16=["params/odd"]), None, "is damaged: KeyError"),
        (lambda d: d.update(bfloat16=["params/head/bias"]), None, r"float32\(5,\): got bfloat16\(10,\)"),
        (None, lambda a: a.pop("params/head/bias"), r"missing.*\n.*params/head/bias float32\(5,\)"),
        (None, lambda a: a.update({"params/odd/bias": np.zeros(3)}), "params/odd/bias"),
        (None, lambda a: a.update({"params/head/bias": np.zeros(5)}), r"float32\(5,\): got float64\(5,\)"),
        (None, lambda a: a.update({DESCRIPTION: np.frombuffer(b"{", np.uint8)}), "is damaged: JSONDecodeError"),
    ],
)
def test_damaged_files(description, arrays, problem, tmp_path):
    save_model(MODEL, VARIABLES, tmp_path / "model.npz")
    change(tmp_path / "model.npz", description, arrays)
    with pytest.raises(WeightError, match=problem):
        load_model(tmp_path / "model.npz")


def test_a_file_cut_short_and_arguments_that_do_not_fit(tmp_path):
    path = tmp_path / "model.npz"
    save_model(MODEL, VARIABLES, path)
    with pytest.raises(WeightError, match="leave out weights and input_shape"):
        load_model(path, weights=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightError, match="is damaged or was cut short"):
        load_model(path)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.npz")
