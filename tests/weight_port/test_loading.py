"""Weight files of every Keras version into small networks: the right arrays in the right places, or a refusal."""

import re
import zipfile
from functools import cache

import h5py
import jax
import numpy as np
import pytest

import flaxapps
from flaxapps.registry import build_model
from tests.networks import fresh_keras, golden_layers
from tests.recipe import layer_arrays, recipe_variables
from weight_port import WeightError, load_weights
from weight_port.hdf5.arrays import StoredArray

KERAS_1 = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}
# How each version calls an array, what it notes about itself, and whether it has a group for the model's own arrays.
LEGACY_FORMS = {
    "keras 1": (lambda layer, variable: f"{layer}_{KERAS_1.get(variable, variable)}:0", None, False),
    "keras 2": (lambda layer, variable: f"{layer}/{variable}:0", "2.0.4", False),
    "tf_keras": (lambda layer, variable: f"{layer}/{variable}:0", "2.15.0", True),
    "keras 3": (lambda layer, variable: f"{layer}/{variable}", "3.3.3", True),
}
NEWEST_FORMS = ["weights.h5", "keras"]
TREE_FORMS = [*NEWEST_FORMS, "deflated keras", "weights.h5 of 3.3", "keras of 3.3"]


def plain(library):
    layers, x = library.layers, library.Input((9, 9, 3))
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(x))
    y = layers.SeparableConv2D(4, 3, name="separable")(y)
    y = layers.BatchNormalization(scale=False, name="unscaled")(y)
    y = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(y))
    return library.Model(x, layers.Dense(2, name="head")(y))


def block(library, name, channels=3, conv="conv"):
    x = library.Input((9, 9, channels))
    y = library.layers.BatchNormalization(name="norm")(library.layers.Conv2D(4, 3, name=conv)(x))
    return library.Model(x, library.layers.Conv2D(4, 3, padding="same", name="last")(y), name=name)


def nested(library):
    x = library.Input((9, 9, 3))
    y = library.layers.GlobalAveragePooling2D()(block(library, "inner")(x))
    return library.Model(x, library.layers.Dense(2, name="head")(library.layers.Dropout(0.5)(y)))


def nested_twice(library):
    layers, x = library.layers, library.Input((9, 9, 3))
    y = layers.BatchNormalization(name="middle_norm")(block(library, "inner", conv="deep_conv")(x))
    middle = library.Model(x, layers.Conv2D(3, 1, name="middle_conv")(y), name="middle")
    z = library.Input((9, 9, 3))
    return library.Model(z, layers.Dense(2, name="head")(layers.GlobalMaxPooling2D()(middle(z))))


def twins(library):
    """Two nested models whose layers have the same names, as in an ensemble of VGG16 and VGG19."""
    x = library.Input((9, 9, 3))
    both = library.layers.Add()([block(library, "left")(x), block(library, "right")(x)])
    return library.Model(x, library.layers.Dense(2, name="head")(both))


def deep(library):
    """Names of Keras's own making, more than ten of a kind, all of one shape."""
    x = y = library.Input((3,))
    for _ in range(12):
        y = library.layers.Dense(3)(y)
    return library.Model(x, y)


def nested_deep(library):
    x = library.Input((3,))
    return library.Model(x, library.layers.Dense(2, name="head")(deep(library)(x)))


MODELS = [plain, nested, nested_twice, twins, deep]


@cache
def ours(build):
    return build(flaxapps)


@cache
def in_keras(build):
    """The same network in Keras, with the weights of the recipe; not to be changed."""
    keras = fresh_keras()
    return filled(build(keras), build)


def in_later_session(build):
    """The same network in Keras after others: automatic names have counted on."""
    keras = fresh_keras()
    keras.layers.Dense(1)
    return filled(build(keras), build)


def filled(keras_model, build):
    for index, (layer, twin) in enumerate(zip(keras_model.layers, ours(build).layers, strict=True)):
        layer.set_weights([array for _, array in layer_arrays(twin, index)])
    return keras_model


def assert_same(loaded, expected):
    assert jax.tree.structure(loaded) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)
    assert {np.dtype(leaf.dtype) for leaf in jax.tree.leaves(loaded)} == {np.dtype("float32")}


