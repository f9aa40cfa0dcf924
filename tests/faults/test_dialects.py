"""Hostile configurations in the spelling of old versions of Keras: refused in words, or read as what they say."""

import itertools
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import flaxapps
from flaxapps.saving.load import model_from_config
from tests.faults import config_mutations
from tests.faults.attribute_mutations import other_names, other_types
from tests.faults.config_meaning import changed_options
from tests.faults.config_mutations import Path as Place
from tests.faults.config_mutations import at
from tests.faults.dialects import FILES, LEGACY, VERSIONS, stored, with_config
from weight_port import WeightError

SECONDS = 10  # of CPU, for one file: other work on the machine does not count
# Of each family of versions: what is looked at in full by default.
CHOSEN = [
    LEGACY / name
    for name in ("k122tf/merges.h5", "k122th/nested.h5", "k208/seq_in_seq_in_seq.h5", "k224/siamese_model.h5",
                 "tk113/plain_seq.h5", "tk21/tf_ops.h5", "tk24/transposed.h5", "tk215/se_block.keras")
]  # fmt: skip # kept on few lines on purpose
# Files that are refused, or need an input shape: no option of theirs is read.
REFUSED = (
    "plain_seq_inputlayer", "dot_4d", "L_CategoryEncoding_1", "conv_layer_PReLU_0", "input_int32_pool",
    "normalization_deferred_first",
)  # fmt: skip # kept on few lines on purpose
pytestmark = pytest.mark.filterwarnings("ignore")


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def check_refusal(error: ValueError, label: object) -> None:
    """It says something, and nothing that only a programmer understands stands alone."""
    text = str(error)
    assert text.strip(), label
    assert not re.match(r"\w*(Error|Exception)\b", text), (label, text)
    assert len(text) < 20_000, label


def outcome_of(config: Any, label: object) -> Any:
    """The model, or None where it is refused as it should be; anything else that is raised is a failure."""
    began = time.process_time()
    try:
        found = model_from_config(config)
    except ValueError as error:
        check_refusal(error, label)
        found = None
    assert time.process_time() - began < SECONDS, label
    return found


def check_changes(version: str, count: int) -> None:
    source = random.Random(version)
    paths = [path for path in FILES if path.parent.name == version]
    endless = itertools.cycle([config_mutations.changes(stored(path), source) for path in paths])
    for label, text in (next(each) for each in itertools.islice(endless, count)):
        config = json.loads(text)
        if isinstance(config, dict):  # read_config refuses the others
            found = outcome_of(config, label)
            assert found is None or hash(found) == hash(found.clone()), label


@pytest.mark.parametrize("version", VERSIONS)
def test_changed_configurations_are_refused_in_words(version: str) -> None:
    check_changes(version, 120)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_many_changed_configurations_are_refused_in_words(version: str) -> None:
    check_changes(version, 1_000)  # 6,000 of each take a quarter of an hour


def means_nothing(path: Place, config: Any) -> bool:
    """Whether what is at a place has no part in what the network computes there, though it has elsewhere."""
    entries = [at(config, path[:length]) for length in range(len(path))]
    kinds = [entry["class_name"] for entry in entries if isinstance(entry, dict) and "class_name" in entry]
    layer = [entry for entry in entries if isinstance(entry, dict) and "class_name" in entry][-1]
    last = next(key for key in reversed(path) if isinstance(key, str))
    inside = layer.get("config")
    firsts = [each[0].get("class_name") for each in entries if isinstance(each, list) and isinstance(each[0], dict)]
    return (
        # A subclass of Model is what its graph is; of a policy, the name counts.
        (last == "class_name" and ("layers" in str(layer)[:10_000] or "Policy" in kinds[-1]))
        or (last in ("batch_input_shape", "output_shape") and path[-1] == 0)  # the size of the batch
        # Behind an InputLayer Keras does not look at it either: many people give it to every layer.
        or (last == "batch_input_shape" and kinds[-1] != "InputLayer" and "InputLayer" in firsts)
        or (last == "concat_axis" and inside["mode"] != "concat")
        or kinds[-1] in ("RandomHeight", "RandomWidth")  # the identity
        # A function's constants carry the dtype, and its layer's name is that of the entry.
        or (kinds[-1] in ("TensorFlowOpLayer", "TFOpLambda", "SlicingOpLambda") and last in ("dtype", "name"))
        or (kinds[-1] == "TensorFlowOpLayer" and inside["node_def"]["op"] == "StridedSlice")  # bounds that are masked
        # Options stand with the first tensor of a call, and again with each.
        or ("inbound_nodes" in path and path[-2:-1] == (3,) and path[-3] >= 1)
        # What a layer was built for, which its inputs say; Embedding no longer has a length.
        or any(key in ("query_shape", "key_shape", "value_shape", "input_length") for key in path)
        or (
            "inbound_nodes" in path and kinds[-1] == "__keras_tensor__" and last in ("shape", "dtype")
        )  # what Keras 3 recorded of a tensor, which calls make anew
        or (path[:2] == ("config", "build_input_shape") and "InputLayer" in str(config)[:2_000])
        # Keras 3.0 numbers calls otherwise than it lists them; that of a layer with one call is no other.
        or (path[-1] == 1 and str(config.get("keras_version")).startswith("3.0.") and "_layers" in f"{path[-3:]}")
        or (path[-2:] == ("keras_history", 1) and str(config.get("keras_version")).startswith("3.0."))
        or path == ("config", "dtype")  # the policy of a model, which its layers have too
        or (kinds[-1] == "RandomRotation" and last == "value_range")  # which the layer never had
        or ("TimeDistributed" in kinds and last == "name")  # of the model inside, which has no address of its own
    )


