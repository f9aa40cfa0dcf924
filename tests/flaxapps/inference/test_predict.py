"""predict: batches, devices, compilations, preprocessing, bad images."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxapps import Input, Model, layers, predict
from flaxapps.applications.imagenet_utils import preprocess_input
from flaxapps.inference import predict as inference
from flaxapps.inference.predict import PROGRAMS_KEPT

SHAPE = (6, 5, 3)


def small(name=None, dtype=None, data_format=None):
    shape = (3, 6, 5) if data_format == "channels_first" else SHAPE
    image = Input(shape, dtype=dtype, data_format=data_format)
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    return Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D(name="pool")(x)), name=name)


MODEL = small()
VARIABLES = MODEL.init_variables()


def images(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def counting():
    """A preprocessing that notes the shape of every trace."""
    shapes = []

    def function(x):
        shapes.append(x.shape)
        return x

    return function, shapes


@pytest.fixture
def sent(monkeypatch):
    """What `predict` sends to the devices: pairs of an array's shape and its sharding."""
    transfers = []
    device_put = jax.device_put

    def spy(tree, sharding=None, **options):
        result = device_put(tree, sharding, **options)
        transfers.extend((array.shape, array.sharding) for array in jax.tree.leaves(result))
        return result

    monkeypatch.setattr(inference.jax, "device_put", spy)
    return transfers


@pytest.mark.parametrize(("count", "batch_size"), [(1, 32), (5, 32), (8, 8), (19, 8), (17, 5), (3, 1), (33, 32)])
def test_predictions_are_those_of_apply(count, batch_size):
    x = images(count)
    output = predict(MODEL, VARIABLES, x, batch_size=batch_size)
    assert isinstance(output, np.ndarray)
    assert output.dtype == np.float32
    assert_close(output, MODEL.apply(VARIABLES, x))


@pytest.mark.parametrize("counts", [(3, 11, 1), (1, 1, 1), (0, 7, 0), (20,)], ids=str)
def test_an_iterator_of_arrays_of_any_counts(counts):
    x = images(sum(counts))
    chunks = np.split(x, np.cumsum(counts)[:-1])
    expected = MODEL.apply(VARIABLES, x)
    assert_close(predict(MODEL, VARIABLES, iter(chunks), batch_size=4), expected)
    assert_close(predict(MODEL, VARIABLES, chunks, batch_size=4), expected)
    assert_close(predict(MODEL, VARIABLES, (jnp.asarray(chunk) for chunk in chunks), batch_size=4), expected)


def test_an_iterator_is_read_batch_by_batch():
    taken, computed = [], []
    model = small(name="watched")

    def chunks():
        for number in range(6):
            taken.append((number, len(computed)))
            yield images(8, seed=number)

    def watch(x):
        jax.debug.callback(lambda: computed.append(1), ordered=False)
        return x

    predict(model, VARIABLES, chunks(), batch_size=8, preprocess=watch)
    jax.effects_barrier()
    assert [number for number, _ in taken] == list(range(6))
    assert taken[-1][1] > 0  # before the last chunk is read, some are computed


@pytest.mark.parametrize("x", [images(0), [], iter([images(0)])], ids=["array", "list", "iterator"])
def test_no_images(x):
    assert predict(MODEL, VARIABLES, x).shape == (0, 2)


def test_no_images_for_several_outputs():
    node = Input((None, None, 3))
    outputs = predict(Model(node, [node, layers.GlobalMaxPooling2D()(node)]), {}, np.zeros((0, 4, 4, 3)))
    assert [output.shape[0] for output in outputs] == [0, 0]
    assert outputs[1].shape == (0, 3)


def test_several_outputs():
    model = Model(MODEL.input, [MODEL.get_layer("conv").output, MODEL.output])
    x = images(11)
    outputs = predict(model, VARIABLES, x, batch_size=4)
    assert isinstance(outputs, list)
    for output, expected in zip(outputs, model.apply(VARIABLES, x), strict=True):
        assert_close(output, expected)


def test_several_inputs():
    first, second = Input((4,)), Input((3,))
    model = Model([first, second], layers.Concatenate()([second, first]))
    a, b = np.arange(36, dtype=np.float32).reshape(9, 4), np.arange(27, dtype=np.float32).reshape(9, 3)
    expected = np.concatenate([b, a], 1)
    np.testing.assert_array_equal(predict(model, {}, [a, b], batch_size=4), expected)
    np.testing.assert_array_equal(predict(model, {}, ([a[i : i + 1], b[i : i + 1]] for i in range(9))), expected)
    with pytest.raises(ValueError, match=r"differ in their number of images: \[9, 8\]"):
        predict(model, {}, [a, b[:8]])


