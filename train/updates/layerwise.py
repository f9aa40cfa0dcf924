"""Layer-wise learning rates: smaller for the first layers, whose features are general, than for the last."""

from typing import Any

import jax
import optax

from flaxapps.graph.variables import weight_paths
from flaxapps.model import Model

GROUPS = 12


def layerwise_decay(model: Model, decay: float, *, groups: int = GROUPS) -> optax.GradientTransformation:
    """Scales updates by the depth of their layer, for the end of a chain.

    The rule is BEiT's (https://arxiv.org/abs/2106.08254), as in timm: of n groups, the updates of group i are
    multiplied by `decay ** (n - i)`, and those of the last layer by 1. BEiT's groups are the blocks of a transformer;
    here the layers are divided, in the model's order, into as many groups of about the same number of layers, as
    timm's `auto_group_layers` and ConvNeXt's recipe do. Frozen layers count.

    Args:
        model: The model, whose last layer with parameters is the head.
        decay: Factor from one group to the one before it, above 0 and up to 1, such as 0.75.
        groups: Number of groups before the head.

    Returns:
        A transformation for `optax.chain`, after the optimizer.

    Raises:
        ValueError: `decay` or `groups` is out of range.

    >>> from flaxapps import Input, layers
    >>> x = Input((8, 8, 3))
    >>> model = Model(x, layers.Dense(2, name="head")(layers.Conv2D(4, 3, name="stem")(x)))
    >>> layer_scales(model, 0.5)
    {'stem': 0.5, 'head': 1.0}
    >>> optimizer = optax.chain(optax.adamw(1e-3), layerwise_decay(model, 0.5))
    """
    scales = layer_scales(model, decay, groups=groups)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def scale(path: tuple[Any, ...], leaf: Any) -> Any:
            return leaf * scales["/".join(key.key for key in path[:-1])]

        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def layer_scales(model: Model, decay: float, *, groups: int = GROUPS) -> dict[str, float]:
    """Returns the factor of every layer that has parameters, by its path "outer/inner", in the model's order.

    Args:
        model: The model.
        decay: As for `layerwise_decay`.
        groups: As for `layerwise_decay`.

    Raises:
        ValueError: `decay` or `groups` is out of range.
    """
    if not 0 < decay <= 1 or groups < 1:
        raise ValueError(f"decay should be above 0 and up to 1, groups at least 1, got {decay} and {groups}")
    paths = [path[1:-1] for path, weight in weight_paths(model.graph) if weight.collection == "params"]
    *trunk, head = dict.fromkeys("/".join(path) for path in paths)
    size = -(-len(trunk) // groups)  # layers of a group; a short network has fewer groups
    numbers = [index // size for index in range(len(trunk))]
    count = max(numbers, default=-1) + 1
    return {layer: decay ** (count - number) for layer, number in zip(trunk, numbers, strict=True)} | {head: 1.0}
