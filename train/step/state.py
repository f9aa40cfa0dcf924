"""The state of training: all arrays that a step reads and writes."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
import optax.contrib

from flaxapps.graph.interpreter import check_frozen
from flaxapps.model import Model
from flaxapps.runtime.console import listed
from flaxapps.train.freezing.frozen import merge_params, split_params
from flaxapps.train.updates.averaged import AveragedState
from flaxapps.train.updates.lookahead import SlowState, check_outermost


class TrainState(flax.struct.PyTreeNode):  # type: ignore[misc, no-untyped-call, unused-ignore]  # flax is not typed here
    """The arrays of a training run. A step donates its input state and returns the next.

    Attributes:
        step: Number of steps taken, (), int32.
        params: The trainable parameters, a tree without the frozen layers; float32.
        frozen_params: The other parameters, which steps do not change.
        batch_stats: Moving statistics of all layers.
        optimizer_state: What Optax keeps, for `params` alone.
        key: Random key of the run. A step folds in its number, so that a resumed run drops the same units.
    """

    step: jax.Array
    params: dict[str, Any]
    frozen_params: dict[str, Any]
    batch_stats: dict[str, Any]
    optimizer_state: Any
    key: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """What `Model.apply` and `predict` take. The arrays are those of the state, which the next step donates."""
        return self._with(self.params)

    @property
    def evaluation_variables(self) -> dict[str, Any]:
        """As `variables`, with the averages of an optimizer that evaluates them: of EMA, lookahead, schedule-free."""
        params = self.params
        for node in _averaging(self.optimizer_state):
            params = _average(node, params)
        return self._with(params)

    def _with(self, params: dict[str, Any]) -> dict[str, Any]:
        merged = merge_params(params, self.frozen_params)
        return {"params": merged} | ({"batch_stats": self.batch_stats} if self.batch_stats else {})


def averages_params(state: TrainState) -> bool:
    """Whether the optimizer evaluates at other parameters than it trains: `averaged`, lookahead, schedule-free."""
    return bool(_averaging(state.optimizer_state))


def _averaging(optimizer_state: Any) -> list[Any]:
    """Returns the states that hold averages; of one inside another, the outer one."""
    leaves = jax.tree.leaves(optimizer_state, is_leaf=_is_averaging)
    return [leaf for leaf in leaves if _is_averaging(leaf)]


def _is_averaging(node: Any) -> bool:
    return isinstance(node, AveragedState | SlowState | optax.contrib.ScheduleFreeState)


def _average(state: Any, params: Any) -> Any:
    """Returns the parameters at which an optimizer is evaluated, where it has any of these parameters."""
    structure: Any
    leaves, structure = jax.tree.flatten(params)
    # Under optax.partition and optax.masked, other parameters are MaskedNodes.
    kept = structure.flatten_up_to(_kept(state))
    own = [index for index, leaf in enumerate(kept) if not isinstance(leaf, optax.MaskedNode)]
    averages = [kept[index] for index in own]
    if isinstance(state, optax.contrib.ScheduleFreeState):
        trained = [leaves[index] for index in own]
        averages = optax.contrib.schedule_free_eval_params(state._replace(z=averages), trained)
    for index, leaf in zip(own, averages, strict=True):
        leaves[index] = leaf
    return jax.tree.unflatten(structure, leaves)


def _kept(state: Any) -> Any:
    if isinstance(state, SlowState):
        return state.slow
    return state.average if isinstance(state, AveragedState) else state.z


def create_state(
    model: Model,
    variables: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    frozen: frozenset[str] = frozenset(),
    seed: int = 0,
    copy_frozen: bool = True,
) -> TrainState:
    """Creates the state before the first step.

    Args:
        model: The model to train.
        variables: Its variables. They are copied, since steps donate their state.
        optimizer: From Optax; it gets only the trainable parameters.
        frozen: Names of frozen layers, from `frozen_layers`.
        seed: Seed of the random key.
        copy_frozen: Whether to copy frozen parameters. False if steps do not donate them, as those of `fit`.

    Returns:
        The state, at step 0.

    Raises:
        ValueError: `frozen` names a layer that is not in the model, or leaves no parameter to train; or the optimizer
            has a lookahead without `train.keep_slow`.
    """
    check_frozen(model.graph, frozen)
    trainable, frozen_params = split_params(variables.get("params", {}), frozen)
    if not trainable:
        raise ValueError("No parameter is left to train: every layer with parameters is frozen")
    trainable = _copy(trainable)
    # Some optimizers start from the parameters themselves, or from one array twice, which cannot be donated twice.
    optimizer_state = _copy(optimizer.init(trainable))
    check_outermost(optimizer_state)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=trainable,
        frozen_params=_copy(frozen_params) if copy_frozen else frozen_params,
        batch_stats=_copy(dict(variables.get("batch_stats", {}))),
        optimizer_state=optimizer_state,
        key=jax.random.key(seed),
    )


def continue_state(
    state: TrainState, optimizer: optax.GradientTransformation, frozen: frozenset[str] = frozenset()
) -> TrainState:
    """Copies a state, such as `result.state` of `fit`, for a run that continues it. Frozen parameters are shared.

    Args:
        state: The state; it is not donated.
        optimizer: An optimizer with arrays like those of the one the state was created with; its learning rate may
            be another one.
        frozen: The set the state was created with.

    Raises:
        ValueError: The state belongs to another set of frozen layers, or to another optimizer.
    """
    check_state(state, optimizer, frozen, "give result.variables to start anew")
    return _copy(state.replace(frozen_params={})).replace(frozen_params=state.frozen_params)  # type: ignore[no-any-return]  # of flax


def check_state(
    state: TrainState, optimizer: optax.GradientTransformation, frozen: frozenset[str], advice: str
) -> None:
    """Checks that a state was created with a set of frozen layers, and an optimizer with arrays like these.

    Args:
        state: The state, also of tracers.
        optimizer: The optimizer. Its learning rate may be another one.
        frozen: Names of frozen layers.
        advice: What to do, for the message.

    Raises:
        ValueError: The state belongs to another set of frozen layers, or to another optimizer.
    """
    trainable, frozen_params = split_params(merge_params(state.params, state.frozen_params), frozen)
    if _paths(trainable) != _paths(state.params):
        given, own = (listed(sorted(parts)) or "none" for parts in (frozen_params, state.frozen_params))
        raise ValueError(
            f"The state trains other layers than frozen leaves: it was created with {own} frozen, not with {given}: "
            f"{advice}"
        )
    if _paths(jax.eval_shape(optimizer.init, state.params)) != _paths(state.optimizer_state):
        raise ValueError(f"The state has arrays of another optimizer than this one: {advice}")


def _paths(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}


def _copy(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)
