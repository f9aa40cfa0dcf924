"""The state of training: every array that a step reads and writes."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from flaxapps.interpreter import check_frozen
from flaxapps.model import Model
from train.masks import merge_params, split_params


class TrainState(flax.struct.PyTreeNode):  # type: ignore[misc, no-untyped-call, unused-ignore]  # flax is not typed here
    """The arrays of a training run; a step takes one, which is used up, and returns the next.

    Attributes:
        step: How many steps were taken, (), int32.
        params: The parameters that train, a tree without the frozen layers; float32.
        frozen_params: The other parameters; they pass through.
        batch_stats: Moving statistics of all layers.
        optimizer_state: What Optax keeps, for `params` alone.
        key: The random key of the run; a step folds in its number, so that a resumed run drops the same units.
    """

    step: jax.Array
    params: dict[str, Any]
    frozen_params: dict[str, Any]
    batch_stats: dict[str, Any]
    optimizer_state: Any
    key: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """What `Model.apply` and `predict` take; the arrays are those of the state, which the next step uses up."""
        params = merge_params(self.params, self.frozen_params)
        return {"params": params} | ({"batch_stats": self.batch_stats} if self.batch_stats else {})


def create_state(
    model: Model,
    variables: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    frozen: frozenset[str] = frozenset(),
    seed: int = 0,
    copy_frozen: bool = True,
) -> TrainState:
    """The state before the first step.

    Args:
        model: The model to train.
        variables: Its variables. They are copied: steps use up their state, and these arrays stay yours.
        optimizer: From Optax; it sees the parameters that train and no others.
        frozen: What `frozen_layers` returns.
        seed: Of the random key.
        copy_frozen: False where steps leave frozen parameters alone, as those of `fit` do: they are not copied then.

    Returns:
        The state, at step 0.

    Raises:
        ValueError: `frozen` names a layer that is not in the model, or leaves no parameter to train.
    """
    check_frozen(model.graph, frozen)
    trainable, still = split_params(variables.get("params", {}), frozen)
    if not trainable:
        raise ValueError("No parameter would train: every layer that has some is frozen")
    trainable = _copy(trainable)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=trainable,
        frozen_params=_copy(still) if copy_frozen else still,
        batch_stats=_copy(dict(variables.get("batch_stats", {}))),
        optimizer_state=optimizer.init(trainable),
        key=jax.random.key(seed),
    )


def _copy(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)
