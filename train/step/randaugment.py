"""RandAugment: a few random operations on every image, of one magnitude.

Source: the 14 operations of "RandAugment" (1909.13719), with the ranges of torchvision's `RandAugment`, and the
definitions of Pillow's ImageOps and ImageEnhance, which that paper and timm use too.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

LARGEST = 10.0  # magnitude
FILL = 128.0  # grey where a moved image leaves a gap, as in the published policies
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # of Pillow's mode "L"
Operation = Callable[[jax.Array, jax.Array], jax.Array]


def rand_augment(image: jax.Array, draws: jax.Array, magnitude: float) -> jax.Array:
    """Applies random operations one after the other.

    Args:
        image: (height, width, channels), float32, from 0 to 255.
        draws: (operations, 2), uniform from 0 to 1: which operation, and its sign.
        magnitude: From 0 to 10.

    Returns:
        As `image`.
    """
    strength = magnitude / LARGEST

    def apply(image: jax.Array, draws: jax.Array) -> tuple[jax.Array, None]:
        number = jnp.floor(draws[0] * len(OPERATIONS)).astype(jnp.int32)
        return apply_operation(image, number, strength * jnp.where(draws[1] < 0.5, -1.0, 1.0)), None

    return jax.lax.scan(apply, image, draws)[0]  # a loop in Python would compile all operations once for each


def apply_operation(image: jax.Array, number: jax.Array, strength: jax.Array) -> jax.Array:
    """Applies one operation.

    Args:
        image: (height, width, channels), float32, from 0 to 255.
        number: Index in `OPERATIONS`, ().
        strength: From -1 to 1, (); the sign is the direction, of operations that have one.

    Returns:
        As `image`.
    """
    import dm_pix

    # Under vmap all branches run, so the five moves share one warp. Where nothing moves, it is the identity.
    move = jax.lax.switch(number, [lambda: jnp.eye(2, 3)] * len(COLOURS) + [
        lambda moves=moves: moves(strength, image.shape) for moves in MOVES.values()
    ])  # fmt: skip # kept on few lines on purpose
    matrix = jnp.eye(3).at[:2, :2].set(move[:, :2])
    offset = jnp.zeros(3).at[:2].set(move[:, 2])
    with jax.numpy_dtype_promotion("standard"):  # dm-pix multiplies indices and the matrix
        image = dm_pix.affine_transform(image, matrix, offset=offset, mode="constant", cval=FILL)
    colours: list[Operation] = [*COLOURS.values(), *[_identity] * len(MOVES)]
    return jnp.clip(jax.lax.switch(number, colours, image, strength), 0.0, 255.0)


def _identity(image: jax.Array, strength: jax.Array) -> jax.Array:
    return image


def _auto_contrast(image: jax.Array, strength: jax.Array) -> jax.Array:
    low, high = (reduce(image, axis=(0, 1), keepdims=True) for reduce in (jnp.min, jnp.max))
    stretched = (image - low) * 255.0 / jnp.where(high > low, high - low, 1.0)
    return jnp.where(high > low, stretched, image)


def _equalize(image: jax.Array, strength: jax.Array) -> jax.Array:
    return jax.vmap(_equalize_channel, in_axes=-1, out_axes=-1)(image)


def _equalize_channel(channel: jax.Array) -> jax.Array:
    levels = jnp.round(channel).astype(jnp.int32)
    ordered = jnp.sort(levels.ravel())
    below = jnp.searchsorted(ordered, jnp.arange(257, dtype=jnp.int32)).astype(jnp.int32)  # pixels below each level
    of_last = ordered.size - jnp.searchsorted(ordered, ordered[-1]).astype(jnp.int32)
    step = (ordered.size - of_last) // 255
    table = (step // 2 + below[:-1]) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.minimum(table, 255)[levels].astype(jnp.float32), channel)


def _solarize(image: jax.Array, strength: jax.Array) -> jax.Array:
    return jnp.where(image >= 255.0 * (1 - jnp.abs(strength)), 255.0 - image, image)


def _posterize(image: jax.Array, strength: jax.Array) -> jax.Array:
    width = 2.0 ** jnp.round(4 * jnp.abs(strength))  # of the bits that are dropped
    return jnp.floor(image / width) * width


def _colour(image: jax.Array, strength: jax.Array) -> jax.Array:
    return _blend(_grey(image), image, strength)


def _contrast(image: jax.Array, strength: jax.Array) -> jax.Array:
    return _blend(jnp.round(jnp.mean(_grey(image))), image, strength)


def _brightness(image: jax.Array, strength: jax.Array) -> jax.Array:
    return _blend(jnp.zeros_like(image), image, strength)


def _sharpness(image: jax.Array, strength: jax.Array) -> jax.Array:
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    height, width, _ = image.shape
    total = sum(padded[row : row + height, column : column + width] for row in range(3) for column in range(3))
    smooth = (total + 4 * image) / 13.0  # Pillow's SMOOTH, which leaves the border as it is
    inside = jnp.zeros((height, width, 1), jnp.bool_).at[1:-1, 1:-1].set(True)
    return _blend(jnp.where(inside, smooth, image), image, strength)


def _grey(image: jax.Array) -> jax.Array:
    if image.shape[-1] != 3:
        return jnp.mean(image, axis=-1, keepdims=True)
    return jnp.round(jnp.sum(image * jnp.asarray(GREY_WEIGHTS, image.dtype)[None, None], axis=-1, keepdims=True))


def _blend(plain: jax.Array, image: jax.Array, strength: jax.Array) -> jax.Array:
    return plain + (1 + 0.9 * strength) * (image - plain)


def _rotate(strength: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    angle = jnp.deg2rad(30.0 * strength)
    turn = jnp.stack([jnp.stack([jnp.cos(angle), jnp.sin(angle)]), jnp.stack([-jnp.sin(angle), jnp.cos(angle)])])
    centre = jnp.array([(shape[0] - 1) / 2, (shape[1] - 1) / 2])
    return jnp.concatenate([turn, (centre - turn @ centre)[:, None]], axis=1)


def _shear_x(strength: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.eye(2, 3).at[1, 0].set(0.3 * strength)


def _shear_y(strength: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.eye(2, 3).at[0, 1].set(0.3 * strength)


def _translate_x(strength: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.eye(2, 3).at[1, 2].set(150 / 331 * shape[1] * strength)


def _translate_y(strength: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.eye(2, 3).at[0, 2].set(150 / 331 * shape[0] * strength)


COLOURS: dict[str, Operation] = {
    "identity": _identity,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "solarize": _solarize,
    "posterize": _posterize,
    "colour": _colour,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
}
# Each gives the place in the image, (row, column), that a pixel at (row, column, 1) is taken from: (2, 3).
MOVES: dict[str, Callable[[jax.Array, tuple[int, ...]], jax.Array]] = {
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
OPERATIONS = (*COLOURS, *MOVES)
