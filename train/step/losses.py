"""The loss of one output of a model. `flaxapps.train.step.objectives` has what a training step minimises."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps.graph.penalties import ACTIVITY, penalties_of
from flaxapps.model import Model
from flaxapps.ops import primitives as ops
from flaxapps.train.step.crossentropies import (
    binary_crossentropy,
    categorical_crossentropy,
    sparse_categorical_crossentropy,
)  # fmt: skip # kept on few lines on purpose
from flaxapps.train.step.distances import DISTANCES, keras_loss
from flaxapps.train.step.penalties import Penalties
from flaxapps.transforms.logits import holds_probabilities, last_activation, last_layer, without_last_activation

LossFunction = Callable[[jax.Array, jax.Array], jax.Array]


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
        removed: Name of the last activation of the model, which `model` leaves out; None if it has it.
        penalties: Regularizers of parameters, from `weight_penalties`.
        activities: Regularizers of outputs of layers, from `activity_penalties`.
    """

    model: Model
    loss: str | LossFunction
    from_logits: bool = False
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    removed: str | None = None
    # Models that differ in their regularizers alone are equal, so that these belong to what is compared here.
    penalties: Penalties = ()
    activities: Penalties = ()

    @property
    def is_binary(self) -> bool:
        """Whether every output is an independent yes/no decision."""
        return self.loss == "binary_crossentropy"

    @property
    def is_regression(self) -> bool:
        """Whether the loss compares numbers, which have no classes."""
        return self.loss in DISTANCES.values()

    @property
    def is_categorical(self) -> bool:
        """Whether the outputs are mutually exclusive classes."""
        return isinstance(self.loss, str) and not self.is_binary

    def probabilities(self, outputs: jax.Array) -> jax.Array:
        """Returns outputs as probabilities where the loss takes logits, else as they are.

        Args:
            outputs: What `model` returned.

        Returns:
            An array of the same shape.
        """
        if not self.from_logits:
            return outputs
        outputs = ops.at_least_float32(outputs)
        return jax.nn.sigmoid(outputs) if self.is_binary else jax.nn.softmax(outputs)

    def final_outputs(self, outputs: jax.Array) -> jax.Array:
        """Applies the last activation, which `model` may leave out.

        Args:
            outputs: What `model` returned.

        Returns:
            What the whole model returns.
        """
        return outputs if self.removed is None else self.probabilities(outputs)

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


def objective_of_output(
    model: Model,
    loss: str | LossFunction,
    *,
    label_smoothing: float = 0.0,
    class_weights: Mapping[int, float] | None = None,
    from_logits: bool | None = None,
) -> Objective:
    """Builds the objective of a model with one output, as `make_objective` does, without its regularizers.

    Args:
        model: A model with one output.
        loss: As for `make_objective`, for one output.
        label_smoothing: As for `make_objective`.
        class_weights: As for `make_objective`.
        from_logits: As for `make_objective`.

    Raises:
        ValueError: The loss is unknown or does not suit a model with one output, options are out of range, or the last
            activation does not show whether the outputs are logits.
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
    if from_logits is None and exact and not _is_regularized(model):
        return Objective(without_last_activation(model), loss, True, label_smoothing, weights, activation)
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


def _check_values(values: Any, labels: jax.Array, outputs: jax.Array) -> None:
    """Checks that a loss has a value per example, or per value of an example: not one that broadcasting made up."""
    shape: tuple[int, ...] = getattr(values, "shape", ())
    fits = bool(shape) and shape == outputs.shape[: len(shape)]
    if not fits or (shape == outputs.shape and labels.shape != outputs.shape):
        got = f"shape {shape}" if hasattr(values, "shape") else f"{values!r:.80}"
        raise ValueError(
            f"A loss should return a value per example, {outputs.shape[:1]}, or per value, {outputs.shape}, got "
            f"{got} for labels {labels.shape} and outputs {outputs.shape}{'' if shape else ': leave out the mean'}"
        )


def _is_regularized(model: Model) -> bool:
    """Whether there is a penalty on the outputs themselves, which needs the last activation."""
    layer = last_layer(model)
    return layer is not None and ACTIVITY in penalties_of(layer)


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
