"""Evaluation: loss and metrics over a whole dataset. The last batch is padded and masked, not dropped."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax

from flaxapps.inference.preprocessing import Function, preprocessing_function
from flaxapps.model import Model
from flaxapps.train.arguments import check_model, wrong_metrics, wrong_variables
from flaxapps.train.data.conversion import as_dataset
from flaxapps.train.data.datasets import Dataset
from flaxapps.train.data.labels import check_labels
from flaxapps.train.data.pipeline import reading
from flaxapps.train.devices.placement import STEPS_KEPT, Placement, place_on_devices
from flaxapps.train.forms import brought_to_form
from flaxapps.train.history import Sums, add_fetched, fetch_sums, values_of
from flaxapps.train.step.metrics import Metric
from flaxapps.train.step.objectives import AnyObjective, Loss, OutputMetric, make_objective
from flaxapps.train.step.step import evaluate_batch


def evaluate(
    model: Model,
    variables: Mapping[str, Any],
    data: Any,
    *,
    batch_size: int = 32,
    loss: Loss = "categorical_crossentropy",
    loss_weights: Mapping[str, float] | None = None,
    metrics: Metric | Sequence[Metric] | Mapping[str, Any] = ("accuracy",),
    frozen: Collection[str] = frozenset(),
    preprocess: bool | str | Function = False,
) -> dict[str, Any]:
    """Computes the mean loss and the metrics over all examples, in inference mode, on all devices.

    Args:
        model: The model.
        variables: Its variables.
        data: As `fit` takes it.
        batch_size: Examples in a batch, over all devices.
        loss: As for `fit`.
        loss_weights: As for `fit`.
        metrics: As for `fit`.
        frozen: Names of frozen layers, whose regularizers are not part of the loss, as in `fit` and Keras.
        preprocess: Preprocessing on the device, as in `flaxapps.predict`.

    Returns:
        "loss" and the metrics: floats; lists of lists for a confusion matrix.

    Raises:
        ValueError: The arguments or the data do not fit the model, or there are no examples.
    """
    check_model(model)
    formed, wrong = brought_to_form(
        {
            "batch_size": batch_size,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "frozen": frozen,
            "preprocess": preprocess,
        }
    )
    wrong += wrong_metrics(model, formed.get("metrics", ())) + wrong_variables(model, variables)
    if wrong:
        raise ValueError("\n  ".join(["evaluate cannot run with these arguments:", *wrong]))
    batch_size = formed["batch_size"]
    placement = place_on_devices("jit", batch_size)
    sums = evaluate_placed(
        placement.replicate(dict(variables)),
        as_dataset(data),
        placement,
        batch_size=batch_size,
        objective=make_objective(model, formed["loss"], loss_weights=formed["loss_weights"], frozen=formed["frozen"]),
        metrics=formed["metrics"],
        preprocess=preprocessing_function(model, formed["preprocess"]),
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
    objective: AnyObjective,
    metrics: tuple[OutputMetric, ...],
    preprocess: Function | None,
) -> Sums:
    """Sums loss and metrics over a dataset, for variables on the devices; empty if there are no examples."""
    compute = _compile_evaluation(objective, metrics, preprocess)
    total: Sums = {}
    pending: Any = None
    with reading(data.batches(batch_size, seed=None, shard=placement.shard)) as batches:
        for images, labels in batches:
            if placement.is_empty(labels):  # all its photos are unreadable and skipped
                continue
            check_labels(labels, objective)
            batch = placement.shard_batch(images, labels)
            sums = compute(variables, *batch)
            if pending is not None:  # fetch the previous sums while this batch is computed
                total = add_fetched(total, fetch_sums(pending))
            pending = sums
    return total if pending is None else add_fetched(total, fetch_sums(pending))


@functools.lru_cache(maxsize=STEPS_KEPT)
def _compile_evaluation(
    objective: AnyObjective, metrics: tuple[OutputMetric, ...], preprocess: Function | None
) -> Callable[..., dict[str, Any]]:
    """Compiles `evaluate_batch`; evicting an entry frees its programs, as for the steps of a `Placement`."""
    compiled: Any = jax.jit(
        functools.partial(evaluate_batch, objective=objective, metrics=metrics, preprocess=preprocess)
    )
    return compiled  # type: ignore[no-any-return]  # JAX does not type the result of jit
