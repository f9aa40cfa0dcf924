"""What `fit` asks of its arguments before it begins."""

import os
from collections.abc import Mapping, Sequence
from typing import get_args

from flaxapps.model import Model
from flaxapps.optimizing import Mode
from train.datasets import Dataset
from train.metrics import METRICS
from train.parallel import MODES


def check_arguments(
    counts: Mapping[str, int | None],
    *,
    metrics: Sequence[str],
    parallel: str,
    resume: bool,
    checkpoint_dir: str | os.PathLike[str] | None,
    random_cache: bool,
    optimize_frozen: str | None,
    cache_features: bool,
) -> None:
    """Looks at what needs neither the data nor the network.

    Args:
        counts: Arguments that should be at least 1, where they are given, by name.
        metrics: Names of metrics.
        parallel: The mode.
        resume: Whether the run goes on.
        checkpoint_dir: Where it is saved, or None.
        random_cache: Whether features of augmented images would be kept.
        optimize_frozen: How frozen layers compute, or None.
        cache_features: Whether they are computed once.

    Raises:
        ValueError: Everything that is wrong with them.
    """
    low = {name: count for name, count in counts.items() if count is not None and count < 1}
    wrong = [f"{name} should be at least 1, got {count}" for name, count in low.items()]
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        wrong.append(f"metrics are {', '.join(METRICS)}; got {', '.join(unknown)}")
    if parallel not in MODES:
        wrong.append(f"parallel is one of {', '.join(MODES)}; got {parallel!r}")
    if checkpoint_dir is None and (resume or counts["checkpoint_every"]):
        wrong.append("resume and checkpoint_every need a checkpoint_dir")
    if random_cache:
        wrong.append("cache_features computes images once, but augmentation makes them others in every epoch: drop one")
    if optimize_frozen not in (None, *get_args(Mode)):
        wrong.append(f"optimize_frozen is None, {' or '.join(map(repr, get_args(Mode)))}, got {optimize_frozen!r}")
    if optimize_frozen and cache_features:
        wrong.append("optimize_frozen is for frozen layers that compute in every step, with cache_features none does")
    if wrong:
        raise ValueError("\n  ".join(["fit cannot run with these arguments:", *wrong]))


def check_classes(model: Model, data: Dataset, validation: Dataset | None) -> None:
    """Looks whether data, validation data and model have the same classes, where the data names some.

    Raises:
        ValueError: They have not.
    """
    names = data.class_names
    outputs = model.output_shape[-1]
    if names is not None and len(names) != outputs and (outputs, len(names)) != (1, 2):
        raise ValueError(f"The data has {len(names)} classes ({', '.join(names[:10])}), the model {outputs} outputs")
    if validation is not None and names and validation.class_names and validation.class_names != names:
        raise ValueError(f"The classes of the validation data are {validation.class_names}, those of the data {names}")
