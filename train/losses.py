"""Losses of single examples, with Keras's formulas, and the objective that a training step minimises.

Formulas are those of Keras 3 on the JAX backend (keras/src/losses/losses.py, keras/src/backend/jax/nn.py).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps import ops
from flaxapps.logits import holds_probabilities, last_activation, without_last_activation
from flaxapps.model import Model

EPSILON = 1e-7  # keras.config.epsilon(): probabilities are clipped to [EPSILON, 1 - EPSILON]
LossFunction = Callable[[jax.Array, jax.Array], jax.Array]


def categorical_crossentropy(
    labels: jax.Array, outputs: jax.Array, *, from_logits: bool = False, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy with one-hot labels, or with any distribution over the classes.

    Args:
        labels: (..., classes), of any numeric dtype; or integers (...), indices of classes, as datasets give them.
        outputs: (..., classes), probabilities (normalised to sum to 1, as Keras does) or logits; a floating dtype.
        from_logits: Whether `outputs` are logits.
        label_smoothing: The part of every label, from 0 to 1, that is spread evenly over the classes.

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
    """Cross-entropy with labels that are indices of classes.

    Args:
        labels: (...) or (..., 1), integers from 0 to classes - 1; the loss of any other index is 0, without smoothing.
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
        raise ValueError(f"Labels of shape {outputs.shape[:-1]} fit outputs of {outputs.shape}, got {labels.shape}")
    one_hot = jax.nn.one_hot(labels.astype(jnp.int32), outputs.shape[-1], dtype=jnp.float32)
    return categorical_crossentropy(one_hot, outputs, from_logits=from_logits, label_smoothing=label_smoothing)


def binary_crossentropy(
    labels: jax.Array, outputs: jax.Array, *, from_logits: bool = False, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy of yes-or-no questions, the mean over the last axis.

    Args:
        labels: (..., questions), 0 or 1 or between; (...) too where there is one question.
        outputs: (..., questions), probabilities or logits; a floating dtype.
        from_logits: Whether `outputs` are logits.
        label_smoothing: How far labels, from 0 to 1, are drawn to one half.

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
    """A model and the loss of its outputs; hashable, a static argument of the steps. `make_objective` builds one.

    Attributes:
        model: The model whose outputs the loss takes; without its last activation where the loss takes logits.
        loss: A name in `LOSSES`, or a function of (labels, outputs) that returns (batch, ...).
        from_logits: Whether the outputs are logits.
        label_smoothing: Passed on to a named loss.
        class_weights: A weight for each class from 0 on; classes beyond weigh 1.
    """

    model: Model
    loss: str | LossFunction
    from_logits: bool = False
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()

    def per_example(self, labels: jax.Array, outputs: jax.Array) -> jax.Array:
        """The weighted loss of every example.

        Args:
            labels: (batch, ...), as the loss takes them.
            outputs: What `model` returned.

        Returns:
            (batch,), float32 at least; where a loss has more axes, the mean over them.

        Raises:
            ValueError: Shapes do not fit, or a custom loss does not return a value per example.
        """
        if isinstance(self.loss, str):
            options: dict[str, Any] = {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}
            values = LOSSES[self.loss](labels, outputs, **options)
        else:
            values = self.loss(labels, outputs)
        if values.shape[:1] != outputs.shape[:1]:
            raise ValueError(f"A loss returns a value per example, (batch, ...), got shape {values.shape}")
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
    """What a training step minimises: the loss from logits wherever the model lets one have them.

    A categorical loss of a model that ends in softmax, or a binary one of a model that ends in sigmoid, is computed
    from what the activation is applied to, which loses no digits; other probabilities are used as they are. A linear
    end means logits.

    Args:
        model: A model with one output.
        loss: "categorical_crossentropy", "sparse_categorical_crossentropy", "binary_crossentropy", or any function of
            (labels, outputs) that returns an array (batch, ...); it gets the outputs of `model` itself.
        label_smoothing: From 0 to 1, for the named losses.
        class_weights: Factors of the loss of examples by their class; a class that is not named weighs 1. As in Keras,
            the mean divides by the number of examples, not by the sum of the weights.
        from_logits: Whether the outputs of `model` are logits; None asks its last activation.

    Returns:
        The objective: hashable, a static argument of `train_step` and `eval_step`.

    Raises:
        ValueError: Unknown loss, options out of range, or a last activation that does not tell what the outputs are.

    >>> from flaxapps import Input, layers
    >>> x = Input((4,))
    >>> model = Model(x, layers.Dense(3, activation="softmax")(x))
    >>> make_objective(model, "categorical_crossentropy").from_logits
    True
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is from 0 to 1, got {label_smoothing}")
    weights = _weights_in_order(class_weights or {})
    if not isinstance(loss, str):
        if label_smoothing or from_logits is not None:
            raise ValueError("label_smoothing and from_logits are for the named losses; your function knows its own")
        return Objective(model, loss, class_weights=weights)
    if loss not in LOSSES:
        raise ValueError(f"Unknown loss {loss!r}. Known: {', '.join(LOSSES)}, or give a function.")
    activation = last_activation(model)
    exact = activation == ("sigmoid" if loss == "binary_crossentropy" else "softmax")
    if from_logits is None and exact:
        return Objective(without_last_activation(model), loss, True, label_smoothing, weights)
    if from_logits is None:
        probabilities = holds_probabilities(activation)
        if probabilities is None:
            raise ValueError(
                f"The end of the model (activation {activation!r}) does not tell whether its outputs are probabilities "
                "or logits: say from_logits=False or True"
            )
        from_logits = not probabilities
    return Objective(model, loss, from_logits, label_smoothing, weights)


def class_indices(labels: jax.Array, outputs: jax.Array) -> jax.Array:
    """The class of every example, from one-hot labels (shaped like the outputs) or indices: (...), int32."""
    if labels.shape == outputs.shape and outputs.shape[-1] > 1:
        return jnp.argmax(labels, axis=-1).astype(jnp.int32)
    labels = labels[..., 0] if labels.ndim == outputs.ndim and labels.shape[-1] == 1 else labels
    return labels.astype(jnp.int32)


def _weights_in_order(weights: Mapping[int, float]) -> tuple[float, ...]:
    for index, weight in weights.items():
        if index < 0 or not math.isfinite(weight) or weight < 0:
            raise ValueError(f"class_weights are numbers from 0 on by class index, got {index}: {weight}")
    return tuple(float(weights.get(index, 1.0)) for index in range(max(weights, default=-1) + 1))


def _check_same_shape(labels: jax.Array, outputs: jax.Array) -> None:
    if labels.shape != outputs.shape:
        raise ValueError(f"Labels must have the shape of the outputs, {outputs.shape}, got {labels.shape}")


def _clip(probabilities: jax.Array) -> jax.Array:
    return jnp.clip(probabilities, EPSILON, 1.0 - EPSILON)
