import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image

from flaxapps.train.step.augmentation import CROP_TRIALS, Augmentation, random_box, resized_crop

ALL = Augmentation(crop=(0.3, 1.0), flip=True, brightness=0.2, contrast=0.3)
EACH = [
    Augmentation(crop=(0.3, 1.0)),
    Augmentation(flip=True),
    Augmentation(brightness=0.2),
    Augmentation(contrast=0.3),
    Augmentation(rotation=0.1),
    Augmentation(randaugment=(2, 9)),
    Augmentation(erasing=1.0),
    ALL,
]


@functools.partial(jax.jit, static_argnames="augmentation")
def augment(augmentation, key, images, first=0):
    return augmentation(key, images, first)


def photos(count=8, size=(6, 8), channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, *size, channels), np.uint8)


@pytest.mark.parametrize("nothing", [Augmentation(), Augmentation(crop=(1.0, 1.0), ratio=(1.0, 1.0))])
def test_an_augmentation_that_changes_nothing_is_exactly_the_identity(nothing):
    found = augment(nothing, jax.random.key(1), photos())
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, photos())


@pytest.mark.parametrize("augmentation", EACH)
def test_the_key_alone_decides(augmentation):
    first, again, other = (np.asarray(augment(augmentation, jax.random.key(seed), photos())) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, photos())


@pytest.mark.parametrize("augmentation", [ALL])
def test_an_image_does_not_depend_on_the_rest_of_its_batch(augmentation):
    whole = augment(augmentation, jax.random.key(3), photos())
    np.testing.assert_allclose(augment(augmentation, jax.random.key(3), photos()[:3]), whole[:3], atol=1e-3)
    np.testing.assert_allclose(augment(augmentation, jax.random.key(3), photos()[5:], 5), whole[5:], atol=1e-3)


def test_images_do_not_depend_on_the_devices_they_are_on():
    assert jax.device_count() == 8
    whole = augment(ALL, jax.random.key(4), photos(16))
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    images = jax.device_put(photos(16), NamedSharding(mesh, PartitionSpec("batch")))
    spread = augment(ALL, jax.random.key(4), images)
    assert len(spread.sharding.device_set) == 8
    np.testing.assert_allclose(spread, whole, atol=1e-3)
    parts = jax.pmap(lambda images, first: ALL(jax.random.key(4), images, first))(
        photos(16).reshape(8, 2, 6, 8, 3), np.arange(0, 16, 2)
    )
    np.testing.assert_allclose(np.reshape(parts, whole.shape), whole, atol=1e-3)


def test_about_half_of_the_images_are_mirrored_and_the_others_untouched():
    images = photos(1).repeat(200, axis=0)
    found = np.asarray(augment(Augmentation(flip=True), jax.random.key(5), images))
    mirrored = (found == images[:, :, ::-1]).all(axis=(1, 2, 3))
    untouched = (found == images).all(axis=(1, 2, 3))
    assert (mirrored ^ untouched).all()
    assert 70 < mirrored.sum() < 130


def test_brightness_and_contrast_keep_to_their_ranges():
    images = np.full((200, 2, 2, 1), 100, np.uint8)
    images[:, 0] = 140
    brighter = np.asarray(augment(Augmentation(brightness=0.1), jax.random.key(6), images))
    shifts = brighter - images
    np.testing.assert_allclose(shifts, shifts[:, :1, :1].repeat(2, axis=1).repeat(2, axis=2), atol=1e-4)
    assert -25.5 <= shifts.min() < -23
    assert 23 < shifts.max() <= 25.5
    starker = np.asarray(augment(Augmentation(contrast=0.5), jax.random.key(6), images))
    np.testing.assert_allclose(starker.mean(axis=(1, 2, 3)), 120, rtol=1e-5)
    factors = (starker[:, 0, 0, 0] - 120) / 20
    assert 0.5 <= factors.min() < 0.53
    assert 1.47 < factors.max() <= 1.5


def test_a_crop_is_the_box_that_pillow_cuts_out_and_resizes():
    image = photos(1, size=(12, 16), channels=1)[0].astype(np.float32)
    crop = jax.jit(resized_crop)
    for size, start in (((0.5, 0.5), (0.25, 0.5)), ((0.3, 0.7), (0.7, 0.3)), ((0.91, 0.2), (0.0, 0.77))):
        found = crop(image, np.float32(size), np.float32(start))
        (top, left), (bottom, right) = np.multiply(start, (12, 16)), np.add(size, start) * (12, 16)
        pillow = Image.fromarray(image[:, :, 0])
        wanted = pillow.resize((16, 12), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
        np.testing.assert_allclose(found[:, :, 0], np.asarray(wanted), atol=0.01)


def boxes(area, ratio, count=500):
    draws = np.random.default_rng(0).random((count, 2 * CROP_TRIALS + 2), np.float32)
    return jax.jit(jax.vmap(lambda draws: random_box(draws, area, ratio)))(draws)


def test_boxes_have_the_areas_and_ratios_asked_for_and_lie_within_the_image():
    sizes, starts = map(np.asarray, boxes((0.2, 0.5), (0.5, 2.0)))
    areas, ratios = sizes.prod(axis=1), sizes[:, 1] / sizes[:, 0]
    for values, low, high in ((areas, 0.2, 0.5), (ratios, 0.5, 2.0)):
        assert low - 1e-5 <= values.min() < low * 1.05
        assert high * 0.95 < values.max() <= high + 1e-5
    assert (starts >= 0).all()
    assert (starts + sizes <= 1 + 1e-6).all()


def test_a_box_that_never_fits_is_the_whole_image():
    sizes, starts = boxes((1.0, 1.0), (2.0, 2.0), count=3)
    assert (sizes == 1).all()
    assert (starts == 0).all()


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 3), (np.float32, 1)])
def test_shape_type_and_range(dtype, channels):
    images = photos(channels=channels).astype(dtype)
    for seed in range(10):
        found = np.asarray(augment(replace(ALL, value_range=(0, 255)), jax.random.key(seed), images))
        assert found.shape == images.shape
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert found.max() <= 255


