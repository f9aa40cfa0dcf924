"""Optimizers by the names that Keras gives them."""

from collections.abc import Callable
from types import MappingProxyType

import optax

from flaxapps.train.updates.lookahead import is_lookahead, keep_slow

EPSILON = 1e-7  # of all optimizers of Keras; Optax's own default is 1e-8
# Keras's default rates and constants. Left out are those whose steps differ from Optax's: adafactor, ftrl, muon, nadam.
OPTIMIZERS: MappingProxyType[str, Callable[[], optax.GradientTransformation]] = MappingProxyType(
    {
        "sgd": lambda: optax.sgd(0.01),
        "rmsprop": lambda: optax.rmsprop(1e-3, decay=0.9, eps=EPSILON),
        "adam": lambda: optax.adam(1e-3, eps=EPSILON),
        "adamw": lambda: optax.adamw(1e-3, eps=EPSILON, weight_decay=0.004),
        "adamax": lambda: optax.adamax(1e-3, eps=EPSILON),
        "adagrad": lambda: optax.adagrad(1e-3, initial_accumulator_value=0.1, eps=EPSILON),
        "adadelta": lambda: optax.adadelta(1e-3, rho=0.95, eps=EPSILON),
        "lion": lambda: optax.lion(1e-3, b1=0.9, b2=0.99, weight_decay=0.0),
    }
)


def find_optimizer(given: str | optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns an optimizer as `fit` takes it, of one of Keras's names with Keras's default rate and constants.

    >>> find_optimizer("adam").init({}) == optax.adam(1e-3).init({})
    True

    Args:
        given: From Optax, or a name of `OPTIMIZERS` in upper or lower case.

    Raises:
        ValueError: There is no such name.
        TypeError: It is neither an optimizer of Optax nor a name, such as an optimizer of Keras.
    """
    wanted = f"from Optax with its rate, such as optax.adam(1e-3), or with Keras's rate one of {', '.join(OPTIMIZERS)}"
    if isinstance(given, str):
        if given.lower() not in OPTIMIZERS:
            raise ValueError(wanted)
        return OPTIMIZERS[given.lower()]()
    if isinstance(given, type) or not all(callable(getattr(given, name, None)) for name in ("init", "update")):
        raise TypeError(wanted)
    return keep_slow(given) if is_lookahead(given) else given