def rows(model):
    """Every layer with ((inner layer, variable), array) of each of its arrays."""
    return [
        (layer.name, [((target.layers[-1], target.variable), array) for target, array in layer_arrays(layer, index)])
        for index, layer in enumerate(model.layers)
    ]


def write_names(group, attribute, names, chunked):
    encoded = [name.encode() for name in names]
    if not chunked:
        group.attrs[attribute] = encoded
        return
    for number, part in enumerate((encoded[:2], encoded[2:])):
        if part or not number:
            group.attrs[f"{attribute}{number}"] = part


def write_legacy(path, layers, form="keras 2", *, inside="/", backend="tensorflow", chunked=False):
    """A legacy file of `rows` as the given version of Keras writes it."""
    name_of, version, has_top_level = LEGACY_FORMS[form]
    with h5py.File(path, "w") as file:
        root = file.require_group(inside)
        write_names(root, "layer_names", [name for name, _ in layers], chunked)
        if version:
            root.attrs["keras_version"], root.attrs["backend"] = version.encode(), backend.encode()
        for name, arrays in layers:
            group = root.create_group(name)
            write_names(group, "weight_names", [name_of(*key) for key, _ in arrays], chunked)
            for key, array in arrays:
                group[name_of(*key)] = array
        if has_top_level:
            root.create_group("top_level_model_weights").attrs["weight_names"] = []
    return path


def write_legacy_by_keras(path, keras_model):
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, keras_model)
    return path


def write_network(path, version, key):
    """A file with Keras 2's names and shapes of a whole network; the arrays are never written."""
    with h5py.File(path, "w") as file:
        table = golden_layers(version)[key]
        file.attrs["layer_names"] = [name.encode() for name, *_ in table]
        for name, _, _, weights in table:
            group = file.create_group(name)
            group.attrs["weight_names"] = [weight.encode() for weight, _ in weights]
            for weight, shape in weights:
                group.create_dataset(weight, shape, "float32")
    return path


def write_tree(folder, keras_model, form):
    """A file of the newer formats; those of older versions are today's without what later versions added."""
    path = folder / ("model.keras" if "keras" in form else "model.weights.h5")
    (keras_model.save if "keras" in form else keras_model.save_weights)(path)
    if form == "deflated keras":
        repack(path, zipfile.ZIP_DEFLATED)
    elif form == "keras of 3.3":
        repack(path, zipfile.ZIP_STORED, strip_names)
    elif form != "keras":
        strip_names(path) if "of" in form else None
    return path


def strip_names(path):
    with h5py.File(path, "a") as file:
        file.visititems(lambda _, item: item.attrs.pop("name", None) and None)


