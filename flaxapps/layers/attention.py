"""Attention layers.

A call can take masks and options beside query, value and key. Keras stores them with the call, not in the
configuration. Here they are fields too, listed in `call_fields`; `given` names the inputs if there are masks.

Source: keras/src/layers/attention (Keras 3.15).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps.graph.shapes import channel_count
from flaxapps.graph.symbolic import Layer, Shape, Weight, Weights
from flaxapps.layers.masks import attend, equation, named, named_shapes, pairs_mask
from flaxapps.ops import primitives as ops

OF_THE_CALL = ("given", "use_causal_mask", "return_attention_scores")
# Tensor arguments of Keras's layers, in order: as lists (Attention), and one by one (MultiHeadAttention).
LISTED = ("query", "value", "key", "query_mask", "value_mask")
ONE_BY_ONE = ("query", "value", "key", "query_mask", "value_mask", "key_mask", "attention_mask")


def _is_whole(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.integer)


@dataclass(frozen=True)
class Attention(Layer):
    """Dot-product attention of [query, value] or [query, value, key], each (batch, steps, size).

    Attributes:
        use_scale: Whether the scores have a trained factor.
        score_mode: "dot", or "concat" for the hyperbolic tangent of query plus key.
        dropout: Dropout rate of the scores. Training with it raises an error.
        given: Names of the inputs if there are masks among them: query_mask, value_mask.
        use_causal_mask: Whether a step attends to itself and earlier steps only.
        return_attention_scores: Whether the attention weights are a second output.
    """

    call_fields = OF_THE_CALL
    use_scale: bool = False
    score_mode: str = "dot"
    dropout: float = 0.0
    given: Sequence[str] = ()
    use_causal_mask: bool = False
    return_attention_scores: bool = False

    def __post_init__(self) -> None:
        if self.score_mode not in ("dot", "concat"):
            raise ValueError(f'score_mode is "dot" or "concat", got {self.score_mode!r}')

    def output_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """The steps of the query with the size of the value, and the shape of the attention weights."""
        if not self.given and len(shapes) > 3:
            raise ValueError(f"{self.class_name} takes [query, value] or [query, value, key], got {list(shapes)}")
        found = named_shapes(self.given, LISTED, shapes, self.class_name)
        query, value, key = found["query"], found["value"], found["key"]
        shares = ((*query[:-1], key[-2]),) if self.return_attention_scores else ()
        return ((*query[:-1], value[-1]), *shares)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """Scale and concat_score_weight (scalars), if they are used."""
        scale = {"scale": Weight((), "ones")} if self.use_scale else {}
        return scale | ({"concat_score_weight": Weight((), "ones")} if self.score_mode == "concat" else {})

    def scores(self, weights: Weights, query: jax.Array, key: jax.Array) -> jax.Array:
        """Compare every step of the query with every step of the key.

        Args:
            weights: The layer's arrays by leaf name.
            query: (batch, steps, size).
            key: (batch, other steps, size).

        Returns:
            (batch, steps, other steps).
        """
        scale = weights["scale"].astype(query.dtype) if self.use_scale else jnp.ones((), query.dtype)
        if self.score_mode == "dot":
            return jnp.matmul(query, jnp.swapaxes(key, -2, -1)) * scale
        summed = jnp.sum(jnp.tanh(scale * (query[..., :, None, :] + key[..., None, :, :])), -1)
        return weights["concat_score_weight"].astype(query.dtype) * summed

    def call(self, weights: Weights, *inputs: jax.Array) -> Any:
        given = named(self.given, LISTED, [ops.float32_at_least(x) if _is_whole(x) else x for x in inputs])
        query, value, key = given["query"], given["value"], given.get("key", given["value"])
        scores = ops.at_least_float32(self.scores(weights, query, key))
        of_values = {"value_mask": given["value_mask"]} if "value_mask" in given else {}
        mask = pairs_mask(of_values, (scores.shape[-2], scores.shape[-1]), self.use_causal_mask)
        # Keras subtracts a constant, so fully masked rows have the same weights as without a mask. float16 cannot
        # represent 1e9, so it subtracts the largest finite value.
        if mask is not None:
            scores = jnp.where(mask, scores, scores - (65504.0 if query.dtype == jnp.float16 else 1e9))
        shares = jax.nn.softmax(scores).astype(value.dtype)
        result = jnp.matmul(shares, value)
        if "query_mask" in given:
            result = jnp.where(given["query_mask"].astype(bool)[..., None], result, jnp.zeros((), result.dtype))
        return (result, shares) if self.return_attention_scores else result


@dataclass(frozen=True)
class AdditiveAttention(Attention):
    """Attention by the hyperbolic tangent of query plus key (Bahdanau et al. 2014), with a factor for every value."""

    use_scale: bool = True

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """scale, of the size of the vectors, where it is used."""
        return {"scale": Weight((channel_count(shapes[0]),))} if self.use_scale else {}

    def scores(self, weights: Weights, query: jax.Array, key: jax.Array) -> jax.Array:
        """Compare every step of the query with every step of the key.

        Args:
            weights: The layer's arrays by leaf name.
            query: (batch, steps, size).
            key: (batch, other steps, size).

        Returns:
            (batch, steps, other steps).
        """
        summed = jnp.tanh(query[..., :, None, :] + key[..., None, :, :])
        return jnp.sum(weights["scale"].astype(query.dtype) * summed if self.use_scale else summed, -1)


class _Projected(Layer):
    """Base class of multi-head attention, where every head has its own projections."""

    call_fields = OF_THE_CALL
    dropout: float
    use_bias: bool
    use_gate: bool
    sliding_window: int | None
    given: Sequence[str]
    use_causal_mask: bool
    return_attention_scores: bool

    def _shapes(self, shapes: Sequence[Shape]) -> dict[str, Shape]:
        if not self.given and len(shapes) > 3:
            raise ValueError(f"{self.class_name} is called on query, value and optionally key, got {list(shapes)}")
        return named_shapes(self.given, ONE_BY_ONE, shapes, self.class_name)

    def _attend(
        self, given: Mapping[str, jax.Array], projected: Sequence[jax.Array], axes: int | Sequence[int] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Weighted values and attention weights, for projected query, key and value."""
        steps = given["query"].shape[1], given["value"].shape[1]
        mask = pairs_mask(given, steps, self.use_causal_mask, self.sliding_window)
        # Keras has a fused and an unfused implementation. They differ in fully masked rows: equal weights, or zeros.
        fused = not self.dropout and not self.return_attention_scores and projected[0].ndim == 4
        query, key, value = projected
        return attend(query, key, value, axes, mask, zero=not fused)

    def _projection(self, name: str, kernel: Sequence[int], bias: Sequence[int]) -> dict[str, Weight]:
        found = {f"{name}_kernel": Weight(tuple(kernel))}
        return found | ({f"{name}_bias": Weight(tuple(bias), "zeros")} if self.use_bias else {})

    def _project(self, weights: Weights, name: str, x: jax.Array, bound: int = 1) -> jax.Array:
        """Contract the last `bound` axes of `x` with the first of the kernel, and add the bias."""
        kernel = weights[f"{name}_kernel"].astype(x.dtype)
        axes = tuple(range(x.ndim - bound, x.ndim)), tuple(range(bound))
        x = jnp.tensordot(x, kernel, axes)
        return x + weights[f"{name}_bias"].astype(x.dtype) if self.use_bias else x