@pytest.mark.parametrize(
    ("count", "batch_size", "devices"), [(16, 16, 8), (19, 12, 8), (3, 32, 3), (1, 32, 1), (9, 2, 2)]
)
def test_batches_are_split_over_the_devices(sent, count, batch_size, devices):
    assert len(jax.local_devices()) == 8
    x = images(count)
    assert_close(predict(MODEL, VARIABLES, x, batch_size=batch_size), MODEL.apply(VARIABLES, x))
    batches = [(shape, sharding) for shape, sharding in sent if shape[1:] == SHAPE]
    assert len(batches) == -(-count // batch_size)
    for shape, sharding in batches:
        assert len(sharding.device_set) == devices
        assert sharding.shard_shape(shape)[0] * devices == shape[0] >= min(count, batch_size)
    weights = [sharding for shape, sharding in sent if shape[1:] != SHAPE]
    assert len(weights) == len(jax.tree.leaves(VARIABLES))  # sent once, not for every batch
    assert all(sharding.is_fully_replicated and len(sharding.device_set) == devices for sharding in weights)


def test_numbers_do_not_depend_on_the_devices(monkeypatch):
    x = images(21)
    on_all = predict(MODEL, VARIABLES, x, batch_size=16)
    one = jax.local_devices()[:1]
    monkeypatch.setattr(inference.jax, "local_devices", lambda: one)
    assert_close(predict(MODEL, VARIABLES, x, batch_size=16), on_all)


def test_one_compilation_for_a_batch_shape():
    function, shapes = counting()
    for _ in range(2):
        predict(MODEL, VARIABLES, images(21), batch_size=8, preprocess=function)
    predict(small(), VARIABLES, iter([images(5), images(9)]), batch_size=8, preprocess=function)  # an equal model
    assert len(shapes) == 1
    predict(MODEL, VARIABLES, images(16), batch_size=16, preprocess=function)
    assert len(shapes) == 2


def test_the_preprocessing_of_a_mode_compiles_once():
    first = inference.preprocessing_function(small(), "tf")
    assert first is inference.preprocessing_function(small(), "tf")
    assert first is not inference.preprocessing_function(small(), "caffe")
    assert first is not inference.preprocessing_function(small(data_format="channels_first"), "tf")


PIXELS = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
def test_preprocessing_of_uint8_images(mode):
    expected = MODEL.apply(VARIABLES, preprocess_input(PIXELS, mode=mode))
    np.testing.assert_allclose(predict(MODEL, VARIABLES, PIXELS, preprocess=mode), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "mode"), [("xception", "tf"), ("inception_v3", "tf"), ("resnet50", "caffe"), ("vgg16", "caffe")]
)
def test_preprocessing_of_a_published_network(name, mode):
    inner = small(name=name)
    image = Input(SHAPE)
    outer = Model(image, layers.Activation("tanh")(inner(image)), name="photos")
    expected = inner.apply(VARIABLES, preprocess_input(PIXELS, mode=mode))
    np.testing.assert_allclose(predict(inner, VARIABLES, PIXELS, preprocess=True), expected, rtol=1e-4, atol=1e-4)
    variables = {"params": {name: VARIABLES["params"]}}
    nested = predict(outer, variables, PIXELS, preprocess=True)
    np.testing.assert_allclose(nested, np.tanh(expected), rtol=1e-4, atol=1e-4)


def test_preprocessing_by_a_function():
    double = predict(MODEL, VARIABLES, PIXELS, preprocess=lambda x: x.astype("float32") * 2)
    np.testing.assert_allclose(double, MODEL.apply(VARIABLES, 2 * PIXELS.astype("float32")), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("listed", [False, True], ids=["one", "list of one"])
def test_preprocessing_of_channels_first_images(listed):
    one = small(data_format="channels_first")
    model = Model([one.input], one.output) if listed else one
    x = np.moveaxis(PIXELS, -1, 1)
    output = predict(model, VARIABLES, [x] if listed else x, preprocess="caffe")
    expected = MODEL.apply(VARIABLES, preprocess_input(PIXELS, mode="caffe"))
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("count", [2, 4])
def test_preprocessing_of_several_inputs(count):
    nodes = [Input(SHAPE) for _ in range(count)]
    model = Model(nodes, layers.Concatenate()(nodes))
    expected = np.concatenate([preprocess_input(PIXELS, mode="tf")] * count, -1)
    assert_close(predict(model, {}, [PIXELS] * count, preprocess="tf"), expected)


def test_preprocessing_that_is_not_known():
    with pytest.raises(ValueError, match=r"preprocess=True found \[\] for None: give one of caffe, tf, torch"):
        predict(MODEL, VARIABLES, PIXELS, preprocess=True)
    with pytest.raises(ValueError, match=r"preprocess='keras' for None: give one of caffe, tf, torch"):
        predict(MODEL, VARIABLES, PIXELS, preprocess="keras")
    image = Input(SHAPE)
    both = Model(image, layers.Add()([small(name="vgg16")(image), small(name="xception")(image)]))
    with pytest.raises(ValueError, match=r"found \['caffe', 'tf'\]"):
        predict(both, {}, PIXELS, preprocess=True)


def test_uint8_images_are_sent_as_they_are(monkeypatch):
    dtypes = []
    device_put = jax.device_put

    def spy(tree, *arguments):
        dtypes.extend(leaf.dtype for leaf in jax.tree.leaves(tree) if leaf.shape[1:] == SHAPE)
        return device_put(tree, *arguments)

    monkeypatch.setattr(inference.jax, "device_put", spy)
    predict(MODEL, VARIABLES, PIXELS)
    assert dtypes == [np.uint8]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "bool", "float16", "float64", jnp.bfloat16])