def repack(path, compression, change=lambda path: None):
    """Writes a `.keras` archive anew, its weights changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = path.with_suffix(".tmp")
    weights.write_bytes(members["model.weights.h5"])
    change(weights)
    members["model.weights.h5"] = weights.read_bytes()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.fixture
def reads(monkeypatch):
    """Names of the arrays that were read."""
    names = []
    read = StoredArray.read

    def noted(stored, **options):
        names.append(stored.name)
        return read(stored, **options)

    monkeypatch.setattr(StoredArray, "read", noted)
    return names


@pytest.mark.parametrize("chunked", [False, True], ids=["", "chunked"])
@pytest.mark.parametrize("inside", ["/", "model_weights"])
@pytest.mark.parametrize("form", LEGACY_FORMS)
def test_legacy_layouts(form, inside, chunked, tmp_path):
    path = write_legacy(tmp_path / "weights.h5", rows(ours(plain)), form, inside=inside, chunked=chunked)
    assert_same(load_weights(path, ours(plain)), recipe_variables(ours(plain)))


@pytest.mark.parametrize("build", [nested, nested_twice])
def test_nested_models_in_chunked_legacy_files(build, tmp_path):
    path = write_legacy(tmp_path / "weights.h5", rows(ours(build)), chunked=True)
    assert_same(load_weights(path, ours(build)), recipe_variables(ours(build)))


@pytest.mark.parametrize(
    ("form", "build"),
    [(form, build) for form in TREE_FORMS for build in (MODELS if form in NEWEST_FORMS else (plain, nested_twice))],
)
def test_files_of_keras_3(form, build, tmp_path):
    path = write_tree(tmp_path, in_keras(build), form)
    assert_same(load_weights(path, ours(build)), recipe_variables(ours(build)))


@pytest.mark.parametrize("build", MODELS)
def test_legacy_files_of_keras_3(build, tmp_path):
    keras_model = in_keras(build)
    keras_model.save(tmp_path / "whole.h5")
    write_legacy_by_keras(tmp_path / "weights.h5", keras_model)
    for name in ("whole.h5", "weights.h5"):
        assert_same(load_weights(tmp_path / name, ours(build)), recipe_variables(ours(build)))


@pytest.mark.parametrize("form", ["weights.h5", "keras", "h5"])
def test_state_of_training_is_ignored(form, tmp_path):
    model = in_later_session(nested)
    model.compile("adam", "mse", metrics=["mae"])
    with jax.numpy_dtype_promotion("standard"):
        model.fit(np.ones((2, 9, 9, 3), "float32"), np.ones((2, 2), "float32"), verbose=0)
        filled(model, nested)
        path = tmp_path / f"model.{form}"
        (model.save_weights if form == "weights.h5" else model.save)(path)
    if form == "weights.h5":
        with h5py.File(path, "a") as file:
            assert file["optimizer/vars"]
            file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, "uint32")  # as some versions before 3.15 do
    assert_same(load_weights(path, ours(nested)), recipe_variables(ours(nested)))


@pytest.mark.parametrize("form", ["weights.h5", "keras", "h5"])
@pytest.mark.parametrize("build", [deep, nested_deep])
def test_order_goes_before_automatic_names(build, form, tmp_path):
    """As in InceptionV3, whose stored names are nearly all those of another layer."""
    model = in_later_session(build)
    assert "dense_12" in {layer.name for layer in model._flatten_layers()}
    path = tmp_path / f"model.{form}"
    (model.save_weights if form == "weights.h5" else model.save)(path)
    assert_same(load_weights(path, ours(build)), recipe_variables(ours(build)))


@pytest.mark.parametrize("frozen", ["nothing", "everything", "layers", "norm", "conv"])
@pytest.mark.parametrize("build", [nested, nested_twice])
def test_nested_legacy_groups_by_names_whatever_was_frozen(build, frozen, tmp_path):
    path = write_frozen(tmp_path / "weights.h5", build, frozen)
    assert_same(load_weights(path, ours(build)), recipe_variables(ours(build)))


@pytest.mark.parametrize("frozen", ["nothing", "everything"])
def test_nested_legacy_groups_without_telling_names_by_shapes(frozen, tmp_path):
    path = write_frozen(tmp_path / "weights.h5", nested, frozen)
    hide_names(path, "inner")
    assert_same(load_weights(path, ours(nested)), recipe_variables(ours(nested)))


@pytest.mark.parametrize("frozen", ["norm", "conv"])
def test_nested_legacy_groups_in_an_order_that_nothing_tells_are_refused(frozen, tmp_path, reads):
    path = write_frozen(tmp_path / "weights.h5", nested, frozen)
    hide_names(path, "inner")
    with pytest.raises(WeightError, match="inner"):
        load_weights(path, ours(nested))
    assert not reads


def test_nested_legacy_groups_with_two_possible_orders_are_refused(tmp_path, reads):
    def norms(library):
        x = library.Input((4,))
        y = library.layers.BatchNormalization(name="one")(x)
        inner = library.Model(x, library.layers.BatchNormalization(name="two")(y), name="inner")
        z = library.Input((4,))
        return library.Model(z, inner(z))

    path = write_legacy(tmp_path / "weights.h5", rows(norms(flaxapps)))
    hide_names(path, "inner")
    with pytest.raises(WeightError, match=r"'inner' can be in several orders.*weights\.h5"):
        load_weights(path, norms(flaxapps))
    assert not reads


def test_a_partly_frozen_nested_model_of_equal_layers_is_not_swapped(tmp_path):
    """The frozen layer comes last in the group; its automatic name is of another session, its shape is the other's."""
    model = in_later_session(nested_deep)
    model.layers[1].layers[1].trainable = False
    path = write_legacy_by_keras(tmp_path / "weights.h5", model)
    try:
        loaded = load_weights(path, ours(nested_deep))
    except WeightError:
        return
    assert_same(loaded, recipe_variables(ours(nested_deep)))


