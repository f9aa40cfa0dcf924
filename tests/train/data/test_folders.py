import os

import numpy as np
import pytest
from PIL import Image

from flaxapps import train
from flaxapps.runtime.manifests import difference
from flaxapps.train.data.splits import split_indices

KERAS_FORMATS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
pytestmark = pytest.mark.filterwarnings("ignore:.*left out")


def photo(path, colour=(255, 0, 0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), colour).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Three classes, one with folders inside; names whose order is easily got wrong."""
    for name in ("b.png", "a/x.jpg", "a/b/y.PNG", "a.png", "B.bmp"):
        photo(tmp_path / "data" / "cat" / name)
    for number in range(12):
        photo(tmp_path / "data" / "Zebra" / f"{number}.jpg")
    for number in range(3):
        photo(tmp_path / "data" / "dog 10" / f"{number}.gif")
    (tmp_path / "data" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "data" / "README").write_text("not an image")
    return tmp_path / "data"


def keras_index(folder, **options):
    from keras.src.utils import dataset_utils

    options = {"labels": "inferred", "formats": KERAS_FORMATS, "verbose": False} | options
    files, labels, names = dataset_utils.index_directory(str(folder), **options)
    return [os.path.relpath(file, folder) for file in files], list(labels), names


@pytest.mark.parametrize("names", [None, ["dog 10", "cat"]])
def test_files_labels_and_classes_are_those_of_keras(folder, names):
    files, labels, class_names = keras_index(folder, class_names=names, shuffle=False)
    data = train.image_folder(folder, image_size=8, class_names=names)
    assert data.files == files
    assert data.labels.tolist() == labels
    assert list(data.class_names) == class_names


@pytest.mark.parametrize("follow_links", [False, True])
def test_links_are_followed_as_in_keras(folder, tmp_path, follow_links):
    photo(tmp_path / "elsewhere" / "far.png")
    (folder / "cat" / "linked.png").symlink_to(tmp_path / "elsewhere" / "far.png")
    (folder / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "linked class").symlink_to(tmp_path / "elsewhere")
    files, labels, _ = keras_index(folder, shuffle=False, follow_links=follow_links)
    data = train.image_folder(folder, image_size=8, follow_links=follow_links)
    assert (data.files, data.labels.tolist()) == (files, labels)
    assert ("cat/linked/far.png" in files) == follow_links


def test_a_link_to_a_folder_above_does_not_go_round(folder):
    (folder / "cat" / "again").symlink_to(folder / "cat")
    data = train.image_folder(folder, image_size=8, follow_links=True)
    assert len(data) == 20


@pytest.mark.parametrize("seed", [0, 1, 1337])
@pytest.mark.parametrize("validation_split", [0.1, 0.25, 0.4])
def test_a_split_chooses_the_files_keras_chooses(folder, seed, validation_split):
    from keras.src.utils import dataset_utils

    files, labels, _ = keras_index(folder, seed=seed)
    chosen = {}
    for subset in ("training", "validation"):
        wanted = dataset_utils.get_training_or_validation_split(files, labels, validation_split, subset)
        data = train.image_folder(folder, image_size=8, validation_split=validation_split, subset=subset, seed=seed)
        assert sorted(zip(*wanted, strict=True)) == sorted(zip(data.files, data.labels.tolist(), strict=True))
        assert data.files == [file for file in keras_index(folder, shuffle=False)[0] if file in set(data.files)]
        chosen[subset] = set(data.files)
    assert not chosen["training"] & chosen["validation"]
    assert chosen["training"] | chosen["validation"] == set(files)


@pytest.mark.parametrize(
    ("split", "subset", "message"),
    [
        (0.5, None, "got validation_split=0.5, subset=None"),
        (None, "training", "got validation_split=None, subset='training'"),
        (0.5, "both", 'subset="training" or "validation"'),
        (1.0, "training", "between 0 and 1"),
        (0.01, "validation", "of 20 images holds out none"),
    ],
)
def test_a_split_that_is_none_is_refused(split, subset, message):
    with pytest.raises(ValueError, match=message):
        split_indices(20, split, subset, seed=0)


def test_labels_are_indices_or_one_hot(folder):
    (_, indices), *_ = train.image_folder(folder, image_size=8).batches(32, seed=4)
    (_, rows), *_ = train.image_folder(folder, image_size=8, label_mode="categorical").batches(32, seed=4)
    assert indices.dtype == np.int32
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.eye(3)[indices])


def test_a_class_of_three_photos_works(folder):
    data = train.image_folder(folder, image_size=(4, 6), class_names=["dog 10", "Zebra"])
    batches = list(data.batches(4, seed=0))
    assert [images.shape for images, _ in batches] == [(4, 4, 6, 3)] * 3 + [(3, 4, 6, 3)]
    assert sorted(np.concatenate([labels for _, labels in batches])) == [0] * 3 + [1] * 12


def test_a_split_that_leaves_a_class_without_training_photos_says_so(tmp_path):
    photo(tmp_path / "rare" / "1.png")
    for number in range(3):
        photo(tmp_path / "common" / f"{number}.png")
    seed = next(seed for seed in range(99) if 3 in split_indices(4, 0.5, "validation", seed))
    with pytest.raises(ValueError, match="no training image of 'rare': give a smaller fraction, another seed"):
        train.image_folder(tmp_path, image_size=8, validation_split=0.5, subset="training", seed=seed)


def test_an_empty_class_folder_is_told_unless_it_is_named(folder):
    (folder / "empty").mkdir()
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("a")
    with (
        pytest.raises(ValueError, match=r"no images in 'empty', 'texts' of .*looked for \.jpg, .*name the classes"),
        pytest.warns(UserWarning, match=r"data: left out 2 files that are not images: 2 \.txt"),
    ):
        train.image_folder(folder, image_size=8)
    data = train.image_folder(folder, image_size=8, class_names=["cat", "empty"])
    assert data.class_names == ("cat", "empty")
    assert set(data.labels) == {0}


def test_one_class_only_is_told_unless_it_is_named(folder):
    with pytest.raises(ValueError, match=r"one class folder only, 'data': .*folder above the classes, give .*data"):
        train.image_folder(folder.parent, image_size=8)
    assert len(train.image_folder(folder, image_size=8, class_names=["cat"])) == 5


def test_no_photos_at_all(tmp_path):
    with pytest.raises(ValueError, match="holds no folders: put the images of each class into a folder"):
        train.image_folder(tmp_path, image_size=8)
    photo(tmp_path / "a.png")
    with pytest.raises(ValueError, match="holds 1 images but no folders"):
        train.image_folder(tmp_path, image_size=8)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train.image_folder(tmp_path / "nowhere", image_size=8)
    with pytest.raises(NotADirectoryError, match="use image_table for a CSV"):
        train.image_folder(tmp_path / "a.png", image_size=8)


def test_images_beside_the_class_folders_are_left_out_with_a_warning(folder):
    photo(folder / "beside.png")
    with pytest.warns(UserWarning, match=r"beside the class folders of .* left out: 'beside.png'"):
        data = train.image_folder(folder, image_size=8)
    assert len(data) == 20


def test_hidden_files_and_folders_are_left_out(folder):
    for name in ("cat/._b.png", "cat/.thumbnails/b.png", ".git/b.png"):
        photo(folder / name)
    assert len(train.image_folder(folder, image_size=8)) == 20


def test_class_names_that_are_no_folders_are_told(folder):
    with pytest.raises(ValueError, match="no folders 'bird'; it has 'Zebra', 'cat', 'dog 10'"):
        train.image_folder(folder, image_size=8, class_names=["cat", "bird"])
    with pytest.raises(ValueError, match="distinct names"):
        train.image_folder(folder, image_size=8, class_names=["cat", "cat"])


def test_a_changed_folder_has_another_fingerprint_and_the_difference_is_told(folder):
    before = train.image_folder(folder, image_size=8)
    manifest = before.manifest()
    assert before.fingerprint == train.image_folder(folder, image_size=8).fingerprint
    (folder / "cat" / "b.png").unlink()
    photo(folder / "cat" / "new.bmp")
    (folder / "Zebra" / "3.jpg").write_bytes(b"damaged")
    after = train.image_folder(folder, image_size=(8, 9))
    assert after.fingerprint != before.fingerprint
    lines = difference(manifest, after.manifest())
    changed = [line.partition(":")[0] for line in lines]
    assert changed == ["file cat/b.png", "file cat/new.bmp", "images", "file Zebra/3.jpg"]
    assert "is class 0, 7 bytes, CRC-32 " in lines[-1]


def test_a_file_changed_to_another_of_the_same_size_is_seen(folder):
    before = train.image_folder(folder, image_size=8).manifest()
    file = folder / "Zebra" / "3.jpg"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (line,) = difference(before, train.image_folder(folder, image_size=8).manifest())
    assert line.count("CRC-32") == 2
    assert "Zebra/3.jpg" in line


def test_of_a_large_folder_some_files_are_read_and_the_same_ones_when_another_is_added(folder, monkeypatch):
    for number in range(40):
        (folder / "cat" / f"{number}.png").write_bytes(bytes(1000))
    monkeypatch.setattr("flaxapps.train.data.image_files.HASHED_BYTES", 12_000)
    before = train.image_folder(folder, image_size=8).manifest()
    assert 2 < sum("CRC-32" in entry for entry in before.values()) < 30
    (folder / "cat" / "new.png").write_bytes(bytes(1000))
    (line,) = difference(before, train.image_folder(folder, image_size=8).manifest())
    assert line.startswith("file cat/new.png: is new")
