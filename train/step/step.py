"""Training and evaluation steps, with augmentation and preprocessing on the device."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flaxapps.graph.penalties import COLLECTION
from flaxapps.inference.preprocessing import Function, is_named
from flaxapps.train.freezing.frozen import merge_params
from flaxapps.train.step.accumulation import accumulate_parts
from flaxapps.train.step.augmentation import Augmentation
from flaxapps.train.step.compiled import CompiledStep
from flaxapps.train.step.extra_arguments import update
from flaxapps.train.step.loss_scale import scale_of_loss
from flaxapps.train.step.mixing import Mix
from flaxapps.train.step.objectives import AnyObjective, OutputMetric, sums_of
from flaxapps.train.step.state import TrainState
from flaxapps.train.step.sums import Mean
from flaxapps.train.step.targets import Targets, in_order


@dataclass(frozen=True)
class Preparation:
    """Augmentation, then preprocessing. Hashable, as the `prepare` of `train_step` has to be.

    Attributes:
        augmentation: A hashable function of (key, images), such as `train.Augmentation`; None for none.
        preprocess: A hashable function of the images; None for none.
    """

    augmentation: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    preprocess: Function | None = None

    @property
    def keeps_shape(self) -> bool:
        """Whether images keep their shape: functions of users may crop or resize them."""
        return (self.augmentation is None or isinstance(self.augmentation, Augmentation)) and is_named(self.preprocess)

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Returns images, (batch, ...), as the model takes them."""
        if self.augmentation is not None:
            images = self.augmentation(key, images)
        return images if self.preprocess is None else self.preprocess(images)


Prepare = Callable[[jax.Array, jax.Array], jax.Array]


def take_step(
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None = None,
    frozen_params: dict[str, Any] | None = None,
    *,
    objective: AnyObjective,
    optimizer: optax.GradientTransformation,
    frozen: frozenset[str] = frozenset(),
    accumulate: int = 1,
    remat: bool = False,
    metrics: tuple[OutputMetric, ...] = (),
    prepare: Prepare | None = None,
    mix: Mix | None = None,
    axis_name: str | None = None,
    layout: Callable[[TrainState], TrainState] | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """Updates the trainable parameters once, against the gradient of the mean loss of the batch.

    `train_step` is this function jitted, with `state` donated and the keyword arguments static.

    Args:
        state: The state. `train_step` donates it: continue with the one that is returned.
        images: (batch, ...), as the model, or `prepare`, takes them; several in a dict by name or a list.
        labels: (batch, ...), as the loss takes them; or `Targets`, with sample weights or for several outputs.
        mask: (batch,), bool; False for padding, which has no effect on anything. None counts all.
        frozen_params: Frozen parameters to compute with in place of the state's. They are not donated, so that those of
            a state without any can be shared by all steps. The next state has the frozen parameters of `state`.
        objective: From `make_objective`.
        optimizer: The one the state was created with.
        frozen: The set the state was created with; their BatchNormalization stays in inference mode.
        accumulate: Number of parts in which the batch is computed, one after the other, to save memory. The mean is
            over the whole batch; BatchNormalization sees each part by itself.
        remat: Whether to recompute activations in the backward pass instead of storing them.
        metrics: As `flaxapps.train.step.objectives.sums_of` takes them.
        prepare: A hashable function of (key, images) that returns what the model takes, such as an augmentation.
        mix: A hashable function of (key, images, labels, mask) that returns prepared images and labels, such as
            `flaxapps.train.step.mixing.Mixing`.
        axis_name: The mapped axis under `jax.pmap`, where each device has a shard of the batch and all of the state.
            Gradients, sums and statistics of BatchNormalization are those of the whole batch.
        layout: A hashable function that constrains the sharding of the next state, such as a
            `flaxapps.train.devices.layout.Layout`.

    Returns:
        The next state, and sums over the batch before the update: "loss" and the metrics, as `summarise` takes them.

    Raises:
        ValueError: Shapes do not fit, or the batch cannot be split into `accumulate` equal parts.
    """
    images = in_order(objective.model, images)
    key = jax.random.fold_in(state.key, state.step)
    if axis_name is not None:  # different dropout on every device
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    if prepare is None or (isinstance(prepare, Preparation) and prepare.keeps_shape):
        _check_images(objective, images)  # before augmentation and preprocessing, which would fail inside JAX
    if prepare is not None:
        key, key_to_prepare = jax.random.split(key)
        images = prepare(key_to_prepare, images)
    if mix is not None:
        if isinstance(labels, Targets):
            raise ValueError("mixup and cutmix are for plain labels, without sample weights: leave one of them out")
        key, key_to_mix = jax.random.split(key)
        images, labels = mix(key_to_mix, images, labels, mask)

    frozen_params = state.frozen_params if frozen_params is None else frozen_params
    options: dict[str, Any] = {"objective": objective, "frozen": frozen, "remat": remat, "metrics": metrics}
    options["axis_name"] = axis_name
    batch = (images, labels, mask)
    gradients, statistics, sums = _mean_gradients(state, frozen_params, batch, key, accumulate, **options)

    def differentiate(params: Any) -> tuple[Any, jax.Array]:
        there = state.replace(params=params)
        gradients, _, sums = _mean_gradients(there, frozen_params, batch, key, accumulate, **options)
        return gradients, _mean(sums["loss"])

    with jax.numpy_dtype_promotion("standard"):  # Optax's schedules multiply floats by the int32 count of steps
        changes, optimizer_state = update(
            optimizer, gradients, state.optimizer_state, state.params, _mean(sums["loss"]), differentiate
        )
    following = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, changes),
        batch_stats=statistics,
        optimizer_state=optimizer_state,
    )
    return following if layout is None else layout(following), sums