def write_frozen(path, build, frozen):
    """A legacy file of a model of which some was frozen when it was saved."""
    model = in_later_session(build)
    inside = [layer for layer in model.layers[1]._flatten_layers(include_self=False) if not hasattr(layer, "layers")]
    if frozen == "everything":
        model.layers[1].trainable = False
    for layer in inside:
        if frozen == "layers" or (frozen != "nothing" and frozen in layer.name):
            layer.trainable = False
    return write_legacy_by_keras(path, model)


def hide_names(path, layer):
    """Gives the arrays of a layer names that say nothing."""
    with h5py.File(path, "a") as file:
        group = file[layer]
        names = group.attrs["weight_names"]
        for number, name in enumerate(names):
            group.move(name, f"array_{number}")
        group.attrs["weight_names"] = [f"array_{number}" for number in range(len(names))]


@pytest.mark.parametrize("inside", ["/", "model_weights"])
@pytest.mark.parametrize("build", [plain, nested])
def test_convolution_kernels_of_theano_are_rotated(build, inside, tmp_path):
    path = write_legacy(tmp_path / "weights.h5", rows(ours(build)), inside=inside, backend="theano")
    expected = recipe_variables(ours(build))
    for layer in (expected["params"], expected["params"].get("inner", {})):
        for name in {"conv", "last"} & set(layer):
            layer[name]["kernel"] = layer[name]["kernel"][::-1, ::-1]
    assert_same(load_weights(path, ours(build)), expected)


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_other_floating_point_numbers_become_float32(dtype, tmp_path):
    stored = [(name, [(key, array.astype(dtype)) for key, array in arrays]) for name, arrays in rows(ours(plain))]
    path = write_legacy(tmp_path / "weights.h5", stored)
    expected = jax.tree.map(lambda array: array.astype(dtype).astype("float32"), recipe_variables(ours(plain)))
    assert_same(load_weights(path, ours(plain)), expected)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64", "S4"])
def test_other_types_are_refused(dtype, tmp_path):
    stored = rows(ours(plain))
    name, arrays = stored[-1]
    stored[-1] = (name, [(key, array.astype(dtype)) for key, array in arrays])
    path = write_legacy(tmp_path / "weights.h5", stored)
    with pytest.raises(WeightError, match=r"weights\.h5.*head/head/kernel:0 holds .*not floating-point") as caught:
        load_weights(path, ours(plain))
    assert str(np.dtype(dtype)) in str(caught.value)


def test_bfloat16_variables_become_float32(tmp_path):
    """Keras stores them as two raw bytes each, marked by an attribute (saving_lib.py, H5Entry)."""
    keras = fresh_keras()
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2, dtype="bfloat16", name="head")(x))
    values = [np.linspace(-1, 1, 6).reshape(3, 2), np.array([0.5, 2])]
    with jax.numpy_dtype_promotion("standard"):
        model.layers[1].set_weights(values)
        model.save_weights(tmp_path / "model.weights.h5")
    node = flaxapps.Input((3,))
    twin = flaxapps.Model(node, flaxapps.layers.Dense(2, name="head")(node))
    kernel, bias = (np.asarray(jax.numpy.asarray(value, "bfloat16").astype("float32")) for value in values)
    assert_same(
        load_weights(tmp_path / "model.weights.h5", twin), {"params": {"head": {"kernel": kernel, "bias": bias}}}
    )


def changed(form, tmp_path, build, change):
    """A file of `build`, whose rows `change` has been at, in a legacy or a newer form."""
    if form == "legacy":
        return write_legacy(tmp_path / "weights.h5", change(rows(ours(build))))
    return write_tree(tmp_path, in_keras(build), form)


