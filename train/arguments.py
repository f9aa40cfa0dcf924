"""The arguments of `fit`, checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import optax

from flaxapps.inference.preprocessing import Function
from flaxapps.model import Model
from flaxapps.train.callbacks import Callback
from flaxapps.train.data.datasets import Dataset
from flaxapps.train.devices.placement import MODES
from flaxapps.train.early_stopping import EarlyStopping
from flaxapps.train.options import CheckpointFolder, Computation, Devices, FeatureCache
from flaxapps.train.step.losses import LossFunction
from flaxapps.train.step.metrics import METRICS
from flaxapps.train.step.state import TrainState


@dataclass(frozen=True, kw_only=True)
class FitArguments:
    """The arguments of `fit`, which documents them; those that take several forms are brought to one."""

    model: Model
    variables: Mapping[str, Any] | TrainState
    data: Dataset
    validation: Dataset | None
    optimizer: optax.GradientTransformation
    batch_size: int
    loss: str | LossFunction
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
    metrics: tuple[str, ...]
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
        counts = {"batch_size": self.batch_size, "epochs": self.epochs}
        wrong = [f"{name} should be at least 1, got {count}" for name, count in counts.items() if count < 1]
        if not 0 <= self.initial_epoch <= self.epochs:
            wrong.append(f"initial_epoch should be from 0 to epochs={self.epochs}, got {self.initial_epoch}")
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown:
            wrong.append(f"metrics should be among {', '.join(METRICS)}; got {', '.join(unknown)}")
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

    def _check_classes(self) -> None:
        """Checks that data, validation data and model have the same classes, as far as the data names them."""
        names, outputs = self.data.class_names, self.model.output_shape[-1]
        if names is not None and len(names) != outputs and (outputs, len(names)) != (1, 2):
            shown = ", ".join(names[:10])
            raise ValueError(f"The data has {len(names)} classes ({shown}), the model {outputs} outputs")
        others = self.validation.class_names if self.validation else None
        if names and others and others != names:
            raise ValueError(f"Data and validation data have different classes: {names} and {others}")
