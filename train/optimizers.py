"""Optimizers by the names that Keras gives them."""

from collections.abc import Callable
from types import MappingProxyType

import optax

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
    """Returns an optimizer of Optax as it is, and one of Keras's names with Keras's default rate and constants.

    >>> find_optimizer("adam").init({}) == optax.adam(1e-3).init({})
    True

    Args:
        given: From Optax, or a name of `OPTIMIZERS` in upper or lower case.

    Raises:
        ValueError: There is no such name.
        TypeError: It is neither an optimizer of Optax nor a name, such as an optimizer of Keras.
    """
    if isinstance(given, str):
        if given.lower() in OPTIMIZERS:
            return OPTIMIZERS[given.lower()]()
        raise ValueError(
            f"optimizer should be one of {', '.join(OPTIMIZERS)}, with Keras's default rate, or from Optax, which has "
            f"more of them and takes a rate: optimizer=optax.adam(1e-4); got {given!r}"
        )
    if not isinstance(given, optax.GradientTransformation):
        raise TypeError(
            "optimizer should be from Optax, such as optax.adam(1e-4), or a name such as 'adam', with Keras's default "
            f"rate; got {type(given).__module__}.{type(given).__qualname__}"
        )
    return given
