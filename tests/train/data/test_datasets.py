from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from flaxapps import train
from flaxapps.runtime.manifests import difference, read_manifest, write_manifest
from flaxapps.train.data.pipeline import pipeline


def numbers(count, class_names=None):
    """As many images as asked for, each holding its own number."""
    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return train.ArrayDataset(images, np.arange(count) % 2, class_names)


def order(dataset, batch_size=4, **options):
    return [images.ravel().tolist() for images, _ in dataset.batches(batch_size, **options)]


def flat(dataset, seed, epoch):
    return [number for batch in order(dataset, seed=seed, epoch=epoch) for number in batch]


def test_without_a_seed_examples_come_in_order_and_none_is_dropped():
    assert order(numbers(10), seed=None) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_the_order_is_a_function_of_seed_and_epoch():
    data = numbers(50)
    orders = {(seed, epoch): flat(data, seed, epoch) for seed in range(3) for epoch in range(3)}
    assert all(sorted(found) == list(range(50)) for found in orders.values())
    assert len({tuple(found) for found in orders.values()}) == 9
    assert flat(data, 1, 2) == orders[1, 2]


def test_start_continues_where_the_uninterrupted_epoch_goes_on():
    data, whole = numbers(11), order(numbers(11), seed=5, epoch=3)
    for start in range(4):
        assert order(data, seed=5, epoch=3, start=start) == whole[start:]


def test_start_does_not_load_what_it_leaves_out():
    loaded = []
    list(pipeline(loaded.append, 10, batch_size=2, seed=None, start=3))
    assert np.concatenate(loaded).tolist() == [6, 7, 8, 9]


def test_grains_own_state_continues_an_epoch():
    dataset = pipeline(np.ndarray.tolist, 20, batch_size=3, seed=7)
    iterator = iter(dataset)
    for _ in range(3):
        next(iterator)
    state = iterator.get_state()
    rest = list(iterator)
    fresh = iter(dataset)
    fresh.set_state(state)
    assert len(rest) == 4
    assert list(fresh) == rest


def test_shards_of_a_batch_put_together_are_the_batch():
    data, whole = numbers(10), order(numbers(10), seed=1)
    first, second = (order(data, seed=1, shard=(index, 2)) for index in range(2))
    assert [a + b for a, b in zip(first, second, strict=True)] == whole
    assert [len(part) for part in second] == [2, 2, 0]


