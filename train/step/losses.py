"""Losses per example, with Keras's formulas, and the objective that a training step minimises.

Formulas are those of Keras 3 on the JAX backend (keras/src/losses/losses.py, keras/src/backend/jax/nn.py).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps.model import Model
from flaxapps.ops import primitives as ops
from flaxapps.train.step.distances import DISTANCES, keras_loss
from flaxapps.transforms.logits import holds_probabilities, last_activation, without_last_activation

EPSILON = 1e-7  # keras.config.epsilon(): probabilities are clipped to [EPSILON, 1 - EPSILON]
LossFunction = Callable[[jax.Array, jax.Array], jax.Array]


def categorical_crossentropy(
    labels: jax.Array, outputs: jax.Array, *, from_logits: bool = False, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy with one-hot labels, or with any distribution over the classes.

    Args:
        labels: (..., classes), of any numeric dtype; or class indices (...), integers, as datasets give them.
        outputs: (..., classes), probabilities (normalised to sum to 1, as Keras does) or logits; a floating dtype.
        from_logits: Whether `outputs` are logits.
        label_smoothing: Fraction of every label, from 0 to 1, that is spread evenly over the classes.

    Returns:
        (...), float32 at least.

    Raises:
        ValueError: The shapes differ.
    """
    if labels.shape == outputs.shape[:-1] and jnp.issubdtype(labels.dtype, jnp.integer):
        labels = jax.nn.one_hot(labels.astype(jnp.int32), outputs.shape[-1], dtype=jnp.float32)
    _check_same_shape(labels, outputs)
    outputs = ops.at_least_float32(outputs)
    labels = labels.astype(outputs.dtype)
    if label_smoothing:
        labels = labels * (1.0 - label_smoothing) + label_smoothing / labels.shape[-1]
    if from_logits:
        logarithms = jax.nn.log_softmax(outputs, axis=-1)
    else:
        logarithms = jnp.log(_clip(outputs / jnp.sum(outputs, axis=-1, keepdims=True)))
    return -jnp.sum(labels * logarithms, axis=-1)