@pytest.mark.parametrize("form", ["legacy", "weights.h5", "keras"])
def test_by_name_takes_what_both_have(form, tmp_path):
    def other(library):
        layers, x = library.layers, library.Input((9, 9, 3))
        y = layers.Conv2D(5, 1, name="only_here")(layers.Conv2D(4, 3, name="conv")(x))
        return library.Model(x, layers.Dense(2, name="new")(y))

    path = changed(form, tmp_path, plain, lambda stored: stored)
    model = ours(other)
    loaded = load_weights(path, model, by_name=True)
    expected = model.init_variables()
    expected["params"]["conv"] = recipe_variables(ours(plain))["params"]["conv"]
    assert_same(loaded, expected)


@pytest.mark.parametrize("build", [nested, nested_twice, twins, nested_deep])
@pytest.mark.parametrize("form", ["legacy", "weights.h5", "keras"])
def test_by_name_with_nested_models(form, build, tmp_path):
    path = changed(form, tmp_path, build, lambda stored: stored[::-1])
    assert_same(load_weights(path, ours(build), by_name=True), recipe_variables(ours(build)))


@pytest.mark.parametrize("form", ["legacy", "weights.h5", "keras"])
def test_by_name_with_no_name_in_common(form, tmp_path, reads):
    path = changed(form, tmp_path, deep, lambda stored: stored)
    with pytest.raises(WeightError, match="No layer of the model has a name that is in the file") as caught:
        load_weights(path, ours(plain), by_name=True)
    assert caught.value.missing == ("conv", "norm", "separable", "unscaled", "head")
    assert sorted(caught.value.unexpected) == sorted(layer.name for layer in ours(deep).layers[1:])
    assert not reads


@pytest.mark.parametrize("form", ["weights.h5 of 3.3", "keras of 3.3"])
def test_by_name_needs_names(form, tmp_path, reads):
    with pytest.raises(WeightError, match=r"needs layer names.*since 3\.6"):
        load_weights(write_tree(tmp_path, in_keras(plain), form), ours(plain), by_name=True)
    assert not reads


def more_classes(library):
    base = plain(library)
    return library.Model(base.input, library.layers.Dense(3, name="head")(base.layers[-2].output))


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("form", ["legacy", "weights.h5", "keras"])
def test_skip_mismatch_leaves_whole_layers_fresh_and_warns(form, by_name, tmp_path):
    path = changed(form, tmp_path, plain, lambda stored: stored)
    model = ours(more_classes)
    warned = rf"{path.name}: other shapes, left fresh: head/kernel \(4, 3\), head/bias \(3,\)$"
    with pytest.warns(UserWarning, match=warned) as caught:
        loaded = load_weights(path, model, by_name=by_name, skip_mismatch=True)
    assert [warning.filename for warning in caught] == [__file__]
    expected = recipe_variables(ours(plain))
    expected["params"]["head"] = model.init_variables()["params"]["head"]
    assert_same(loaded, expected)


@pytest.mark.parametrize("form", ["legacy", "weights.h5", "keras"])
def test_other_shapes_are_all_listed(form, tmp_path, reads):
    path = changed(form, tmp_path, plain, lambda stored: stored)
    with pytest.raises(WeightError, match="other shapes") as caught:
        load_weights(path, ours(more_classes))
    assert not reads
    assert not caught.value.missing + caught.value.unexpected
    kernel, bias = caught.value.misshapen
    assert re.fullmatch(r"head/kernel \(4, 3\): the file has \S+ \(4, 2\)", kernel)
    assert re.fullmatch(r"head/bias \(3,\): the file has \S+ \(2,\)", bias)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(str(path))
    assert lines[1:] == ["misshapen (2):", f"  {kernel}", f"  {bias}"]


def swapped(library):
    """Two layers of one shape, called as in `ordered`, in the other order."""
    x = library.Input((3,))
    return library.Model(x, library.layers.Dense(3, name="one")(library.layers.Dense(3, name="two")(x)))


def ordered(library):
    x = library.Input((3,))
    return library.Model(x, library.layers.Dense(3, name="two")(library.layers.Dense(3, name="one")(x)))


