"""RandAugment's operations are Pillow's, which the paper and timm use."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from flaxapps.train.step.augmentation import Augmentation
from flaxapps.train.step.randaugment import FILL, OPERATIONS, apply_operation, rand_augment

SIZE = (24, 20)


def photo(seed=0):
    """Smooth, so that bilinear resampling is not a matter of half a pixel, and with a darkest and lightest level."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(20, 230, (4, 4, 3), np.uint8))
    return np.asarray(small.resize(SIZE[::-1], Image.Resampling.BICUBIC))


@functools.partial(jax.jit, static_argnums=1)
def apply(image, name, strength):
    return apply_operation(image.astype(jnp.float32), jnp.asarray(OPERATIONS.index(name), jnp.int32), strength)


def enhanced(kind, strength):
    return lambda image: getattr(ImageEnhance, kind)(image).enhance(1 + 0.9 * strength)


COLOURS = {
    "identity": lambda strength: lambda image: image,
    "auto_contrast": lambda strength: ImageOps.autocontrast,
    "equalize": lambda strength: ImageOps.equalize,
    "solarize": lambda strength: lambda image: ImageOps.solarize(image, 255 * (1 - abs(strength))),
    "posterize": lambda strength: lambda image: ImageOps.posterize(image, 8 - round(4 * abs(strength))),
    "colour": functools.partial(enhanced, "Color"),
    "contrast": functools.partial(enhanced, "Contrast"),
    "brightness": functools.partial(enhanced, "Brightness"),
    "sharpness": functools.partial(enhanced, "Sharpness"),
}


@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.0, 0.6])
@pytest.mark.parametrize("name", COLOURS)
def test_colours_are_those_of_pillow(name, strength):
    wanted = np.asarray(COLOURS[name](strength)(Image.fromarray(photo())), np.float32)
    found = np.asarray(apply(photo(), name, np.float32(strength)))
    # Pillow cuts off fractions after each of its steps, sharpness first in the filter and then in the blend.
    np.testing.assert_allclose(found, wanted, atol=1.9 if name == "sharpness" else 1.01)


def moved(name, strength):
    x, y = 150 / 331 * SIZE[1] * strength, 150 / 331 * SIZE[0] * strength
    shear = 0.3 * strength
    matrices = {
        "shear_x": (1, shear, -shear / 2, 0, 1, 0),  # Pillow's coordinates are of corners of pixels
        "shear_y": (1, 0, 0, shear, 1, -shear / 2),
        "translate_x": (1, 0, x, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, y),
    }
    fill = {"resample": Image.Resampling.BILINEAR, "fillcolor": (int(FILL),) * 3}
    image = Image.fromarray(photo())
    if name == "rotate":
        return image.rotate(30 * strength, **fill)
    return image.transform(image.size, Image.Transform.AFFINE, matrices[name], **fill)


@pytest.mark.parametrize("strength", [-0.7, 0.0, 1.0])
@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_moves_are_those_of_pillow(name, strength):
    wanted = np.asarray(moved(name, strength), np.float32)
    found = np.asarray(apply(photo(), name, np.float32(strength)))
    # Along the edge of what is left, dm-pix blends with the grey and Pillow does not.
    grey = Image.fromarray((wanted == FILL).all(axis=-1))
    edge = np.asarray(grey.convert("L").filter(ImageFilter.MaxFilter(5))) > 0
    border = np.ones(SIZE, bool)
    border[2:-2, 2:-2] = False
    inner = ~(edge | border)
    assert inner.sum() > 60
    np.testing.assert_allclose(found[inner], wanted[inner], atol=1.01)
    if strength and name != "rotate":
        assert (found == FILL).all(axis=-1).any()


def test_all_operations_of_the_paper_are_drawn_and_alike():
    assert len(OPERATIONS) == 14
    images = jnp.broadcast_to(photo().astype(np.float32), (400, *SIZE, 3))
    draws = jax.random.uniform(jax.random.key(0), (400, 1, 2))
    found = np.asarray(jax.jit(jax.vmap(lambda image, draws: rand_augment(image, draws, 9)))(images, draws))
    names, counts = np.unique((np.asarray(draws)[:, 0, 0] * 14).astype(int), return_counts=True)
    assert list(names) == list(range(14))
    assert counts.min() > 10
    same = (found == images).all(axis=(1, 2, 3))
    assert same[np.floor(draws[:, 0, 0] * 14) == 0].all()
    assert same.mean() < 0.2


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels):
    images = np.resize(photo(), (2, *SIZE, channels))
    found = Augmentation(randaugment=(2, 9))(jax.random.key(0), images)
    assert found.shape == images.shape
    assert np.isfinite(found).all()
