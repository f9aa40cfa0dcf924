"""Dense layers and embeddings."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp

from flaxapps.graph.initializers import Initializer
from flaxapps.graph.shapes import channel_count
from flaxapps.graph.symbolic import Layer, Shape, Weight, Weights
from flaxapps.layers.activations import ActivationLike, bias_and_activation, get_activation
from flaxapps.ops import primitives as ops


@dataclass(frozen=True)
class Dense(Layer):
    """Matrix product over the last axis; kernel of shape (inputs, units)."""

    units: int
    activation: ActivationLike | None = None
    use_bias: bool = True
    kernel_initializer: Initializer = field(default="glorot_uniform", kw_only=True, compare=False, repr=False)

    def __post_init__(self) -> None:
        get_activation(self.activation or "linear")

    def output_shape(self, *shapes: Shape) -> Shape:
        """The last dimension becomes `units`."""
        return (*shapes[0][:-1], self.units)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        kernel = Weight((channel_count(shapes[0]), self.units), self.kernel_initializer)
        return {"kernel": kernel} | ({"bias": Weight((self.units,), "zeros")} if self.use_bias else {})

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return bias_and_activation(ops.dense(inputs[0], weights["kernel"]), weights, self.activation)


@dataclass(frozen=True)
class EinsumDense(Layer):
    """Product with a kernel by an einsum equation, such as "abc,cd->abd"; "..." stands for any number of axes.

    Attributes:
        equation: Letters of the input and the kernel, and of the output.
        output_size: Keras's `output_shape`, without the batch; None for sizes taken from the input.
        bias_axes: Letters of the output along which the bias varies.
    """

    equation: str
    output_size: int | Sequence[int | None]
    activation: ActivationLike | None = None
    bias_axes: str | None = None

    def __post_init__(self) -> None:
        get_activation(self.activation or "linear")
        if re.fullmatch(r"(\.\.\.)?[a-zA-Z]+(\.\.\.)?,[a-zA-Z]+->(\.\.\.)?[a-zA-Z]+(\.\.\.)?", self.equation) is None:
            raise ValueError(f'equation should have the form "abc,cd->abd", got {self.equation!r}')

    def _parts(self) -> tuple[str, str, str]:
        inputs, kernel, output = re.split(",|->", self.equation)
        return inputs, kernel, output

    def _sizes(self, shape: Shape) -> dict[str, int | None]:
        """The size of every letter."""
        inputs, _, output = self._parts()
        letters = inputs.replace("...", "")
        places = range(-len(letters), 0) if inputs.startswith("...") else range(len(letters))
        sizes = {letter: shape[place] for letter, place in zip(letters, places, strict=True)}
        given = (self.output_size,) if isinstance(self.output_size, int) else tuple(self.output_size)
        letters = output.replace("...", "")
        if output.startswith("..."):
            named = letters[-len(given) :] if len(given) < len(letters) else letters
            pairs = list(zip(reversed(named), reversed(given), strict=False))
        else:
            pairs = list(zip(letters[1:], given, strict=False))
        for letter, size in pairs:
            if size is not None or letter not in sizes:
                sizes[letter] = size
        return sizes

    def output_shape(self, *shapes: Shape) -> Shape:
        """The sizes of the output's letters."""
        inputs, _, output = self._parts()
        sizes, shape = self._sizes(shapes[0]), shapes[0]
        letters = output.replace("...", "")
        free = len(shape) - len(inputs.replace("...", ""))
        found = tuple(sizes[letter] for letter in letters)
        if output.startswith("..."):
            return (*shape[:free], *found)
        return (*found, *shape[len(shape) - free :]) if output.endswith("...") else found

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The kernel, and the bias if `bias_axes` is given."""
        _, kernel, output = self._parts()
        sizes = self._sizes(shapes[0])
        unknown = [letter for letter in kernel if sizes.get(letter) is None]
        if unknown:
            raise ValueError(f"The size of {unknown[0]!r} in {self.equation!r} must be known, got shape {shapes[0]}")
        found = {"kernel": Weight(tuple(sizes[letter] or 0 for letter in kernel))}
        if self.bias_axes is None:
            return found
        letters = output.replace("...", "")
        first = min(letters.index(letter) for letter in self.bias_axes)
        shape = tuple((sizes[each] or 0) if each in self.bias_axes else 1 for each in letters[first:])
        tail = (1,) * (len(shapes[0]) - len(self._parts()[0].replace("...", ""))) if output.endswith("...") else ()
        return found | {"bias": Weight((*shape, *tail), "zeros")}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        x = jnp.einsum(self.equation, inputs[0], weights["kernel"].astype(inputs[0].dtype))
        return bias_and_activation(x, weights, self.activation)


@dataclass(frozen=True)
class Embedding(Layer):
    """Trained vectors, one per index.

    Attributes:
        mask_zero: Whether Keras masks index 0 for later layers; ignored here.
    """

    takes_integers: ClassVar[bool] = True
    input_dim: int
    output_dim: int
    mask_zero: bool = False
    input_length: int | None = None

    def output_shape(self, *shapes: Shape) -> Shape:
        return (*shapes[0], self.output_dim)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """The embeddings, (indices, size)."""
        return {"embeddings": Weight((self.input_dim, self.output_dim))}

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        vectors = weights["embeddings"].astype(self.dtype or "float32")
        return jnp.take(vectors, inputs[0].astype(jnp.int32), axis=0)
