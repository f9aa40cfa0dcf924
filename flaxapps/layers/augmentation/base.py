"""Base class of random augmentation layers, and what several of them share."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from flaxapps.graph.batch import Batch
from flaxapps.graph.shapes import check_images
from flaxapps.graph.symbolic import Layer, Shape, Weights

Factor = float | Sequence[float] | None
MakeKey = Callable[[], jax.Array]


class Augmentation(Layer):
    """Base class of random augmentation: random in training, the identity outside it.

    Subclasses define `draw` and `augment`. Keys are drawn in Keras's order, so that the keys of a Keras layer give its
    images. In Keras 3 some of the layers cast integers to floats outside training (`makes_floats`), others do not. In
    training all do.
    """

    random_in_training = True
    uses_mask: ClassVar[bool] = False  # whether `augment` takes the padding mask, as images depend on each other

    def output_shape(self, *shapes: Shape) -> Shape:
        return check_images(shapes[0])

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return inputs[0]

    def call_training(
        self, weights: Weights, *inputs: jax.Array, make_key: MakeKey, batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        (x,) = inputs
        if not jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(self.dtype or jnp.float32)
        padding = {"mask": batch.mask} if self.uses_mask else {}
        return self.augment(x, self.draw(x, make_key), **padding).astype(x.dtype), {}

    def draw(self, x: jax.Array, make_key: MakeKey) -> Any:
        """Draw the parameters of the augmentation, as Keras's `get_random_transformation`.

        Args:
            x: The images, (batch, height, width, channels), floating.
            make_key: Returns a new random key at each call.

        Returns:
            A tree of arrays for `augment`.

        Raises:
            NotImplementedError: The subclass does not override this method.
        """
        raise NotImplementedError

    def augment(self, x: jax.Array, drawn: Any) -> jax.Array:
        """Change images, as Keras's `transform_images`.

        Args:
            x: The images, (batch, height, width, channels), floating.
            drawn: Parameters that `draw` returned.

        Returns:
            Images of the same dtype.

        Raises:
            NotImplementedError: The subclass does not override this method.
        """
        raise NotImplementedError


def bounds(factor: Factor, lowest: float = -1.0) -> tuple[float, float]:
    """Return the range of a factor: a pair as it is, sorted; a number f as -f to f, but not below `lowest`."""
    if isinstance(factor, Sequence):
        lower, upper = sorted(factor)
        return lower, upper
    upper = abs(factor or 0.0)
    return max(-upper, lowest), upper


def check_pair(name: str, factor: Factor) -> None:
    """Check that a factor is a number or a pair of numbers.

    Raises:
        ValueError: `factor` is a sequence of another length.
    """
    if isinstance(factor, Sequence) and len(factor) != 2:
        raise ValueError(f"{name} should be a number or a pair (lower, upper), got {factor}")


def per_image(values: jax.Array, x: jax.Array) -> jax.Array:
    """Reshape one value per image, (batch,), to (batch, 1, 1, 1), in the dtype of the images unless it is bool."""
    column = values.reshape(-1, 1, 1, 1)
    return column if column.dtype == jnp.bool_ else column.astype(x.dtype)


def uniform(make_key: MakeKey, shape: tuple[int, ...], limits: tuple[float, float], dtype: Any = None) -> jax.Array:
    """Draw from a uniform distribution; float32 by default."""
    return jax.random.uniform(make_key(), shape, dtype or jnp.float32, *limits)


def chosen(make_key: MakeKey, count: int, factor: Factor) -> jax.Array:
    """Choose images, (count,), bool, each with a probability drawn from the range of `factor`."""
    probability = uniform(make_key, (count,), bounds(factor, 0.0))
    return uniform(make_key, (count,), (0.0, 1.0)) < probability
