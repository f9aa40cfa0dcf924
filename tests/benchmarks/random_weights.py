"""Random weights of networks, alike in all runtimes, so that the errors of their reduced precisions can be compared.

Kernels are drawn after He et al. With torch's own, activations vanish in deep networks: logits are then biases alone,
which no rounding changes.
"""

import functools
from typing import Any

import numpy as np


def random_variables(shapes: Any) -> Any:
    """Draw variables of one of our models: kernels after He et al., layer scales 0.1; the rest as in fresh variables.

    Args:
        shapes: The tree of their shapes.
    """
    import jax

    random = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        name = path[-1].key
        if "kernel" in name:
            depthwise = name == "depthwise_kernel" or leaf.shape[-1] == 1
            inputs = np.prod(leaf.shape[:2] if depthwise else leaf.shape[:-1])
            return random.standard_normal(leaf.shape, np.float32) * np.float32(np.sqrt(2 / inputs))
        return np.full(leaf.shape, 0.1 if name == "gamma" else float(name in ("scale", "var")), np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def with_statistics(model: Any, variables: Any, images: np.ndarray) -> Any:
    """Replace the BatchNormalization statistics by those of images, as after training.

    With fresh statistics, activations grow from block to block, and so does every change of them.
    """
    import jax

    old = variables.get("batch_stats", {})
    train = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    _, updated = train(variables, images, rngs={"dropout": jax.random.key(0)})
    statistics = dict(old)  # a Normalization layer keeps its own
    for name, arrays in updated.get("batch_stats", {}).items():
        momentum = getattr(model.get_layer(name).layer, "momentum", None)
        if momentum is not None:
            statistics[name] = {
                key: (np.asarray(new) - momentum * np.asarray(old[name][key])) / (1 - momentum)
                for key, new in arrays.items()
            }
    return {**variables, "batch_stats": statistics} if statistics else variables


def draw_torch_weights(model: Any) -> Any:
    """Draw the weights of a torch model in place by the same rule, with biases 0, and return the model."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
                if module.bias is not None:
                    module.bias.zero_()
        for name, parameter in model.named_parameters():
            if name.endswith("layer_scale"):
                parameter.fill_(0.1)
    return model
