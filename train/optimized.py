"""A model whose frozen layers compute as `flaxapps.optimize` lets them, in every step of training."""

from collections.abc import Mapping
from typing import Any

import jax

from flaxapps.folding import fold_batch_norm
from flaxapps.graph import Graph
from flaxapps.model import Model
from flaxapps.network import Network
from flaxapps.optimizing import Mode, use_winograd
from flaxapps.rewriting import new_inputs, rebuilt_model, replay, rewrite
from train.splitting import split_at_frozen


def optimize_frozen(model: Model, variables: Mapping[str, Any], frozen: frozenset[str], mode: Mode) -> Network:
    """The model with its frozen beginning rewritten for inference, and the arrays of that.

    Args:
        model: The model; it stays as it is.
        variables: Its arrays.
        frozen: What `frozen_layers` returns.
        mode: "exact" folds BatchNormalization; "fast" takes Winograd's products on CPUs as well.

    Returns:
        The model, of which nothing has to be frozen, as its beginning always computes in inference mode; and the
        parameters of that beginning. All other arrays are those of the given model, by the same names.

    Raises:
        ValueError: The frozen layers are no unbroken beginning of the model, or end within a model nested in it.
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
    sources = new_inputs(trunk.graph)
    cut = replay(trunk.graph, sources, training=False)
    return Network(rebuilt_model(model, Graph(sources, replay(halves.head.graph, cut))), arrays)
