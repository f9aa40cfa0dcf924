"""fit on a folder of photos."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from flaxapps import train
from tests.train.small import CLASSES, assert_same, fit

ONE = jax.devices()[:1]


@pytest.fixture
def folder(tmp_path):
    """Three photos of each class."""
    random = np.random.default_rng(0)
    for number in range(3 * CLASSES):
        path = tmp_path / "photos" / f"class {number % CLASSES}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (10, 12, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def fit_folder(folder, on_error="raise", **options):
    data = train.image_folder(folder, image_size=8, on_error=on_error)
    augmentation = train.Augmentation(crop=(0.5, 1.0), flip=True, brightness=0.1, contrast=0.1)
    return fit(data, augmentation=augmentation, preprocess="tf", devices=ONE, **options)


@pytest.mark.slow
def test_a_folder_with_augmentation_trains_the_same_twice_and_resumes_to_the_same(folder, tmp_path):
    options = {"batch_size": 4, "validation_data": train.image_folder(folder, image_size=8)}
    whole, losses = fit_folder(folder, epochs=2, **options)
    fit_folder(folder, epochs=1, checkpoint_dir=tmp_path / "run", **options)
    resumed, rest = fit_folder(
        folder, epochs=2, checkpoint_dir=train.CheckpointFolder(tmp_path / "run", resume=True), **options
    )
    assert rest == losses[3:]
    assert_same(resumed.variables, whole.variables)
    assert resumed.class_names == tuple(f"class {index}" for index in range(CLASSES))


def test_a_run_is_not_resumed_on_a_changed_folder(folder, tmp_path):
    fit_folder(folder, batch_size=4, checkpoint_dir=tmp_path / "run")
    (folder / "class 1" / "01.png").unlink()
    gone = r"data: file class 1/01\.png: was class 1, \d+ bytes, CRC-32 [0-9a-f]{8}, is gone"
    with pytest.raises(train.CheckpointError, match=gone):
        fit_folder(folder, batch_size=4, epochs=2, checkpoint_dir=train.CheckpointFolder(tmp_path / "run", resume=True))


def test_batches_without_a_readable_photo_are_passed_over(folder):
    (folder / "class 1" / "01.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="1 image could not be read") as caught:
        result, losses = fit_folder(
            folder,
            "skip",
            batch_size=1,
            epochs=2,
            validation_data=train.image_folder(folder, image_size=8, on_error="skip"),
        )
    assert result.steps == len(losses) == 2 * 11
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.variables))
    assert len(caught) == 4  # each time after training and after validation


def batch_of(scale):
    images = np.random.default_rng(1).integers(0, 256, (16, 8, 8, 3)).astype("float32")
    return images * scale, np.arange(16) % CLASSES


@pytest.mark.parametrize("form", ["arrays", "list", "iterator"])
def test_the_range_of_the_images_is_that_of_the_first_batch(form):
    augmentation = train.Augmentation(brightness=0.2, contrast=0.3)
    data = {"arrays": batch_of(1 / 255), "list": [batch_of(1 / 255)], "iterator": iter([batch_of(1 / 255)])}[form]
    same = train.as_dataset(data) if form == "arrays" else [batch_of(1 / 255)]
    _, wanted = fit(same, augmentation=replace(augmentation, value_range=(0, 1)), devices=ONE)
    _, losses = fit(data, augmentation=augmentation, devices=ONE)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    with pytest.raises(ValueError, match="neither of the ranges"):
        fit(batch_of(-1 / 255), augmentation=augmentation, devices=ONE)