@dataclass(frozen=True)
class MultiHeadAttention(_Projected):
    """Multi-head attention (Vaswani et al. 2017) of a query, a value, and optionally a key (by default the value).

    Attributes:
        output_size: Keras's `output_shape`: sizes of the result; None for that of the query.
        attention_axes: Axes to attend over; None for all but the batch and the last.
    """

    num_heads: int
    key_dim: int
    value_dim: int | None = None
    dropout: float = 0.0
    use_bias: bool = True
    use_gate: bool = False
    output_size: int | Sequence[int] | None = None
    attention_axes: int | Sequence[int] | None = None
    sliding_window: int | None = None
    given: Sequence[str] = ()
    use_causal_mask: bool = False
    return_attention_scores: bool = False

    def __post_init__(self) -> None:
        if "query_mask" in self.given:
            raise ValueError(
                "MultiHeadAttention is called with query_mask, which versions of Keras 3 treat differently; give "
                "attention_mask instead"
            )

    @property
    def _values(self) -> int:
        return self.value_dim or self.key_dim

    def _ends(self, query: Shape) -> tuple[int, ...]:
        if self.output_size is None:
            return (channel_count(query),)
        return (self.output_size,) if isinstance(self.output_size, int) else tuple(self.output_size)

    def output_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """The query's shape with the output size at the end, and the shape of the attention weights."""
        found = self._shapes(shapes)
        query = found["query"]
        result = (*query[:-1], *self._ends(query))
        if not self.return_attention_scores:
            return (result,)
        letters = equation(len(query) + 1, self.attention_axes)
        sizes = dict(zip(letters.key, (*found["value"][:-1], self.num_heads, None), strict=True))
        sizes |= dict(zip(letters.query, (*query[:-1], self.num_heads, None), strict=True))
        return result, tuple(sizes[letter] for letter in letters.scores)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """Kernels (and biases) of query, key, gate, value and output, in Keras's order."""
        found_shapes = self._shapes(shapes)
        query, value, key = (found_shapes[name] for name in ONE_BY_ONE[:3])
        heads = (self.num_heads, self.key_dim)
        valued, ends = (self.num_heads, self._values), self._ends(query)
        found = self._projection("query", (channel_count(query), *heads), heads)
        found |= self._projection("key", (channel_count(key), *heads), heads)
        if self.use_gate:
            found |= self._projection("gate", (channel_count(query), *valued), valued)
        found |= self._projection("value", (channel_count(value), *valued), valued)
        return found | self._projection("output", (*valued, *ends), ends)

    def call(self, weights: Weights, *inputs: jax.Array) -> Any:
        given = named(self.given, ONE_BY_ONE, inputs)
        query, value, key = given["query"], given["value"], given.get("key", given["value"])
        gate = jax.nn.sigmoid(self._project(weights, "gate", query)) if self.use_gate else None
        query, key = self._project(weights, "query", query), self._project(weights, "key", key)
        value = self._project(weights, "value", value)
        result, shares = self._attend(given, (query / math.sqrt(self.key_dim), key, value), self.attention_axes)
        result = self._project(weights, "output", result if gate is None else result * gate, bound=2)
        return (result, shares) if self.return_attention_scores else result


