"""Forms of arguments: what users type for `fit` and `evaluate` is brought to one form, or refused in a sentence."""

import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from flaxapps.graph.graph import LayerInGraph
from flaxapps.train.data.balance import BALANCED
from flaxapps.train.data.sources import takes
from flaxapps.train.early_stopping import EarlyStopping
from flaxapps.train.optimizers import find_optimizer

# What functions call their arguments. Losses of Optax that call the first "predictions" are symmetric.
OUTPUTS = (
    "input",
    "inputs",
    "log_predictions",
    "logit",
    "logits",
    "output",
    "outputs",
    "pred",
    "preds",
    "y_pred",
    "yhat",
)
LABELS = ("label", "labels", "log_targets", "target", "targets", "y", "y_true")


def brought_to_form(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Brings arguments to the forms that `fit` computes with.

    Args:
        given: Arguments by name; those without a form are left out.

    Returns:
        The arguments in their forms, and a sentence for each that cannot be.

    >>> brought_to_form({"batch_size": 32.0, "metrics": "accuracy", "frozen": ["conv1"], "loss": None})
    ({'batch_size': 32, 'metrics': ('accuracy',), 'frozen': frozenset({'conv1'})}, \
['loss should be the name of a loss, such as "categorical_crossentropy", or a function of (labels, outputs), got None'])
    """
    formed, wrong = {}, []
    for name in given.keys() & FORMS.keys():
        try:
            formed[name] = FORMS[name](given[name])
        except (TypeError, ValueError) as error:
            wrong.append(f"{name} should be {error}, got {given[name]!r:.100}")
    return {name: formed[name] for name in given if name in formed}, sorted(wrong)


def _whole_number(given: Any) -> int:
    try:
        number = float("nan") if isinstance(given, bool | str) else float(given)
    except (TypeError, ValueError):
        number = float("nan")
    if not number.is_integer():
        raise TypeError("a whole number")
    return int(given)


def _seed(given: Any) -> int:
    if (seed := _whole_number(given)) < 0:
        raise ValueError("a whole number, at least 0")
    return seed


def _fraction(given: Any) -> float:
    if given is None:
        return 0.0
    if isinstance(given, bool) or not isinstance(given, numbers.Real) or not 0 <= float(given) <= 1:
        raise ValueError("from 0 to 1")
    return float(given)


def _loss(given: Any) -> Any:
    if isinstance(given, Mapping):
        return {str(name): _loss(each) for name, each in given.items()}
    wanted = 'the name of a loss, such as "categorical_crossentropy", or a function of (labels, outputs)'
    if not isinstance(given, str) and not _is_function(given, 2):
        raise TypeError(wanted)
    _check_order(given)
    return given


def _check_order(given: Any) -> None:
    """Checks that a function does not name its arguments in Optax's and PyTorch's order, which would go unnoticed.

    Raises:
        TypeError: It does.
    """
    if not callable(given):
        return
    try:
        names = list(inspect.signature(given).parameters)[:2]
    except (TypeError, ValueError):  # built in
        return
    if names and names[0] in OUTPUTS and names[-1] in LABELS:
        raise TypeError(
            f"a function of (labels, outputs), in this order; for one of ({', '.join(names)}) give "
            "lambda labels, outputs: function(outputs, labels)"
        )


def _layer_names(given: Any) -> frozenset[str]:
    names = [given] if isinstance(given, str) else () if given is None else given
    wanted = 'names of layers, such as {"conv1"} or train.frozen_layers(model, until="conv1")'
    if not isinstance(names, Iterable) or isinstance(names, Mapping):
        raise TypeError(wanted)
    names = [each.name if isinstance(each, LayerInGraph) else each for each in names]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(wanted)
    return frozenset(names)


def _loss_weights(given: Any) -> dict[str, float] | None:
    if given is None:
        return None
    wanted = 'a dict of the names of outputs and factors, at least 0, such as {"a": 1.0, "b": 0.2}'
    if not isinstance(given, Mapping):
        raise TypeError(wanted)
    try:
        weights = {str(name): float(weight) for name, weight in given.items()}
    except (TypeError, ValueError):
        raise TypeError(wanted) from None
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()):
        raise ValueError(wanted)
    return weights


def _metrics(given: Any) -> tuple[Any, ...]:
    if given is None:
        return ()
    if isinstance(given, Mapping):  # by the names of outputs
        return tuple((str(name), metric) for name, each in given.items() for metric in _metrics(each))
    given = [given] if isinstance(given, str) or callable(given) else given
    if not isinstance(given, Iterable):
        raise TypeError('names or functions, such as ("accuracy",), or a dict of these by the names of outputs')
    metrics = tuple(given)
    for metric in metrics:
        _check_order(metric)
    return metrics


def _class_weights(given: Any) -> dict[int, float] | str | None:
    if given is None or (isinstance(given, str) and given == BALANCED):
        return given
    wanted = 'a dict of class indices and weights, such as {0: 1.0, 1: 2.5}, or "balanced"'
    if isinstance(given, list | tuple | np.ndarray):
        given = dict(enumerate(given))
    if not isinstance(given, Mapping):
        raise TypeError(wanted)
    try:
        return {_whole_number(index): float(weight) for index, weight in given.items()}
    except (TypeError, ValueError):
        raise TypeError(wanted) from None


def _augmentation(given: Any) -> Any:
    if given is not None and not _is_function(given, 2):
        raise TypeError("a hashable function of (key, images), such as train.Augmentation()")
    return given


def _preprocess(given: Any) -> Any:
    if given is not None and not isinstance(given, bool | str) and not _is_function(given, 1):
        raise TypeError("True, the name of a preprocessing, or a hashable function of a batch of images")
    return False if given is None else given


def _callbacks(given: Any) -> tuple[Any, ...]:
    callbacks = () if given is None else [given] if callable(given) or not isinstance(given, Iterable) else given
    callbacks = tuple(callbacks)
    if not all(callable(each) and not isinstance(each, type) and takes(each, 1) for each in callbacks):
        raise TypeError("functions of an event (a StepEnd or an EpochEnd), such as [train.CSVLog('history.csv')]")
    return callbacks


def _early_stopping(given: Any) -> EarlyStopping | None:
    if given is None or given is False:
        return None
    if not isinstance(given, EarlyStopping):
        raise TypeError("a rule such as train.EarlyStopping(patience=3)")
    return given


def _is_function(given: Any, count: int) -> bool:
    """Whether a value is a hashable function of so many arguments; not a class, which somebody forgot to call."""
    try:
        hash(given)
    except TypeError:
        return False
    return callable(given) and not isinstance(given, type) and takes(given, count)


FORMS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "optimizer": find_optimizer,
        "batch_size": _whole_number,
        "epochs": _whole_number,
        "initial_epoch": _whole_number,
        "seed": _seed,
        "loss": _loss,
        "frozen": _layer_names,
        "metrics": _metrics,
        "loss_weights": _loss_weights,
        "class_weights": _class_weights,
        "label_smoothing": _fraction,
        "augmentation": _augmentation,
        "preprocess": _preprocess,
        "callbacks": _callbacks,
        "early_stopping": _early_stopping,
    }
)