def _mean_gradients(
    state: TrainState, frozen_params: Any, batch: Any, key: jax.Array, accumulate: int, **options: Any
) -> tuple[Any, Any, Any]:
    """Gradients of the mean loss of the whole batch, the statistics after it, and the sums.

    Args:
        state: The state.
        frozen_params: The frozen parameters.
        batch: Images, labels and mask.
        key: Random key of the step.
        accumulate: Number of parts.
        **options: Of `_differentiate`.
    """
    # The gradients are those of the summed loss; scaled as their mean, they stay in the range of float16.
    scale = scale_of_loss(state.optimizer_state)
    factor = None if scale is None else scale / len(batch[1])
    differentiate: Any = functools.partial(_differentiate, state.params, frozen_params, factor=factor, **options)
    if accumulate == 1:
        gradients, statistics, sums = differentiate(state.batch_stats, batch, key)
    else:
        start = jax.tree.map(jnp.zeros_like, state.params), state.batch_stats
        gradients, statistics, sums = accumulate_parts(differentiate, start, batch, key, accumulate)
    if factor is not None:
        gradients = jax.tree.map(lambda leaf: leaf / factor.astype(leaf.dtype), gradients)
    # So far gradients are those of the summed loss: only here is the number of examples in the whole batch known.
    count = jnp.maximum(sums["loss"].count, 1)
    gradients = _sum_over(options["axis_name"], gradients)
    return jax.tree.map(lambda leaf: leaf / count.astype(leaf.dtype), gradients), statistics, sums