def sparse_categorical_crossentropy(
    labels: jax.Array, outputs: jax.Array, *, from_logits: bool = False, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy with class indices as labels.

    Args:
        labels: (...) or (..., 1), integers from 0 to classes - 1; without smoothing, the loss of any other index is 0.
        outputs: (..., classes), probabilities or logits, as `categorical_crossentropy` takes them.
        from_logits: Whether `outputs` are logits.
        label_smoothing: As in `categorical_crossentropy`.

    Returns:
        (...), float32 at least.

    Raises:
        ValueError: The shapes do not fit.
    """
    if labels.ndim == outputs.ndim and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.shape != outputs.shape[:-1]:
        raise ValueError(f"Labels should have shape {outputs.shape[:-1]} for outputs {outputs.shape}: {labels.shape}")
    one_hot = jax.nn.one_hot(labels.astype(jnp.int32), outputs.shape[-1], dtype=jnp.float32)
    return categorical_crossentropy(one_hot, outputs, from_logits=from_logits, label_smoothing=label_smoothing)


def binary_crossentropy(
    labels: jax.Array, outputs: jax.Array, *, from_logits: bool = False, label_smoothing: float = 0.0
) -> jax.Array:
    """Binary cross-entropy, the mean over the last axis.

    Args:
        labels: (..., values), from 0 to 1; also (...) if there is one value.
        outputs: (..., values), probabilities or logits; a floating dtype.
        from_logits: Whether `outputs` are logits.
        label_smoothing: How far labels are moved to one half, from 0 to 1.

    Returns:
        (...), float32 at least.

    Raises:
        ValueError: The shapes differ.
    """
    if labels.ndim == outputs.ndim - 1 and outputs.shape[-1] == 1:
        labels = labels[..., None]
    _check_same_shape(labels, outputs)
    outputs = ops.at_least_float32(outputs)
    labels = labels.astype(outputs.dtype)
    if label_smoothing:
        labels = labels * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        yes, no = jax.nn.log_sigmoid(outputs), jax.nn.log_sigmoid(-outputs)
    else:
        outputs = _clip(outputs)
        yes, no = jnp.log(outputs), jnp.log(1.0 - outputs)
    return -jnp.mean(labels * yes + (1.0 - labels) * no, axis=-1)


LOSSES: Mapping[str, Callable[..., jax.Array]] = MappingProxyType(
    {
        "categorical_crossentropy": categorical_crossentropy,
        "sparse_categorical_crossentropy": sparse_categorical_crossentropy,
        "binary_crossentropy": binary_crossentropy,
    }
)


@dataclass(frozen=True)
class Objective:
    """A model and the loss of its outputs. Hashable, as a static argument of steps must be. Made by `make_objective`.

    Attributes:
        model: The model whose outputs the loss takes; without its last activation if the loss takes logits.
        loss: A name in `LOSSES`, or a function of (labels, outputs) that returns (batch, ...).
        from_logits: Whether the outputs are logits.
        label_smoothing: Passed to a named loss.
        class_weights: A weight for each class from 0 on; the weight of further classes is 1.
    """

    model: Model
    loss: str | LossFunction
    from_logits: bool = False
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()

    def per_example(self, labels: jax.Array, outputs: jax.Array) -> jax.Array:
        """Computes the weighted loss of every example.

        Args:
            labels: (batch, ...), as the loss takes them.
            outputs: What `model` returned.

        Returns:
            (batch,), float32 at least; further axes of a loss are averaged. As in Keras, a custom loss gets labels of
            the rank of the outputs: (batch,) become (batch, 1) where the model has one output.

        Raises:
            ValueError: Shapes do not fit, or a custom loss does not return a value per example.
        """
        if isinstance(self.loss, str):
            options: dict[str, Any] = {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}
            values = LOSSES[self.loss](labels, outputs, **options)
        else:
            labels = _of_rank(labels, outputs)
            values = self.loss(labels, outputs)
            _check_values(values, labels, outputs)
        values = ops.at_least_float32(values)
        if self.class_weights:
            indices = class_indices(labels, outputs)
            weights = jnp.asarray(self.class_weights, dtype=values.dtype)
            weights = jnp.take(weights, indices, mode="fill", fill_value=1.0)
            values = values * weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))
        return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def make_objective(
    model: Model,
    loss: str | LossFunction,
    *,
    label_smoothing: float = 0.0,
    class_weights: Mapping[int, float] | None = None,
    from_logits: bool | None = None,
) -> Objective:
    """Builds what a training step minimises. The loss is computed from logits wherever the model has them.

    A categorical loss of a model that ends in softmax, or a binary one of a model that ends in sigmoid, is computed
    from the input of that activation, which is more precise. Other probabilities are used as they are. A linear end
    means logits.

    Args:
        model: A model with one output.
        loss: "categorical_crossentropy", "sparse_categorical_crossentropy", "binary_crossentropy", or any function of
            (labels, outputs) that returns an array (batch, ...); it gets the outputs of `model` itself.
        label_smoothing: From 0 to 1, for the named losses.
        class_weights: Weights of the loss by class index; the weight of other classes is 1. As in Keras, the mean
            divides by the number of examples, not by the sum of the weights.
        from_logits: Whether the outputs of `model` are logits; None infers it from the last activation.

    Returns:
        The objective: hashable, a static argument of `train_step` and `eval_step`.

    Raises:
        ValueError: The loss is unknown or does not suit a model with one output, options are out of range, or the last
            activation does not show whether the outputs are logits.

    >>> from flaxapps import Input, layers
    >>> x = Input((4,))
    >>> model = Model(x, layers.Dense(3, activation="softmax")(x))
    >>> make_objective(model, "categorical_crossentropy").from_logits
    True
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing should be from 0 to 1, got {label_smoothing}")
    weights = _weights_in_order(class_weights or {})
    if isinstance(loss, str):
        loss = keras_loss(loss)
    if not isinstance(loss, str):
        if label_smoothing or from_logits is not None:
            raise ValueError(
                "label_smoothing and from_logits are for the cross-entropies: leave them out with other losses"
            )
        return Objective(model, loss, class_weights=weights)
    if loss not in LOSSES:
        raise ValueError(f"Unknown loss {loss!r}. Known: {', '.join([*LOSSES, *DISTANCES])}, or give a function.")
    activation = last_activation(model)
    _check_outputs(model, loss, activation)
    exact = activation == ("sigmoid" if loss == "binary_crossentropy" else "softmax")
    if from_logits is None and exact:
        return Objective(without_last_activation(model), loss, True, label_smoothing, weights)
    if from_logits is None:
        probabilities = holds_probabilities(activation)
        if probabilities is None:
            raise ValueError(
                f"The last activation of the model, {activation!r}, does not show whether its outputs are "
                "probabilities or logits: give from_logits=False or True"
            )
        from_logits = not probabilities
    return Objective(model, loss, from_logits, label_smoothing, weights)


def class_indices(labels: jax.Array, outputs: jax.Array) -> jax.Array:
    """Returns the class of every example, (...), int32, from one-hot labels (shaped like the outputs) or indices."""
    if labels.shape == outputs.shape and outputs.shape[-1] > 1:
        return jnp.argmax(labels, axis=-1).astype(jnp.int32)
    labels = labels[..., 0] if labels.ndim == outputs.ndim and labels.shape[-1] == 1 else labels
    return labels.astype(jnp.int32)


def _weights_in_order(weights: Mapping[int, float]) -> tuple[float, ...]:
    for index, weight in weights.items():
        if index < 0 or not math.isfinite(weight) or weight < 0:
            raise ValueError(f"class_weights should map class indices to weights from 0 on, got {index}: {weight}")
    return tuple(float(weights.get(index, 1.0)) for index in range(max(weights, default=-1) + 1))


def _of_rank(labels: jax.Array, outputs: jax.Array) -> jax.Array:
    """Returns labels of the rank of the outputs, where only an axis of size 1 is missing or too many.

    Without it, labels (batch,) and outputs (batch, 1) broadcast to (batch, batch), which trains to the mean.
    """
    if labels.ndim == outputs.ndim - 1 and outputs.shape[-1] == 1:
        return labels[..., None]
    return labels[..., 0] if labels.ndim == outputs.ndim + 1 and labels.shape[-1] == 1 else labels


def _check_values(values: jax.Array, labels: jax.Array, outputs: jax.Array) -> None:
    """Checks that a loss has a value per example, or per value of an example: not one that broadcasting made up."""
    fits = values.ndim > 0 and values.shape == outputs.shape[: values.ndim]
    if not fits or (values.ndim == outputs.ndim and labels.shape != outputs.shape):
        raise ValueError(
            f"A loss should return a value per example, {outputs.shape[:1]}, or per value, {outputs.shape}, got shape "
            f"{values.shape} for labels {labels.shape} and outputs {outputs.shape}"
        )


def _check_outputs(model: Model, loss: str, activation: str | None) -> None:
    """Checks that a model has outputs that can be wrong: of one class, a softmax is always 1 and its loss 0."""
    if model.output_shape[-1] != 1:
        return
    if loss in ("categorical_crossentropy", "sparse_categorical_crossentropy"):
        raise ValueError(
            f"The model has one output, for which {loss} is always 0 and nothing trains: give "
            'loss="binary_crossentropy" for yes or no (labels 0 and 1), or loss="mean_squared_error" for numbers'
        )
    if activation == "softmax":
        raise ValueError("The model ends in a softmax of one output, which is always 1: use Dense(1, 'sigmoid')")


def _check_same_shape(labels: jax.Array, outputs: jax.Array) -> None:
    if labels.shape != outputs.shape:
        raise ValueError(f"Labels should have the shape of the outputs, {outputs.shape}, got {labels.shape}")


def _clip(probabilities: jax.Array) -> jax.Array:
    return jnp.clip(probabilities, EPSILON, 1.0 - EPSILON)
