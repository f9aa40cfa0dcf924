"""Cross-entropies per example, with Keras's formulas (keras/src/losses/losses.py, keras/src/backend/jax/nn.py)."""

import jax
import jax.numpy as jnp

from flaxapps.ops import primitives as ops

EPSILON = 1e-7  # keras.config.epsilon(): probabilities are clipped to [EPSILON, 1 - EPSILON]


def categorical_crossentropy(
    labels: jax.Array, outputs: jax.Array, *, from_logits: bool = False, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy with one-hot labels, or with any distribution over the classes.

    Args:
        labels: (..., classes), of any numeric dtype; or class indices (...) or (..., 1), integers.
        outputs: (..., classes), probabilities (normalised to sum to 1, as Keras does) or logits; a floating dtype.
        from_logits: Whether `outputs` are logits.
        label_smoothing: Fraction of every label, from 0 to 1, that is spread evenly over the classes.

    Returns:
        (...), float32 at least.

    Raises:
        ValueError: The shapes differ, or class indices are no integers.
    """
    indices = labels[..., 0] if labels.shape == (*outputs.shape[:-1], 1) and outputs.shape[-1] > 1 else labels
    if indices.shape == outputs.shape[:-1]:
        if not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(
                f"Class indices should be integers, got {labels.dtype} labels {labels.shape} for outputs "
                f"{outputs.shape}: labels.astype(int), or sparse_categorical_crossentropy, which takes them as they are"
            )
        labels = jax.nn.one_hot(indices.astype(jnp.int32), outputs.shape[-1], dtype=jnp.float32)
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


def _check_same_shape(labels: jax.Array, outputs: jax.Array) -> None:
    if labels.shape != outputs.shape:
        raise ValueError(f"Labels should have the shape of the outputs, {outputs.shape}, got {labels.shape}")


def _clip(probabilities: jax.Array) -> jax.Array:
    return jnp.clip(probabilities, EPSILON, 1.0 - EPSILON)