@pytest.mark.parametrize("form", ["legacy", "weights.h5", "keras"])
def test_given_names_in_another_order_are_refused(form, tmp_path, reads):
    path = changed(form, tmp_path, swapped, lambda stored: stored)
    with pytest.raises(WeightError, match=r"another order than the model: one, two.*by_name=True loads them"):
        load_weights(path, ours(ordered))
    assert not reads
    assert_same(load_weights(path, ours(ordered), by_name=True), recipe_variables(ours(swapped)))


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("part", ["top", "notop"])
def test_resnet50_of_2016_is_not_todays(part, by_name, tmp_path, reads):
    """Keras swaps the arrays of two layers before it notices; by name it loads nothing and does not say so."""
    path = write_network(tmp_path / "resnet50.h5", "keras_2_0_4", f"resnet50_{part}")
    with pytest.raises(WeightError) as caught:
        load_weights(path, build_model("resnet50", include_top=part == "top"), by_name=by_name)
    assert not reads
    if by_name:
        assert "No layer of the model has a name that is in the file" in str(caught.value)
        assert "res2a_branch2a" in caught.value.unexpected
        assert "conv2_block1_1_conv" in caught.value.missing
    else:
        first = caught.value.misshapen[0]
        assert first.startswith("conv3_block1_0_conv/kernel (1, 1, 256, 512): the file has res3a_branch2c/")
    load_names = build_model("resnet50", variant="keras2", include_top=part == "top")
    assert len(jax.tree.leaves(load_weights(path, load_names))) == len(reads)


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_classifier_in_the_file_alone_or_in_the_model_alone(network, tmp_path, reads):
    head = [f"{layer}/{variable}" for layer in ("fc1", "fc2", "predictions") for variable in ("kernel", "bias")]
    with pytest.raises(WeightError, match=r"13|16.*without the classifier") as caught:
        load_weights(
            write_network(tmp_path / "top.h5", "keras_2_0_4", f"{network}_top"), build_model(network, include_top=False)
        )
    assert [line.split(":")[0] for line in caught.value.unexpected] == [f"{name.split('/')[0]}/{name}" for name in head]
    assert caught.value.unexpected[0].endswith("(25088, 4096)")
    assert not caught.value.missing
    with pytest.raises(WeightError, match="without the classifier") as caught:
        load_weights(write_network(tmp_path / "notop.h5", "keras_2_0_4", f"{network}_notop"), build_model(network))
    assert [line.split(" ")[0] for line in caught.value.missing] == head
    assert caught.value.missing[0].endswith("(25088, 4096)")
    assert not caught.value.unexpected
    assert not reads


@pytest.mark.parametrize("form", ["legacy", "weights.h5", "keras"])
def test_file_of_another_network(form, tmp_path, reads):
    path = changed(form, tmp_path, nested_twice, lambda stored: stored)
    with pytest.raises(WeightError, match="different networks") as caught:
        load_weights(path, ours(plain))
    assert not reads
    assert "separable/depthwise_kernel (3, 3, 4, 1)" in caught.value.missing
    assert any("deep_conv" in line and "(3, 3, 3, 4)" in line for line in caught.value.unexpected)
    text = str(caught.value)
    for heading in ("missing", "unexpected"):
        assert f"{heading} ({len(getattr(caught.value, heading))}):" in text
    assert all(f"\n  {line}" in text for line in caught.value.missing + caught.value.unexpected)


def without_bias(stored):
    return [(name, arrays[:1] if name == "head" else arrays) for name, arrays in stored]


def test_layers_with_other_arrays_are_listed(tmp_path, reads):
    path = write_legacy(tmp_path / "weights.h5", without_bias(rows(ours(plain))))
    for by_name in (False, True):
        with pytest.raises(WeightError, match="Layers hold other arrays") as caught:
            load_weights(path, ours(plain), by_name=by_name)
        assert caught.value.missing == ("head/kernel (4, 2)", "head/bias (2,)")
        assert caught.value.unexpected == ("head/head/kernel:0 (4, 2)",)
    assert not reads


def test_arrays_of_the_model_itself_are_not_passed_over(tmp_path, reads):
    path = write_legacy(tmp_path / "weights.h5", rows(ours(plain)), "keras 3")
    with h5py.File(path, "a") as file:
        group = file["top_level_model_weights"]
        group.attrs["weight_names"] = [b"temperature"]
        group["temperature"] = np.ones(1, "float32")
    with pytest.raises(WeightError) as caught:
        load_weights(path, ours(plain))
    assert caught.value.unexpected == ("top_level_model_weights/temperature (1,)",)
    assert not reads
