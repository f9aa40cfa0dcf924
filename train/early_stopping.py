"""Early stopping. Decisions depend on the history alone, so that a resumed run decides alike."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LARGER_IS_BETTER = re.compile(r"accuracy|(^|_)(acc|auc|precision|recall|f1|r2)(_?score)?$", re.IGNORECASE)
SMALLER_IS_BETTER = re.compile(r"loss|error|(^|_)(mae|mse|rmse|mape|msle|learning_rate)$", re.IGNORECASE)


@dataclass(frozen=True)
class EarlyStopping:
    """Early stopping by Keras's rule, which also selects the best epoch.

    Attributes:
        monitor: Name in the history.
        patience: Epochs without improvement after which to stop.
        min_delta: Smallest change that counts as an improvement.
        mode: "min", "max", or "auto": "max" for accuracies, AUC, precision, recall, F1 and R squared, "min" for losses
            and errors. For others, such as your own metrics, say which.
        restore_best: Whether `fit` returns the variables of the best epoch instead of the last.
    """

    monitor: str = "val_loss"
    patience: int = 0
    min_delta: float = 0.0
    mode: str = "auto"
    restore_best: bool = True

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max", "auto") or self.patience < 0 or self.min_delta < 0:
            raise ValueError(f"mode should be min, max or auto, patience and min_delta at least 0; got {self}")

    def check(self, names: Collection[str]) -> None:
        """Checks that a run will have the value to monitor.

        Args:
            names: Names of the values in its history that are numbers.

        Raises:
            ValueError: `monitor` is not among them, so that the run would never stop; or nothing tells whether a larger
                value is better.
        """
        if self.monitor not in names:
            advice = "; give validation_data" if self.monitor.removeprefix("val_") in names else ""
            raise ValueError(
                f"early_stopping monitors {self.monitor!r}, but the run has {', '.join(sorted(names))}{advice}"
            )
        if self.mode == "auto" and not any(rule.search(self.monitor) for rule in (LARGER_IS_BETTER, SMALLER_IS_BETTER)):
            raise ValueError(
                f"early_stopping monitors {self.monitor!r}, whose name does not tell whether larger is better: give "
                'mode="max" or mode="min"'
            )

    def best_epoch(self, history: Mapping[str, Sequence[Any]]) -> int | None:
        """Returns the best epoch so far.

        Args:
            history: Values by name, one for each epoch.

        Returns:
            Index of the last epoch that was an improvement; None if no value is a number.

        >>> EarlyStopping(min_delta=0.1).best_epoch({"val_loss": [3.0, 2.0, 1.95, 2.5]})
        1
        """
        maximise = self.mode == "max" or (self.mode == "auto" and LARGER_IS_BETTER.search(self.monitor) is not None)
        best, best_epoch = math.inf, None
        for epoch, value in enumerate(history.get(self.monitor, ())):
            cost = -value if maximise else value
            if cost < best - (self.min_delta if best_epoch is not None else 0):
                best, best_epoch = cost, epoch
        return best_epoch

    def should_stop(self, history: Mapping[str, Sequence[Any]]) -> bool:
        """Decides whether to stop.

        Args:
            history: Values by name, one for each epoch.

        Returns:
            Whether the last `patience` epochs brought no improvement.

        >>> EarlyStopping(patience=2).should_stop({"val_loss": [3.0, 2.0, 2.1, 2.2]})
        True
        """
        epochs = len(history.get(self.monitor, ()))
        best = self.best_epoch(history)
        waited = epochs if best is None else epochs - 1 - best
        # As in Keras: never after the first epoch, and patience=0 waits for one epoch like patience=1.
        return epochs > 1 and waited >= max(self.patience, 1)