def test_what_is_out_of_range_is_told_all_at_once():
    with pytest.raises(ValueError, match=r"crop .*\(0, 2\); ratio .*\(2, 1\); brightness .* 2; contrast .* -1"):
        Augmentation(crop=(0, 2), ratio=(2, 1), brightness=2, contrast=-1)
    with pytest.raises(ValueError, match=r"\(n, height, width, channels\), got shape \(4, 4, 3\)"):
        ALL(jax.random.key(0), jnp.zeros((4, 4, 3)))


@pytest.mark.parametrize(
    "change", [{"brightness": 0.2}, {"contrast": 0.4}, {"brightness": 0.2, "contrast": 0.4}], ids=str
)
@pytest.mark.parametrize("scale", [1.0, 2.0, 255.0])
def test_an_image_in_another_range_is_changed_alike(change, scale):
    """On 0..1, changes meant for 0..255 made an image of one colour."""
    high = 1.0 if scale == 255 else 255 / scale
    wanted = np.asarray(augment(Augmentation(**change), jax.random.key(2), photos()))
    given = photos() / np.float32(scale)
    found = augment(Augmentation(**change, value_range=(0, high)), jax.random.key(2), given)
    np.testing.assert_allclose(np.asarray(found) * scale, wanted, atol=1e-3)
    assert found.std() > 0.1 * high


def test_brightness_is_that_of_keras_for_the_same_change():
    import keras

    images = (photos() / np.float32(255))[:1]
    found = Augmentation(brightness=0.3, value_range=(0, 1))(jax.random.key(7), images)
    with jax.numpy_dtype_promotion("standard"):
        layer = keras.layers.RandomBrightness(0.3, value_range=(0, 1))
        change = float(np.median(np.asarray(found) - images))
        wanted = layer.transform_images(images, {"rgb_delta": np.full((1, 1, 1, 1), change, "float32")})
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_range_that_cannot_be_told_is_asked_for():
    needs = Augmentation(brightness=0.1)
    assert Augmentation(flip=True).for_images(np.full((1, 2, 2, 3), -1.0)) == Augmentation(flip=True)
    assert needs.for_images(photos()).value_range == needs.for_images(photos() * 1.0).value_range == (0, 255)
    for images in (np.full((1, 2, 2, 3), -0.5), np.full((1, 2, 2, 3), 300.0), np.full((1, 2, 2, 3), np.nan)):
        with pytest.raises(ValueError, match=r"neither of the ranges.*value_range="):
            needs.for_images(images)
    with pytest.raises(ValueError, match=r"give train.Augmentation\(..., value_range"):
        augment(needs, jax.random.key(0), photos() / np.float32(255))
    with pytest.raises(ValueError, match="value_range should be"):
        Augmentation(value_range=(1, 0))


def test_erasing_replaces_one_box_by_noise():
    """As timm's RandomErasing: 2% to 33% of the area, a ratio of the sides up to 10 : 3, in a share of the images."""
    images = np.full((400, 40, 40, 3), 300.0, np.float32)
    erasing = Augmentation(erasing=0.5, value_range=(0, 255))
    erased = np.asarray(augment(erasing, jax.random.key(1), images)) < 300
    erased = erased.all(axis=-1)
    assert 150 < erased.any(axis=(1, 2)).sum() < 250
    boxes = [each for each in erased if each.any()]
    for each in boxes:
        rows, columns = each.any(axis=1), each.any(axis=0)
        assert (each == rows[:, None] & columns).all()
        assert 1 / 5 < rows.sum() / columns.sum() < 5
    shares = np.array([each.mean() for each in boxes])
    assert 0.01 < shares.min() < 0.05
    assert 0.28 < shares.max() < 0.37


def test_rotation_is_that_of_pillow_for_some_angle_in_its_range():
    smooth = Image.fromarray(photos(1, size=(3, 3))[0]).resize((24, 24), Image.Resampling.BICUBIC)
    images = np.asarray(smooth)[None].repeat(30, axis=0)
    found = np.asarray(augment(Augmentation(rotation=0.1), jax.random.key(2), images))[:, 7:17, 7:17]
    angles = np.arange(-36, 36.1, 0.25)
    turned = np.stack([np.asarray(smooth.rotate(angle, Image.Resampling.BILINEAR), float) for angle in angles])
    far = np.abs(found[:, None] - turned[None, :, 7:17, 7:17]).max(axis=(2, 3, 4))
    assert far.min(axis=1).max() < 3  # of 255: an eighth of a degree, and Pillow's rounding
    best = angles[far.argmin(axis=1)]
    assert best.min() < -30
    assert best.max() > 30


def test_what_is_new_is_checked_and_needs_a_range():
    with pytest.raises(ValueError, match=r"erasing .* 2; mixup should be at least 0.*; randaugment .*\(0, 9\)"):
        Augmentation(erasing=2, mixup=-1, randaugment=(0, 9))
    assert Augmentation(erasing=0.5).needs_range
    assert Augmentation(randaugment=(2, 9)).needs_range
    assert not Augmentation(mixup=0.2, cutmix=1.0, rotation=0.1, flip=True).needs_range