@dataclass(frozen=True)
class GroupedQueryAttention(_Projected):
    """Grouped-query attention: groups of heads share keys and values (Ainslie et al. 2023)."""

    head_dim: int
    num_query_heads: int
    num_key_value_heads: int
    dropout: float = 0.0
    use_bias: bool = True
    use_gate: bool = False
    sliding_window: int | None = None
    given: Sequence[str] = ()
    use_causal_mask: bool = False
    return_attention_scores: bool = False

    def output_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """The query's shape, and the shape of the attention weights."""
        found = self._shapes(shapes)
        query = found["query"]
        shares = (query[0], self.num_query_heads, query[1], found["value"][1])
        return (query, shares) if self.return_attention_scores else (query,)

    def weights(self, *shapes: Shape) -> dict[str, Weight]:
        """Kernels (and biases) of query, key, gate, value and output, in Keras's order."""
        found_shapes = self._shapes(shapes)
        query, value, key = (found_shapes[name] for name in ONE_BY_ONE[:3])
        asked, shared = (self.num_query_heads, self.head_dim), (self.num_key_value_heads, self.head_dim)
        size = channel_count(query)
        found = self._projection("query", (size, *asked), asked)
        found |= self._projection("key", (channel_count(key), *shared), shared)
        if self.use_gate:
            found |= self._projection("gate", (size, *asked), asked)
        found |= self._projection("value", (channel_count(value), *shared), shared)
        return found | self._projection("output", (*asked, size), (size,))

    def call(self, weights: Weights, *inputs: jax.Array) -> Any:
        """Project, repeat keys and values, attend, project."""
        given = named(self.given, ONE_BY_ONE, inputs)
        query, value, key = given["query"], given["value"], given.get("key", given["value"])
        gate = jax.nn.sigmoid(self._project(weights, "gate", query)) if self.use_gate else None
        times = self.num_query_heads // self.num_key_value_heads
        query = self._project(weights, "query", query) / math.sqrt(self.head_dim)
        key = jnp.repeat(self._project(weights, "key", key), times, 2)
        value = jnp.repeat(self._project(weights, "value", value), times, 2)
        result, shares = self._attend(given, (query, key, value))
        result = self._project(weights, "output", result if gate is None else result * gate, bound=2)
        return (result, shares) if self.return_attention_scores else result
