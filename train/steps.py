"""One step of training and one of evaluation: pure, compiled once for every shape and every static argument.

Only the trainable parameters are differentiated, so that XLA is never given a backward pass of a frozen trunk.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from train.losses import Objective
from train.masks import merge_params
from train.metrics import Mean, batch_metrics
from train.state import TrainState

Prepare = Callable[[jax.Array, jax.Array], jax.Array]


def take_step(
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None = None,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    frozen: frozenset[str] = frozenset(),
    accumulate: int = 1,
    remat: bool = False,
    metrics: tuple[str, ...] = (),
    prepare: Prepare | None = None,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """Moves the trainable parameters once, against the gradient of the mean loss of the batch.

    `train_step` is this function compiled, with `state` donated and the keyword arguments static.

    Args:
        state: The state; `train_step` uses it up: go on with the one that is returned.
        images: (batch, ...), as the model, or `prepare`, takes them.
        labels: (batch, ...), as the loss takes them.
        mask: (batch,), bool; False where an example only fills the batch and has no part in anything. None counts all.
        objective: From `make_objective`.
        optimizer: The one the state was created with.
        frozen: The set the state was created with; their BatchNormalization stays in inference mode.
        accumulate: In how many parts the batch is computed one after the other, which needs less memory. The mean is
            over the whole batch; BatchNormalization sees each part by itself.
        remat: Whether to compute the network a second time in the backward pass instead of keeping its values.
        metrics: Names of `train.metrics.METRICS`.
        prepare: A hashable function of (key, images) that returns what the model takes, such as an augmentation.
        axis_name: Under `jax.pmap`, its axis: each device has a part of the batch and all of the state. Gradients,
            sums and statistics of BatchNormalization are those of the whole batch.

    Returns:
        The next state, and sums over the batch before the move: "loss" and the metrics, as `summarise` takes them.

    Raises:
        ValueError: Shapes do not fit, or the batch cannot be split into `accumulate` equal parts.
    """
    key = jax.random.fold_in(state.key, state.step)
    if axis_name is not None:  # no two devices drop the same units
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    if prepare is not None:
        key, key_to_prepare = jax.random.split(key)
        images = prepare(key_to_prepare, images)

    def sum_up(tree: Any) -> Any:
        return tree if axis_name is None else jax.lax.psum(tree, axis_name)

    def total_loss(params: Any, statistics: Any, part: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        images, labels, mask = part

        def run(params: Any, frozen_params: Any, images: jax.Array) -> Any:
            return objective.model.apply(
                _variables(merge_params(params, frozen_params), statistics),
                images,
                train=True,
                frozen=frozen,
                mask=mask,
                axis_name=axis_name,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )

        run = jax.checkpoint(run) if remat else run
        outputs, updates = run(params, state.frozen_params, images)
        mask = _all(labels) if mask is None else mask
        loss = _masked_loss(objective, labels, outputs, mask)
        sums = {"loss": loss, **batch_metrics(objective, metrics, labels, outputs, mask)}
        return loss.total, (updates.get("batch_stats", statistics), sums)

    def differentiate(statistics: Any, part: Any, key: jax.Array) -> tuple[Any, Any, Any]:
        gradients, (moved, sums) = jax.grad(total_loss, has_aux=True)(state.params, statistics, part, key)
        sums = sum_up(sums)
        if mask is not None:  # where no example of a part counts there are no statistics to move to
            moved = jax.tree.map(lambda new, old: jnp.where(sums["loss"].count > 0, new, old), moved, statistics)
        return gradients, moved, sums

    batch = (images, labels, mask)
    if accumulate == 1:
        gradients, statistics, sums = differentiate(state.batch_stats, batch, key)
    else:
        parts = jax.tree.map(lambda array: _split(array, accumulate), batch)

        def add_part(carry: Any, numbered: Any) -> tuple[Any, Any]:
            gradients, statistics = carry
            number, part = numbered
            more, statistics, sums = differentiate(statistics, part, jax.random.fold_in(key, number))
            return (jax.tree.map(jnp.add, gradients, more), statistics), sums

        start = (jax.tree.map(jnp.zeros_like, state.params), state.batch_stats)
        numbers = jnp.arange(accumulate, dtype=jnp.int32)
        (gradients, statistics), sums = jax.lax.scan(add_part, start, (numbers, parts))
        sums = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0, dtype=leaf.dtype), sums)
    # The sum of the losses was differentiated: only here is it known how many examples the whole batch counts.
    count = jnp.maximum(sums["loss"].count, 1)
    gradients = jax.tree.map(lambda leaf: leaf / count.astype(leaf.dtype), sum_up(gradients))
    with jax.numpy_dtype_promotion("standard"):  # Optax's schedules multiply floats by the int32 count of steps
        changes, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
    following = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, changes),
        batch_stats=statistics,
        optimizer_state=optimizer_state,
    )
    return following, sums


STATIC = "objective", "optimizer", "frozen", "accumulate", "remat", "metrics", "prepare", "axis_name"

train_step = jax.jit(take_step, static_argnames=STATIC, donate_argnames=("state",))
"""`take_step`, compiled: it uses up `state`, and its keyword arguments are static."""


def take_step_apart(
    moving: TrainState,
    frozen_params: dict[str, Any],
    images: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None = None,
    *,
    layout: Callable[[TrainState], TrainState] | None = None,
    **options: Any,
) -> tuple[TrainState, dict[str, Any]]:
    """`take_step` with the frozen parameters beside the state, so that they are neither used up nor passed through.

    Args:
        moving: The state without its frozen parameters.
        frozen_params: These.
        images: As `take_step` takes them.
        labels: As `take_step` takes them.
        mask: As `take_step` takes it.
        layout: Hashable; leaves the next state where it lies on the devices, such as a `train.layout.Layout`.
        **options: The keyword arguments of `take_step`.

    Returns:
        The next state without its frozen parameters, and the sums.
    """
    following, sums = take_step(moving.replace(frozen_params=frozen_params), images, labels, mask, **options)
    following = following.replace(frozen_params={})
    return following if layout is None else layout(following), sums


train_step_apart = jax.jit(take_step_apart, static_argnames=(*STATIC, "layout"), donate_argnames=("moving",))
"""`take_step_apart`, compiled: it uses up `moving`, and its keyword arguments are static."""


@functools.partial(jax.jit, static_argnames=("objective", "metrics", "preprocess"))
def eval_step(
    variables: dict[str, Any],
    images: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None = None,
    *,
    objective: Objective,
    metrics: tuple[str, ...] = ("accuracy",),
    preprocess: Callable[[jax.Array], jax.Array] | None = None,
) -> dict[str, Any]:
    """Sums of the loss and the metrics over a batch, in inference mode.

    Args:
        variables: Of the model, such as `state.variables`.
        images: (batch, ...), as the model, or `preprocess`, takes them.
        labels: (batch, ...), as the loss takes them.
        mask: (batch,), bool; False where an example only fills a last batch. None counts every example.
        objective: From `make_objective`.
        metrics: Names of `train.metrics.METRICS`.
        preprocess: A hashable function of the images that returns what the model takes.

    Returns:
        "loss" and the metrics; add those of several batches with `add_sums`, then `summarise`.

    Raises:
        ValueError: Shapes do not fit.
    """
    mask = _all(labels) if mask is None else mask
    outputs: Any = objective.model.apply(variables, images if preprocess is None else preprocess(images))
    loss = _masked_loss(objective, labels, outputs, mask)
    return {"loss": loss, **batch_metrics(objective, metrics, labels, outputs, mask)}


def _masked_loss(objective: Objective, labels: jax.Array, outputs: jax.Array, mask: jax.Array) -> Mean:
    losses = objective.per_example(labels, outputs)
    # `where` and not a product: zero times the infinite loss of an example that only fills the batch is NaN.
    return Mean(jnp.sum(jnp.where(mask, losses, jnp.zeros_like(losses))), jnp.sum(mask, dtype=jnp.int32))


def _all(labels: jax.Array) -> jax.Array:
    return jnp.ones(labels.shape[:1], jnp.bool_)


def _variables(params: dict[str, Any], statistics: dict[str, Any]) -> dict[str, Any]:
    return {"params": params} | ({"batch_stats": statistics} if statistics else {})


def _split(array: jax.Array, parts: int) -> jax.Array:
    if parts < 1 or array.shape[0] % parts:
        raise ValueError(f"A batch of {array.shape[0]} cannot be split into accumulate={parts} equal parts")
    # Every parts-th example: each part of a batch that lies on many devices still lies on all of them.
    return jnp.swapaxes(array.reshape(array.shape[0] // parts, parts, *array.shape[1:]), 0, 1)
