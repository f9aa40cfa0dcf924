"""Applies `flaxapps.optimize` to the frozen trunk of a model that is being trained."""

from collections.abc import Mapping
from typing import Any

import jax

from flaxapps.graph.graph import Graph
from flaxapps.model import Model, Network
from flaxapps.train.freezing.split import split_at_frozen
from flaxapps.transforms.fold import fold_batch_norm
from flaxapps.transforms.optimize import Mode, use_winograd
from flaxapps.transforms.rewrite import rebuilt_model, replay, rewrite


def optimize_frozen(model: Model, variables: Mapping[str, Any], frozen: frozenset[str], mode: Mode) -> Network:
    """Rewrites the frozen trunk of a model for inference.

    Args:
        model: The model; it is not modified.
        variables: Its variables.
        frozen: Names of frozen layers, from `frozen_layers`.
        mode: "default" folds BatchNormalization; "fast" also uses Winograd's products on CPUs.

    Returns:
        The model, in which no layer has to be frozen, as its trunk always runs in inference mode; and the parameters of
        that trunk. All other arrays are those of the given model, under the same names.

    Raises:
        ValueError: The frozen layers are not an unbroken beginning of the model, or end within a nested model.
    """
    halves = split_at_frozen(model, frozen)
    names = [{layer.name for layer in half.layers if layer.class_name != "InputLayer"} for half in halves]
    both = set.intersection(*names)
    if both:
        raise ValueError(
            f"optimize_frozen: the frozen layers end within the nested model {', '.join(sorted(map(repr, both)))}: "
            "freeze all of it or none, or leave optimize_frozen out"
        )
    trunk, arrays = fold_batch_norm(halves.trunk, halves.trunk.init_variables(base=variables))
    if mode == "fast" and jax.default_backend() == "cpu":
        trunk, arrays = rewrite(trunk, arrays, use_winograd)
    sources = trunk.graph.new_inputs()
    cut = replay(trunk.graph, sources, training=False)
    return Network(rebuilt_model(model, Graph(sources, replay(halves.head.graph, cut))), arrays)
