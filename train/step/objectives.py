"""The objective: what a training step minimises, over one output of a model or several, with its regularizers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from flaxapps.model import Model
from flaxapps.train.step.losses import LossFunction, Objective, objective_of_output
from flaxapps.train.step.metrics import Metric, batch_metrics, known_metrics, metric_name
from flaxapps.train.step.penalties import (
    Penalties,
    activity_penalties,
    activity_per_example,
    total_penalty,
    weight_penalties,
)  # fmt: skip # kept on few lines on purpose
from flaxapps.train.step.sums import Mean
from flaxapps.train.step.targets import Targets, as_targets, of_output, output_names
from flaxapps.transforms.logits import ends_alone, without_last_activation

Loss = str | LossFunction | Mapping[str, str | LossFunction]
OutputMetric = Metric | tuple[str, Metric]  # of all outputs, or of the output of this name


@dataclass(frozen=True)
class OutputObjective:
    """The objective of one of several outputs.

    Attributes:
        name: Name of the output, which is that of its layer.
        index: Its index among the outputs of the model.
        objective: Its loss.
        weight: Factor of its loss in the sum.
    """

    name: str
    index: int
    objective: Objective
    weight: float


@dataclass(frozen=True)
class Objectives:
    """A model and the losses of several outputs; the objective is their weighted sum. Made by `make_objective`.

    Attributes:
        model: The model; without the last activations whose losses take logits.
        parts: Objectives of the outputs that have a loss.
        penalties: Regularizers of parameters.
        activities: Regularizers of outputs of layers.
    """

    model: Model
    parts: tuple[OutputObjective, ...]
    penalties: Penalties = ()
    activities: Penalties = ()

    @property
    def loss(self) -> tuple[Any, ...]:
        """The losses, in the order of the outputs."""
        return tuple(part.objective.loss for part in self.parts)


AnyObjective = Objective | Objectives


def make_objective(
    model: Model,
    loss: Loss,
    *,
    label_smoothing: float = 0.0,
    class_weights: Mapping[int, float] | None = None,
    from_logits: bool | None = None,
    loss_weights: Mapping[str, float] | None = None,
    frozen: frozenset[str] = frozenset(),
) -> AnyObjective:
    """Builds what a training step minimises. The loss is computed from logits wherever the model has them.

    A categorical loss of a model that ends in softmax, or a binary one of a model that ends in sigmoid, is computed
    from the input of that activation, which is more precise. Other probabilities are used as they are. A linear end
    means logits. As in Keras, the regularizers of parameters that train, and of outputs of layers, are added.

    Args:
        model: The model.
        loss: "categorical_crossentropy", "sparse_categorical_crossentropy", "binary_crossentropy", another loss of
            Keras by name, or any function of (labels, outputs) that returns an array (batch, ...); it gets the outputs
            of `model` itself. For several outputs, one for all, or a dict by the names of outputs; an output without
            one does not train.
        label_smoothing: From 0 to 1, for the cross-entropies.
        class_weights: Weights of the loss by class index; the weight of other classes is 1. As in Keras, the mean
            divides by the number of examples, not by the sum of the weights. For models with one output.
        from_logits: Whether the outputs of `model` are logits; None infers it from the last activation.
        loss_weights: Factors of the losses of several outputs in their sum, by the names of outputs; 1 if left out.
        frozen: Names of frozen layers, whose regularizers are left out.

    Returns:
        The objective: hashable, a static argument of `train_step` and `eval_step`.

    Raises:
        ValueError: The loss is unknown or does not suit the output, names are not those of outputs, options are out of
            range, or the last activation does not show whether the outputs are logits.

    >>> from flaxapps import Input, layers
    >>> x = Input((4,))
    >>> model = Model(x, layers.Dense(3, activation="softmax")(x))
    >>> make_objective(model, "categorical_crossentropy").from_logits
    True
    """
    regularizers: dict[str, Any] = {
        "penalties": weight_penalties(model.graph, frozen),
        "activities": activity_penalties(model.graph),
    }
    names = output_names(model)
    weights = dict(loss_weights or {})
    _check_names({"loss": loss, "loss_weights": weights}, names)
    options: Any = {"label_smoothing": label_smoothing, "from_logits": from_logits}
    if len(names) == 1:
        single = loss[names[0]] if isinstance(loss, Mapping) else loss
        if weights:
            raise ValueError("loss_weights are for models with several outputs: leave them out")
        objective = objective_of_output(model, single, class_weights=class_weights, **options)
        return replace(objective, **regularizers)
    if class_weights:
        raise ValueError("class_weights are for models with one output: give sample weights with the data")
    return replace(_of_outputs(model, names, loss, weights, options), **regularizers)


def sums_of(
    objective: AnyObjective,
    metrics: Iterable[OutputMetric],
    labels: Any,
    outputs: Any,
    mask: jax.Array,
    params: Any,
    sown: Mapping[str, Any],
) -> dict[str, Any]:
    """Computes loss and metrics of a batch as sums over its examples.

    Sample weights are factors of the losses, not of the metrics, as in Keras.

    Args:
        objective: From `make_objective`.
        metrics: Names in `METRICS`, or functions; or pairs of the name of an output and one of these.
        labels: (batch, ...) or `Targets`.
        outputs: What the model of the objective returned.
        mask: (batch,), bool; False for padding.
        params: The parameters, for regularizers.
        sown: Collections that layers wrote to, for regularizers of their outputs.

    Returns:
        "loss", and the metrics; with several losses, each of them too, as "NAME_loss" and "NAME_metric".
    """
    targets = as_targets(labels)
    count = jnp.sum(mask, dtype=jnp.int32)
    named: dict[str, Any] = {}
    if isinstance(objective, Objective):
        targets = of_the_output(objective, targets)
        total = _weighted_sum(objective, targets.labels, targets.weights, outputs, mask)
        named = batch_metrics(objective, _metrics_of(metrics, None), targets.labels, outputs, mask)
    else:
        total = jnp.zeros((), jnp.float32)
        for part in objective.parts:
            own_labels = of_output(targets.labels, part.name, part.index, "labels")
            weights = targets.weights
            own_weights = weights.get(part.name) if isinstance(weights, Mapping) else weights
            own_outputs = outputs[part.index]
            own = _weighted_sum(part.objective, own_labels, own_weights, own_outputs, mask)
            total = total + part.weight * own
            if len(objective.parts) > 1:
                named[f"{part.name}_loss"] = Mean(own, count)
            own_metrics = _metrics_of(metrics, part.name)
            found = batch_metrics(part.objective, own_metrics, own_labels, own_outputs, mask)
            named |= {f"{part.name}_{metric}": sums for metric, sums in found.items()}
    if objective.penalties:
        total = total + total_penalty(objective.penalties, params) * count.astype(jnp.float32)
    if objective.activities:
        extra = activity_per_example(sown, len(mask))
        total = total + jnp.sum(jnp.where(mask, extra, jnp.zeros_like(extra)))
    return {"loss": Mean(total, count), **named}


def of_the_output(objective: Objective, targets: Targets) -> Targets:
    """Returns the labels and weights of a model with one output, which may be given under its name.

    Raises:
        ValueError: They are those of another output, or of several.
    """
    (name,) = output_names(objective.model)
    parts = {"labels": targets.labels, "sample weights": targets.weights}
    if any(isinstance(each, Mapping | tuple) and len(each) > 1 for each in parts.values()):
        raise ValueError(f"The model has one output, {name!r}, but the labels or sample weights are those of several")
    return Targets(
        *(of_output(each, name, 0, what) if isinstance(each, Mapping | tuple) else each for what, each in parts.items())
    )


def value_names(objective: AnyObjective, metrics: Iterable[OutputMetric]) -> list[str]:
    """Returns the names of what `sums_of` computes."""
    if isinstance(objective, Objective):
        return ["loss", *map(metric_name, known_metrics(objective, _metrics_of(metrics, None)))]
    losses = [f"{part.name}_loss" for part in objective.parts] if len(objective.parts) > 1 else []
    return [
        "loss",
        *losses,
        *(
            f"{part.name}_{metric_name(metric)}"
            for part in objective.parts
            for metric in known_metrics(part.objective, _metrics_of(metrics, part.name))
        ),
    ]


def described_metrics(metrics: Iterable[OutputMetric]) -> list[str]:
    """Returns the names of metrics, with those of their outputs, for a description of a run."""
    return [f"{each[0]}: {metric_name(each[1])}" if isinstance(each, tuple) else metric_name(each) for each in metrics]


def _metrics_of(metrics: Iterable[OutputMetric], output: str | None) -> list[Metric]:
    """The metrics of one output; of a model with one output if it is None."""
    return [
        metric[1] if isinstance(metric, tuple) else metric
        for metric in metrics
        if output is None or not isinstance(metric, tuple) or metric[0] == output
    ]


def _weighted_sum(objective: Objective, labels: Any, weights: Any, outputs: jax.Array, mask: jax.Array) -> jax.Array:
    losses = objective.per_example(labels, outputs)
    counted = mask
    if weights is not None:
        weights = weights.astype(losses.dtype)
        counted = mask & (weights != 0)
        losses = losses * weights
    # `where`, not a product: zero times the infinite loss of a padding example is NaN.
    return jnp.sum(jnp.where(counted, losses, jnp.zeros_like(losses)))


def _of_outputs(
    model: Model, names: tuple[str, ...], loss: Loss, weights: Mapping[str, float], options: Mapping[str, Any]
) -> Objectives:
    parts = []
    whole = model
    for index, name in enumerate(names):
        if isinstance(loss, Mapping) and name not in loss:
            continue
        own: Any = loss[name] if isinstance(loss, Mapping) else loss
        view = Model(model.inputs, model.graph.outputs[index])
        try:
            part = objective_of_output(view, own, **_suiting(own, options))
            if part.removed is not None and ends_alone(model, index):
                whole = without_last_activation(whole, index)
            elif part.removed is not None:  # other layers take the probabilities too
                part = objective_of_output(view, own, **_suiting(own, options) | {"from_logits": False})
        except ValueError as error:
            error.add_note(f"For the output {name!r}.")
            raise
        parts.append(OutputObjective(name, index, part, float(weights.get(name, 1.0))))
    return Objectives(whole, tuple(parts))


def _suiting(loss: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for one of several losses: smoothing is for the cross-entropies among them."""
    smooths = isinstance(loss, str) and "crossentropy" in loss.lower().replace("_", "")
    return dict(options) if smooths else {}


def _check_names(given: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for argument, values in given.items():
        unknown = [name for name in values if name not in names] if isinstance(values, Mapping) else []
        if unknown:
            raise ValueError(
                f"{argument} names {', '.join(map(repr, unknown))}, but the outputs are {', '.join(map(repr, names))}"
            )
        if isinstance(values, Mapping) and argument == "loss" and not values:
            raise ValueError("loss is an empty dict: give a loss for at least one output")