def check_options(path: Path) -> tuple[int, int]:
    """Everything that means something is read or refused; how many were read, and how many refused."""
    config = stored(path)
    model, read, refused = model_from_config(config), 0, 0
    for place, other, changed in changed_options(config):
        found = outcome_of(changed, (place, other))
        read, refused = read + (found is not None), refused + (found is None)
        if found == model and other != at(config, place):
            assert means_nothing(place, config), (place, at(config, place), other)
    return read, refused


@pytest.mark.parametrize("path", CHOSEN, ids=name_of)
def test_another_value_of_an_option_is_read_or_refused(path: Path) -> None:
    read, refused = check_options(path)
    assert read > 5
    assert refused >= 4  # a model of any class that holds layers and nothing else is read as Sequential


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in FILES if path.stem not in REFUSED], ids=name_of)
def test_another_value_of_any_option_is_read_or_refused(path: Path) -> None:
    check_options(path)


def same(network: Any, other: Any) -> bool:
    trees = [dict(each.variables) for each in (network, other)]
    return bool(
        network.model == other.model
        and jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
        and jax.tree.all(jax.tree.map(np.array_equal, *trees))
    )


def check_attributes(path: Path, folder: Path, names: int, every: int = 1) -> None:
    """Whatever attributes are, the same network is read, or the file is refused by its name."""
    right, content = flaxapps.load_model(path), path.read_bytes()
    changed = itertools.chain(
        itertools.islice(other_types(content), 0, None, every),
        itertools.islice(other_names(content, random.Random(path.name)), names),
    )
    file, refused = folder / "changed.h5", 0
    for label, damaged in changed:
        file.write_bytes(damaged)
        began = time.process_time()
        try:
            text = str(file) if same(flaxapps.load_model(file), right) else ""
        except WeightError as error:
            text, refused = str(error), refused + 1
        # Right, or refused with the file named; or of another version, which says what options mean.
        assert str(file) in text or label[1:] == ("keras_version", "another version"), label
        assert time.process_time() - began < SECONDS, label
    assert refused


@pytest.mark.parametrize("name", ["k122tf/plain_seq.h5", "k224/seq_in_seq.h5", "tk24/plain_seq_bn_first.h5"])
def test_attributes_of_other_types(name: str, tmp_path: Path) -> None:
    check_attributes(LEGACY / name, tmp_path, names=40, every=4)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_attributes_of_other_types_in_every_version(version: str, tmp_path: Path) -> None:
    paths = [path for path in FILES if path.parent.name == version and path.suffix == ".h5"]
    for path in [path for path in paths if path.stem not in ("plain_seq_inputlayer",)][:2]:
        try:
            check_attributes(path, tmp_path, names=100)
        except WeightError:  # of a file that is refused as it is
            continue


def legacy_model(layers: list[dict[str, Any]], **ends: Any) -> dict[str, Any]:
    """A Functional model as tf.keras 2.4 writes it."""
    config = {"name": "model", "layers": layers, "input_layers": [["a", 0, 0]], "output_layers": [["c", 0, 0]], **ends}
    return {"class_name": "Functional", "config": config, "keras_version": "2.4.0", "backend": "tensorflow"}


def relu(name: str, *sources: Any, **options: Any) -> dict[str, Any]:
    inbound = [[[source, 0, 0, {}] for source in sources]] if sources else []
    config = {"name": name, "trainable": True, "dtype": "float32", **options}
    return {"class_name": "ReLU", "config": config, "name": name, "inbound_nodes": inbound}


def entry(shape: Any = (None, 4, 4, 3), **options: Any) -> dict[str, Any]:
    config = {"batch_input_shape": shape, "dtype": "float32", "sparse": False, "ragged": False, "name": "a", **options}
    return {"class_name": "InputLayer", "config": config, "name": "a", "inbound_nodes": []}


def nested(depth: int) -> dict[str, Any]:
    """Sequential models inside each other, as Keras 2.0 writes them: a list in a list."""
    inside: dict[str, Any] = {
        "class_name": "Dense",
        "config": {"name": "d", "units": 1, "batch_input_shape": [None, 1]},
    }
    for _ in range(depth):
        inside = {"class_name": "Sequential", "config": [inside]}
    return inside | {"keras_version": "2.0.8"}


def chain(length: int) -> dict[str, Any]:
    """A long chain of layers, each stored before the one it needs."""
    names = ["a", *(f"r{number}" for number in range(length)), "c"]
    layers = [relu(name, before) for before, name in itertools.pairwise(names)]
    return legacy_model([*reversed(layers), entry()])


