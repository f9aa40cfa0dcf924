"""The arguments of `fit`, checked."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

from flaxapps.graph.interpreter import check_frozen
from flaxapps.graph.variables import weight_paths
from flaxapps.inference.preprocessing import Function
from flaxapps.model import Model
from flaxapps.runtime.console import listed
from flaxapps.train.callbacks import Callback
from flaxapps.train.data.datasets import Dataset
from flaxapps.train.devices.placement import MODES
from flaxapps.train.early_stopping import EarlyStopping
from flaxapps.train.forms import brought_to_form
from flaxapps.train.options import CheckpointFolder, Computation, Devices, FeatureCache
from flaxapps.train.step.metrics import METRICS, is_known
from flaxapps.train.step.objectives import Loss, OutputMetric
from flaxapps.train.step.state import TrainState
from flaxapps.train.step.targets import output_names
from weight_port.writers import leaves


@dataclass(frozen=True, kw_only=True)
class FitArguments:
    """The arguments of `fit`, which documents them; those that take several forms are brought to one."""

    model: Model
    variables: Mapping[str, Any] | TrainState
    data: Dataset
    validation: Dataset | None
    optimizer: optax.GradientTransformation
    batch_size: int
    loss: Loss
    loss_weights: Mapping[str, float] | None
    frozen: frozenset[str]
    epochs: int
    initial_epoch: int
    parallel: str
    devices: Devices
    cache: FeatureCache | None
    checkpoints: CheckpointFolder | None
    computation: Computation
    seed: int
    verbose: bool
    metrics: tuple[OutputMetric, ...]
    class_weights: Mapping[int, float] | str | None
    label_smoothing: float
    augmentation: Callable[[jax.Array, jax.Array], jax.Array] | None
    preprocess: bool | str | Function
    callbacks: tuple[Callback, ...]
    early_stopping: EarlyStopping | None

    @property
    def start(self) -> Mapping[str, Any]:
        """The initial variables, as the model takes them."""
        return self.variables.variables if isinstance(self.variables, TrainState) else self.variables

    def __post_init__(self) -> None:
        """Checks what needs no device, no network and no example.

        Raises:
            ValueError: Arguments are invalid or exclude each other; all of them are listed.
        """
        check_model(self.model)
        formed, wrong = brought_to_form(vars(self))
        for name, value in formed.items():
            object.__setattr__(self, name, value)
        if formed.keys() >= {"batch_size", "epochs", "initial_epoch"}:
            counts = {"batch_size": self.batch_size, "epochs": self.epochs}
            wrong += [f"{name} should be at least 1, got {count}" for name, count in counts.items() if count < 1]
            if not 0 <= self.initial_epoch <= self.epochs:
                wrong.append(f"initial_epoch should be from 0 to epochs={self.epochs}, got {self.initial_epoch}")
        wrong += wrong_metrics(self.model, formed.get("metrics", ()))
        wrong += self._wrong_layers(formed) + wrong_variables(self.model, self.variables)
        if self.parallel not in MODES:
            wrong.append(f"parallel should be one of {', '.join(MODES)}; got {self.parallel!r}")
        if self.cache and self.augmentation:
            wrong.append("cache_features computes images once, but augmentation changes them in every epoch: drop one")
        if self.cache and self.computation.optimize_frozen:
            wrong.append(
                "optimize_frozen has no effect with cache_features, which runs frozen layers only once: drop one"
            )
        if wrong:
            raise ValueError("\n  ".join(["fit cannot run with these arguments:", *wrong]))
        self._check_classes()

    def _wrong_layers(self, formed: Mapping[str, Any]) -> list[str]:
        try:
            check_frozen(self.model.graph, formed.get("frozen", ()))
        except ValueError as error:
            return [str(error)]
        return []

    def _check_classes(self) -> None:
        """Checks that data, validation data and model have the same classes, as far as the data names them."""
        names, shape = self.data.class_names, self.model.output_shape
        outputs = shape[-1]
        if isinstance(shape, tuple) and names is not None and len(names) != outputs and (outputs, len(names)) != (1, 2):
            shown = ", ".join(names[:10])
            raise ValueError(f"The data has {len(names)} classes ({shown}), the model {outputs} outputs")
        others = None if self.validation is None else self.validation.class_names
        if names and others and others != names:
            raise ValueError(f"Data and validation data have different classes: {names} and {others}")


def wrong_metrics(model: Model, metrics: Iterable[OutputMetric]) -> list[str]:
    """Returns what is wrong with metrics in their form: a sentence for each kind, or none."""
    pairs = [each if isinstance(each, tuple) else (None, each) for each in metrics]
    unknown = [each for _, each in pairs if not callable(each) and not is_known(each)]
    outputs = output_names(model) if any(name is not None for name, _ in pairs) else ()
    elsewhere = sorted({str(name) for name, _ in pairs if name is not None and name not in outputs})
    wrong = []
    if unknown:
        wrong.append(f"metrics should be functions, or among {', '.join(METRICS)}; got {', '.join(map(str, unknown))}")
    if elsewhere:
        wrong.append(
            f"metrics names the outputs {listed(elsewhere)}, but those of the model are {listed(list(outputs))}"
        )
    return wrong


def check_model(model: Any) -> None:
    """Checks that the first argument is a model.

    Raises:
        ValueError: `model` is something else, such as the pair that `ResNet50()` returns.
    """
    if not isinstance(model, Model):
        advice = ": give its two parts, model and variables" if isinstance(model, tuple) else ""
        raise ValueError(f"model should be a flaxapps model, got {type(model).__name__}{advice}")


def wrong_variables(model: Model, given: Any) -> list[str]:
    """Returns what is wrong with variables for a model: a sentence, or none."""
    variables = given.variables if isinstance(given, TrainState) else given
    if not isinstance(variables, Mapping) or not isinstance(variables.get("params"), Mapping):
        return [
            'variables should be a tree {"params": ...}, as model.init_variables() returns, or the state of a result, '
            f"got {_kind(given)}"
        ]
    found = {path: np.shape(leaf) for path, leaf in leaves(variables)}
    wanted = {path: tuple(weight.shape) for path, weight in weight_paths(model.graph)}
    missing = ["/".join(path) for path in wanted if path not in found]
    misshapen = [
        f"{'/'.join(path)} is {found[path]} and should be {shape}"
        for path, shape in wanted.items()
        if path in found and found[path] != shape
    ]
    if not missing + misshapen:
        return []
    lines = [f"without {listed(missing)}"] if missing else []
    lines += [listed(misshapen)] if misshapen else []
    return [f"variables are not those of the model: {'; '.join(lines)} (model.init_variables(base=...) adds layers)"]


def _kind(given: Any) -> str:
    return f"a dict of {listed(list(map(str, given)))}" if isinstance(given, Mapping) and given else f"{given!r:.80}"
