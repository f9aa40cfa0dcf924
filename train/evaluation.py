"""Loss and metrics over a whole dataset, exactly: a last ragged batch is filled up and masked, not dropped."""

from collections.abc import Mapping
from typing import Any

from flaxapps.inference import Function, preprocessing_function
from flaxapps.model import Model
from train.datasets import Dataset, as_dataset
from train.history import Sums, add_fetched, fetch_sums, values_of
from train.losses import LossFunction, Objective, make_objective
from train.parallel import Placement, place_on_devices
from train.steps import eval_step


def evaluate(
    model: Model,
    variables: Mapping[str, Any],
    data: Any,
    *,
    batch_size: int = 32,
    loss: str | LossFunction = "categorical_crossentropy",
    metrics: tuple[str, ...] = ("accuracy",),
    preprocess: bool | str | Function = False,
) -> dict[str, Any]:
    """The mean loss and the metrics of a model over all examples, in inference mode, on all devices.

    Args:
        model: A model with one output.
        variables: Its variables.
        data: As `fit` takes it.
        batch_size: Examples in a batch, over all devices together.
        loss: As `make_objective` takes it.
        metrics: Names of `train.metrics.METRICS`.
        preprocess: What is done to the images on the device, as in `flaxapps.predict`.

    Returns:
        "loss" and the metrics: floats; lists of lists for a confusion matrix.

    Raises:
        ValueError: The arguments or the data do not fit the model; there is no example.
    """
    placement = place_on_devices("jit", batch_size)
    sums = evaluate_placed(
        placement.place(dict(variables)),
        as_dataset(data),
        placement,
        batch_size=batch_size,
        objective=make_objective(model, loss),
        metrics=metrics,
        preprocess=preprocessing_function(model, preprocess),
    )
    if not sums:
        raise ValueError("There are no examples to evaluate on")
    return values_of(sums)


def evaluate_placed(
    variables: dict[str, Any],
    data: Dataset,
    placement: Placement,
    *,
    batch_size: int,
    objective: Objective,
    metrics: tuple[str, ...],
    preprocess: Function | None,
) -> Sums:
    """Sums over a dataset, of variables that are on the devices; an empty dictionary where there are no examples."""
    total: Sums = {}
    pending: Any = None
    for images, labels in data.batches(batch_size, seed=None, shard=placement.shard):
        if placement.is_empty(labels):  # its photos were all broken and are skipped
            continue
        batch = placement.spread(images, labels)
        sums = eval_step(variables, *batch, objective=objective, metrics=metrics, preprocess=preprocess)
        if pending is not None:  # while this batch computes
            total = add_fetched(total, fetch_sums(pending))
        pending = sums
    return total if pending is None else add_fetched(total, fetch_sums(pending))