def test_arguments_out_of_range_are_told_all_at_once():
    with pytest.raises(
        ValueError, match=r"batch_size should be at least 1, got 0; seed .* got -1; epoch .*-2; start .*-3"
    ):
        numbers(3).batches(0, seed=-1, epoch=-2, start=-3)
    with pytest.raises(ValueError, match="multiple of the 2 shards, got 3"):
        numbers(3).batches(3, seed=0, shard=(0, 2))
    with pytest.raises(ValueError, match="index below count"):
        numbers(3).batches(3, seed=0, shard=(1, 1))


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [([0, 1], np.int32), ([True, False], np.int32), ([0.5, 1.0], np.float32), ([[0, 1], [1, 0]], np.int32)],
)
def test_labels_are_int32_or_float32(labels, dtype):
    (images, found), *_ = train.ArrayDataset(np.zeros((2, 3)), labels).batches(2, seed=None)
    assert found.dtype == dtype
    assert images.dtype == np.float32
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(
    ("images", "labels", "names", "message"),
    [
        (np.zeros((2, 3)), [0], None, r"images of shape \(2, 3\), labels of shape \(1,\)"),
        (np.zeros((0, 3)), [], None, "arrays are empty"),
        (np.zeros((2, 3)), [0, -1], None, "count from 0, got -1"),
        (np.zeros((2, 3)), [0, 2], ("a", "b"), "2 class names, but a label is 2"),
        (np.zeros((2, 3)), np.eye(2, 3), ("a", "b"), "2 class names, but labels of shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, labels, names, message):
    with pytest.raises(ValueError, match=message):
        train.ArrayDataset(images, labels, names)


def test_a_fingerprint_changes_with_the_data_and_the_difference_tells_how():
    data = numbers(4, ("even", "odd"))
    assert data.fingerprint == numbers(4, ("even", "odd")).fingerprint
    other = train.ArrayDataset(data.images, [0, 1, 1, 1], ("even", "uneven"))
    assert other.fingerprint != data.fingerprint
    lines = difference(data.manifest(), other.manifest())
    assert [line.partition(":")[0] for line in lines] == ["class 1", "labels"]
    assert "was odd, is uneven" in lines[0]


def test_differences_are_shortened_and_tell_a_changed_order():
    saved = {f"file {number}": "1 byte" for number in range(30)}
    assert difference(saved, saved) == []
    assert difference(saved, dict(reversed(saved.items()))) == ["the same entries are there in another order"]
    lines = difference(saved, {"file 0": "2 bytes", "other": "3 bytes"})
    assert lines[10:] == ["and 19 more like these", "other: is new, 3 bytes", "file 0: was 1 byte, is 2 bytes"]


def test_manifests_are_written_and_read(tmp_path):
    manifest = {"file ä\udcff.png": "class 0, 3 bytes"}
    write_manifest(tmp_path / "manifest", manifest)
    assert read_manifest(tmp_path / "manifest") == manifest
    (tmp_path / "broken").write_bytes((tmp_path / "manifest").read_bytes()[:-9])
    with pytest.raises(ValueError, match="broken is not a manifest"):
        read_manifest(tmp_path / "broken")


def test_a_large_array_is_fingerprinted_by_some_of_its_images(monkeypatch):
    monkeypatch.setattr("flaxapps.train.data.datasets.HASHED_BYTES", 4)
    assert "SHA-256 of" not in numbers(4).manifest()["images"]
    assert "SHA-256 of image 0, 3, 6, ... " in numbers(10).manifest()["images"]


def test_what_fit_takes_becomes_a_dataset():
    data = numbers(3)
    assert train.as_dataset(data) is data
    assert len(train.as_dataset((data.images, data.labels))) == 3
    batches = [(data.images[:2], data.labels[:2]), (data.images[2:], data.labels[2:])]
    for source in (batches, tuple(batches)):
        stream = train.as_dataset(source)
        for epoch in range(2):
            assert order(stream, seed=0, epoch=epoch) == [[0, 1], [2]]
        assert order(stream, seed=0, start=1) == [[2]]
        assert order(stream, seed=0, shard=(1, 2)) == [[1], [2]]
    with pytest.raises(TypeError, match="known only when it ends"):
        len(stream)


def test_an_iterator_is_read_once_and_says_so():
    stream = train.as_dataset((np.zeros((2, 3)), [0, 1]) for _ in range(2))
    assert len(list(stream.batches(2, seed=0))) == 2
    with pytest.raises(ValueError, match="cannot start again"):
        next(stream.batches(2, seed=0, epoch=1))


@pytest.mark.parametrize("batch", [np.zeros(3), (np.zeros(3),), (np.zeros((2, 3)), np.zeros(3))])
def test_a_batch_that_is_no_pair_is_told_by_its_number(batch):
    stream = train.as_dataset([(np.zeros((1, 3)), [0]), batch])
    with pytest.raises(ValueError, match="Batch 1"):
        list(stream.batches(2, seed=None))


@pytest.mark.parametrize("data", ["photos", 3, np.zeros(3), train.ArrayDataset])
def test_anything_else_is_refused_with_what_would_do(data):
    with pytest.raises(TypeError, match=r"tuple \(images, labels\)"):
        train.as_dataset(data)


@pytest.mark.parametrize("data", [{"images": 1}, [{"image": [0], "img": [0], "label": [0]}]])
def test_a_dict_names_images_and_labels(data):
    with pytest.raises(ValueError, match=r"dict of 'ima.*under one of image, images.*under one of label, labels"):
        list(train.as_dataset(data).batches(2, seed=None))


class HuggingFace(list):
    """A dataset of Hugging Face, as far as it is used: examples as dicts, with features."""

    features = {"img": None, "label": SimpleNamespace(names=["even", "odd"])}  # noqa: RUF012  (as there)


def test_single_examples_are_batched_and_shuffled():
    """As torch's and Hugging Face's datasets; their own agree with this (datasets 4, torch 2.13)."""
    whole = numbers(10, ("even", "odd"))
    pairs = list(zip(whole.images, whole.labels, strict=True))
    named = HuggingFace({"img": Image.fromarray(image[..., 0]), "label": int(label)} for image, label in pairs)
    for data in (train.as_dataset(pairs), train.as_dataset(named)):
        assert len(data) == 10
        assert flat(data, 3, 1) == flat(whole, 3, 1)
        assert {images.shape[1:] for images, _ in data.batches(4, seed=0)} == {(1, 1, 1)}
    assert data.class_names == ("even", "odd")
    with pytest.raises(ValueError, match=r"example 0 is \(1, 1, 1\) and example 1 \(2, 1\): resize them"):
        list(train.as_dataset([pairs[0], (np.zeros((2, 1), np.uint8), 0)]).batches(2, seed=None))


class Counted:
    """What Keras's PyDataset is: batches by index, a length, and methods that are told of epochs."""

    def __init__(self):
        self.told = []
        self.shift = 0

    def __len__(self):
        return 3

    def __getitem__(self, index):  # of any index, so that reading without the length never ends
        return np.full((2, 4, 4, 3), index + self.shift, "float32"), np.zeros(2, "int32")

    def on_epoch_begin(self):
        self.told.append("begin")

    def on_epoch_end(self):
        self.told.append("end")
        self.shift += 10


def test_a_source_with_a_length_is_read_so_far_and_told_of_its_epochs():
    source = Counted()
    data = train.as_dataset(source)
    for epoch in range(2):
        read = [images[0, 0, 0, 0] for images, _ in data.batches(2, seed=0, epoch=epoch)]
        assert read == [10 * epoch, 10 * epoch + 1, 10 * epoch + 2]
    assert source.told == ["begin", "end"] * 2
    resumed = train.as_dataset(Counted()).batches(2, seed=0, epoch=2, start=1)
    assert [images[0, 0, 0, 0] for images, _ in resumed] == [21, 22]


def test_a_dataset_of_keras_is_read_as_keras_reads_it():
    import keras

    class Batches(Counted, keras.utils.PyDataset):
        def __init__(self):
            keras.utils.PyDataset.__init__(self)
            Counted.__init__(self)

    ours, theirs = Batches(), Batches()
    x = keras.Input((4, 4, 3))
    model = keras.Model(x, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x)))
    with jax.numpy_dtype_promotion("standard"):
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(theirs, epochs=2, verbose=0)
    data = train.as_dataset(ours)
    assert [len(list(data.batches(2, seed=0, epoch=epoch))) for epoch in range(2)] == [3, 3]
    assert ours.told == theirs.told[2:]  # Keras first begins an epoch to see the shapes