def test_images_of_any_numeric_dtype(dtype):
    x = (PIXELS % 2).astype(dtype)
    assert_close(predict(MODEL, VARIABLES, x), MODEL.apply(VARIABLES, x.astype(np.float32)))


def test_a_bfloat16_network_gives_float32():
    model = small(dtype="bfloat16")
    assert model.apply(VARIABLES, images(3)).dtype == jnp.bfloat16
    output = predict(model, VARIABLES, images(3))
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, MODEL.apply(VARIABLES, images(3)), atol=0.05)


def test_precision():
    """Few images too are computed as asked."""
    x = Input((8, 8, 16))
    model = Model(x, layers.GlobalAveragePooling2D()(layers.Conv2D(32, 1, name="conv")(x)))
    variables, x = model.init_variables(), np.random.default_rng(0).random((3, 8, 8, 16), np.float32)
    exact = predict(model, variables, x)
    rounded = predict(model, variables, x, precision="bfloat16")
    assert 0 < np.max(np.abs(rounded - exact)) < 1e-2 * np.max(np.abs(exact))
    with pytest.raises(ValueError, match="precision='bfloat16' needs optimize="):
        predict(model, variables, x, precision="bfloat16", optimize=None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("as_iterator", [False, True], ids=["array", "iterator"])
def test_images_that_are_not_finite_are_named(value, as_iterator):
    x = images(20)
    x[13, 2, 3, 1] = x[15, 0, 0, 0] = value
    chunks = iter(np.split(x, [1, 12])) if as_iterator else x
    with pytest.raises(ValueError, match=r"Image 13 contains NaN or infinity \(2 in this batch\)"):
        predict(MODEL, VARIABLES, chunks, batch_size=8)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(SHAPE), r"shape \(batch, 6, 5, 3\), got \(6, 5, 3\): put one image into a batch with x\[None\]"),
        (np.zeros((2, 6, 5, 4)), r"got \(2, 6, 5, 4\)"),
        (np.zeros((2, 5, 6, 3)), r"got \(2, 5, 6, 3\)"),
        (np.zeros((0, 5, 6, 3)), r"got \(0, 5, 6, 3\)"),
        (np.zeros((2, 6, 5, 3), "<U1"), "arrays of numbers, got dtype <U1"),
        (np.full((2, 6, 5, 3), None), "arrays of numbers, got dtype object"),
        ([np.zeros((1, *SHAPE)), np.zeros((1, 6, 6, 3))], r"got \(1, 6, 6, 3\)"),
    ],
    ids=["rank", "channels", "size", "empty", "text", "objects", "second chunk"],
)
def test_images_that_do_not_fit(x, message):
    with pytest.raises(ValueError, match=message):
        predict(MODEL, VARIABLES, x)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_sizes_that_are_not_positive(batch_size):
    with pytest.raises(ValueError, match=f"batch_size should be at least 1, got {batch_size}"):
        predict(MODEL, VARIABLES, images(2), batch_size=batch_size)


@pytest.mark.parametrize("as_iterator", [False, True], ids=["array", "iterator"])
def test_progress_is_shown_on_stderr_when_asked_for(capfd, as_iterator):
    def x():
        return iter([images(3)] * 3) if as_iterator else images(9)

    output = predict(MODEL, VARIABLES, x(), batch_size=4, verbose=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "Predicting" in shown.err
    np.testing.assert_array_equal(predict(MODEL, VARIABLES, x(), batch_size=4), output)
    assert capfd.readouterr() == ("", "")


def test_arguments_are_left_alone():
    x = images(5)
    before = x.copy()
    predict(MODEL, VARIABLES, x, batch_size=4, preprocess="caffe")
    np.testing.assert_array_equal(x, before)


def test_only_the_last_programs_are_kept():
    image = Input((None, None, 1))
    model = Model(image, layers.GlobalAveragePooling2D()(image))
    client = jax.devices()[0].client
    inference._program.cache_clear()
    gc.collect()
    before = len(client.live_executables())
    for size in range(1, PROGRAMS_KEPT + 9):
        assert predict(model, {}, np.ones((1, size, 1, 1), np.float32)) == pytest.approx(1)
    gc.collect()
    assert PROGRAMS_KEPT / 2 < len(client.live_executables()) - before <= PROGRAMS_KEPT
