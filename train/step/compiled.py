"""`train_step`: the jitted step, with errors of ours for states that it cannot take."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from flaxapps.train.step.state import TrainState, check_state

ADVICE = "give create_state and train_step the same optimizer and frozen"


class CompiledStep:
    """A jitted function of a state, which it donates, and a batch. Its attributes are those of the jitted function."""

    def __init__(self, take_step: Callable[..., Any], static_argnames: tuple[str, ...]):
        """Jits a step.

        Args:
            take_step: A function of (state, images, labels, mask, frozen_params) and keyword arguments.
            static_argnames: Names of its keyword arguments.
        """

        @functools.wraps(take_step)
        def checked(state: TrainState, *batch: Any, **options: Any) -> Any:  # checked when it is traced
            check_state(state, options["optimizer"], options.get("frozen", frozenset()), ADVICE)
            return take_step(state, *batch, **options)

        self._jitted: Any = jax.jit(checked, static_argnames=static_argnames, donate_argnames=("state",))
        functools.update_wrapper(self, take_step)

    def __call__(self, state: TrainState, *batch: Any, **options: Any) -> Any:
        """Takes a step, as `take_step`.

        Raises:
            ValueError: Another step has donated the state, or it was created with another optimizer or other layers
                frozen.
        """
        step = state.step
        if isinstance(step, jax.Array) and not isinstance(step, jax.core.Tracer) and step.is_deleted():
            raise ValueError(
                "This state was used by an earlier step, which has donated its arrays: continue with the state that "
                "the step returned, state, sums = train_step(state, ...)"
            )
        return self._jitted(state, *batch, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jitted, name)