def _differentiate(
    params: Any,
    frozen_params: Any,
    statistics: Any,
    part: Any,
    key: jax.Array,
    *,
    objective: AnyObjective,
    frozen: frozenset[str],
    remat: bool,
    metrics: tuple[OutputMetric, ...],
    axis_name: str | None,
    factor: jax.Array | None,
) -> tuple[Any, Any, Any]:
    """Gradients of the summed loss of a part of a batch, times `factor`, the statistics after it, and the sums."""
    images, labels, mask = part

    def run(params: Any, frozen_params: Any, images: jax.Array) -> Any:
        return objective.model.apply(
            _variables(merge_params(params, frozen_params), statistics),
            images,
            train=True,
            frozen=frozen,
            mask=mask,
            axis_name=axis_name,
            mutable=["batch_stats", *([COLLECTION] if objective.activities else [])],
            rngs={"dropout": key},
        )

    def total_loss(params: Any) -> tuple[jax.Array, Any]:
        outputs, updates = (jax.checkpoint(run) if remat else run)(params, frozen_params, images)
        counted = _all(labels) if mask is None else mask
        sums = sums_of(objective, metrics, labels, outputs, counted, params, updates)
        loss = sums["loss"]
        scaled = loss.total if factor is None else loss.total * factor.astype(loss.total.dtype)
        return scaled, (updates.get("batch_stats", statistics), sums)

    gradients, (moved, sums) = jax.grad(total_loss, has_aux=True)(params)
    sums = _sum_over(axis_name, sums)
    if mask is not None:  # a part that is all padding has no statistics: keep the old ones
        moved = jax.tree.map(lambda new, old: jnp.where(sums["loss"].count > 0, new, old), moved, statistics)
    return gradients, moved, sums


def _sum_over(axis_name: str | None, tree: Any) -> Any:
    """The sum over the devices of a mapped axis, where there is one."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


STATIC = "objective", "optimizer", "frozen", "accumulate", "remat", "metrics", "prepare", "mix", "axis_name", "layout"

train_step = CompiledStep(take_step, STATIC)
"""`take_step`, jitted. Donates `state`; keyword arguments are static."""


def evaluate_batch(
    variables: dict[str, Any],
    images: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None = None,
    *,
    objective: AnyObjective,
    metrics: tuple[OutputMetric, ...] = ("accuracy",),
    preprocess: Callable[[jax.Array], jax.Array] | None = None,
) -> dict[str, Any]:
    """Sums the loss and the metrics over a batch, in inference mode.

    `eval_step` is this function jitted, with the keyword arguments static.

    Args:
        variables: Variables of the model, such as `state.variables`.
        images: (batch, ...), as the model, or `preprocess`, takes them.
        labels: (batch, ...), as the loss takes them; or `Targets`, with sample weights or for several outputs.
        mask: (batch,), bool; False for padding. None counts every example.
        objective: From `make_objective`.
        metrics: As `flaxapps.train.step.objectives.sums_of` takes them.
        preprocess: A hashable function of the images that returns what the model takes.

    Returns:
        "loss" and the metrics; add those of several batches with `add_sums`, then `summarise`.

    Raises:
        ValueError: Shapes do not fit.
    """
    mask = _all(labels) if mask is None else mask
    images = in_order(objective.model, images)
    if is_named(preprocess):
        _check_images(objective, images)
    images = images if preprocess is None else preprocess(images)
    sown: Any = {}
    if objective.activities:
        outputs, sown = objective.model.apply(variables, images, mutable=[COLLECTION])
    else:
        outputs = objective.model.apply(variables, images)
    return sums_of(objective, metrics, labels, outputs, mask, variables.get("params", {}), sown)


eval_step = jax.jit(evaluate_batch, static_argnames=("objective", "metrics", "preprocess"))
"""`evaluate_batch`, jitted; keyword arguments are static."""


def _mean(sums: Mean) -> jax.Array:
    mean: jax.Array = sums.total / jnp.maximum(sums.count, 1).astype(sums.total.dtype)
    return mean


def _check_images(objective: AnyObjective, images: Any) -> None:
    if hasattr(images, "shape"):  # several inputs are checked by the model
        objective.model.check_arrays([images])


def _all(labels: Any) -> jax.Array:
    return jnp.ones(len(labels), jnp.bool_)


def _variables(params: dict[str, Any], statistics: dict[str, Any]) -> dict[str, Any]:
    return {"params": params} | ({"batch_stats": statistics} if statistics else {})
