"""Attribution: which parts of an image support a class.

All functions take a batch of preprocessed images and explain the score of a class. If the classifier ends in a softmax,
the score is the logit before it, as a probability depends on the logits of all classes.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from flaxapps.graph.symbolic import Node
from flaxapps.model import Model
from flaxapps.transforms.logits import last_activation, without_last_activation


def grad_cam(
    model: Model,
    variables: Mapping[str, Any],
    x: ArrayLike,
    layer: str,
    *,
    classes: ArrayLike | None = None,
    size: tuple[int, int] | None = None,
) -> jax.Array:
    """Grad-CAM: the channels of a feature map, weighted by the mean gradient of the score, above zero.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017,
    https://arxiv.org/abs/1610.02391.

    Args:
        model: A classifier with one input and an output (batch, classes).
        variables: Its arrays.
        x: Images (batch, height, width, channels), or channels first if that is the model's data format.
        layer: Name of the layer with the feature map, usually the last one with a height and a width.
        classes: The class to explain, or one for each image (batch,); None takes the highest score of each image.
        size: Height and width in pixels to resize the result to, linearly; None keeps those of the feature map.

    Returns:
        (batch, height, width), float32, at least 0, on the scale of the score. Larger values support the class more.

    Raises:
        ValueError: The model, the layer, the images or the classes are not as described above.
    """
    images, chosen = _check(model, x, classes)
    node = model.get_layer(layer).output
    if not isinstance(node, Node) or len(node.shape) != 4:
        raise ValueError(f"layer should have one output (batch, height, width, channels), got {layer!r}")
    trunk = Model(model.inputs, node)
    head = _scores(Model([model.inputs, node], model.outputs))  # paths around the layer start at the image
    maps: jax.Array = _grad_cam(trunk, head, variables, images, chosen)
    return maps if size is None else jax.image.resize(maps, (len(maps), *size), "linear")


def integrated_gradients(
    model: Model,
    variables: Mapping[str, Any],
    x: ArrayLike,
    *,
    baseline: ArrayLike = 0.0,
    classes: ArrayLike | None = None,
    steps: int = 50,
) -> jax.Array:
    """Integrated gradients: the contribution of every input value relative to a baseline, along a straight line.

    They sum to the score of the image minus that of the baseline, up to the error of the midpoint rule. Source:
    Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", 2017, https://arxiv.org/abs/1703.01365.

    Args:
        model: A classifier with one input and an output (batch, classes).
        variables: Its arrays.
        x: Images, as for `grad_cam`.
        baseline: A neutral image, preprocessed too, or a number; broadcast to `x`.
        classes: As for `grad_cam`.
        steps: Points on the line. Each takes a gradient of the whole batch, one after the other.

    Returns:
        An array like `x`, float32, in units of the score.

    Raises:
        ValueError: The model, the images or the classes are not as described above, or `steps` is not positive.
    """
    images, chosen = _check(model, x, classes)
    if steps < 1:
        raise ValueError(f"steps should be at least 1, got {steps}")
    start = jnp.broadcast_to(jnp.asarray(baseline, jnp.float32), images.shape)
    parts: jax.Array = _integrated_gradients(_scores(model), variables, images, start, chosen, steps)
    return parts


def occlusion(
    model: Model,
    variables: Mapping[str, Any],
    x: ArrayLike,
    *,
    window: int,
    stride: int,
    fill: ArrayLike = 0.0,
    classes: ArrayLike | None = None,
) -> jax.Array:
    """Occlusion: the drop of the score when a window of the image is covered.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2013,
    https://arxiv.org/abs/1311.2901, section 4.2.

    Args:
        model: A classifier with one input and an output (batch, classes).
        variables: Its arrays.
        x: Images, as for `grad_cam`.
        window: Height and width of the window in pixels. It is cropped at the lower and right edges.
        stride: Pixels from one window to the next, at most `window`. Every window takes one run of the whole batch.
        fill: Values of the covered pixels, preprocessed too; broadcast to `x`.
        classes: As for `grad_cam`.

    Returns:
        (batch, height, width), float32: for every pixel the mean over all windows that cover it.

    Raises:
        ValueError: The model, the images or the classes are not as described above, or `stride` is not from 1 to
            `window`.
    """
    images, chosen = _check(model, x, classes)
    if not 1 <= stride <= window:
        raise ValueError(f"stride should be from 1 to window={window}, so that no pixel is left out; got {stride}")
    cover = jnp.broadcast_to(jnp.asarray(fill, jnp.float32), images.shape)
    rows = 2 if model.data_format == "channels_first" else 1
    falls: jax.Array = _occlusion(_scores(model), variables, images, cover, chosen, window, stride, rows)
    return falls


def _check(model: Model, x: ArrayLike, classes: ArrayLike | None) -> tuple[jax.Array, jax.Array | None]:
    """Converts images to float32, and classes to one for each image.

    Raises:
        ValueError: The images or classes do not fit the model, or the model is not a classifier.
    """
    shape = model.output_shape
    if not isinstance(model.input, Node) or not isinstance(shape, tuple) or len(shape) != 2:
        raise ValueError(
            "model should have one input and one output (batch, classes), "
            f"got input {model.input_shape} and output {shape}"
        )
    images = jnp.asarray(x, jnp.float32)
    model.check_arrays([images])
    if classes is None:
        return images, None
    count = shape[1]
    chosen = classes if isinstance(classes, jax.core.Tracer) else np.asarray(classes)  # values of a Tracer are unknown
    known = np.zeros(()) if isinstance(chosen, jax.core.Tracer) else chosen
    whole = jnp.issubdtype(chosen.dtype, jnp.integer) and chosen.shape in ((), images.shape[:1])
    if not whole or not ((known >= 0) & (known < count)).all():
        raise ValueError(
            f"classes should be a number from 0 to {count - 1}, or one for each of {len(images)} images; got {classes}"
        )
    return images, jnp.broadcast_to(jnp.asarray(chosen, jnp.int32), images.shape[:1])


def _forward(model: Model, variables: Mapping[str, Any], inputs: Any) -> jax.Array:
    return cast(jax.Array, model.apply(variables, inputs))


def _scores(model: Model) -> Model:
    return without_last_activation(model) if last_activation(model) == "softmax" else model


def _one_hot(scores: jax.Array, classes: jax.Array | None) -> jax.Array:
    chosen = scores.argmax(-1) if classes is None else classes
    return jax.nn.one_hot(chosen, scores.shape[-1], dtype=scores.dtype)


@partial(jax.jit, static_argnums=(0, 1))
def _grad_cam(
    trunk: Model, head: Model, variables: Mapping[str, Any], x: jax.Array, classes: jax.Array | None
) -> jax.Array:
    features = _forward(trunk, variables, x)
    if trunk.data_format == "channels_first":
        features = jnp.moveaxis(features, 1, -1)
    scores, pull_back = jax.vjp(lambda features: _forward(head, variables, [x, features]), features)
    (gradients,) = pull_back(_one_hot(scores, classes))
    weights = gradients.astype(jnp.float32).mean((1, 2))
    return jax.nn.relu(jnp.einsum("nhwc,nc->nhw", features.astype(jnp.float32), weights, precision="highest"))


@partial(jax.jit, static_argnums=(0, 5))
def _integrated_gradients(
    model: Model, variables: Mapping[str, Any], x: jax.Array, start: jax.Array, classes: jax.Array | None, steps: int
) -> jax.Array:
    scores = _forward(model, variables, x)
    chosen = _one_hot(scores, classes)
    # In inference mode images do not depend on each other, so one gradient of the sum holds that of each image.
    gradient = jax.grad(lambda images: (_forward(model, variables, images) * chosen).sum())

    def add(total: jax.Array, step: jax.Array) -> tuple[jax.Array, None]:
        part = (step.astype(jnp.float32) + 0.5) / steps
        return total + gradient(start + part * (x - start)), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(x), jnp.arange(steps))
    return (x - start) * total / steps


@partial(jax.jit, static_argnums=(0, 5, 6, 7))
def _occlusion(
    model: Model,
    variables: Mapping[str, Any],
    x: jax.Array,
    cover: jax.Array,
    classes: jax.Array | None,
    window: int,
    stride: int,
    rows: int,
) -> jax.Array:
    scores = _forward(model, variables, x)
    chosen = _one_hot(scores, classes)
    height, width = x.shape[rows : rows + 2]
    corners = jnp.stack(jnp.meshgrid(jnp.arange(0, height, stride), jnp.arange(0, width, stride)), -1).reshape(-1, 2)

    def slide(carry: tuple[jax.Array, jax.Array], corner: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        drops, counts = carry
        down, right = jnp.arange(height) - corner[0], jnp.arange(width) - corner[1]
        covered = ((down >= 0) & (down < window))[:, None] & ((right >= 0) & (right < window))[None]
        mask = jnp.expand_dims(covered, (0, 3 if rows == 1 else 1))
        left = _forward(model, variables, jnp.where(mask, cover, x))
        drop = ((scores - left) * chosen).sum(-1).astype(jnp.float32)
        inside = covered[None].astype(jnp.float32)
        return (drops + drop[:, None, None] * inside, counts + inside), None

    start = jnp.zeros((len(x), height, width)), jnp.zeros((1, height, width))
    (drops, counts), _ = jax.lax.scan(slide, start, corners)
    return drops / counts