ATTACKS: dict[str, tuple[Any, str]] = {
    "layers in a circle": (legacy_model([entry(), relu("b", "c"), relu("c", "b")]), "does not compute.*'b', 'c'"),
    "a layer that is its own input": (legacy_model([entry(), relu("c", "c")]), "does not compute.*'c'"),
    "an input that is nowhere": (legacy_model([entry(), relu("c", "z")]), r"layer 1 \('c'\).*no layer of the name 'z'"),
    "an output that is nowhere": (legacy_model([entry()]), "output_layers.*no layer of the name 'c'"),
    "a call that is not made": (
        legacy_model([entry(), relu("c", "a")], output_layers=[["c", 1, 0]]), "'c' has no output 0 of a call 1"),
    "a negative call": (legacy_model([entry(), relu("c", "a")], output_layers=[["c", -1, 0]]), "output_layers"),
    "no outputs": (legacy_model([entry(), relu("c", "a")], output_layers=[]), r"output_layers is \[\]"),
    "one name for two layers": (legacy_model([entry(), relu("c", "a"), relu("c", "a")]), "one name.*'c'"),
    "two inputs where one is taken": (legacy_model([entry(), relu("c", "a", "a")]), "'c' of kind ReLU.*called on 2"),
    "a number as text": (legacy_model([entry(), relu("c", "a", max_value="6")]), "'c' of kind ReLU: max_value is '6'"),
    "a number that is none": (legacy_model([entry(), relu("c", "a", threshold=float("nan"))]), "threshold is nan"),
    "a list for a number": (legacy_model([entry(), relu("c", "a", threshold=[0.0])]), "'c' of kind ReLU: threshold"),
    "an option of JavaScript's": (legacy_model([entry(), relu("c", "a", __proto__={"x": 1})]), "__proto__"),
    "an option of Python's": (legacy_model([entry(), relu("c", "a", __class__="x")]), "__class__"),
    "a name that is none": (legacy_model([entry(), relu("c", "a") | {"name": None}]), "its name is None"),
    "an input without a shape": (legacy_model([entry(None), relu("c", "a")]), "batch_shape is missing"),
    "an input of text": (legacy_model([entry("wide"), relu("c", "a")]), "batch_shape is 'wide'"),
    "a huge input": (legacy_model([entry([None, 1 << 63, 4, 3]), relu("c", "a")]), "batch_shape is"),
    "an input of no numbers": (legacy_model([entry(dtype="complex64"), relu("c", "a")]), "dtype is 'complex64'"),
    "a type with a null in it": (legacy_model([entry(), relu("c", "a", dtype="\x00")]), "'c' of kind ReLU: dtype"),
    "a version that is none": (legacy_model([entry(), relu("c", "a")]) | {"keras_version": "two"}, "keras_version"),
    "models nested 300 deep": (nested(300), "nested more than"),
    "an empty configuration": ({}, "class_name is None"),
    "a list for an object": (legacy_model([[], relu("c", "a")]), r"layer 0 is \[\], not an object"),
    "null for a list": (legacy_model([entry(), relu("c", "a")]) | {"config": None}, "config is None"),
    "a name of a megabyte": (legacy_model([entry(), relu("c", "x" * (1 << 20))]), r"no layer of the name 'xxx"),
}  # fmt: skip # one attack a line where it fits


@pytest.mark.parametrize("what", ATTACKS)
def test_attacks_are_refused_by_name(what: str) -> None:
    config, words = ATTACKS[what]
    with pytest.raises(ValueError, match=words) as caught:
        model_from_config(config)
    check_refusal(caught.value, what)


def test_models_nested_thirty_deep_are_read() -> None:
    assert model_from_config(nested(30)).output_shape == (None, 1)


def test_a_long_chain_backwards_is_read_soon() -> None:
    began = time.process_time()
    assert len(model_from_config(chain(3000)).layers) == 3002
    assert time.process_time() - began < SECONDS


def hostile_files() -> Iterator[tuple[str, bytes]]:
    for path in CHOSEN[:4] + CHOSEN[-1:]:
        config = json.dumps(stored(path))
        for what, text in {
            "nothing": "", "null": "null", "a list": "[]", "a number": "1", "cut": config[:-40], "not a number": "NaN",
            "deep": "[" * 100_000, "deep objects": '{"config":' * 5000, "wide": json.dumps({"class_name": "x" * 10**6}),
            "empty": "{}", "a lone surrogate": config.replace("name", "\\ud800", 1),
        }.items():  # fmt: skip # kept on few lines on purpose
            yield f"{name_of(path)}: {what}", with_config(path, text)


def test_hostile_texts_are_refused_with_the_file_named(tmp_path: Path) -> None:
    for what, content in hostile_files():
        path = tmp_path / "hostile.any"
        path.write_bytes(content)
        try:
            flaxapps.load_model(path)
            text = "read"
        except WeightError as error:
            text = str(error)
        assert "hostile.any" in text, what
